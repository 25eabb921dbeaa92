"""Items: one question a line, with what its kind of scorer needs beside the right answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from studbook.errors import BytesLie, RecordRefused
from studbook.records import JsonObject, read_struct
from studbook.records.base import Name

__all__ = ["Item", "Prompt", "items_sha256", "known_items", "parse_items", "read_line"]

S = TypeVar("S", bound=Struct)

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


def read_line(line: bytes, kind: type[S], where: object) -> S:
    """One line of a file that people write: one canonical JSON object.

    Args:
        line: The line, without its line feed.
        kind: What it holds.
        where: File and line, for errors.

    Raises:
        RecordRefused: as `studbook.records.read_struct`, with advice for whoever wrote it.
    """
    try:
        return read_struct(line, kind, where)
    except RecordRefused as error:
        keys = ", ".join(sorted(kind.__struct_fields__))
        error.advice = (
            f"Mend the line: one JSON object with its keys in alphabetical order ({keys}), no white space between them, "
            "and a line feed alone at its end. `jq -cS . FILE` writes lines so."
        )
        raise


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
        advice = "Write one item a line, each with a line feed at its end."
        raise BytesLie("holds no items, or its last line has no end", where=where, advice=advice, reason="suite.items")
    lines = data[:-1].split(b"\n")
    items = tuple(read_line(line, Item, f"{where}: line {n}") for n, line in enumerate(lines, 1))
    if twice := [name for name, count in Counter(item.id for item in items).items() if count > 1]:
        advice = "Give every item an id of its own."
        raise BytesLie(f"two items share the id {twice[0]}", where=where, advice=advice, reason="suite.duplicate")
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
