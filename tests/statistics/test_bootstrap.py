from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import Draws, bootstrap_bounds, mean_bounds
from studbook.statistics.bootstrap import Floats

samples = st.lists(st.integers(-1000, 1000).map(lambda v: v / 1000), min_size=5, max_size=60)


def median_of(rows: Floats) -> Floats:
    return np.median(rows, axis=-1)


def spread_of(rows: Floats) -> Floats:
    return rows.std(axis=-1, ddof=1)


def scipys(values: np.ndarray, statistic: object, method: str, alpha: float, seed: int, resamples: int) -> tuple:
    """scipy's interval from the very resamples that the seed stands for."""
    rows = values[Draws(seed).below(len(values), resamples * len(values)).reshape(resamples, -1)]
    told = {"statistic": statistic, "confidence_level": 1 - 2 * alpha, "method": method, "vectorized": False}
    one = lambda data: float(statistic(np.asarray(data)[None, :])[0])  # noqa: E731
    told["statistic"] = one
    some = stats.bootstrap((values,), n_resamples=10, **{**told, "method": "percentile"})
    own = dataclasses.replace(some, bootstrap_distribution=statistic(rows))
    return tuple(stats.bootstrap((values,), n_resamples=0, bootstrap_result=own, **told).confidence_interval)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("statistic", [lambda rows: rows.mean(axis=-1), spread_of, median_of])
def test_bounds_equal_scipys_from_the_same_resamples(method: str, statistic: object) -> None:
    values = np.exp(np.random.default_rng(5).normal(size=41))
    got = bootstrap_bounds(values.tolist(), 0.05, 11, statistic=statistic, method=method, resamples=500)
    assert got[1:] == pytest.approx(scipys(values, statistic, method, 0.05, 11, 500), rel=1e-9)


def test_many_items_in_several_blocks_are_the_same_stream() -> None:
    values = np.random.default_rng(6).exponential(size=9001)
    got = bootstrap_bounds(values.tolist(), 0.05, 3, method="percentile", resamples=700)
    rows = Draws(3).below(9001, 9001 * 700).reshape(700, -1)
    assert got[1:] == pytest.approx(tuple(np.quantile(values[rows].mean(axis=1), [0.05, 0.95])), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(samples, st.integers(0, 99))
def test_a_seed_gives_the_same_bounds_and_they_are_in_order(values: list[float], seed: int) -> None:
    first = bootstrap_bounds(values, 0.05, seed, resamples=200)
    assert first == bootstrap_bounds(values, 0.05, seed, resamples=200)
    assert min(values) - 1e-12 <= first.lower <= first.upper <= max(values) + 1e-12


def test_with_many_symmetric_items_the_bounds_are_the_normal_ones() -> None:
    values = np.random.default_rng(8).normal(size=2000).tolist()
    got = bootstrap_bounds(values, 0.05, 1, resamples=2000)
    assert got == pytest.approx(mean_bounds(values, 0.05), abs=0.006)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_items_that_do_not_vary_leave_no_room(method: str) -> None:
    assert bootstrap_bounds([0.5] * 9, 0.05, 1, method=method, resamples=100) == (0.5, 0.5, 0.5)


def test_a_figure_beyond_all_its_resamples_still_has_finite_bounds() -> None:
    got = bootstrap_bounds([0.0] * 40 + [1.0], 0.05, 1, statistic=lambda rows: rows.max(axis=-1), resamples=100)
    assert all(np.isfinite(got))


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_bounds([1.0], 0.05, 1),
        lambda: bootstrap_bounds([1.0, float("nan")], 0.05, 1),
        lambda: bootstrap_bounds([1.0, 2.0], 0.0, 1),
        lambda: bootstrap_bounds([1.0, 2.0], 0.05, 1, resamples=10),
        lambda: bootstrap_bounds([1.0, 2.0], 0.05, 1, statistic=lambda rows: rows),
        lambda: bootstrap_bounds([1.0, 2.0], 0.05, 1, statistic=lambda rows: rows.mean(axis=1) * float("inf")),
    ],
)
def test_samples_that_give_no_bounds_are_refused(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason.startswith("statistics.")
