from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import calibration_error, calibration_null_band

items = st.lists(st.tuples(st.integers(0, 1000).map(lambda v: v / 1000), st.booleans()), min_size=1, max_size=80)


@given(items, st.integers(1, 20))
def test_the_error_is_the_weighted_gap_of_every_bin(rows: list[tuple[float, bool]], bins: int) -> None:
    sure, right = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    place = np.minimum(np.floor(sure * bins), bins - 1)
    expected = sum(
        (place == k).mean() * abs(right[place == k].mean() - sure[place == k].mean()) for k in set(place.tolist())
    )
    got = calibration_error(sure.tolist(), [bool(r) for r in right], bins)
    assert got == pytest.approx(expected, abs=1e-12)


def test_scipys_binned_statistic_gives_the_same_error() -> None:
    random = np.random.default_rng(1)
    sure, right = random.random(500), random.random(500) < 0.6
    edges = np.linspace(0, 1, 16)
    gaps = stats.binned_statistic(sure, right - sure, "sum", edges).statistic
    assert calibration_error(sure.tolist(), right.tolist()) == pytest.approx(np.abs(gaps).sum() / 500)


def test_the_band_in_one_bin_is_the_binomial_distribution() -> None:
    n, p = 200, 0.7
    counts = np.arange(n + 1)
    mean = (stats.binom.pmf(counts, n, p) * np.abs(counts / n - p)).sum()
    band = calibration_null_band([p] * n, 0.05, 1, bins=1, resamples=5000)
    assert band.value == pytest.approx(mean, rel=0.03)
    gaps = np.abs(stats.binom.rvs(n, p, size=200_000, random_state=2) / n - p)
    assert band[1:] == pytest.approx(tuple(np.quantile(gaps, [0.05, 0.95])), abs=0.0051)


def test_perfect_calibration_shows_a_tenth_with_a_hundred_items_and_a_third_of_it_with_a_thousand() -> None:
    few, many = (calibration_null_band(np.linspace(0, 1, n).tolist(), 0.05, 1, bins=12) for n in (100, 1000))
    assert few.value == pytest.approx(0.106, abs=0.01)
    assert many.value == pytest.approx(0.035, abs=0.005)


@settings(max_examples=25, deadline=None)
@given(items, st.integers(0, 99))
def test_the_band_depends_on_confidences_and_seed_alone(rows: list[tuple[float, bool]], seed: int) -> None:
    sure = [row[0] for row in rows]
    band = calibration_null_band(sure, 0.05, seed, resamples=100)
    assert band == calibration_null_band(sure, 0.05, seed, resamples=100)
    assert 0 <= band.lower <= band.upper <= 1


def test_answers_that_are_certain_have_no_error_to_explain() -> None:
    assert calibration_null_band([0.0, 1.0], 0.05, 1) == (0.0, 0.0, 0.0)
    assert calibration_error([0.0, 1.0], [False, True]) == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: calibration_error([], []),
        lambda: calibration_error([0.5], [True, False]),
        lambda: calibration_error([1.5], [True]),
        lambda: calibration_error([float("nan")], [True]),
        lambda: calibration_error([0.5], [True], 0),
        lambda: calibration_null_band([0.5], 0.05, 1, resamples=10),
        lambda: calibration_null_band([0.5], 1.0, 1),
    ],
)
def test_what_has_no_calibration_is_refused(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason.startswith("statistics.")
