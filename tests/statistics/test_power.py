from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from studbook.errors import UsageError
from studbook.statistics import (
    finalist_power,
    mcnemar_detectable,
    mcnemar_power,
    minimum_detectable,
    screening_power,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.floats(0.05, 1.0), st.floats(-1.0, 1.0), st.sampled_from([0.05, 0.2]))
def test_power_is_the_weight_of_all_outcomes_scipy_calls_significant(
    items: int, psi: float, part: float, alpha: float
) -> None:
    gain = psi * part
    rates = [(psi + gain) / 2, (psi - gain) / 2, 1 - psi]
    expected = 0.0
    for wins in range(items + 1):
        for losses in range(items + 1 - wins):
            if stats.binom.sf(wins - 1, wins + losses, 0.5) <= alpha and wins:
                expected += stats.multinomial.pmf([wins, losses, items - wins - losses], items, rates)
    assert mcnemar_power(items, gain, psi, alpha) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("psi", "one", "of_ten"), [(0.10, 0.97, 0.83), (0.14, 0.91, 0.66), (0.20, 0.80, 0.46)])
def test_the_powers_the_design_rests_on(psi: float, one: float, of_ten: float) -> None:
    assert mcnemar_power(1000, 0.036, psi) == pytest.approx(one, abs=0.01)
    assert mcnemar_power(1000, 0.036, psi, 0.05 / 10) == pytest.approx(of_ten, abs=0.01)


def test_the_powers_of_a_round_with_finalists() -> None:
    assert finalist_power(10, 3, 1000, 1000, 0.036, 0.14) == pytest.approx(0.80, abs=0.01)
    assert finalist_power(10, 3, 1000, 2000, 0.036, 0.14) == pytest.approx(0.98, abs=0.01)


def test_under_the_null_the_power_is_the_size_and_below_alpha() -> None:
    assert 0.03 < mcnemar_power(1000, 0.0, 0.14) <= 0.05


@settings(max_examples=5, deadline=None)
@given(st.integers(200, 2000), st.floats(0.05, 0.3))
def test_the_detectable_gain_has_the_power_and_is_close_to_the_normal_one(items: int, psi: float) -> None:
    gain = mcnemar_detectable(items, psi)
    assert mcnemar_power(items, gain, psi) == pytest.approx(0.8, abs=1e-3)
    assert gain == pytest.approx(minimum_detectable(items, psi), rel=0.25)


def test_too_few_items_can_detect_nothing() -> None:
    assert mcnemar_detectable(10, 0.1) == math.inf


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(1, 5), st.integers(100, 2000), st.floats(0.0, 0.05))
def test_the_screen_equals_an_integral_by_scipy(candidates: int, finalists: int, items: int, gain: float) -> None:
    own, theirs = math.sqrt((0.14 - gain**2) / items), math.sqrt(0.14 / items)

    def part(x: float) -> float:
        ahead = stats.binom.cdf(finalists - 1, candidates - 1, stats.norm.sf(x / theirs))
        return float(stats.norm.pdf(x, gain, own) * ahead)

    expected = integrate.quad(part, gain - 8 * own, gain + 8 * own, limit=200)[0] if finalists < candidates else 1.0
    assert screening_power(candidates, finalists, items, gain, 0.14) == pytest.approx(expected, abs=1e-6)


def test_a_candidate_like_all_others_is_a_finalist_as_often_as_any() -> None:
    assert screening_power(10, 3, 500, 0.0, 0.14) == pytest.approx(0.3, abs=1e-6)
    assert screening_power(3, 3, 500, 0.0, 0.14) == 1.0


def test_the_screen_is_on_the_safe_side_of_simulated_answers() -> None:
    random = np.random.default_rng(4)
    champion = random.random((600, 500)) < 0.638
    first = np.zeros((600, 10))
    for index in range(10):
        gain = 0.036 if index == 0 else 0.0
        flips = np.where(champion, (0.14 - gain) / 2 / 0.638, (0.14 + gain) / 2 / 0.362)
        first[:, index] = (champion ^ (random.random(champion.shape) < flips)).sum(axis=1)
    among = ((first[:, 1:] >= first[:, :1]).sum(axis=1) < 3).mean()
    assert screening_power(10, 3, 500, 0.036, 0.14) <= among + 0.03


@pytest.mark.parametrize(
    "call",
    [
        lambda: mcnemar_power(0, 0.1, 0.1),
        lambda: mcnemar_power(10, 0.2, 0.1),
        lambda: mcnemar_power(10, 0.0, 0.0),
        lambda: mcnemar_power(10, float("nan"), 0.1),
        lambda: mcnemar_power(10, 0.1, 0.1, 0.0),
        lambda: mcnemar_detectable(100, 0.1, 0.5, 0.4),
        lambda: screening_power(10, 0, 100, 0.0, 0.1),
    ],
)
def test_plans_that_describe_no_test_are_refused(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason.startswith("statistics.")
