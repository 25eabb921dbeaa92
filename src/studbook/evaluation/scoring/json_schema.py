"""JSON Schema: the written answer has to be a JSON value that its item's schema allows."""

from __future__ import annotations

from msgspec import Struct

from studbook.errors import StudbookError
from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Kind
from studbook.evaluation.scoring.pattern import short_enough
from studbook.records import JsonObject, read_plain_json
from studbook.schemas import check_schema, fits

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
        check_schema(self.asked(item).schema, f"item {item.id}: rule.schema", "suite.rule")

    def right(self, item: Item, said: object, limit: int) -> bool:
        """Whether the answer is a JSON value of the schema."""
        text = short_enough(said, limit)
        if text is None:
            return False
        try:
            value = read_plain_json(text.encode(errors="replace"))
        except StudbookError:
            return False
        return fits(item.rule["schema"], value)
