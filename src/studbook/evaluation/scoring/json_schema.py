"""JSON Schema: the written answer has to be a JSON value that its item's schema allows."""

from __future__ import annotations

import re

import jsonschema
import referencing
from msgspec import Struct

from studbook.errors import RecordRefused, StudbookError
from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Kind
from studbook.evaluation.scoring.pattern import short_enough
from studbook.records import JsonObject, read_plain_json

__all__ = ["JsonSchema", "Schema"]


class Schema(Struct, frozen=True, forbid_unknown_fields=True):
    """What an answer has to fit.

    Attributes:
        schema: A JSON Schema, draft 2020-12; a reference may point inside it only.
    """

    schema: JsonObject


class JsonSchema(Kind):
    """Share of written answers that are JSON without duplicate keys and valid under their item's schema.

    Source: JSON Schema draft 2020-12, by the library jsonschema. Formats are not asserted.
    """

    name = "json-schema"
    mark = 0.25
    floor = 0.25
    patterns = True
    rule = Schema

    def check(self, item: Item) -> None:
        """Refuse an item whose schema is none.

        Raises:
            RecordRefused: if the schema is none.
        """
        schema = self.asked(item).schema
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
            _check_within(schema)
            _fits(schema, None)
        except (jsonschema.exceptions.SchemaError, *_broken()) as error:
            raise RecordRefused(
                f"is not a JSON Schema: {getattr(error, 'message', '') or error}",
                where=f"item {item.id}: rule.schema",
                advice="Mend the schema; the draft is 2020-12, and references point inside it.",
                reason="suite.rule",
            ) from error

    def right(self, item: Item, said: object, limit: int) -> bool:
        """Whether the answer is a JSON value of the schema."""
        text = short_enough(said, limit)
        if text is None:
            return False
        try:
            value = read_plain_json(text.encode(errors="replace"))
        except StudbookError:
            return False
        try:
            return _fits(item.rule["schema"], value)
        except _broken():
            # A rule that only some answers reach; it lets none of them pass.
            return False


def _fits(schema: JsonObject, value: object) -> bool:
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
