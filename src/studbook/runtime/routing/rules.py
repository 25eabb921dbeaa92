"""The rule router: plain texts at plain places, asked in order; no pattern language ever meets a foreign text."""

from __future__ import annotations

from collections.abc import Sequence

from studbook.errors import UsageError
from studbook.records import RouteRule

__all__ = ["MAX_RULES", "MAX_TEXT", "REACH", "check_rules", "first_rule"]

MAX_RULES = 256
"""Most rules of one router."""
MAX_TEXT = 64
"""Longest text of a rule, in characters."""
REACH = 4096
"""Most characters of a prompt that rules look at, from its beginning."""


def check_rules(rules: Sequence[RouteRule]) -> None:
    """Refuse rules that could not be asked in a bounded time.

    Raises:
        UsageError: if there are too many, or one is too long; ``route.rules``.
    """
    if len(rules) > MAX_RULES:
        text = f"{len(rules)} rules; at most {MAX_RULES}"
        raise UsageError(text, reason="route.rules", advice="Let the n-grams decide what rules do not.")
    for number, rule in enumerate(rules):
        if len(rule.text) > MAX_TEXT:
            text = f"{len(rule.text)} characters; at most {MAX_TEXT}"
            raise UsageError(text, where=f"rule {number}", reason="route.rules", advice="Look for a shorter text.")


def first_rule(rules: Sequence[RouteRule], prompt: str) -> int | None:
    """Index of the first rule that holds, or None.

    Args:
        rules: Asked in order.
        prompt: Its first `REACH` characters are looked at.
    """
    seen = prompt[:REACH]
    for number, rule in enumerate(rules):
        if rule.place == "start":
            held = seen.startswith(rule.text)
        elif rule.place == "anywhere":
            held = rule.text in seen
        else:
            held = _as_word(rule.text, seen)
        if held:
            return number
    return None


def _as_word(word: str, text: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not (at and text[at - 1].isalnum()) and not text[end : end + 1].isalnum():
            return True
        at = text.find(word, at + 1)
    return False
