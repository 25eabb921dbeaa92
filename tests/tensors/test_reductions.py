from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.errors import UsageError
from studbook.tensors.reductions import (
    BLOCK,
    block_dot,
    block_squares,
    block_sum,
    blocks,
    combine,
    dot,
    sum_of_squares,
    total,
)

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, st.integers(0, 200), elements=finite32)


def scalar_total(terms: list[float]) -> float:
    """The rule, one addition at a time on Python floats."""
    result = 0.0
    for start in range(0, len(terms), 65536):
        lanes = [0.0] * 16
        for i, term in enumerate(terms[start : start + 65536]):
            lanes[i % 16] += term
        for width in (8, 4, 2, 1):
            lanes = [lanes[j] + lanes[j + width] for j in range(width)]
        result += lanes[0]
    return result


def sample(size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=size) * 10.0 ** rng.uniform(-6, 6, size)).astype(np.float32)


@settings(deadline=None)
@given(vectors)
def test_sums_follow_the_rule_to_the_last_bit(values):
    terms = [float(v) for v in values]
    assert total(values).hex() == scalar_total(terms).hex()
    assert sum_of_squares(values).hex() == scalar_total([t * t for t in terms]).hex()


@settings(deadline=None)
@given(st.data())
def test_dot_products_follow_the_rule_to_the_last_bit(data):
    left = data.draw(vectors)
    right = data.draw(hnp.arrays(np.float32, left.size, elements=finite32))
    expected = scalar_total([float(a) * float(b) for a, b in zip(left, right, strict=True)])
    assert dot(left, right).hex() == expected.hex()


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 16 * 3 + 5])
def test_the_rule_holds_across_blocks(size):
    values = sample(size)
    terms = values.astype(np.float64).tolist()
    assert total(values).hex() == scalar_total(terms).hex()
    assert (
        dot(values, values[::-1].copy()).hex()
        == scalar_total([a * b for a, b in zip(terms, terms[::-1], strict=True)]).hex()
    )


def test_the_sample_would_notice_another_order():
    terms = sample(2 * BLOCK + 53).astype(np.float64)
    assert {scalar_total(terms.tolist()), float(terms.sum()), sum(terms.tolist())} != {float(terms.sum())}


def test_blocks_may_be_summed_by_any_thread_in_any_order():
    values = sample(5 * BLOCK + 7)
    grid = list(blocks(values.size))
    with ThreadPoolExecutor(4) as pool:
        partials = list(pool.map(lambda at: block_sum(values[at[0] : at[1]]), reversed(grid)))
        squares = list(pool.map(lambda at: block_squares(values[at[0] : at[1]]), reversed(grid)))
    assert combine(reversed(partials)).hex() == total(values).hex()
    assert combine(reversed(squares)).hex() == sum_of_squares(values).hex()


def test_the_grid_covers_every_element_once():
    assert list(blocks(0)) == []
    assert list(blocks(BLOCK)) == [(0, BLOCK)]
    assert list(blocks(2 * BLOCK + 1)) == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, 2 * BLOCK + 1)]


def test_sums_are_close_to_exact_ones():
    values = sample(100_000)
    exact = math.fsum(float(v) ** 2 for v in values)
    assert sum_of_squares(values) == pytest.approx(exact, rel=1e-13)


def test_f64_values_are_taken_as_they_are():
    values = np.array([1.0, 2.0**-40, 3.0])
    assert sum_of_squares(values) == 10.0 + 2.0**-80
    assert total(values) == 4.0 + 2.0**-40


def test_nothing_and_negative_zeros_sum_to_plus_zero():
    for values in (np.zeros(0, np.float32), np.full(40, -0.0, np.float32)):
        assert math.copysign(1.0, total(values)) == 1.0


def test_lengths_that_differ_and_blocks_that_are_too_long_are_refused():
    with pytest.raises(UsageError):
        dot(sample(3), sample(4))
    with pytest.raises(UsageError):
        block_dot(sample(3), sample(4))
    with pytest.raises(UsageError):
        block_sum(sample(BLOCK + 1))
    with pytest.raises(UsageError):
        block_sum(sample(4).reshape(2, 2))
