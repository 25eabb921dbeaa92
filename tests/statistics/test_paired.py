from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import (
    Paired,
    clopper_pearson,
    clustered_bounds,
    mcnemar,
    mean_bounds,
    paired_bounds,
    paired_counts,
    stratified_bounds,
    unpaired_bounds,
    wilson,
)

Z = stats.norm.ppf(0.95)
bits = st.text("01", min_size=1, max_size=200)
pairs = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 2000)).filter(lambda t: t[0] + t[1] <= t[2])
few = st.tuples(st.integers(0, 19), st.integers(0, 19), st.integers(20, 2000)).filter(lambda t: t[0] + t[1] < 20)
numbers = st.lists(st.floats(-2, 2), min_size=2, max_size=60)


@given(st.lists(st.tuples(st.sampled_from("01"), st.sampled_from("01")), min_size=1))
def test_wins_and_losses_are_counted_item_by_item(items: list[tuple[str, str]]) -> None:
    mine, theirs = ("".join(side) for side in zip(*items, strict=True))
    count = paired_counts(mine, theirs)
    assert count == (items.count(("1", "0")), items.count(("0", "1")), len(items))
    assert count.difference == pytest.approx((mine.count("1") - theirs.count("1")) / len(items))


@pytest.mark.parametrize(
    ("mine", "theirs"), [("", ""), ("1", "10"), ("2", "1"), ("1", "x"), ("1_0", "100"), (" 1", "01")]
)
def test_results_that_are_not_the_same_items_are_refused(mine: str, theirs: str) -> None:
    with pytest.raises(UsageError):
        paired_counts(mine, theirs)


@given(pairs)
def test_many_discordant_pairs_follow_the_normal_formula(count: tuple[int, int, int]) -> None:
    wins, losses, n = count
    assume(wins + losses >= 20)
    d, psi = (wins - losses) / n, (wins + losses) / n
    spread = Z * sqrt(max(0.0, psi - d * d) / n)
    assert paired_bounds(wins, losses, n, 0.05) == pytest.approx((d, d - spread, d + spread), abs=1e-9)


@given(few)
def test_few_discordant_pairs_are_never_judged_looser_than_exactly(count: tuple[int, int, int]) -> None:
    wins, losses, n = count
    bound = paired_bounds(wins, losses, n, 0.05)
    m = wins + losses
    theta = stats.beta.ppf(0.05, wins, losses + 1) if wins else 0.0
    conditional = m / n * (2 * theta - 1) if m else 0.0
    low = stats.beta.ppf(0.05, wins, n - wins + 1) if wins else 0.0
    high = stats.beta.ppf(0.95, losses + 1, n - losses) if losses < n else 1.0
    squares = (wins - losses) / n - sqrt((wins / n - low) ** 2 + (high - losses / n) ** 2)
    assert bound.lower == pytest.approx(max(-1.0, min(conditional, squares)), abs=1e-8)


@given(few)
def test_with_few_pairs_a_lower_bound_above_zero_means_mcnemar_is_significant(count: tuple[int, int, int]) -> None:
    wins, losses, n = count
    if paired_bounds(wins, losses, n, 0.05).lower > 0:
        assert mcnemar(wins, losses) <= 0.05


@given(pairs)
def test_swapping_the_sides_mirrors_the_interval(count: tuple[int, int, int]) -> None:
    wins, losses, n = count
    there, back = paired_bounds(wins, losses, n, 0.05), paired_bounds(losses, wins, n, 0.05)
    assert (back.value, back.lower, back.upper) == pytest.approx((-there.value, -there.upper, -there.lower), abs=1e-12)
    assert -1 <= there.lower <= there.value <= there.upper <= 1 or wins + losses >= 20


def test_one_more_loss_never_raises_the_lower_bound_of_an_exact_interval() -> None:
    lowers = [paired_bounds(3, losses, 500, 0.05).lower for losses in range(17)]
    assert lowers == sorted(lowers, reverse=True)


@pytest.mark.parametrize(
    ("wins_rate", "losses_rate", "n"),
    [
        (0.0, 0.02, 500),
        (0.0, 0.005, 1000),
        (0.002, 0.02, 500),
        (0.005, 0.01, 1000),
        (0.01, 0.03, 200),
        (0.05, 0.05, 50),
    ],
)
def test_the_lower_bound_covers_the_truth_by_exact_enumeration(wins_rate: float, losses_rate: float, n: int) -> None:
    # The sum runs over every outcome of the trinomial; taking psi as seen alone would cover 53 % in the first row.
    truth, covered = wins_rate - losses_rate, 0.0
    for m in range(n + 1):
        chance = stats.binom.pmf(m, n, wins_rate + losses_rate)
        if chance < 1e-9:
            continue
        shares = stats.binom.pmf(range(m + 1), m, wins_rate / (wins_rate + losses_rate))
        covered += chance * sum(
            share for wins, share in enumerate(shares) if paired_bounds(wins, m - wins, n, 0.05).lower <= truth + 1e-12
        )
    assert covered > 0.94


def test_no_disagreement_leaves_room_for_an_unseen_loss() -> None:
    bound = paired_bounds(0, 0, 1000, 0.05)
    assert bound.value == 0
    assert bound.upper == -bound.lower == pytest.approx(clopper_pearson(0, 1000, 0.05).upper)


def test_every_item_lost_is_minus_one() -> None:
    assert paired_bounds(0, 300, 300, 0.05) == (-1, -1, -1)


@given(st.lists(pairs.filter(lambda t: t[0] + t[1] >= 20), min_size=1, max_size=6))
def test_strata_are_averaged_without_weights_and_variances_added(strata: list[tuple[int, int, int]]) -> None:
    k = len(strata)
    mean = sum((w - x) / n for w, x, n in strata) / k
    variance = sum(((w + x) / n - ((w - x) / n) ** 2) / n for w, x, n in strata) / k**2
    spread = Z * sqrt(max(0.0, variance))
    got = stratified_bounds([Paired(*s) for s in strata], 0.05)
    assert got == pytest.approx((mean, mean - spread, mean + spread), abs=1e-8)


@given(pairs)
def test_one_stratum_is_the_paired_interval(count: tuple[int, int, int]) -> None:
    assert stratified_bounds([Paired(*count)], 0.05) == pytest.approx(paired_bounds(*count, 0.05), abs=1e-12)


def test_three_wins_in_seven_suites_do_not_show_an_advantage() -> None:
    strata = [Paired(1, 0, 1000)] * 3 + [Paired(0, 0, 1000)] * 4
    assert stratified_bounds(strata, 0.05).lower < 0


@given(numbers)
def test_the_mean_of_real_differences_follows_the_textbook(values: list[float]) -> None:
    n = len(values)
    spread = Z * stats.tstd(values) / sqrt(n) if len(set(values)) > 1 else 0.0
    mean = sum(values) / n
    assert mean_bounds(values, 0.05) == pytest.approx((mean, mean - spread, mean + spread), abs=1e-6)


@given(numbers, st.integers(2, 5))
def test_repeating_every_item_does_not_sharpen_a_clustered_interval(values: list[float], times: int) -> None:
    repeated = [v for v in values for _ in range(times)]
    labels = [i for i in range(len(values)) for _ in range(times)]
    assert clustered_bounds(repeated, labels, 0.05) == pytest.approx(mean_bounds(values, 0.05), abs=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_samples_without_a_variance_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError):
        mean_bounds(values, 0.05)


def test_clusters_must_label_every_item() -> None:
    with pytest.raises(UsageError):
        clustered_bounds([1.0, 2.0, 3.0], ["a", "b"], 0.05)


@given(st.integers(0, 50), st.integers(0, 50))
def test_unpaired_shares_are_wider_than_either_wilson_interval(first: int, second: int) -> None:
    got = unpaired_bounds(first, 50, second, 50, 0.05)
    mine, theirs = wilson(first, 50, 0.05), wilson(second, 50, 0.05)
    assert got.value == pytest.approx((first - second) / 50)
    assert got.value - got.lower >= max(first / 50 - mine.lower, theirs.upper - second / 50) - 1e-12
    assert -1 - 1e-9 <= got.lower <= got.value <= got.upper <= 1 + 1e-9


def test_newcombes_published_example_of_two_shares() -> None:
    # 56/70 against 48/80: method 10 gives 0.0524 to 0.3339 (two-sided 95 %).
    got = unpaired_bounds(56, 70, 48, 80, 0.025)
    assert got == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("count", [(1, 1, 1), (-1, 1, 5), (1, -1, 5), (0, 0, 0), (5, 1, 5)])
def test_impossible_pairs_are_refused(count: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        paired_bounds(*count, 0.05)


def test_an_average_over_no_suite_is_refused() -> None:
    with pytest.raises(UsageError):
        stratified_bounds([], 0.05)
