"""A number: the written answer has to lie within a tolerance of the expected one."""

from __future__ import annotations

import math
import re
from typing import Annotated

from msgspec import Meta, Struct

from studbook.errors import RecordRefused
from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Kind
from studbook.evaluation.scoring.pattern import short_enough

__all__ = ["Numeric", "Tolerance"]

_NUMBER = re.compile(r"[-+]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][-+]?[0-9]{1,3})?", re.ASCII)


class Tolerance(Struct, frozen=True, forbid_unknown_fields=True):
    """How near an answer has to come.

    Attributes:
        absolute: Allowed distance.
        relative: Allowed distance as a share of the expected number's size; the larger of the two counts.
    """

    absolute: Annotated[float, Meta(ge=0.0, le=1e12)]
    relative: Annotated[float, Meta(ge=0.0, le=1.0)]


def _number(text: str) -> float | None:
    """The finite number that a text is from end to end, white space around it aside."""
    stripped = text.strip()
    value = float(stripped) if _NUMBER.fullmatch(stripped) else math.nan
    return value if math.isfinite(value) else None


class Numeric(Kind):
    """Share of answers with |answer - expected| <= max(absolute, relative * |expected|); words are wrong, not zero."""

    name = "numeric"
    mark = 0.25
    floor = 0.25
    rule = Tolerance

    def check(self, item: Item) -> None:
        """Refuse an item whose expected answer is no number."""
        self.asked(item)
        if _number(item.expected) is None:
            raise RecordRefused(
                f"{item.expected!r} is not a finite decimal number",
                where=f"item {item.id}: expected",
                advice="Write the number in digits, such as -1.5 or 2e3.",
                reason="suite.rule",
            )

    def right(self, item: Item, said: object, limit: int) -> bool:
        """Whether the answer is a number near enough."""
        text, wanted = short_enough(said, limit), _number(item.expected)
        found = _number(text) if text is not None else None
        if found is None or wanted is None:
            return False
        allowed = max(float(item.rule["absolute"]), float(item.rule["relative"]) * abs(wanted))
        return abs(found - wanted) <= allowed
