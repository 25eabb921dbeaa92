"""From answers to verdicts; every number that comes out of a candidate is checked here.

Checks are phrased positively: what is not shown to be finite, in range and complete is an error, so that a NaN, which
makes every comparison false, can never pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from studbook.evaluation.items import Item
from studbook.evaluation.scoring import KINDS, Answers, exact
from studbook.records.evaluation import Verdict

__all__ = ["Answers", "Judged", "exact", "expected_calls", "judge"]

# log p of a certain answer may come out a hair above zero in f32.
_ROUNDING = 1e-6


class Judged(NamedTuple):
    """A suite's verdict.

    Attributes:
        score: What the kind of scorer counts, such as the share right; -1 when it could not be scored.
        verdict: pass, fail, error or no-data.
        detail: Why, in words.
    """

    score: float
    verdict: Verdict
    detail: str


def expected_calls(scorer: str, count: int, items: Sequence[Item] = ()) -> int:
    """Sequences that have to be scored for a suite.

    Args:
        scorer: Name of the scorer.
        count: Items of the suite.
        items: The items; needed where the kind's ``whole`` says so.
    """
    kind = KINDS[scorer]
    return sum(len(kind.sequences(item)) for item in items) if kind.whole else count


def judge(answers: Answers, count: int, scorer: str, pass_mark: float, items: Sequence[Item] = ()) -> Judged:
    """The verdict of a suite on one answerer.

    Args:
        answers: What it gave.
        count: Items of the suite.
        scorer: Name of the scorer; the score passes if it is >= the mark, or <= it where lower is better.
        pass_mark: The mark.
        items: The items; needed where the kind's ``whole`` says so.
    """
    kind = KINDS[scorer]
    if count == 0:
        return Judged(-1.0, "no-data", "the suite has no items")
    lengths = {len(answers.correct), len(answers.loglik), len(answers.brier)}
    calls = expected_calls(scorer, count, items)
    if lengths != {count} or answers.calls != calls:
        came = min(*lengths, answers.calls)
        return Judged(-1.0, "error", f"{count} answers of {calls} calls were needed, {came} came")
    if not all(math.isfinite(v) and v <= _ROUNDING for v in answers.loglik):
        return Judged(-1.0, "error", "a log-likelihood is not a finite number <= 0")
    if not all(math.isfinite(v) and 0.0 <= v <= 2.0 for v in answers.brier):
        return Judged(-1.0, "error", "a Brier score is not a finite number in 0..2")
    score = kind.score(answers, items)
    passed = score <= pass_mark if kind.lower else score >= pass_mark
    return Judged(score, "pass" if passed else "fail", f"{score:.4f} against a mark of {pass_mark:g}")
