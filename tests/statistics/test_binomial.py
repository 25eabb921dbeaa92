from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import (
    clopper_pearson,
    mcnemar,
    normal_quantile,
    upper_tail,
    wilson,
    zero_failure_bound,
)

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
alphas = st.sampled_from([0.005, 0.025, 0.05, 0.2])


@given(counts, st.floats(1e-6, 1 - 1e-6))
def test_the_upper_tail_equals_scipys(count: tuple[int, int], share: float) -> None:
    successes, trials = count
    expected = stats.binom.sf(successes - 1, trials, share)
    assert upper_tail(successes, trials, share) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@given(st.integers(0, 25).flatmap(lambda n: st.tuples(st.integers(0, n + 1), st.just(n))), st.integers(0, 16))
def test_the_upper_tail_equals_a_sum_of_fractions(count: tuple[int, int], sixteenths: int) -> None:
    successes, trials = count
    p = Fraction(sixteenths, 16)
    exact = sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes, trials + 1))
    assert upper_tail(successes, trials, sixteenths / 16) == pytest.approx(float(exact), rel=1e-12, abs=1e-15)


@given(counts, alphas)
def test_clopper_pearson_equals_scipys_beta_quantiles(count: tuple[int, int], alpha: float) -> None:
    successes, trials = count
    interval = clopper_pearson(successes, trials, alpha)
    low = stats.beta.ppf(alpha, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - alpha, successes + 1, trials - successes) if successes < trials else 1.0
    assert interval == pytest.approx((low, high), rel=1e-8, abs=1e-12)
    assert interval.lower <= successes / trials <= interval.upper


@given(counts, alphas)
def test_wilson_equals_scipys(count: tuple[int, int], alpha: float) -> None:
    successes, trials = count
    expected = stats.binomtest(successes, trials).proportion_ci(1 - 2 * alpha, method="wilson")
    assert wilson(successes, trials, alpha) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_scipys_exact_binomial_test(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-10, abs=1e-300)


def test_mcnemar_without_discordant_pairs_proves_nothing() -> None:
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_of_five_wins_is_one_in_thirty_two() -> None:
    assert mcnemar(5, 0) == 1 / 32
    assert mcnemar(0, 5) == 1.0


def test_mcnemar_keeps_its_precision_with_many_pairs() -> None:
    expected = stats.binomtest(5300, 10000, 0.5, alternative="greater").pvalue
    assert mcnemar(5300, 4700) == pytest.approx(expected, rel=1e-6)


@given(st.floats(1e-9, 1 - 1e-9))
def test_the_normal_quantile_equals_scipys(share: float) -> None:
    assert normal_quantile(share) == pytest.approx(stats.norm.ppf(share), rel=1e-9, abs=1e-12)


@given(st.integers(1, 100_000))
def test_the_zero_failure_bound_is_clopper_pearsons_with_no_failures(trials: int) -> None:
    assert zero_failure_bound(trials) == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)
    assert zero_failure_bound(trials) == pytest.approx(clopper_pearson(0, trials, 0.05).upper, rel=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: clopper_pearson(3, 2, 0.05),
        lambda: clopper_pearson(-1, 2, 0.05),
        lambda: clopper_pearson(1, 2, 0.0),
        lambda: clopper_pearson(1, 2, float("nan")),
        lambda: wilson(0, 0, 0.05),
        lambda: mcnemar(1, -1),
        lambda: mcnemar(-1, 1),
        lambda: normal_quantile(1.0),
        lambda: zero_failure_bound(0),
    ],
)
def test_counts_and_error_rates_that_describe_nothing_are_refused(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason.startswith("statistics.")
