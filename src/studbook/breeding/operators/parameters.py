"""The vocabulary of operator parameters: types that carry their range, and the check that holds a record to it.

A range is stated once, in the type. The check here, the JSON Schema and the generated documentation all read it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import Meta

from studbook.errors import OutsideAllowlist

__all__ = [
    "MAX_PARENTS",
    "Keep",
    "Pattern",
    "Scale",
    "Seed",
    "Share",
    "VoteWeight",
    "check_ranges",
    "matches",
    "range_of",
]

MAX_PARENTS = 16


def _between(low: float, high: float, description: str) -> Meta:
    # Kept out of Meta's own ge/le: those would let NaN pass, and would be a lie in the bytes instead of a refusal.
    schema = {"minimum": low, "maximum": high}
    return Meta(description=description, extra={"low": low, "high": high}, extra_json_schema=schema)


Scale = Annotated[float, _between(-4.0, 4.0, "factor on a difference from the base")]
VoteWeight = Annotated[float, _between(0.001, 1000.0, "relative weight of a parent's vote")]
Share = Annotated[float, _between(0.0, 1.0, "share of the elements")]
Keep = Annotated[float, _between(0.001, 1.0, "probability of keeping an element")]
Seed = Annotated[int, _between(0, 2**53 - 1, "seed of the random stream")]
Pattern = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,120}\Z", description="glob over tensor names")]


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a tensor's name matches one of the globs (``*``, ``?``, ``[...]``; case counts, ``*`` spans dots)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_ranges(record: Any) -> None:
    """Hold every number of an operator record to the range its type states.

    Raises:
        OutsideAllowlist: naming the first field, and its position in a list, that is not finite or out of range.
    """
    for field in record.__struct_fields__:
        bounds = range_of(type(record), field)
        for place, value in _numbers(field, getattr(record, field)):
            low, high = bounds if bounds else (-math.inf, math.inf)
            if not (math.isfinite(value) and low <= value <= high):
                raise OutsideAllowlist(
                    f"{value!r} is outside {low:.16g}..{high:.16g}",
                    where=f"{record.__struct_config__.tag}: {place}",
                    advice="Correct the operator record; the range is a limit of the operator, not of the policy.",
                    reason="operator.range",
                )


def range_of(kind: type, field: str) -> tuple[float, float] | None:
    """Lowest and highest value of one field of an operator class; None where the type states no range."""
    hint = get_type_hints(kind, include_extras=True)[field]
    while True:
        for meta in getattr(hint, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.extra:
                return meta.extra["low"], meta.extra["high"]
        if get_origin(hint) not in (Annotated, tuple):
            return None
        hint = get_args(hint)[0]


def _numbers(field: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float):
        yield field, value
    elif isinstance(value, tuple):
        for place, element in enumerate(value):
            yield from _numbers(f"{field}[{place}]", element)
