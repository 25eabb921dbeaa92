"""From answers to verdicts. One function a scorer; every number that comes out of a candidate is checked here.

Checks are phrased positively: what is not shown to be finite, in range and complete is an error, so that a NaN, which
makes every comparison false, can never pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from studbook.records.evaluation import Verdict

__all__ = ["SCORERS", "Answers", "Judged", "exact", "judge"]

SCORERS = ("exact-match", "proper-scores")
# log p of a certain answer may come out a hair above zero in f32.
_ROUNDING = 1e-6


class Answers(NamedTuple):
    """What one answerer gave for a suite, in item order; any of it may be nonsense.

    Attributes:
        correct: Whether each answer was exactly right.
        loglik: Log-likelihood of each expected answer, nats (<= 0).
        brier: Multi-class Brier score of each answer, mean over its tokens (0..2).
        calls: Sequences that were scored.
    """

    correct: Sequence[bool]
    loglik: Sequence[float]
    brier: Sequence[float]
    calls: int


class Judged(NamedTuple):
    """A suite's verdict.

    Attributes:
        score: Share right (exact-match) or mean Brier score (proper-scores); -1 when it could not be scored.
        verdict: pass, fail, error or no-data.
        detail: Why, in words.
    """

    score: float
    verdict: Verdict
    detail: str


def exact(expected: str, answered: object, limit: int) -> bool:
    """Whether a free answer is exactly the expected text.

    Args:
        expected: The right answer.
        answered: What came back; anything but a string is wrong.
        limit: Most UTF-8 bytes an answer may have; a longer one is wrong whatever it holds.
    """
    return isinstance(answered, str) and len(answered.encode(errors="replace")) <= limit and answered == expected


def judge(answers: Answers, items: int, scorer: str, pass_mark: float) -> Judged:
    """The verdict of a suite on one answerer.

    Args:
        answers: What it gave.
        items: Items of the suite.
        scorer: ``exact-match`` (share right >= mark) or ``proper-scores`` (mean Brier <= mark).
        pass_mark: The mark.
    """
    if items == 0:
        return Judged(-1.0, "no-data", "the suite has no items")
    lengths = {len(answers.correct), len(answers.loglik), len(answers.brier), answers.calls}
    if lengths != {items}:
        return Judged(-1.0, "error", f"{items} answers were needed, {min(lengths)} came")
    if not all(math.isfinite(v) and v <= _ROUNDING for v in answers.loglik):
        return Judged(-1.0, "error", "a log-likelihood is not a finite number <= 0")
    if not all(math.isfinite(v) and 0.0 <= v <= 2.0 for v in answers.brier):
        return Judged(-1.0, "error", "a Brier score is not a finite number in 0..2")
    if scorer == "exact-match":
        score = sum(1 for c in answers.correct if c is True) / items
        passed = score >= pass_mark
    else:
        score = math.fsum(answers.brier) / items
        passed = score <= pass_mark
    return Judged(score, "pass" if passed else "fail", f"{score:.4f} against a mark of {pass_mark:g}")
