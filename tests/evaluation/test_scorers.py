"""From answers to verdicts: what is not shown to be finite, in range and complete never passes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.evaluation.scorers import Answers, exact, judge

NAN, INFINITY = math.nan, math.inf


def answers(n: int = 4, **changes: Any) -> Answers:
    fields: dict[str, Any] = {"correct": [True] * n, "loglik": [-0.1] * n, "brier": [0.1] * n, "calls": n}
    return Answers(**fields | changes)


def test_right_answers_pass_and_wrong_ones_fail() -> None:
    assert judge(answers(), 4, "exact-match", 1.0).verdict == "pass"
    assert judge(answers(correct=[True, False] * 2), 4, "exact-match", 0.5)[:2] == (0.5, "pass")
    assert judge(answers(correct=[True, False] * 2), 4, "exact-match", 0.51).verdict == "fail"
    assert judge(answers(), 4, "proper-scores", 0.1).verdict == "pass"
    assert judge(answers(brier=[0.2] * 4), 4, "proper-scores", 0.1).verdict == "fail"


@pytest.mark.parametrize(
    "changes",
    [
        {"loglik": [-0.1, NAN, -0.1, -0.1]},
        {"loglik": [-0.1, -INFINITY, -0.1, -0.1]},
        {"loglik": [-0.1, INFINITY, -0.1, -0.1]},
        {"loglik": [-0.1, 0.5, -0.1, -0.1]},
        {"brier": [0.1, NAN, 0.1, 0.1]},
        {"brier": [0.1, -0.1, 0.1, 0.1]},
        {"brier": [0.1, 2.1, 0.1, 0.1]},
        {"loglik": [-0.1] * 3},
        {"brier": [0.1] * 5},
        {"correct": [True] * 3},
        {"correct": [], "loglik": [], "brier": [], "calls": 0},
        {"calls": 3},
        {"calls": 5},
    ],
)
@pytest.mark.parametrize("scorer", ["exact-match", "proper-scores"])
def test_numbers_that_prove_nothing_are_an_error(changes: dict[str, Any], scorer: str) -> None:
    judged = judge(answers(**changes), 4, scorer, 0.25 if scorer == "exact-match" else 0.75)
    assert (judged.score, judged.verdict) == (-1.0, "error")
    assert judged.detail


def test_a_suite_without_items_is_no_data() -> None:
    assert judge(answers(0), 0, "exact-match", 0.0).verdict == "no-data"


@given(
    st.lists(st.sampled_from([True, False, 1, 0, None, "yes"]), max_size=6),
    st.lists(st.floats(allow_nan=True), max_size=6),
    st.lists(st.floats(allow_nan=True), max_size=6),
    st.integers(-1, 7),
    st.integers(1, 6),
    st.sampled_from(["exact-match", "proper-scores"]),
)
def test_nothing_passes_that_is_not_complete_and_finite(
    correct: list[Any], loglik: list[float], brier: list[float], calls: int, items: int, scorer: str
) -> None:
    judged = judge(Answers(correct, loglik, brier, calls), items, scorer, 0.5)
    if judged.verdict == "pass":
        assert len(correct) == len(loglik) == len(brier) == calls == items
        assert all(v <= 1e-6 and math.isfinite(v) for v in loglik)
        assert all(0.0 <= v <= 2.0 for v in brier)
        if scorer == "exact-match":
            assert sum(c is True for c in correct) * 2 >= items


@pytest.mark.parametrize("answered", [None, 1, b"abc", ["abc"], "abcd", "ab", "ABC", "abc ", "abc\x00"])
def test_only_exactly_the_expected_text_is_right(answered: object) -> None:
    assert not exact("abc", answered, 12)
    assert exact("abc", "abc", 12)


def test_an_answer_longer_than_the_limit_is_wrong_whatever_it_holds() -> None:
    assert exact("ä", "ä", 2)
    assert not exact("ä", "ä", 1)
    assert not exact("\ud800", "\ud800 ", 12)
