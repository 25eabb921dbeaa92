"""Training rows: read strictly from slices, drawn by seed, encoded for teacher forcing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from studbook.errors import OutOfOrder, ParentsDoNotFit
from studbook.models.tokenizers import Tokenizer
from studbook.records import read_struct

__all__ = ["Batch", "Encoded", "Row", "Slices", "batches", "encode", "parse_slice", "read_slices"]


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a slice.

    Attributes:
        prompt: What the model sees.
        expected: What it is to answer.
    """

    prompt: str
    expected: str


class Encoded(NamedTuple):
    """A row as ids.

    Attributes:
        ids: Begin, prompt, answer, end.
        start: Index of the first id of the answer.
    """

    ids: tuple[int, ...]
    start: int


Batch = tuple[Encoded, ...]


class Slices(NamedTuple):
    """All that a run may learn from.

    Attributes:
        own: One tuple of rows for every slice that is trained on.
        rehearsed: The same for slices that keep other skills alive.
    """

    own: tuple[tuple[Encoded, ...], ...]
    rehearsed: tuple[tuple[Encoded, ...], ...]


def parse_slice(data: bytes, where: object = "") -> tuple[Row, ...]:
    """Every row of a slice in JSON lines.

    Raises:
        RecordRefused: if a line is not a canonical row.
        OutOfOrder: if there is none; ``training.empty``.
    """
    lines = [line for line in data.split(b"\n") if line]
    if not lines:
        raise OutOfOrder(
            "a training slice has no rows", where=where, advice="Use a slice with rows.", reason="training.empty"
        )
    return tuple(read_struct(line, Row, f"{where}: line {n}") for n, line in enumerate(lines, 1))


def encode(rows: Sequence[Row], tokenizer: Tokenizer, context: int, where: object = "") -> tuple[Encoded, ...]:
    """Rows as ids, each at most ``context`` + 1 long: the last id is only ever a target.

    Raises:
        ParentsDoNotFit: if a row is longer than the model's context; ``training.context``.
    """
    found = []
    for number, row in enumerate(rows, 1):
        prompt = tokenizer.encode(row.prompt, bos=True, eos=False)
        ids = (*prompt, *tokenizer.encode(row.expected, bos=False, eos=True))
        if len(ids) > context + 1:
            raise ParentsDoNotFit(
                f"{len(ids)} ids; the model's context holds {context}",
                where=f"{where}: line {number}",
                advice="Leave longer rows out of the slice.",
                reason="training.context",
            )
        found.append(Encoded(ids, len(prompt)))
    return tuple(found)


def batches(slices: Slices, *, steps: int, batch: int, rehearsal: float, seed: int) -> tuple[Batch, ...]:
    """Every batch of a run, drawn with replacement; they depend on nothing but the arguments.

    A row comes from the rehearsed slices with probability ``rehearsal``, where there are any; then a slice and a row of
    it are drawn uniformly. The draws use the one method whose sequence Python promises to keep.
    """
    name = hashlib.sha256(f"training/{seed}".encode()).digest()
    draw = random.Random(int.from_bytes(name[:8], "big")).random

    def row() -> Encoded:
        pools = slices.rehearsed if slices.rehearsed and draw() < rehearsal else slices.own
        pool = pools[int(draw() * len(pools))]
        return pool[int(draw() * len(pool))]

    return tuple(tuple(row() for _ in range(batch)) for _ in range(steps))


def read_slices(
    files: Mapping[str, bytes], own: Sequence[str], rehearsed: Sequence[str], tokenizer: Tokenizer, context: int
) -> Slices:
    """Slices by digest, checked against it, parsed and encoded.

    Raises:
        OutOfOrder: if a slice's bytes are not among the files, or it is empty.
        RecordRefused: if a line is not a canonical row.
        ParentsDoNotFit: if a row is too long for the model.
    """

    def one(digest: str) -> tuple[Encoded, ...]:
        if digest not in files or hashlib.sha256(files[digest]).hexdigest() != digest:
            raise OutOfOrder("the bytes of a training slice are not here", where=digest, reason="training.slice")
        return encode(parse_slice(files[digest], f"slice {digest[:12]}"), tokenizer, context, f"slice {digest[:12]}")

    return Slices(tuple(map(one, own)), tuple(map(one, rehearsed)))
