"""What every kind of scorer is: which answers are right, and what the suite's score is made of."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Struct

from studbook.errors import RecordRefused
from studbook.evaluation.items import Item

__all__ = ["Answers", "Kind", "NoRule", "exact", "source_sha256"]


class Answers(NamedTuple):
    """What one answerer gave for a suite, in item order; any of it may be nonsense.

    Attributes:
        correct: Whether each answer was right.
        loglik: Log-likelihood of each expected answer, nats (<= 0).
        brier: Multi-class Brier score of each answer, mean over its tokens (0..2).
        calls: Sequences that were scored.
    """

    correct: Sequence[bool]
    loglik: Sequence[float]
    brier: Sequence[float]
    calls: int


class NoRule(Struct, frozen=True, forbid_unknown_fields=True):
    """A kind that asks nothing beside the expected answer."""


def exact(expected: str, answered: object, limit: int) -> bool:
    """Whether a free answer is exactly the expected text.

    Args:
        expected: The right answer.
        answered: What came back; anything but a string is wrong.
        limit: Most UTF-8 bytes an answer may have; a longer one is wrong whatever it holds.
    """
    return isinstance(answered, str) and len(answered.encode(errors="replace")) <= limit and answered == expected


class Kind:
    """One kind of scorer. A new kind is one file with a subclass, and one line in the registry.

    Attributes:
        name: What manifests call it.
        mark: Pass mark where a manifest names none.
        floor: What no worthless answerer may reach whatever the mark; None where the mark alone decides.
        lower: Whether a smaller score is the better one.
        reads: ``likelihood``: the expected answer is fed and scored; ``text``: the model writes freely and is read.
        whole: Whether counting calls or scoring needs the items themselves.
        runs: Worker module that runs each text first, and whose output is judged instead; empty for none.
        patterns: Whether a rule may hold regular expressions: one may take exponential time, so only a worker that can be
            ended matches them.
        rule: The fields of an item's ``rule``.
    """

    name: ClassVar[str]
    mark: ClassVar[float]
    floor: ClassVar[float | None] = None
    lower: ClassVar[bool] = False
    reads: ClassVar[Literal["likelihood", "text"]] = "text"
    whole: ClassVar[bool] = False
    runs: ClassVar[str] = ""
    patterns: ClassVar[bool] = False
    rule: ClassVar[type[Struct]] = NoRule

    def asked(self, item: Item) -> Any:
        """The item's rule, an instance of ``rule``.

        Raises:
            RecordRefused: if its fields are not those of this kind.
        """
        try:
            return msgspec.convert(item.rule, self.rule, strict=True)
        except msgspec.ValidationError as error:
            raise RecordRefused(
                f"is not a rule of {self.name}: {error}",
                where=f"item {item.id}: rule",
                advice=f"A rule of {self.name} has these fields: {', '.join(self.rule.__struct_fields__) or 'none'}.",
                reason="suite.rule",
            ) from error

    def check(self, item: Item) -> None:
        """Refuse an item that this kind cannot judge.

        Raises:
            RecordRefused: naming the item and the field.
        """
        self.asked(item)

    def sequences(self, item: Item) -> tuple[str, ...]:
        """The texts that are fed and scored after the prompt; the expected answer is the first."""
        return (item.expected,)

    def chosen(self, _item: Item, _loglik: Sequence[float], _tokens: Sequence[int], *, exactly: bool) -> bool:
        """Whether the log-likelihoods (nats) of `sequences` make the answer right; kinds that read likelihoods."""
        return exactly

    def right(self, item: Item, said: object, limit: int) -> bool:
        """Whether a written answer (or what running it gave) is right; anything but the right type is wrong.

        Args:
            item: The item.
            said: What came back.
            limit: Most UTF-8 bytes an answer may have.
        """
        return exact(item.expected, said, limit)

    def score(self, answers: Answers, _items: Sequence[Item]) -> float:
        """The suite's score; share right unless a kind says otherwise."""
        return sum(1 for c in answers.correct if c is True) / len(answers.correct)


@cache
def source_sha256(module: str) -> str:
    """Digest over the source of a kind's module and of what all kinds share."""
    parts = [inspect.getsource(sys.modules[name]) for name in (__name__, module)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
