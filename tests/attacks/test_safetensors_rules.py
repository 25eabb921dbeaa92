"""Every rule of the safetensors header broken one at a time, and in pairs, in a file that is otherwise good."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studbook.errors import BytesLie, StudbookError, UsageError
from studbook.models.safetensors import open_safetensors
from studbook.models.safetensors_rules import SafetensorsRule as Rule

GOOD = (
    '{"__metadata__":{"format":"pt"},'
    '"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    '"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}'
)
DATA = bytes(range(32))
A = '"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
B = '"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}'


def file_of(header: str | bytes, data: bytes = DATA, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def with_a(entry: str) -> bytes:
    return file_of(GOOD.replace(A, entry))


def swapped(old: str, new: str) -> bytes:
    assert old in GOOD
    return file_of(GOOD.replace(old, new))


BREAKS: list[tuple[str, Rule, bytes]] = [
    ("empty file", Rule.SHORT, b""),
    ("seven bytes", Rule.SHORT, bytes(7)),
    ("header of no bytes", Rule.HEADER_ZERO, file_of("", length=0)),
    ("header longer than the file", Rule.HEADER_RANGE, file_of(GOOD, length=len(GOOD) + 33)),
    ("header length of 2^64 - 1", Rule.HEADER_RANGE, file_of(GOOD, length=2**64 - 1)),
    ("header of zeros", Rule.START, file_of("\0" * len(GOOD))),
    ("a list", Rule.START, file_of("[]")),
    ("leading space", Rule.START, file_of(" " + GOOD)),
    ("byte-order mark", Rule.START, file_of("\ufeff" + GOOD)),
    ("not UTF-8", Rule.UTF8, file_of(GOOD.encode().replace(b'"a"', b'"\xff"'))),
    ("UTF-8 of a surrogate", Rule.UTF8, file_of(GOOD.replace('"a"', '"\ud800"'))),
    ("NaN", Rule.NUMBER, swapped("[0,24]", "[NaN,24]")),
    ("1e400", Rule.NUMBER, swapped("[0,24]", "[0,1e400]")),
    ("a fraction", Rule.NUMBER, swapped("[0,24]", "[0,24.0]")),
    ("a number of 5000 digits", Rule.NUMBER, swapped("[2,3]", f"[2,{'3' * 5000}]")),
    ("100,000 lists in lists", Rule.DEPTH, with_a('"a":' + "[" * 100_000 + "]" * 100_000)),
    ("100,000 objects in objects", Rule.DEPTH, with_a('"a":' + '{"x":' * 100_000 + "1" + "}" * 100_000)),
    ("cut JSON", Rule.JSON, file_of(GOOD[:-1])),
    ("two values", Rule.JSON, file_of(GOOD + "{}")),
    ("padded with newlines", Rule.JSON, file_of(GOOD + "\n\n")),
    ("padded with zeros", Rule.JSON, file_of(GOOD + "\0\0")),
    ("duplicate tensor", Rule.DUPLICATE_TENSOR, file_of(GOOD[:-1] + "," + A + "}")),
    ("duplicate tensor by escape", Rule.DUPLICATE_TENSOR, swapped('"b"', '"\\u0061"')),
    ("duplicate metadata block", Rule.DUPLICATE_METADATA, file_of(GOOD[:-1] + ',"__metadata__":{}}')),
    ("second metadata after an empty one", Rule.DUPLICATE_METADATA, swapped('{"__m', '{"__metadata__":{},"__m')),
    ("duplicate metadata key", Rule.DUPLICATE_METADATA, swapped('"format":"pt"', '"format":"pt","format":"tf"')),
    ("duplicate field", Rule.DUPLICATE_FIELD, with_a(A[:-1] + ',"dtype":"F32"}')),
    ("duplicate field instead of another", Rule.DUPLICATE_FIELD, with_a('"a":{"dtype":"F32","dtype":"F32","shape":[6]}')),
    ("metadata is a list", Rule.METADATA, swapped('{"format":"pt"}', "[]")),
    ("metadata looks like a tensor", Rule.METADATA, swapped('{"format":"pt"}', A[4:])),
    ("metadata value is a number", Rule.METADATA_TEXT, swapped('"format":"pt"', '"format":1')),
    ("metadata value is an object", Rule.METADATA_TEXT, swapped('"format":"pt"', '"format":{}')),
    ("metadata value is half a character", Rule.METADATA_TEXT, swapped('"format":"pt"', '"format":"\\ud800"')),
    ("no name", Rule.NAME_EMPTY, swapped('"a"', '""')),
    ("lone surrogate in a name", Rule.NAME_SURROGATE, swapped('"a"', '"\\ud800"')),
    ("NUL in a name", Rule.NAME_CONTROL, swapped('"a"', '"a\\u0000b"')),
    ("terminal escape in a name", Rule.NAME_CONTROL, swapped('"a"', '"\\u001b[2J"')),
    ("direction override in a name", Rule.NAME_CONTROL, swapped('"a"', '"\\u202egpj"')),
    ("name leads outside", Rule.NAME_PATH, swapped('"a"', '"../../etc/passwd"')),
    ("name leads outside with backslashes", Rule.NAME_PATH, swapped('"a"', '"..\\\\x"')),
    ("absolute name", Rule.NAME_PATH, swapped('"a"', '"/etc/passwd"')),
    ("entry is a number", Rule.ENTRY, with_a('"a":1')),
    ("entry is null", Rule.ENTRY, with_a('"a":null')),
    ("header is an entry", Rule.ENTRY, file_of(A[4:])),
    ("unknown field", Rule.UNKNOWN_FIELD, with_a(A[:-1] + ',"code":"x"}')),
    ("unknown field in place of one", Rule.UNKNOWN_FIELD, with_a('"a":{"dtype":"F32","shape":[6],"offsets":[0,24]}')),
    ("no dtype", Rule.MISSING_FIELD, with_a('"a":{"shape":[6],"data_offsets":[0,24]}')),
    ("no shape", Rule.MISSING_FIELD, with_a('"a":{"dtype":"F32","data_offsets":[0,24]}')),
    ("no offsets", Rule.MISSING_FIELD, with_a('"a":{"dtype":"F32","shape":[6]}')),
    ("nothing in an entry", Rule.MISSING_FIELD, with_a('"a":{}')),
    ("unknown dtype", Rule.DTYPE, swapped("F32", "F31")),
    ("dtype in lower case", Rule.DTYPE, swapped("F32", "f32")),
    ("dtype is a number", Rule.DTYPE, swapped('"F32"', "32")),
    ("shape is a number", Rule.SHAPE, swapped("[2,3]", "6")),
    ("negative dimension", Rule.SHAPE, swapped("[2,3]", "[-2,-3]")),
    ("true as a dimension", Rule.SHAPE, swapped("[2,3]", "[true,6]")),
    ("text as a dimension", Rule.SHAPE, swapped("[2,3]", '["6"]')),
    ("17 dimensions", Rule.SHAPE, swapped("[2,3]", "[6" + ",1" * 16 + "]")),
    ("shape overflows 64 bits", Rule.SHAPE_RANGE, swapped("[2,3]", "[4294967296,4294967296]")),
    ("no elements", Rule.ZERO_SIZE, with_a('"z":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},' + A)),
    ("offsets fall", Rule.OFFSETS, swapped("[0,24]", "[24,0]")),
    ("negative offset", Rule.OFFSETS, swapped("[0,24]", "[-24,0]")),
    ("three offsets", Rule.OFFSETS, swapped("[0,24]", "[0,12,24]")),
    ("true as an offset", Rule.OFFSETS, swapped("[0,24]", "[false,24]")),
    ("offsets are an object", Rule.OFFSETS, swapped("[0,24]", "{}")),
    ("too few bytes for the shape", Rule.LENGTH, swapped("[2,3]", "[2,4]")),
    ("too many bytes for the shape", Rule.LENGTH, swapped("[2,3]", "[2,2]")),
    ("half a byte", Rule.LENGTH, with_a('"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}')),
    ("cut data", Rule.RANGE, file_of(GOOD, DATA[:-1])),
    ("no data", Rule.RANGE, file_of(GOOD, b"")),
    ("overlap", Rule.OVERLAP, swapped("[24,32]", "[20,28]")),
    ("the same bytes twice", Rule.OVERLAP, swapped(B, '"b":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}')),
    ("hole between tensors", Rule.HOLE, file_of(GOOD.replace("[24,32]", "[25,33]"), DATA + b"x")),
    ("hole before the first", Rule.HOLE, file_of('{' + B + '}')),
    ("trailing bytes", Rule.TRAILING, file_of(GOOD, DATA + b"x")),
    ("no tensors", Rule.EMPTY, file_of("{}", b"")),
    ("only metadata", Rule.EMPTY, file_of('{"__metadata__":{}}', b"")),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_the_good_file_opens(place: Path) -> None:
    place.write_bytes(file_of(GOOD))
    with open_safetensors(place) as file:
        assert list(file.entries) == ["a", "b"]
        assert file.read_bytes("b") == DATA[24:]
    place.write_bytes(file_of(GOOD + "   "))
    open_safetensors(place).close()


@pytest.mark.parametrize(("name", "rule", "data"), BREAKS, ids=[b[0] for b in BREAKS])
def test_a_file_that_breaks_one_rule_is_refused_under_its_name(name: str, rule: Rule, data: bytes, place: Path) -> None:
    place.write_bytes(data)
    with pytest.raises(BytesLie) as caught:
        open_safetensors(place)
    assert caught.value.reason == rule
    assert str(place) in caught.value.where
    assert caught.value.where.isprintable()
    assert caught.value.advice


def test_every_rule_of_the_header_is_broken_here() -> None:
    elsewhere = {Rule.ENDIANNESS, Rule.HEADER_CAP, Rule.SHORT_READ}
    assert {rule for _, rule, _ in BREAKS} | elsewhere == set(Rule)


HEADER_BREAKS = [
    ('"a":{"dtype":"F32"', '"a":{"dtype":"F99"'), ('"shape":[2,3]', '"shape":[2,-3]'), ("[24,32]", "[24,31]"),
    ('"format":"pt"', '"format":2'), ('"b":', '"../b":'), ("[0,24]", "[0,1e9]"), ('"shape":[4]', '"shape":[0]'),
    ('"BF16",', '"BF16","x":1,'),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), list(combinations(HEADER_BREAKS, 2)))
def test_two_lies_do_not_make_a_truth(one: tuple[str, str], other: tuple[str, str], place: Path) -> None:
    text = GOOD
    for old, new in (one, other):
        assert old in text
        text = text.replace(old, new)
    place.write_bytes(file_of(text))
    with pytest.raises(BytesLie):
        open_safetensors(place)


def test_a_padded_header_of_90_megabytes_is_refused_before_it_is_read(place: Path) -> None:
    length = 90_000_000
    with place.open("wb") as file:
        file.write(struct.pack("<Q", length) + GOOD.encode())
        file.truncate(8 + length + len(DATA))
    tracemalloc.start()
    with pytest.raises(BytesLie) as caught:
        open_safetensors(place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == Rule.HEADER_CAP
    assert peak < 1_000_000


def test_a_header_of_many_tensors_costs_a_few_times_its_length(place: Path) -> None:
    count = 60_000
    entries = [f'"t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in range(count)]
    place.write_bytes(file_of("{" + ",".join(entries) + "}", bytes(count)))
    tracemalloc.start()
    with open_safetensors(place) as file:
        assert len(file.entries) == count
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * place.stat().st_size


def test_a_sparse_terabyte_is_refused_at_once(place: Path) -> None:
    with place.open("wb") as file:
        file.write(file_of(GOOD))
        file.truncate(1 << 40)
    with pytest.raises(BytesLie) as caught:
        open_safetensors(place)
    assert caught.value.reason == Rule.TRAILING


def test_links_fifos_folders_and_missing_files_are_refused_by_type(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(file_of(GOOD))
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("link", "loop", "fifo", "folder"):
        with pytest.raises(BytesLie) as caught:
            open_safetensors(tmp_path / name)
        assert caught.value.reason == "file.type"
    with pytest.raises(BytesLie):
        open_safetensors("/dev/zero")
    with pytest.raises(UsageError):
        open_safetensors(tmp_path / "nothing")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_with_a_typed_error_or_changes_nothing_but_names(
    data: st.DataObject, place: Path
) -> None:
    whole = bytearray(file_of(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        whole = whole or bytearray(b"\0")
    place.write_bytes(whole)
    try:
        with open_safetensors(place) as file:
            assert sum(e.stop - e.start for e in file.entries.values()) < len(whole)
    except StudbookError as error:
        assert isinstance(error, BytesLie)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "x"]), inner, max_size=4
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_any_json_is_a_header_or_a_typed_refusal(value: object, place: Path) -> None:
    place.write_bytes(file_of(json.dumps(value), b"\0\0\0\0"))
    try:
        open_safetensors(place).close()
    except StudbookError as error:
        assert isinstance(error, BytesLie)
