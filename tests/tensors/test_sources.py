from __future__ import annotations

import numpy as np
import pytest

from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import RAW, aligned, non_finite


def test_a_source_keeps_names_shapes_and_values_in_order():
    source = ArraySource("0" * 64, {"b": np.ones((2, 3), np.float32), "a": np.zeros(4, np.float32)})
    assert source.names == ("b", "a")
    assert source.dims("b") == (2, 3)
    assert source.flat("b").tolist() == [1.0] * 6


def test_what_a_source_hands_out_cannot_be_written():
    owner = np.ones((2, 3), np.float32)
    source = ArraySource("0" * 64, {"a": owner})
    with pytest.raises(ValueError, match="read-only"):
        source.flat("a")[0] = 2.0
    owner[0, 0] = 5.0  # the owner's own array stays writable
    assert owner.flags.writeable


def test_columns_first_arrays_are_read_row_major():
    source = ArraySource("0" * 64, {"a": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))})
    assert source.flat("a").tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", [0, 1, 4095, 4097, 100_000])
@pytest.mark.parametrize("kind", RAW.values())
def test_scratch_arrays_begin_at_a_page_and_can_be_filled(size: int, kind: np.dtype):
    room = aligned(size, kind)
    room[:] = 7
    assert room.size == size
    assert room.dtype == kind
    assert room.ctypes.data % 4096 == 0 or size == 0
    assert (room == 7).all()


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 300_000])
@pytest.mark.parametrize(("kind", "special"), [("f32", np.inf), ("bf16", 0x7F80), ("f16", 0x7C00)])
def test_every_element_that_is_not_finite_is_counted(size: int, kind: str, special: float):
    raw = np.full(size, special, RAW[kind])
    assert non_finite(raw) == (size, 0)
    raw[: size - 1] = 0
    assert non_finite(raw) == (1, size - 1)
    raw[:] = 0
    assert non_finite(raw) == (0, -1)
