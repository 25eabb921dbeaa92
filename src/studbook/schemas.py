"""JSON Schema, draft 2020-12, closed in itself: references point inside, patterns are patterns, nothing is fetched.

Formats are not asserted. By the library jsonschema.
"""

from __future__ import annotations

import re

import jsonschema
import referencing

from studbook.errors import RecordRefused
from studbook.records import JsonObject

__all__ = ["check_schema", "fits"]


def check_schema(schema: JsonObject, where: object, reason: str = "schema.form") -> None:
    """Refuse a schema that is none.

    Args:
        schema: The schema.
        where: What to call it in errors.
        reason: Code of the refusal.

    Raises:
        RecordRefused: if it is none, points outside itself, or holds a pattern that is none.
    """
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        _check_within(schema)
        _valid(schema, None)
    except (jsonschema.exceptions.SchemaError, *_broken()) as error:
        raise RecordRefused(
            f"is not a JSON Schema: {getattr(error, 'message', '') or error}",
            where=where,
            advice="Mend the schema; the draft is 2020-12, and references point inside it.",
            reason=reason,
        ) from error


def fits(schema: JsonObject, value: object) -> bool:
    """Whether a schema allows a value; a rule that only some values reach and that is broken allows none of them."""
    try:
        return _valid(schema, value)
    except _broken():
        return False


def _valid(schema: JsonObject, value: object) -> bool:
    # A registry of its own: the library's fetches what a reference names.
    return bool(jsonschema.Draft202012Validator(schema, registry=referencing.Registry()).is_valid(value))


def _broken() -> tuple[type[Exception], ...]:
    """What the library raises of a schema that no check of its form finds out."""
    return re.error, RecursionError, referencing.exceptions.Unresolvable


def _check_within(value: object) -> None:
    """Refuse references out of the schema, and patterns that are none, at whatever depth."""
    if isinstance(value, list):
        for inner in value:
            _check_within(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(inner, str) and not inner.startswith("#"):
                raise referencing.exceptions.Unresolvable(inner)
            if key == "pattern" and isinstance(inner, str):
                re.compile(inner)
            for pattern in inner if key == "patternProperties" and isinstance(inner, dict) else ():
                re.compile(pattern)
            _check_within(inner)
