from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import Draws, bootstrap_bounds, mean_bounds, quantile

samples = st.lists(st.integers(-1000, 1000).map(lambda v: v / 1000), min_size=5, max_size=60)


def scipys(values: list[float], statistic: Callable, method: str, seed: int, resamples: int) -> tuple[float, float]:
    """scipy's interval from the very resamples that the seed stands for."""
    draws, n = Draws(seed), len(values)
    rows = [[values[i] for i in draws.below(n, n)] for _ in range(resamples)]
    told = {"statistic": statistic, "confidence_level": 0.9, "vectorized": False}
    some = stats.bootstrap((values,), n_resamples=10, method="percentile", **told)
    own = dataclasses.replace(some, bootstrap_distribution=np.array([statistic(row) for row in rows]))
    return tuple(
        stats.bootstrap((values,), n_resamples=0, bootstrap_result=own, method=method, **told).confidence_interval
    )


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_bounds_equal_scipys_from_the_same_resamples(method: str, statistic: Callable) -> None:
    values = np.exp(np.random.default_rng(5).normal(size=41)).tolist()
    got = bootstrap_bounds(values, 0.05, 11, statistic=statistic, method=method, resamples=300)
    assert got[1:] == pytest.approx(scipys(values, statistic, method, 11, 300), rel=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30).map(sorted), st.floats(0, 1))
def test_a_quantile_equals_numpys(ordered: list[float], share: float) -> None:
    assert quantile(ordered, share) == pytest.approx(float(np.quantile(ordered, share)), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(samples, st.integers(0, 99))
def test_a_seed_gives_the_same_bounds_and_they_are_in_order(values: list[float], seed: int) -> None:
    first = bootstrap_bounds(values, 0.05, seed, resamples=200)
    assert first == bootstrap_bounds(values, 0.05, seed, resamples=200)
    assert min(values) - 1e-12 <= first.lower <= first.upper <= max(values) + 1e-12


def test_with_many_symmetric_items_the_bounds_are_the_normal_ones() -> None:
    values = np.random.default_rng(8).normal(size=1000).tolist()
    got = bootstrap_bounds(values, 0.05, 1, resamples=1000)
    assert got == pytest.approx(mean_bounds(values, 0.05), abs=0.01)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_items_that_do_not_vary_leave_no_room(method: str) -> None:
    assert bootstrap_bounds([0.5] * 9, 0.05, 1, method=method, resamples=100) == (0.5, 0.5, 0.5)


def test_a_figure_beyond_all_its_resamples_still_has_finite_bounds() -> None:
    got = bootstrap_bounds([0.0] * 40 + [1.0], 0.05, 1, statistic=max, resamples=100)
    assert all(map(math.isfinite, got))


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_bounds([1.0], 0.05, 1),
        lambda: bootstrap_bounds([1.0, float("nan")], 0.05, 1),
        lambda: bootstrap_bounds([1.0, 2.0], 0.0, 1),
        lambda: bootstrap_bounds([1.0, 2.0], 0.05, 1, resamples=10),
        lambda: bootstrap_bounds([1.0, 2.0], 0.05, 1, statistic=lambda row: sum(row) * float("inf")),
    ],
)
def test_samples_that_give_no_bounds_are_refused(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason.startswith("statistics.")
