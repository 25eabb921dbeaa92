from __future__ import annotations

import numpy as np
import pytest

from studbook.tensors.sources import ArraySource


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
