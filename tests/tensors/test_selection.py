from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.errors import UsageError
from studbook.tensors.selection import count_of, cut_of, mask, row_cuts, row_mask, top_k

# Few distinct values, so that ties are the rule; zeros of both signs and subnormals among them.
tied = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-40, 0.5, -0.5, 1.0, -1.0, 3.4e38, -3.4e38])
free = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, st.integers(1, 120), elements=tied | free)


def naive(values: np.ndarray, k: int) -> list[bool]:
    """Sort by falling magnitude, then by rising index; the first k are kept."""
    order = sorted(range(len(values)), key=lambda i: (-abs(float(values[i])), i))
    kept = set(order[:k])
    return [i in kept for i in range(len(values))]


@settings(deadline=None)
@given(vectors, st.data())
def test_exactly_the_k_largest_are_kept_and_ties_go_to_the_lowest_index(values, data):
    k = data.draw(st.integers(0, values.size))
    kept = mask(cut_of(values, k), values, 0)
    assert kept.tolist() == naive(values, k)
    assert kept.sum() == k


@settings(deadline=None)
@given(vectors, st.data())
def test_a_cut_does_not_depend_on_the_pieces_it_was_found_in(values, data):
    k = data.draw(st.integers(0, values.size))
    edges = sorted(data.draw(st.lists(st.integers(0, values.size), max_size=6)))
    pieces = np.split(values, edges)
    assert top_k(lambda: iter(pieces), k, values.size) == cut_of(values, k)


@settings(deadline=None)
@given(vectors, st.data())
def test_a_range_can_be_masked_alone(values, data):
    k = data.draw(st.integers(0, values.size))
    start = data.draw(st.integers(0, values.size))
    stop = data.draw(st.integers(start, values.size))
    cut = cut_of(values, k)
    assert np.array_equal(mask(cut, values[start:stop], start), mask(cut, values, 0)[start:stop])


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_rows_are_cut_one_by_one(rows, columns, data):
    values = data.draw(hnp.arrays(np.float32, rows * columns, elements=tied | free))
    k = data.draw(st.integers(0, columns))
    start = data.draw(st.integers(0, values.size))
    stop = data.draw(st.integers(start, values.size))
    expected = [keep for row in values.reshape(rows, columns) for keep in naive(row, k)]
    assert row_mask(row_cuts(values, columns, k), values[start:stop], start).tolist() == expected[start:stop]


def test_many_rows_are_cut_in_slabs_without_a_seam():
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, 1_200_000).astype(np.float32)
    kept = row_mask(row_cuts(values, 600, 77), values, 0).reshape(-1, 600)
    assert (kept.sum(axis=1) == 77).all()
    for row in (0, 1746, 1747, 1748, 1999):
        assert kept[row].tolist() == naive(values.reshape(-1, 600)[row], 77)


def test_a_large_tensor_is_cut_like_a_sorted_one():
    values = np.random.default_rng(1).normal(size=300_000).astype(np.float32)
    values[1000:200_000:7] = values[0]
    kept = mask(cut_of(values, 40_000), values, 0)
    order = np.argsort(-np.abs(values.astype(np.float64)), kind="stable")[:40_000]
    assert set(np.flatnonzero(kept)) == set(order.tolist())


def test_keeping_nothing_and_everything_are_defined():
    values = np.array([0.0, -0.0, 2.0], np.float32)
    assert mask(cut_of(values, 0), values, 0).tolist() == [False] * 3
    assert mask(cut_of(values, 3), values, 0).tolist() == [True] * 3
    assert mask(cut_of(np.zeros(0, np.float32), 0), np.zeros(0, np.float32), 0).size == 0


@pytest.mark.parametrize("k", [-1, 4])
def test_a_count_that_does_not_fit_is_refused(k):
    with pytest.raises(UsageError):
        cut_of(np.ones(3, np.float32), k)
    with pytest.raises(UsageError):
        row_cuts(np.ones(6, np.float32), 3, k)


def test_rows_that_do_not_divide_the_tensor_are_refused():
    with pytest.raises(UsageError):
        row_cuts(np.ones(7, np.float32), 3, 1)


@pytest.mark.parametrize(
    ("share", "size", "count"),
    [
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.1, 30, 3),
        (0.7, 10, 7),
        (1 / 3, 3, 0),
        (0.0, 9, 0),
        (1.0, 9, 9),
        (0.2, 0, 0),
    ],
)
def test_a_share_means_the_decimal_that_was_written(share, size, count):
    assert count_of(share, size) == count


def test_counting_in_f64_would_lose_an_element():
    assert int(0.29 * 100) == 28
    assert int(0.57 * 100) == 56


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10**9))
def test_shares_with_four_decimals_count_like_decimals(ten_thousandths, size):
    exact = (Decimal(ten_thousandths) / 10_000 * size).to_integral_value(ROUND_FLOOR)
    assert count_of(ten_thousandths / 10_000, size) == int(exact)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_outside_zero_and_one_is_refused(share):
    with pytest.raises(UsageError):
        count_of(share, 10)


def test_elements_that_change_between_the_passes_are_noticed():
    pieces = iter([np.ones(4, np.float32), np.ones(4, np.float32), np.zeros(4, np.float32)])
    with pytest.raises(UsageError, match="changed"):
        top_k(lambda: [next(pieces)], 2, 4)
