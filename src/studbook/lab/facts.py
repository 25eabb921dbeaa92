"""What a record says, field by field, held against what was found."""

from __future__ import annotations

from collections.abc import Mapping

from studbook.errors import DigestDiffers

__all__ = ["Facts", "require"]

Facts = Mapping[str, tuple[object, object]]
"""Field -> what a record says there, and what was found."""


def require(what: str, facts: Facts, reason: str) -> None:
    """Refuse a record of which a field says something else than what it cites.

    Args:
        what: What the record is, for errors.
        facts: Field -> what it says and what was found.
        reason: The code of the refusal.

    Raises:
        DigestDiffers: naming the first such field.
    """
    for field, (stated, found) in facts.items():
        if stated != found:
            raise DigestDiffers(
                f"{field} is {_brief(stated)} in the record, and {_brief(found)} by what it cites",
                where=f"{what}: {field}",
                advice="The record does not speak of what is stored here. Do not use what it describes.",
                reason=reason,
            )


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
