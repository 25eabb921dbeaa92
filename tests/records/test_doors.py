"""The two doors of every record: what goes out comes back, and nothing else comes in."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from lab_fixtures import Place
from studbook.errors import RecordRefused
from studbook.records import (
    KINDS,
    AnyRecord,
    Header,
    LineageTemplate,
    OperatorReceipt,
    ParentApproval,
    Record,
    Zone,
    canonical,
    decode_json,
    digest,
    read_record,
    read_struct,
    replace,
    write_record,
)
from studbook.records.doors import MAX_RECORD_BYTES

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
SHA = "a" * 64
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=5,
)


def approval(**changes: Any) -> ParentApproval:
    fields: dict[str, Any] = {
        "header": HEADER,
        "artifact": SHA,
        "source": SHA,
        "approved_by": "ann",
        "clusters": ("rot",),
        "until": "2030-01-31",
        "reason": "why not",
    }
    return ParentApproval(**fields | changes)


@cache
def texts(pattern: str | None, low: int, high: int) -> st.SearchStrategy[str]:
    """Texts of one pattern; the commonest patterns have a strategy of their own, which is much faster."""
    if pattern is None or pattern.startswith("\\A[^"):
        plain = st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp"))
        return st.text(plain, min_size=low, max_size=min(high, 12))
    if pattern == r"^[0-9a-f]{64}\Z":
        return st.binary(min_size=32, max_size=32).map(bytes.hex)
    return st.from_regex(pattern)


@cache
def records(kind: str) -> st.SearchStrategy[Record]:
    return values(types.type_info(KINDS[kind]))


def values(info: types.Type) -> st.SearchStrategy[Any]:
    """Every value a field may hold, by what msgspec knows of its type."""
    match info:
        case types.Metadata(type=inner):
            return values(inner)
        case types.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{f.name: values(f.type) for f in fields})
        case types.StrType(pattern=pattern, min_length=low, max_length=high):
            return texts(pattern, low or 0, high or 12)
        case types.IntType(gt=gt, ge=ge, lt=lt, le=le):
            low = ge if ge is not None else (gt + 1 if gt is not None else -(2**53) + 1)
            high = le if le is not None else (lt - 1 if lt is not None else 2**53 - 1)
            return st.integers(low, high)
        case types.FloatType(gt=gt, ge=ge, lt=lt, le=le):
            low, high = ge if ge is not None else gt, le if le is not None else lt
            outer = {"exclude_min": gt is not None, "exclude_max": lt is not None}
            return st.floats(low, high, allow_nan=False, allow_infinity=False, **outer)
        case types.BoolType():
            return st.booleans()
        case types.NoneType():
            return st.none()
        case types.EnumType(cls=enum):
            return st.sampled_from(list(enum))
        case types.LiteralType(values=literals):
            return st.sampled_from(literals)
        case types.VarTupleType(item_type=item, min_length=low):
            return st.lists(values(item), min_size=low or 0, max_size=2).map(tuple)
        case types.TupleType(item_types=items):
            return st.tuples(*(values(item) for item in items))
        case types.AnyType():
            return PLAIN
        case types.DictType(value_type=types.AnyType()):
            return st.dictionaries(st.text("abc", max_size=3), PLAIN, max_size=3)
        case types.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case types.UnionType(types=choices):
            return st.one_of(*(values(choice) for choice in choices))
    raise AssertionError(f"no strategy for {info}")


def test_every_kind_is_one_line_of_the_closed_world() -> None:
    assert len(KINDS) == len(get_args(AnyRecord))
    assert all(issubclass(kind, Record) for kind in KINDS.values())
    assert all(isinstance(kind.zone, Zone) for kind in KINDS.values())
    assert all(name.rpartition("/")[2].isdigit() for name in KINDS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_record_of_every_kind_comes_back_as_it_was(kind: str, data: st.DataObject) -> None:
    record = data.draw(records(kind))
    written = write_record(record)
    assert read_record(written) == record
    assert canonical(json.loads(written, parse_int=float)) == written
    assert digest(record) == digest(read_struct(written, KINDS[kind]))
    assert all(len(d) == 64 for d in (*record.subjects(), *record.references()))


def test_every_record_of_a_lived_lab_comes_back_as_it_was(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        for entry in lab.desk.workspace.ledger.entries:
            record = lab.desk.workspace.sealed(entry).record
            assert read_record(write_record(record)) == record
            assert digest(record) == entry.record


GOOD = write_record(approval())

LIES: dict[str, bytes] = {
    "nothing": b"",
    "white space before": b" " + GOOD,
    "trailing newline": GOOD + b"\n",
    "trailing garbage": GOOD + b"x",
    "two records": GOOD + GOOD,
    "byte-order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "key order": GOOD.replace(b'"approved_by":"ann",', b"").replace(b"{", b'{"approved_by":"ann",', 1)[:-1]
    + b',"zzz":1}',
    "duplicate key": GOOD.replace(b'"until":', b'"reason":"why not","until":'),
    "duplicate key with another value": GOOD.replace(
        b'"approved_by":"ann"', b'"approved_by":"bob","approved_by":"ann"'
    ),
    "unknown field": GOOD[:-1] + b',"zebra":1}',
    "missing field": GOOD.replace(b',"reason":"why not"', b""),
    "unknown kind": GOOD.replace(b"parent-approval/1", b"parent-approval/9"),
    "no kind": GOOD.replace(b'"kind":"parent-approval/1",', b""),
    "kind is a number": GOOD.replace(b'"kind":"parent-approval/1"', b'"kind":1'),
    "escaped where it need not be": GOOD.replace(b"why not", b"why\\u0020not"),
    "lone surrogate": GOOD.replace(b"why not", b"\\ud800"),
    "surrogate bytes": GOOD.replace(b"why not", b"\xed\xa0\x80"),
    "invalid utf-8": GOOD.replace(b"why not", b"\xff\xfe"),
    "null for text": GOOD.replace(b'"why not"', b"null"),
    "number for text": GOOD.replace(b'"why not"', b"1"),
    "terminal escape": GOOD.replace(b"why not", b"\\u001b[2J"),
    "right-to-left override": GOOD.replace(b"why not", "\u202e".encode()),
    "digest in capitals": GOOD.replace(b"a" * 64, b"A" * 64),
    "digest with a newline": GOOD.replace(b'"' + b"a" * 64 + b'"', b'"' + b"a" * 64 + b'\\n"'),
    "comment": GOOD[:-1] + b"/* */}",
    "array around it": b"[" + GOOD + b"]",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_is_not_exactly_itself_is_refused(lie: str) -> None:
    assert LIES[lie] != GOOD
    with pytest.raises(RecordRefused) as caught:
        read_record(LIES[lie], "hostile.json")
    assert caught.value.where == "hostile.json"
    assert caught.value.advice


def test_keys_in_another_order_are_refused() -> None:
    fields = json.loads(GOOD)
    turned = json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode()
    assert json.loads(turned) == fields
    with pytest.raises(RecordRefused, match="canonical"):
        read_record(turned)


NUMBERS = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus infinity": b"-Infinity",
    "1e400": b"1e400",
    "2^53": b"9007199254740992",
    "2^53+1": b"9007199254740993",
    "a huge integer": b"1" * 400,
    "leading zero": b"01",
    "plus sign": b"+1",
    "float spelling of an integer": b"1.0",
    "exponent spelling": b"1e0",
    "minus zero": b"-0",
    "hexadecimal": b"0x1",
}


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_json_or_f64_cannot_hold_exactly_are_refused(number: str) -> None:
    with pytest.raises(RecordRefused):
        decode_json(b'{"value":' + NUMBERS[number] + b"}")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_of_a_hundred_thousand_is_refused(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    with pytest.raises(RecordRefused):
        decode_json(opening * 100_000 + (b"" if opening == b"[" else b"1") + closing * 100_000)


def test_a_record_longer_than_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(RecordRefused, match="more than a record may hold"):
        decode_json(b'"' + b"a" * MAX_RECORD_BYTES + b'"')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}, object()])
def test_what_cannot_be_canonical_json_is_never_written(value: object) -> None:
    with pytest.raises(RecordRefused):
        canonical({"value": value})


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact": "short"},
        {"until": "tomorrow"},
        {"approved_by": "two words"},
        {"reason": "line\nbreak"},
        {"clusters": ["a list"]},
        {"clusters": (1,)},
    ],
)
def test_a_record_with_a_value_of_the_wrong_shape_is_never_written(changes: dict[str, Any]) -> None:
    with pytest.raises(RecordRefused):
        write_record(approval(**changes))


@pytest.mark.parametrize("kind", [OperatorReceipt, LineageTemplate])
def test_a_receipt_or_template_with_a_field_missing_or_unknown_is_refused_by_name(
    lived_lab: Place, kind: type[Record]
) -> None:
    with lived_lab.open(writer=False) as lab:
        _, record = next(lab.desk.workspace.all(kind))
    fields = msgspec.to_builtins(record)
    for name in fields:
        if name != "kind":
            without = canonical({k: v for k, v in fields.items() if k != name})
            with pytest.raises(RecordRefused, match=f"`{name}`"):
                read_record(without)
    with pytest.raises(RecordRefused, match="`speed`"):
        read_record(canonical(fields | {"speed": 1}))


@pytest.mark.parametrize("inner", ["inputs", "output", "header"])
def test_an_unknown_field_inside_a_receipt_is_refused(lived_lab: Place, inner: str) -> None:
    with lived_lab.open(writer=False) as lab:
        _, record = next(lab.desk.workspace.all(OperatorReceipt))
    fields = msgspec.to_builtins(record)
    nested = fields[inner][0] if isinstance(fields[inner], list | tuple) else fields[inner]
    nested["speed"] = 1
    with pytest.raises(RecordRefused, match="`speed`"):
        read_record(canonical(fields))


def test_replacing_a_field_leaves_the_original_alone() -> None:
    first = approval()
    second = replace(first, reason="because")
    assert (first.reason, second.reason) == ("why not", "because")
    assert digest(first) != digest(second)
