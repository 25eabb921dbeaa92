from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.statistics import Ladder, Thresholdout, climb

queries = st.integers(2, 30).flatmap(
    lambda n: st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=n, max_size=n), min_size=1, max_size=12)
)


def all_steps(scores: list[list[float]]) -> list[float]:
    ladder: Ladder | None = None
    released = []
    for row in scores:
        ladder = climb(ladder, row)
        released.append(ladder.released)
    return released


@settings(max_examples=50, deadline=None)
@given(queries)
def test_a_step_is_released_only_when_it_beats_the_noise_of_the_difference(scores: list[list[float]]) -> None:
    n, best, expected = len(scores[0]), None, []
    for row in map(np.array, scores):
        if best is None or row.mean() > expected[-1] + np.std(row - best, ddof=1) / np.sqrt(n) + 1e-12:
            best, answer = row, np.round(row.mean() * n) / n
        else:
            answer = expected[-1]
        expected.append(answer)
    assert all_steps(scores) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(queries)
def test_what_is_released_never_falls_after_the_first_step_by_more_than_rounding(scores: list[list[float]]) -> None:
    released = all_steps(scores)
    assert all(later >= earlier - 0.5 / len(scores[0]) for earlier, later in itertools.pairwise(released))


@settings(max_examples=50, deadline=None)
@given(queries)
def test_asking_again_teaches_nothing(scores: list[list[float]]) -> None:
    ladder = climb(None, scores[0])
    assert climb(ladder, scores[0]) == ladder


def test_a_gain_of_exactly_the_noise_is_not_released() -> None:
    # Differences 1, 1, 0, 0: mean 1/2, s = sqrt(1/3), s / sqrt(4) = 0.2887; 0, 0, 0, 1: mean 1/4, s / 2 = 1/4.
    base = climb(None, [0.0, 0.0, 0.0, 0.0])
    assert climb(base, [1.0, 1.0, 0.0, 0.0]).released == 0.5
    assert climb(base, [0.0, 0.0, 0.0, 1.0]) is base


@pytest.mark.parametrize("scores", [[], [1.0], [0.5, 1.5], [0.5, float("nan")], [0.5, 0.5, 0.5]])
def test_what_is_no_query_of_this_ladder_is_refused(scores: list[float]) -> None:
    with pytest.raises(UsageError):
        climb(climb(None, [0.0, 1.0]), scores)


def test_thresholdout_answers_from_training_while_both_agree() -> None:
    guard = Thresholdout(0.2, 1e-9, 3, seed=1)
    assert guard.ask(0.6, 0.7) == 0.6
    assert guard.left == 3


def test_thresholdout_spends_its_budget_and_then_says_nothing() -> None:
    guard = Thresholdout(0.05, 1e-6, 2, seed=1)
    for left in (1, 0):
        assert guard.ask(0.9, 0.5) == pytest.approx(0.5, abs=1e-3)
        assert guard.left == left
    assert guard.ask(0.5, 0.5) is None


@given(st.integers(0, 50))
def test_the_noise_of_thresholdout_comes_from_its_seed(seed: int) -> None:
    first, second = (Thresholdout(0.0, 0.01, 5, seed) for _ in range(2))
    assert [first.ask(0.9, 0.5) for _ in range(5)] == [second.ask(0.9, 0.5) for _ in range(5)]


@pytest.mark.parametrize("told", [(-0.1, 0.1, 1), (0.1, 0.0, 1), (0.1, 0.1, -1), (float("nan"), 0.1, 1)])
def test_what_is_no_holdout_is_refused(told: tuple[float, float, int]) -> None:
    with pytest.raises(UsageError):
        Thresholdout(*told, seed=1)
