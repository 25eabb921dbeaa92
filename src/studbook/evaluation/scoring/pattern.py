"""A pattern: the written answer has to match a regular expression as a whole."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from studbook.errors import RecordRefused
from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Kind

__all__ = ["Pattern", "Regex", "compiled", "short_enough"]


class Pattern(Struct, frozen=True, forbid_unknown_fields=True):
    """What an answer has to look like.

    Attributes:
        pattern: Regular expression (Python's ``re``) for the whole answer.
    """

    pattern: Annotated[str, Meta(min_length=1, max_length=2000)]


def short_enough(said: object, limit: int) -> str | None:
    """The answer if it is a text of at most ``limit`` UTF-8 bytes, else None."""
    return said if isinstance(said, str) and len(said.encode(errors="replace")) <= limit else None


def compiled(pattern: str, item: Item) -> re.Pattern[str]:
    """The expression of an item.

    Raises:
        RecordRefused: if it is none.
    """
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RecordRefused(
            f"is not a regular expression: {error}",
            where=f"item {item.id}: rule.pattern",
            advice="Mend it; the syntax is that of Python's re.",
            reason="suite.rule",
        ) from error


class Regex(Kind):
    """Share of written answers that match their item's pattern from beginning to end.

    An expression that takes exponential time ends the worker at its limit, and the suite is an error.
    """

    name = "regex"
    mark = 0.25
    floor = 0.25
    patterns = True
    rule = Pattern

    def check(self, item: Item) -> None:
        """Refuse an item whose pattern is none."""
        compiled(self.asked(item).pattern, item)

    def right(self, item: Item, said: object, limit: int) -> bool:
        """Whether the whole answer matches."""
        text = short_enough(said, limit)
        return text is not None and re.fullmatch(item.rule["pattern"], text) is not None
