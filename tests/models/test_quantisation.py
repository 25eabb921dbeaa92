from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import SlmRefused
from studbook.models.quantisation import block_of, decode_q4, decode_q8, encode_q4, encode_q8, unpack_q4
from studbook.models.rules import SlmRule
from studbook.models.stored import Dtype, StoredTensor, store

LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
TINIEST = struct.unpack("<f", b"\x01\x00\x00\x00")[0]

floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True) | st.sampled_from(
    [0.0, -0.0, TINIEST, -TINIEST, 63 * TINIEST, 64 * TINIEST, LARGEST, -LARGEST, 1.0, 0.5, -127.0, 3.5, 2.5]
)


def f32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.inf


def one_down(value: float) -> float:
    return struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", value))[0] - 1))[0]


def scalar_group(group: list[float], top: int) -> tuple[list[int], float]:
    """One row or block, written from the definition, one number at a time."""
    scale = f32(max(abs(x) for x in group) / top)
    if scale == 0:
        scale = 1.0
    if math.isinf(f32(top * scale)):
        scale = one_down(scale)
    return [max(-top, min(top, round(x / scale))) for x in group], scale


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.data())
def test_q8_equals_the_scalar_definition(rows: int, columns: int, data: st.DataObject) -> None:
    table = data.draw(st.lists(st.lists(floats, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    codes, scales = encode_q8(np.array(table, dtype=np.float32))
    expected = [scalar_group(row, 127) for row in table]
    assert codes.tolist() == [row for row, _ in expected]
    assert scales.tolist() == [scale for _, scale in expected]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 3), st.sampled_from([(2, 2), (4, 2), (6, 2), (8, 4)]), st.data())
def test_q4_equals_the_scalar_definition(rows: int, sizes: tuple[int, int], data: st.DataObject) -> None:
    columns, block = sizes
    table = data.draw(st.lists(st.lists(floats, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    packed, scales = encode_q4(np.array(table, dtype=np.float32), block)
    for row, line in enumerate(table):
        codes: list[int] = []
        for start in range(0, columns, block):
            group, scale = scalar_group(line[start : start + block], 7)
            codes += group
            assert scales[row, start // block] == scale
        low_first = [(codes[i] & 15) | (codes[i + 1] & 15) << 4 for i in range(0, columns, 2)]
        assert packed[row].tolist() == low_first


@settings(max_examples=300, deadline=None)
@given(st.lists(floats, min_size=8, max_size=8), st.sampled_from(["q8_0", "q4_0"]))
def test_every_decoded_value_is_finite_and_half_a_step_away_at_most(values: list[float], dtype: str) -> None:
    given_values = np.array(values, dtype=np.float32)
    stored = store(given_values, Dtype(dtype))
    stored.check_values("", "")
    decoded = stored.dense()
    step = stored.scales.max().astype(np.float64)
    slack = 1e-6 * np.abs(given_values).max().astype(np.float64)
    small = np.abs(given_values).max() < 64 * TINIEST * 2  # scale 1 stands for a scale that rounded away
    assert np.isfinite(decoded).all()
    assert small or (np.abs(decoded.astype(np.float64) - given_values) <= step / 2 + slack).all()


def test_a_row_of_zeros_takes_scale_one() -> None:
    codes, scales = encode_q8(np.array([[0.0, -0.0]], dtype=np.float32))
    assert codes.tolist() == [[0, 0]]
    assert scales.tolist() == [1.0]


def test_a_scale_that_rounds_away_becomes_one() -> None:
    codes, scales = encode_q8(np.array([[TINIEST, -TINIEST]], dtype=np.float32))
    assert codes.tolist() == [[0, 0]]
    assert scales.tolist() == [1.0]


@pytest.mark.parametrize(("top", "encode"), [(127, encode_q8), (7, lambda rows: encode_q4(rows, 2))])
def test_a_scale_whose_product_overflows_steps_down(top: int, encode: object) -> None:
    _, scales = encode(np.array([[LARGEST, -1.0]], dtype=np.float32))  # type: ignore[operator]
    scale = float(scales.reshape(-1)[0])
    naive = f32(LARGEST / top)
    assert scale == (one_down(naive) if math.isinf(f32(naive * top)) else naive)
    assert math.isfinite(f32(scale * top))


def test_minus_zero_comes_back_as_zero() -> None:
    for dtype in (Dtype.Q8_0, Dtype.Q4_0):
        decoded = store(np.array([-0.0, 1.0], dtype=np.float32), dtype).dense()
        assert not np.signbit(decoded[0])


def test_low_nibble_comes_first_and_eight_to_fifteen_are_negative() -> None:
    packed = np.array([[0x70, 0x8F]], dtype=np.uint8)
    assert unpack_q4(packed).tolist() == [[0, 7, -1, -8]]
    assert decode_q4(packed, np.array([[2.0]], dtype=np.float32)).tolist() == [[0.0, 14.0, -2.0, -16.0]]


def test_readers_take_the_code_that_writers_never_write() -> None:
    decoded = decode_q8(np.array([[-128, 1]], dtype=np.int8), np.array([0.5], dtype=np.float32))
    assert decoded.tolist() == [[-64.0, 0.5]]


def test_blocks_of_a_row_have_their_own_scales() -> None:
    packed, scales = encode_q4(np.array([[7.0, 1.0, 70.0, 10.0]], dtype=np.float32), 2)
    assert scales.tolist() == [[1.0, 10.0]]
    assert decode_q4(packed, scales).tolist() == [[7.0, 1.0, 70.0, 10.0]]


@pytest.mark.parametrize(
    ("columns", "block"),
    [(512, 32), (64, 32), (192, 32), (48, 24), (34, 2), (30, 30), (20, 20), (2, 2), (33, 0), (1, 0)],
)
def test_a_row_takes_its_largest_even_divisor(columns: int, block: int) -> None:
    assert block_of(columns) == block
    assert block == max((d for d in range(2, 33, 2) if columns % d == 0), default=0)


def test_an_odd_row_cannot_be_four_bits() -> None:
    with pytest.raises(SlmRefused) as refused:
        store(np.ones((2, 33), dtype=np.float32), Dtype.Q4_0, field="w")
    assert refused.value.reason == SlmRule.ODD_ROW
    assert "field w" in refused.value.where


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_storage_takes_what_is_not_a_number(dtype: Dtype, value: float) -> None:
    with pytest.raises(SlmRefused) as refused:
        store(np.array([1.0, value], dtype=np.float32), dtype)
    assert refused.value.reason == SlmRule.PAYLOAD_NON_FINITE


def test_long_tensors_are_quantised_in_slices_with_the_same_result() -> None:
    rows = np.random.default_rng(1).standard_normal((3000, 512)).astype(np.float32)
    codes, scales = encode_q8(rows)
    first, first_scales = encode_q8(rows[2990:])
    assert (codes[2990:] == first).all()
    assert (scales[2990:] == first_scales).all()


def test_a_code_near_the_end_of_the_range_may_overflow_and_is_found() -> None:
    scale = np.array([LARGEST / 100.5], dtype=np.float32).tobytes()
    fine = StoredTensor(Dtype.Q8_0, (2,), bytes([100, 99]), scale, 2)
    fine.check_values("", "")
    with pytest.raises(SlmRefused) as refused:
        StoredTensor(Dtype.Q8_0, (2,), bytes([101, 99]), scale, 2).check_values("file", "w")
    assert refused.value.reason == SlmRule.PRODUCT_NON_FINITE
