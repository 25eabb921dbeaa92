"""The floor test: worthless answerers that no suite may pass, and the oracle that every suite must."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from studbook.evaluation.scorers import Answers, exact, judge
from studbook.records import FloorRow

__all__ = ["ANSWERERS", "floor_rows"]


class _Item(Protocol):
    @property
    def prompt(self) -> str: ...
    @property
    def expected(self) -> str: ...


Texts = Callable[[Sequence[_Item], int], list[object]]


def _no_op(items: Sequence[_Item], _limit: int) -> list[object]:
    return [None for _ in items]


def _constant(items: Sequence[_Item], _limit: int) -> list[object]:
    commonest = Counter(item.expected for item in items).most_common(1)[0][0]
    return [commonest for _ in items]


def _random(items: Sequence[_Item], _limit: int) -> list[object]:
    """Right answers of the same suite, to the wrong questions."""
    answers: list[object] = [item.expected for item in items]
    random.Random(20_260_101).shuffle(answers)
    return answers


def _echo(items: Sequence[_Item], _limit: int) -> list[object]:
    """The prompt's own last word without its end mark."""
    return [item.prompt.rstrip(">").split(" ")[-1] for item in items]


def _empty(items: Sequence[_Item], _limit: int) -> list[object]:
    return ["" for _ in items]


def _oversize(items: Sequence[_Item], limit: int) -> list[object]:
    """The right answer, and a flood behind it."""
    return [item.expected + "x" * (limit + 1) for item in items]


def _early_exit(items: Sequence[_Item], _limit: int) -> list[object]:
    """The right answers, until it stops half-way."""
    return [item.expected for item in items[: len(items) // 2]]


def _oracle(items: Sequence[_Item], _limit: int) -> list[object]:
    return [item.expected for item in items]


# What each answerer says, and the probability it puts on it; ``nan`` is the oracle's answers with NaN for numbers.
ANSWERERS: dict[str, tuple[Texts, float]] = {
    "no-op": (_no_op, 0.0),
    "constant": (_constant, 1.0),
    "random": (_random, 1.0),
    "echo": (_echo, 1.0),
    "nan": (_oracle, math.nan),
    "empty": (_empty, 1.0),
    "oversize": (_oversize, 1.0),
    "early-exit": (_early_exit, 1.0),
    "oracle": (_oracle, 1.0),
}


def floor_rows(items: Sequence[_Item], scorer: str, pass_mark: float, limit: int) -> tuple[FloorRow, ...]:
    """Run every answerer through the suite's own scorer.

    Args:
        items: The items.
        scorer: Name of the scorer.
        pass_mark: The suite's mark.
        limit: Longest answer in tokens (bytes, for the byte tokenizer).
    """
    rows = []
    for name, (texts, confidence) in ANSWERERS.items():
        answers = _numbers(items, texts(items, limit), confidence, limit)
        judged = judge(answers, len(items), scorer, pass_mark)
        rows.append(FloorRow(answerer=name, score=round(judged.score, 6), verdict=judged.verdict))
    return tuple(rows)


def _numbers(items: Sequence[_Item], texts: Sequence[object], confidence: float, limit: int) -> Answers:
    """Answers as a model would report them that puts ``confidence`` on what it says and the rest on one wrong text."""
    right = [exact(item.expected, text, limit) for item, text in zip(items, texts, strict=False)]
    on_expected = [confidence if ok or math.isnan(confidence) else 0.0 for ok in right]
    loglik = [math.log(max(p, 1e-30)) if not math.isnan(p) else math.nan for p in on_expected]
    return Answers(right, loglik, [2.0 * (1.0 - p) ** 2 for p in on_expected], len(texts))
