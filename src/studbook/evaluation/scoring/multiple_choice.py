"""Multiple choice: the expected answer is likelier than every other choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from studbook.errors import RecordRefused
from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Kind

__all__ = ["Choices", "MultipleChoice"]


class Choices(Struct, frozen=True, forbid_unknown_fields=True):
    """What an item offers.

    Attributes:
        choices: Every choice, the expected one among them.
        by: What a log-likelihood is divided by: ``raw`` nothing, ``token`` its tokens, ``byte`` its UTF-8 bytes.
    """

    choices: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=4000)], ...], Meta(min_length=2, max_length=64)
    ]
    by: Literal["raw", "token", "byte"]


class MultipleChoice(Kind):
    """Share of items whose expected choice has the strictly largest log-likelihood; a tie is wrong.

    Dividing by length keeps short choices from winning for being short. Source: Brown et al. 2020, 2005.14165, section 2.4.
    """

    name = "multiple-choice"
    mark = 0.5
    reads = "likelihood"
    whole = True
    rule = Choices

    def check(self, item: Item) -> None:
        """Refuse an item whose expected answer is not one of its choices, or whose choices are not distinct."""
        choices = self.asked(item).choices
        if item.expected not in choices or len(set(choices)) != len(choices):
            raise RecordRefused(
                "the choices are not distinct, or the expected answer is none of them",
                where=f"item {item.id}: rule.choices",
                advice="Name every choice once, the expected answer among them.",
                reason="suite.rule",
            )

    def sequences(self, item: Item) -> tuple[str, ...]:
        """The expected choice, then the others in their order."""
        return (item.expected, *(c for c in item.rule["choices"] if c != item.expected))

    def chosen(self, item: Item, loglik: Sequence[float], tokens: Sequence[int], *, exactly: bool) -> bool:
        """Whether the first sequence beats every other one by the item's measure."""
        del exactly
        by = item.rule["by"]
        lengths = {"raw": [1] * len(loglik), "token": list(tokens)}
        divisors = lengths.get(by) or [len(text.encode()) for text in self.sequences(item)]
        first, *others = (value / divisor for value, divisor in zip(loglik, divisors, strict=True))
        return all(first > other for other in others)
