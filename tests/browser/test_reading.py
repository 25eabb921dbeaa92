"""The page reads records as the lab does: the same spelling, the same fields, the same bounds."""

from __future__ import annotations

import base64
import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import pytest
import rfc8785
from page_site import harness

from studbook.assembly.meaning import kinds_of
from studbook.errors import RecordRefused
from studbook.records import KINDS
from studbook.records.doors import decode_json, read_record

if TYPE_CHECKING:
    from conftest import Open, Serve

SIDECARS = {
    "selector-registry": "selector-registry/1",
    "model-manifest": "model-manifest/1",
    "adapter-manifest": "adapter-manifest/1",
    "adapter-family-receipt": "adapter-family-receipt/1",
    "assembly-receipt": "assembly-receipt/1",
}
# What a forger, or a careless writer, might put in the place of a value.
INSTEAD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**53 - 1, 0.5, "", "a b", "0" * 63, "0" * 64, "A" * 64, "x" * 4001, "\u202e", "a\n", [], {},
    [None], {"a": 1}, "f32", "passed", "shadow",
)  # fmt: skip
ODD_SPELLINGS = (
    b'{"a":1, "b":2}',
    b'{"b":1,"a":2}',
    b'{"a":1,"a":1}',
    b'{"a":1}\n',
    b' {"a":1}',
    b'\xef\xbb\xbf{"a":1}',
    b"1.0",
    b"1e2",
    b"-0",
    b"-0.0",
    b"0.1",
    b"1e21",
    b"1E21",
    b"1e+21",
    b"100000000000000000000",
    b"9007199254740991",
    b"9007199254740992",
    b"9007199254740993",
    b"-9007199254740992",
    b"1e400",
    b"NaN",
    b"Infinity",
    b"[1,]",
    b"",
    b"null",
    b"01",
    b"+1",
    b".5",
    b"5e-324",
    b'"\\u0041"',
    b'"\\/"',
    b'"\\b\\f\\n\\r\\t\\"\\\\"',
    b'"\\u0007"',
    b'"\x07"',
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    '"\U0001f600"'.encode(),
    b'"\xff"',
    b'"\xed\xa0\x80"',
    '"\u2028"'.encode(),
    b'"\x7f"',
    b'"\\u007f"',
    b'{"\\ud800":1}',
    '{"\U0001f600":1,"\ufb01":2}'.encode(),
    '{"\ufb01":2,"\U0001f600":1}'.encode(),
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"__proto__":1}',
    b'{"1":0,"10":0,"9":0}',
)
Read = Callable[[list[tuple[list[str] | None, bytes]]], list[str | None]]


@pytest.fixture
def read(tmp_path: Path, serve: Serve, visit: Open) -> Read:
    page = visit(serve(harness(tmp_path / "harness")).address, wait=None)

    def ask(texts: list[tuple[list[str] | None, bytes]]) -> list[str | None]:
        what = {"texts": [[kinds, base64.b64encode(data).decode()] for kinds, data in texts]}
        return page.evaluate("what => import('./engine_page.js').then((module) => module.read(what))", what)

    return ask


def verdict(kinds: list[str] | None, data: bytes) -> bool:
    """Whether the lab reads it."""
    try:
        if kinds is None:
            decode_json(data)
        else:
            known = tuple(KINDS[kind] for kind in kinds)
            read_record(data, known[0] if len(known) == 1 else Union[known])  # noqa: UP007 - of a tuple
    except RecordRefused:
        return False
    return True


def test_json_is_spelled_as_in_the_lab(read: Read) -> None:
    chance = random.Random(7)
    numbers = [struct.unpack("<d", chance.randbytes(8))[0] for _ in range(3000)]
    numbers += [chance.randrange(-(2**53) + 1, 2**53) for _ in range(500)] + [10.0**e for e in range(-20, 25)]
    texts = [rfc8785.dumps(number) for number in numbers if number == number and abs(number) != float("inf")]
    texts += [json.dumps(number).encode() for number in numbers if number == number and abs(number) != float("inf")]
    found = read([(None, data) for data in (*texts, *ODD_SPELLINGS)])
    for data, reason in zip((*texts, *ODD_SPELLINGS), found, strict=True):
        # A whole number that is too large is read as a number here and refused by the form of whatever holds it.
        if data.lstrip(b"-").isdigit() and abs(int(data)) >= 2**53:
            continue
        assert (reason is None) == verdict(None, data), data[:80]


def variants(value: Any, chance: random.Random) -> Iterator[Any]:
    """The record with one place changed: another value, a key less or more, an entry less or twice."""
    for path in places(value):
        for new in chance.sample(INSTEAD, 7):
            yield changed(value, path, lambda holder, key, new=new: holder.__setitem__(key, new))
        yield changed(value, path, lambda holder, key: holder.__delitem__(key))
        yield changed(
            value, path, lambda holder, key: holder[key].append(None) if isinstance(holder[key], list) else None
        )
        yield changed(
            value, path, lambda holder, key: holder[key].update(zz=1) if isinstance(holder[key], dict) else None
        )
        yield changed(value, path, lambda holder, key: holder.__setitem__(key, [holder[key]] * 2))


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Paths to everything inside; of long lists the first two entries."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, one in inner:
        yield (key,)
        yield from ((key, *rest) for rest in places(one))


def changed(value: Any, path: tuple[str | int, ...], edit: Callable[[Any, Any], object]) -> Any:
    copied = copy.deepcopy(value)
    holder = copied
    for key in path[:-1]:
        holder = holder[key]
    edit(holder, path[-1])
    return copied


def short(value: Any) -> Any:
    """The record with long lists cut, so that thousands of variants of it are no burden."""
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items()}
    return [short(one) for one in value[:2]] if isinstance(value, list) else value


def test_records_have_the_form_that_the_lab_asks_for_and_no_other(good_bundle: Path, read: Read) -> None:
    plan = json.loads((good_bundle / "plan.json").read_bytes())
    chance = random.Random(11)
    modules = {m["role"]: m for m in plan["modules"] if m["class"] in ("sidecar", "evidence")}
    records = [(["module-plan/1"], plan)]
    for role, module in modules.items():
        kinds = [SIDECARS[role]] if role in SIDECARS else [kind.kind() for kind in kinds_of(role)]
        records.append((kinds, json.loads((good_bundle / module["path"]).read_bytes())))
    for kinds, whole in records:
        value = short(whole)
        texts = [rfc8785.dumps(one) for one in (whole, value, *variants(value, chance))]
        asked = [(kinds, data) for data in (*texts[:2], *chance.sample(texts[2:], min(300, len(texts) - 2)))]
        wanted = [verdict(kinds, data) for kinds, data in asked]
        assert wanted[:2] == [True, True], kinds
        assert 10 < sum(wanted) < len(wanted) - 10, kinds
        for (_, data), reason, holds in zip(asked, read(asked), wanted, strict=True):
            assert (reason is None) == holds, (kinds, reason, data[:2000])
