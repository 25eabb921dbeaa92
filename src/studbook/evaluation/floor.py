"""The floor test: worthless answerers that no suite may pass, and the oracle that every suite must."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

from studbook.errors import OutOfOrder
from studbook.evaluation.items import Item
from studbook.evaluation.scorers import Answers, expected_calls, judge
from studbook.evaluation.scoring import KINDS
from studbook.records import FloorRow

__all__ = ["ANSWERERS", "Run", "check_rows", "floor_rows"]

Texts = Callable[[Sequence[Item], int], list[object]]
Run = Callable[[Sequence[Item], Sequence[object]], list[object]]
# Natural logarithm of a probability that is as good as none.
_IMPOSSIBLE = math.log(1e-30)


def _no_op(items: Sequence[Item], _limit: int) -> list[object]:
    return [None for _ in items]


def _constant(items: Sequence[Item], _limit: int) -> list[object]:
    commonest = Counter(item.expected for item in items).most_common(1)[0][0]
    return [commonest for _ in items]


def _random(items: Sequence[Item], _limit: int) -> list[object]:
    """Right answers of the same suite, to the wrong questions."""
    answers: list[object] = [item.expected for item in items]
    random.Random(20_260_101).shuffle(answers)
    return answers


def _echo(items: Sequence[Item], _limit: int) -> list[object]:
    """The prompt's own last word without its end mark."""
    return [re.split("[ \t\n]", item.prompt.rstrip(">"))[-1] for item in items]


def _empty(items: Sequence[Item], _limit: int) -> list[object]:
    return ["" for _ in items]


def _oversize(items: Sequence[Item], limit: int) -> list[object]:
    """The right answer, and a flood behind it."""
    return [item.expected + "x" * (limit + 1) for item in items]


def _early_exit(items: Sequence[Item], _limit: int) -> list[object]:
    """The right answers, until it stops half-way."""
    return [item.expected for item in items[: len(items) // 2]]


def _oracle(items: Sequence[Item], _limit: int) -> list[object]:
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


def floor_rows(
    items: Sequence[Item], scorer: str, pass_mark: float, limit: int, run: Run | None = None
) -> tuple[FloorRow, ...]:
    """Run every answerer through the suite's own scorer.

    Args:
        items: The items.
        scorer: Name of the scorer.
        pass_mark: The suite's mark.
        limit: Longest answer in tokens (bytes, for the byte tokenizer).
        run: What runs written answers first; kinds whose ``runs`` names a worker need it.
    """
    rows = []
    for name, (texts, confidence) in ANSWERERS.items():
        said = texts(items, limit)
        given = run(items, said) if run and KINDS[scorer].runs else said
        answers = _numbers(items, scorer, given, confidence, limit)
        judged = judge(answers, len(items), scorer, pass_mark, items)
        rows.append(FloorRow(answerer=name, score=round(judged.score, 6), verdict=judged.verdict))
    return tuple(rows)


def check_rows(rows: Sequence[FloorRow], scorer: str, where: object) -> None:
    """Refuse a suite that a worthless answerer passes or comes near to passing, or an item that the oracle fails.

    Raises:
        OutOfOrder: naming the answerer; ``suite.floor``.
    """
    least, perfect = KINDS[scorer].floor, 0.0 if KINDS[scorer].lower else 1.0
    for row in rows:
        oracle = row.answerer == "oracle"
        cheap = least is not None and not oracle and row.score >= least
        if cheap or (row.verdict == "pass") != oracle:
            raise OutOfOrder(
                f"the {row.answerer} answerer gets {row.score:.3f} and the verdict is {row.verdict}",
                where=where,
                advice="A suite that a worthless answerer passes, or a perfect one fails, measures nothing.",
                reason="suite.floor",
            )
        if oracle and row.score != perfect:
            raise OutOfOrder(
                f"the oracle gets {row.score:.3f}: an expected answer is wrong by its own item, or longer than the limit",
                where=where,
                advice="Mend the rule or the expected answer, or raise max_new_tokens above the longest answer in bytes.",
                reason="suite.floor",
            )


def _numbers(items: Sequence[Item], scorer: str, texts: Sequence[object], confidence: float, limit: int) -> Answers:
    """Answers as a model would report them that puts ``confidence`` on what it says and the rest on one wrong text."""
    kind = KINDS[scorer]
    right = [kind.right(item, text, limit) for item, text in zip(items, texts, strict=False)]
    on_expected = [confidence if ok or math.isnan(confidence) else 0.0 for ok in right]
    loglik = [
        math.log(p) if p > 0.0 else math.nan if math.isnan(p) else _IMPOSSIBLE * len(item.expected.encode())
        for item, p in zip(items, on_expected, strict=False)
    ]
    complete = len(texts) == len(items)
    calls = expected_calls(scorer, len(items), items) if complete else len(texts)
    return Answers(right, loglik, [2.0 * (1.0 - p) ** 2 for p in on_expected], calls)
