"""Whether what one package writes may be what another one reads, told from their schemas alone, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from studbook.records import JsonObject

__all__ = ["TEXT", "feeds"]

TEXT: JsonObject = {"type": "string"}
"""Any text."""

_WORDS = frozenset({"$comment", "$id", "$schema", "default", "description", "examples", "title"})


def feeds(output: JsonObject, into: JsonObject) -> str:
    """Why what one schema allows need not be allowed by another; empty where it always is.

    Every rule of the reader has to follow from the same rule of the writer. That is sound and not complete: schemas that
    say the same in other words are refused.

    Args:
        output: Schema of what is written.
        into: Schema of what is read.
    """
    if output == into:
        return ""
    for rule, wanted in sorted(into.items()):
        if rule in _WORDS:
            continue
        if rule not in output:
            return f"nothing is said of {rule}, and {wanted!r} is asked"
        if not _STRICTER.get(rule, _same)(output[rule], wanted):
            return f"{rule} is {output[rule]!r}, and {wanted!r} is asked"
    return ""


def _same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _within(found: Any, wanted: Any) -> bool:
    return all(one in _listed(wanted) for one in _listed(found))


def _at_most(found: Any, wanted: Any) -> bool:
    return bool(found <= wanted)


def _at_least(found: Any, wanted: Any) -> bool:
    return bool(found >= wanted)


_STRICTER: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": _within,
    "enum": _within,
    "maxLength": _at_most,
    "minLength": _at_least,
    "maximum": _at_most,
    "minimum": _at_least,
}
