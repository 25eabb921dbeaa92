"""Words that people give: names and sentences that can be printed, recorded and spoken of anywhere."""

from __future__ import annotations

import re

from studbook.errors import UsageError, printable

__all__ = ["plain_name", "plain_sentence", "plain_text"]


def plain_name(text: str, where: str) -> str:
    """A name of letters, digits and ``._+/-``, as people and policies have.

    Raises:
        UsageError: if it is anything else.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,119}", text) or ".." in text:
        advice = "Use letters, digits and . _ + / - only, beginning with a letter or digit, such as ada-lovelace."
        raise UsageError(f"{printable(text)!r} is not a plain name", where=where, advice=advice, reason="usage.name")
    return text


def plain_text(text: str, where: str) -> str:
    """One line without control characters.

    Raises:
        UsageError: if it is not, or is longer than 1,000 characters.
    """
    if len(text) > 1000 or printable(text) != text:
        told = "is longer than 1,000 characters, or holds control characters"
        advice = "Write one line of at most 1,000 characters that can be printed."
        raise UsageError(told, where=where, advice=advice, reason="usage.text")
    return text


def plain_sentence(text: str, where: str) -> str:
    """The same, of something that has to be said.

    Raises:
        UsageError: if it is empty, or no `plain_text`.
    """
    if not text.strip():
        raise UsageError("says nothing", where=where, advice="Write it in a sentence.", reason="usage.text")
    return plain_text(text, where)
