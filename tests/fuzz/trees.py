"""Changes of JSON that stay JSON: chance alone hardly ever gets past the first bracket of a strict reader."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from studbook.errors import StudbookError
from studbook.records import canonical

__all__ = ["LONGEST", "mutated"]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 255, 2**31, 2**53, 2**63, 2**64, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf"),
    "", "a", "\ud800", "\x1b[31m", "\u202e", "../x", "0" * 64, "a" * 64, "2030-02-31", "\u0663" * 4, "x" * 5000,
    [], {}, [[]], [None], [0] * 50, {"a": {"a": 1}}, {"": ""}, ["a b", "c"], [["a", "b"]],
)  # fmt: skip
# An input longer than this, in bytes, is not changed any further.
LONGEST = 16_384


def mutated(data: bytes, skip: int, random: Random) -> bytes:
    """The input with one to three changes of the JSON that begins at byte ``skip``; as it is if that is no JSON."""
    try:
        value = json.loads(data[skip:])
    except (ValueError, RecursionError):
        return data
    written = data[skip:]
    for _ in range(random.randint(1, 3)):
        if len(written) > LONGEST:  # lists that are repeated within each other would take all memory there is
            break
        value = _changed(value, random)
        written = _written(value, random)
    return data[:skip] + written


def _written(value: Any, random: Random) -> bytes:
    if random.random() < 0.7:
        try:
            return canonical(value)
        except StudbookError:
            pass
    try:
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return b"null"
    if random.random() < 0.1:  # a key that stands twice
        text = text.replace("{", '{"a":1,"a":1,', 1)
    return text.encode("utf-8", "surrogatepass")


def _changed(value: Any, random: Random) -> Any:
    if random.random() < 0.25 or not value or not isinstance(value, dict | list):
        return _other(value, random)
    if isinstance(value, list):
        at = random.randrange(len(value))
        rest = value[:at] + value[at + 1 :]
        return random.choice(
            ([*value[:at], _changed(value[at], random), *value[at + 1 :]], rest, [*value, value[at]], value * 20)
        )
    key = random.choice(list(value))
    kind = random.randrange(8)
    if kind == 0:
        return {k: v for k, v in value.items() if k != key}
    if kind == 1:
        return {**value, random.choice(("", "kind", "x", "\u00e4", "a" * 300, key + "x")): value[key]}
    return {**value, key: _changed(value[key], random)}


def _other(value: Any, random: Random) -> Any:
    kind = random.randrange(5)
    if kind == 0 and isinstance(value, str):
        return value[:-1] + random.choice(("", "\x00", "\u00e4", "Z", value))
    if kind == 1 and isinstance(value, int | float):
        return random.choice((value + 1, -value, value * 2, str(value)))
    if kind == 2:
        for _ in range(random.choice((1, 3, 40))):
            value = [value] if random.random() < 0.5 else {"a": value}
        return value
    return random.choice(VALUES)
