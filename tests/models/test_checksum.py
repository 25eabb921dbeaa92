from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.models import checksum
from studbook.models.checksum import checksum64, fnv1a64, mix_reference

CODE = """
import sys
sys.modules["numba"] = None
from studbook.models import checksum
assert checksum.njit is None
print(checksum.checksum64(bytes(range(256)) * 5, 100))
"""


def by_the_letter(data: bytes) -> int:
    h = 0xCBF29CE484222325
    for i in range(len(data)):
        byte = 0 if 100 <= i <= 107 else data[i]
        h = h ^ byte
        h = h ^ (i % 256 * 256)
        h = (h * 32) % 2**64 + (h // 2**59)
        h = h * 1099511628211 % 2**64
    return h if h else 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)],
)
def test_name_hash_gives_the_published_vectors(name: str, expected: int) -> None:
    assert fnv1a64(name) == expected


@settings(deadline=None)
@given(st.binary(min_size=108, max_size=700))
def test_checksum_is_the_published_rule(data: bytes) -> None:
    assert checksum64(data, 100) == by_the_letter(data)


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.binary(max_size=600), st.integers(0, 1 << 20))
def test_compiled_kernel_equals_the_plain_one(state: int, data: bytes, start: int) -> None:
    assert checksum._mix_fast(state, data, start) == mix_reference(state, data, start)


@settings(deadline=None)
@given(st.binary(min_size=108, max_size=300), st.binary(min_size=8, max_size=8))
def test_checksum_field_reads_as_zero(data: bytes, field: bytes) -> None:
    assert checksum64(data[:100] + field + data[108:], 100) == checksum64(data, 100)


@settings(deadline=None)
@given(st.binary(min_size=108, max_size=300), st.data())
def test_any_other_changed_byte_changes_the_checksum(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1).filter(lambda i: not 100 <= i < 108))
    flipped = bytearray(data)
    flipped[at] ^= draw.draw(st.integers(1, 255))
    assert checksum64(bytes(flipped), 100) != checksum64(data, 100)


def test_a_result_of_zero_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "_mix", lambda _state, _data, _start: 0)
    assert checksum64(bytes(128), 100) == 1


def test_without_a_compiler_the_checksum_is_the_same() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(result.stdout) == checksum64(bytes(range(256)) * 5, 100)


def test_where_no_folder_can_be_written_the_kernel_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = checksum.njit

    def stubborn(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return real(**options)

    monkeypatch.setattr(checksum, "njit", stubborn)
    monkeypatch.setattr(checksum, "_fast", checksum._compiled())
    assert checksum._mix_fast(7, b"abc", 3) == mix_reference(7, b"abc", 3)
