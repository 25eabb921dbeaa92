"""The magnitude cuts of several models' differences from one base, found together in about one reading.

What `studbook.tensors.selection.top_k` finds model by model in three readings. Differences are counted by the upper 16
bits of their magnitude while those of each bucket's lower 15 bits that are set anywhere are collected: differences of
16-bit models mostly leave them all zero, and then the bucket of the cut is one magnitude and no second count is needed.
Counts kept at a few places on the way say where the last tie lies, so that only that stretch is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError
from studbook.tensors.kernels import COMPILED, differences
from studbook.tensors.kernels_counting import count_high, count_low
from studbook.tensors.selection import Cut, bucket_of, find_equal, top_k
from studbook.tensors.sources import TensorSource
from studbook.tensors.stacks import Room, read_stack

__all__ = ["delta_cuts"]

STEP = 1 << 16
# Counts kept on the way, over all models: 0.5 MB each.
MARKS = 16
_LOW_BITS = 15


@dataclass
class _Search:
    """One model's cut in the making.

    Attributes:
        source: The model.
        wanted: Rank of the element looked for, among the elements counted.
        bits: What is known of its magnitude; exact once ``done``.
        done: Whether it is.
        counts: i64, by bucket.
        marks: Copies of ``counts``, one after each stretch.
    """

    source: TensorSource
    wanted: int
    bits: int = 0
    done: bool = False
    bucket: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    marks: list[NDArray[np.int64]] = field(default_factory=list)


def delta_cuts(base: TensorSource, parents: Sequence[TensorSource], name: str, k: int) -> tuple[Cut, ...]:
    """The cut that keeps the k largest |parent - base| of one tensor, for each parent.

    Args:
        base: The base.
        parents: Models of the same shapes.
        name: The tensor.
        k: How many elements to keep.

    Raises:
        UsageError: unless 0 <= k <= its size, or if the elements change while they are read.
    """
    size = base.size(name)
    if not COMPILED or not 0 < k < size:
        return tuple(_plain_cut(base, parent, name, k) for parent in parents)
    found = tuple(_Search(parent, k) for parent in parents)
    stretch = -(-size // max(1, MARKS // len(found)) // STEP) * STEP
    _count_high(base, found, name, stretch)
    if rest := tuple(search for search in found if not search.done):
        _count_low(base, rest, name, stretch)
    return tuple(Cut(search.bits, _last_tie(base, search, name, stretch)) for search in found)


def _plain_cut(base: TensorSource, parent: TensorSource, name: str, k: int) -> Cut:
    return top_k(lambda: (deltas[0] for _, deltas in _deltas(base, (parent,), name)), k, base.size(name))


def _deltas(
    base: TensorSource, parents: Sequence[TensorSource], name: str, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Index of the first element and f32 differences, shape (parents, n), piece by piece; valid until the next."""
    size = base.size(name) if stop is None else stop
    rooms, sources = (Room(), Room()), (base, *parents)
    for at in range(start, size, STEP):
        count = min(STEP, size - at)
        out = rooms[1].array(len(parents), count, np.float32)
        stack = read_stack(sources, name, at, count, rooms[0])
        if COMPILED:
            differences(stack, out)
        else:
            values = base.read(name, at, at + count)
            for parent, row in zip(parents, out, strict=True):
                np.subtract(parent.read(name, at, at + count), values, out=row)
        yield at, out


def _count_high(base: TensorSource, found: Sequence[_Search], name: str, stretch: int) -> None:
    rests = [np.zeros(1 << 16, np.uint32) for _ in found]
    for at, deltas in _deltas(base, [s.source for s in found], name):
        for search, rest, row in zip(found, rests, deltas, strict=True):
            if at % stretch == 0 and at:
                search.marks.append(search.counts.copy())
            count_high(row.view(np.uint32), _LOW_BITS, search.counts, rest)
    for search, rest in zip(found, rests, strict=True):
        search.bucket, search.wanted = bucket_of(search.counts, search.wanted)
        search.bits, search.done = search.bucket << _LOW_BITS, not rest[search.bucket]


def _count_low(base: TensorSource, found: Sequence[_Search], name: str, stretch: int) -> None:
    for search in found:
        search.counts, search.marks = np.zeros(1 << _LOW_BITS, np.int64), []
    for at, deltas in _deltas(base, [s.source for s in found], name):
        for search, row in zip(found, deltas, strict=True):
            if at % stretch == 0 and at:
                search.marks.append(search.counts.copy())
            count_low(row.view(np.uint32), search.bucket, _LOW_BITS, search.counts)
    for search in found:
        if search.wanted > int(search.counts.sum()):
            raise _changed()
        search.bucket, search.wanted = bucket_of(search.counts, search.wanted)
        search.bits |= search.bucket


def _last_tie(base: TensorSource, search: _Search, name: str, stretch: int) -> int:
    """Index of the wanted-th element whose magnitude is the cut."""
    before, start = 0, 0
    for mark in search.marks:
        if int(mark[search.bucket]) >= search.wanted:
            break
        before, start = int(mark[search.bucket]), start + stretch
    wanted = search.wanted - before
    for at, deltas in _deltas(base, (search.source,), name, start):
        place, seen = find_equal(deltas[0], search.bits, wanted)
        if place >= 0:
            return at + place
        wanted -= seen
    raise _changed()


def _changed() -> UsageError:
    return UsageError("the elements changed while the largest were counted", reason="selection.changed")
