from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from studbook.errors import UsageError
from studbook.statistics import (
    Betting,
    Watch,
    average,
    log_mcnemar_e,
    log_non_inferiority_e,
    log_rate_e,
    log_shifting_e,
    log_two_sample_e,
    log_upper_tail,
    reached,
)

small = st.integers(0, 60)
rates = st.floats(0.01, 0.99)
differences = st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.0, 0.5, 1.0]), max_size=60)
margins = st.floats(0.0, 0.3)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_the_mcnemar_process_is_the_stated_formula(wins: int, losses: int) -> None:
    tail = stats.beta.logsf(0.5, wins + 1, losses + 1)
    if not math.isfinite(tail):  # below the smallest float
        tail = stats.binom.logpmf(wins, wins + losses + 1, 0.5)
    expected = math.log(2) * (1 + wins + losses) + special.betaln(wins + 1, losses + 1) + tail
    assert log_mcnemar_e(wins, losses) == pytest.approx(expected, rel=1e-6, abs=1e-6 if tail > -600 else 1.0)


@settings(deadline=None)
@given(small, small, rates)
def test_the_rate_process_is_the_average_likelihood_ratio_above_the_baseline(
    events: int, others: int, r: float
) -> None:
    def ratio(t: float) -> float:
        return math.exp(events * math.log(t / r) + others * math.log((1 - t) / (1 - r))) if 0 < t < 1 else 0.0

    peak = min(max(events / max(events + others, 1), r), 1.0)
    expected = sum(integrate.quad(ratio, a, b, limit=200)[0] for a, b in ((r, peak), (peak, 1.0)) if a < b) / (1 - r)
    assert math.exp(log_rate_e(events, others, r)) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 500), st.integers(0, 500), rates, st.floats(0.0, 1.0))
def test_the_rate_process_is_never_expected_to_grow_while_the_rate_is_kept(
    events: int, others: int, baseline: float, part: float
) -> None:
    now = log_rate_e(events, others, baseline)
    hit = math.exp(log_rate_e(events + 1, others, baseline) - now)
    miss = math.exp(log_rate_e(events, others + 1, baseline) - now)
    assert baseline * hit + (1 - baseline) * miss == pytest.approx(1.0, rel=1e-7)
    rate = baseline * part
    assert rate * hit + (1 - rate) * miss <= 1 + 1e-7


def test_every_process_starts_at_one() -> None:
    assert log_mcnemar_e(0, 0) == pytest.approx(0.0, abs=1e-12)
    assert log_rate_e(0, 0, 0.01) == pytest.approx(0.0, abs=1e-12)
    assert log_non_inferiority_e([], 0.02) == ()


def test_looking_after_every_pair_of_300_is_wrong_in_less_than_alpha_by_exact_enumeration() -> None:
    alive, alarms = {0: 1.0}, 0.0
    for looks in range(1, 301):
        following: dict[int, float] = {}
        for wins, chance in alive.items():
            for more in (wins, wins + 1):
                following[more] = following.get(more, 0.0) + chance / 2
        alive = {w: c for w, c in following.items() if not reached(log_mcnemar_e(w, looks - w), 0.05)}
        alarms += sum(following.values()) - sum(alive.values())
    assert 0.005 < alarms <= 0.05


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 0.5))
def test_more_events_in_the_cohort_are_more_evidence(events: int, beside: int, share: float) -> None:
    assert log_two_sample_e(events + 1, beside, share) > log_two_sample_e(events, beside, share)
    assert log_two_sample_e(events, beside + 1, share) < log_two_sample_e(events, beside, share)


def test_twenty_errors_of_thirty_in_a_tenth_of_the_requests_are_enough() -> None:
    assert reached(log_two_sample_e(20, 10, 0.1), 0.001)
    assert not reached(log_two_sample_e(3, 27, 0.1), 0.05)


@given(differences, margins)
def test_bets_follow_mean_over_variance_of_the_past(values: list[float], margin: float) -> None:
    cap, wealth, expected = 1 / (2 * (1 - margin)), 0.0, []
    for i, value in enumerate(values):
        past = np.array(values[:i]) + margin
        if i == 0 or past.mean() <= 0:
            bet = 0.0
        elif past.var() < 1e-12:
            bet = cap
        else:
            bet = min(past.mean() / past.var(), cap)
        wealth += math.log1p(bet * (value + margin))
        expected.append(wealth)
    assert log_non_inferiority_e(values, margin) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(differences, margins)
def test_one_item_never_halves_the_wealth_twice(values: list[float], margin: float) -> None:
    path = (0.0, *log_non_inferiority_e(values, margin))
    assert all(b - a >= math.log(0.5) - 1e-9 for a, b in itertools.pairwise(path))


def test_an_equal_candidate_is_shown_not_inferior_by_five_hundred_ties() -> None:
    path = log_non_inferiority_e([0.0] * 500, 0.02)
    assert reached(path[-1], 0.05)
    assert not reached(path[100], 0.05)


def test_a_candidate_inferior_by_the_margin_is_let_through_in_less_than_alpha() -> None:
    random = np.random.default_rng(9)
    wrong = 0
    for _ in range(400):
        values = random.choice([-1.0, 0.0, 1.0], size=300, p=[0.09, 0.86, 0.05])  # mean -.04
        wrong += reached(max(log_non_inferiority_e(values.tolist(), 0.04)), 0.05)
    assert wrong / 400 <= 0.05


@given(st.integers(0, 4000), st.integers(1, 4000), st.floats(0.001, 0.999))
def test_the_logarithm_of_a_tail_equals_scipys(successes: int, trials: int, share: float) -> None:
    got, expected = log_upper_tail(successes, trials, share), stats.binom.logsf(successes - 1, trials, share)
    if expected > -600:
        assert got == pytest.approx(expected, rel=1e-7, abs=1e-9)
    elif successes <= trials:
        # Here scipy rounds to no chance at all; the first term and the first term over the gap hold it in.
        first = stats.binom.logpmf(successes, trials, share)
        assert (
            first - 1e-6
            <= got
            <= first - math.log1p(-share / (1 - share) * (trials - successes) / (successes + 1)) + 1e-6
        )
    else:
        assert got == -math.inf


@pytest.mark.parametrize(
    "call",
    [
        lambda: log_mcnemar_e(-1, 0),
        lambda: log_rate_e(1, 1, 0.0),
        lambda: log_rate_e(1, 1, 1.0),
        lambda: log_two_sample_e(1, -1, 0.5),
        lambda: log_non_inferiority_e([0.0], 1.0),
        lambda: log_non_inferiority_e([1.5], 0.1),
        lambda: log_non_inferiority_e([float("nan")], 0.1),
        lambda: reached(1.0, 0.0),
    ],
)
def test_events_that_cannot_be_are_refused(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason.startswith("statistics.")


@given(st.lists(st.tuples(st.floats(0.01, 0.9), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=4))
def test_a_shifting_share_is_the_product_of_what_each_event_says(counts: list[tuple[float, int, int]]) -> None:
    ratios = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
    total = sum(
        math.prod((r / (1 + s * (r - 1))) ** inside * (1 / (1 + s * (r - 1))) ** beside for s, inside, beside in counts)
        for r in ratios
    )
    assert log_shifting_e(counts) == pytest.approx(math.log(total / 6), rel=1e-9, abs=1e-9)


@given(st.floats(0.01, 0.9), st.floats(0.0, 1.0))
def test_one_more_event_of_a_rate_that_is_not_higher_is_expected_to_add_nothing(share: float, times: float) -> None:
    chance = share * times / (share * times + 1 - share)
    for before in ((0, 0), (3, 1), (0, 9)):
        here = math.exp(log_shifting_e([(share, *before)]))
        inside = math.exp(log_shifting_e([(share, before[0] + 1, before[1])]))
        beside = math.exp(log_shifting_e([(share, before[0], before[1] + 1)]))
        assert chance * inside + (1 - chance) * beside <= here * (1 + 1e-9)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_an_average_lies_between_its_parts(logs: list[float]) -> None:
    assert min(logs) - 1e-9 <= average(logs) <= max(logs) + 1e-9
    assert average([*logs, -math.inf]) == pytest.approx(average(logs) + math.log(len(logs) / (len(logs) + 1)))


@given(st.floats(0.01, 0.6), st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_a_watch_is_never_expected_to_grow_while_the_rate_is_kept(
    baseline: float, past: list[bool], moments: int
) -> None:
    def watched(events: list[bool]) -> float:
        watch = Watch(baseline, moments)
        for number, event in enumerate(events):
            if number % 10 == 0:
                watch.begin()
            watch.add(event)
        return math.exp(watch.log_e)

    grown = baseline * watched([*past, True]) + (1 - baseline) * watched([*past, False])
    assert grown == pytest.approx(watched(past), rel=1e-9)
    assert watched([]) == pytest.approx(1.0)


def test_a_watch_notices_what_began_late_and_forgets_nothing_before() -> None:
    watch, whole = Watch(0.01, 20), 0
    for number in range(2000):
        if number % 100 == 0:
            watch.begin()
        watch.add(False)
    for whole in range(100):
        watch.add(whole % 10 == 0)
        if reached(watch.log_e, 0.05):
            break
    assert 20 < whole < 99
    # One e-process over everything would not have noticed yet.
    assert not reached(log_rate_e(10, 2090, 0.01), 0.05)


def test_nothing_to_average_or_no_moment_to_begin_at_is_refused() -> None:
    for call in (
        lambda: average([]),
        lambda: Watch(0.01, 0),
        lambda: log_shifting_e([(0.0, 1, 1)]),
        lambda: Betting(1.0),
    ):
        with pytest.raises(UsageError):
            call()
