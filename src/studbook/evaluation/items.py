"""Items: one question a line, with what its kind of scorer needs beside the right answer."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from studbook.errors import BytesLie
from studbook.records import JsonObject, read_struct
from studbook.records.base import Name

__all__ = ["Item", "Prompt", "items_sha256", "known_items", "parse_items"]

# A text of records, and line feeds and tabs beside: a model reads them, and canonical JSON writes them as two characters.
Prompt = Annotated[
    str,
    Meta(max_length=4000, pattern=r"\A[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z"),
]


class Item(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One question.

    Attributes:
        id: Unique within the suite.
        cluster: The skill it asks for; in a bias suite the group it belongs to.
        prompt: What the model sees; line feeds and tabs may stand in it.
        expected: A right answer, without the end marker; the one that the oracle gives.
        perturbation: Family of the perturbation, ``none`` when clean.
        rule: What the scorer asks of an answer beside that, in the fields of its kind; left out where it asks nothing.
    """

    id: Name
    cluster: Name
    prompt: Prompt
    expected: Annotated[str, Meta(min_length=1, max_length=4000)]
    perturbation: Name
    rule: JsonObject = field(default_factory=dict)


_ITEMS = msgspec.json.Decoder(Item, strict=True)


def items_sha256(data: bytes) -> str:
    """Digest of an items file."""
    return hashlib.sha256(data).hexdigest()


def parse_items(data: bytes, where: object = "") -> tuple[Item, ...]:
    """Every item of an items file, in order.

    Raises:
        BytesLie: if there is none, the last line is cut, or two share an id.
        RecordRefused: if a line is not a canonical item.
    """
    if not data.endswith(b"\n"):
        raise BytesLie("holds no items, or its last line has no end", where=where, reason="suite.items")
    lines = data[:-1].split(b"\n")
    items = tuple(read_struct(line, Item, f"{where}: line {n}") for n, line in enumerate(lines, 1))
    if len({item.id for item in items}) != len(items):
        raise BytesLie("two items share an id", where=where, reason="suite.duplicate")
    return items


def known_items(data: bytes, where: object = "") -> tuple[Item, ...]:
    """Every item of an items file that was checked line by line when its suite was frozen.

    Raises:
        BytesLie: if a line is not an item.
    """
    try:
        return tuple(_ITEMS.decode_lines(data))
    except msgspec.DecodeError as error:
        raise BytesLie(f"is not the items file that was frozen: {error}", where=where) from error
