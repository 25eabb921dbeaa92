"""What changed between two policies, or two roots of keys, field by field and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from studbook.records import Policy, Root

__all__ = ["PolicyChange", "record_changes"]

R = TypeVar("R", Policy, Root)
# Lists whose entries have a name of their own; the order of such a list means nothing.
_NAMED = {
    "operators": "operator",
    "licences": "spdx",
    "stages": "stage",
    "keys": "key",
    "owners.keys": "key",
    "thresholds": "kind",
}
# A key is named by so much of its 64 digits.
_SHOWN = 16


class PolicyChange(msgspec.Struct, frozen=True):
    """One difference.

    Attributes:
        field: Where, as ``budget.depth`` or ``operators.blend/1.bounds.weights``; a key by its first 16 digits.
        what: In words: what it was, and what it is.
    """

    field: str
    what: str


def record_changes(before: R, after: R) -> tuple[PolicyChange, ...]:
    """Every difference between two policies or two roots, in the order of the fields; who wrote them does not count."""
    old, new = (msgspec.to_builtins(record) for record in (before, after))
    found: list[PolicyChange] = []
    for field in old:
        if field not in ("kind", "header"):
            found += _changed(field, old[field], new[field])
    return tuple(found)


def _by_name(field: str, value: Any) -> Any:
    """A list of named entries as a mapping; anything else as it is."""
    name = _NAMED.get(field)
    return {entry[name]: {k: v for k, v in entry.items() if k != name} for entry in value} if name else value


def _changed(field: str, old: Any, new: Any) -> Iterator[PolicyChange]:
    old, new = _by_name(field, old), _by_name(field, new)
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            place = f"{field}.{key[:_SHOWN] if field.endswith('keys') else key}"
            if key not in new:
                yield PolicyChange(place, f"was {_words(old[key])}, is gone")
            elif key not in old:
                yield PolicyChange(place, f"is new: {_words(new[key])}")
            else:
                yield from _changed(place, old[key], new[key])
    elif _is_list(old) and _is_list(new) and ".bounds." not in field:
        yield from _rows(field, old, new)
    else:
        yield PolicyChange(field, f"was {_words(old)}, is {_words(new)}")


def _rows(field: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[PolicyChange]:
    gone, come = [row for row in old if row not in new], [row for row in new if row not in old]
    yield from (PolicyChange(field, f"no longer has {_words(row)}") for row in gone)
    yield from (PolicyChange(field, f"has {_words(row)} now") for row in come)
    if not gone and not come:
        yield PolicyChange(field, f"has another order: {', '.join(_words(row) for row in new)}")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _words(value: Any) -> str:
    if _is_list(value) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return f"{value[0]:g}..{value[1]:g}"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
