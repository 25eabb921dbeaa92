"""The magnitude cuts of several models' differences from one base, found together in one reading.

What `studbook.tensors.selection.top_k` finds model by model in three readings. A sample brackets each cut; one pass then
counts the differences above the bracket and holds those inside, a few in a hundred, among which the cut is found. The
counts prove it: where the cut is not inside, or more lie inside than there is room for, `top_k` does the work. So the
result is exact whatever the sample was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from threading import local

import numpy as np
from numpy.typing import NDArray

from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import differences
from studbook.tensors.kernels_counting import sift
from studbook.tensors.selection import Cut, magnitudes, top_k
from studbook.tensors.sources import TensorSource
from studbook.tensors.stacks import Room, read_stack

__all__ = ["delta_cuts"]

STEP = 1 << 17
# A sample is this many stretches of this many elements; a tensor that is no larger is held whole.
STRETCHES, STRETCH = 32, 1024
# Models searched at a time, and elements held for all of them: 32 MB.
TOGETHER, HELD = 4, 1 << 22
_LARGEST = 0x7FFFFFFF

Bits = NDArray[np.uint32]


class _Rooms(local):
    """The scratch memory of a thread."""

    def __init__(self) -> None:
        self.stack, self.deltas, self.bits, self.places = Room(), Room(), Room(), Room()


_ROOMS = _Rooms()


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
    found: list[Cut | None] = [None] * len(parents)
    if COMPILED and 0 < k < size < 1 << 32:
        for at in range(0, len(parents), TOGETHER):
            found[at : at + TOGETHER] = _together(base, parents[at : at + TOGETHER], name, k)
    return tuple(
        top_k(_pieces(base, parent, name), k, size) if cut is None else cut
        for parent, cut in zip(parents, found, strict=True)
    )


def _pieces(base: TensorSource, parent: TensorSource, name: str) -> Callable[[], Iterator[NDArray[np.float32]]]:
    size = base.size(name)
    return lambda: (_deltas(base, (parent,), name, at, min(at + STEP, size))[0] for at in range(0, size, STEP))


def _deltas(
    base: TensorSource, parents: Sequence[TensorSource], name: str, start: int, stop: int
) -> NDArray[np.float32]:
    """Differences of the elements start..stop-1: f32, shape (parents, n), until the next call in this thread."""
    out = _ROOMS.deltas.array(len(parents), stop - start, np.float32)
    if COMPILED:
        read_stack((base, *parents), name, start, stop - start, _ROOMS.stack).feed(differences, out)
        return out
    values = base.read(name, start, stop)
    for parent, row in zip(parents, out, strict=True):
        np.subtract(parent.read(name, start, stop), values, out=row)
    return out


def _together(base: TensorSource, parents: Sequence[TensorSource], name: str, k: int) -> list[Cut | None]:
    """Cuts found in one reading; None where the sample or the room did not do."""
    size = base.size(name)
    brackets = _brackets(base, parents, name, k)
    room = min(size, HELD // len(parents))
    bits = _ROOMS.bits.array(len(parents), room, np.uint32)
    places = _ROOMS.places.array(len(parents), room, np.uint32)
    above, inside = [0] * len(parents), [0] * len(parents)
    for at in range(0, size, STEP):
        deltas = _deltas(base, parents, name, at, min(at + STEP, size))
        for i, (low, high) in enumerate(brackets):
            if inside[i] <= room:
                found = deltas[i].view(np.uint32)
                more, inside[i] = sift(found, at, np.uint32(low), np.uint32(high), bits[i], places[i], inside[i])
                above[i] += int(more)
    return [
        _cut_inside(bits[i, : inside[i]], places[i, : inside[i]], k - above[i])
        if 0 < k - above[i] <= inside[i] <= room
        else None
        for i in range(len(parents))
    ]


def _cut_inside(bits: Bits, places: Bits, rank: int) -> Cut:
    """The cut at the rank-th largest (from 1) of the magnitudes held, in the order of their places."""
    if rank == bits.size:
        smallest = int(bits.min())
        return Cut(smallest, int(places[np.flatnonzero(bits == smallest)[-1]]))
    cut = top_k(lambda: (bits.view(np.float32),), rank, bits.size)
    return Cut(cut.bits, int(places[cut.last_index]))


def _brackets(base: TensorSource, parents: Sequence[TensorSource], name: str, k: int) -> list[tuple[int, int]]:
    """Smallest and largest magnitude, as bits, between which each cut is likely to lie."""
    size, wanted = base.size(name), STRETCHES * STRETCH
    if size <= wanted:
        return [(0, _LARGEST)] * len(parents)
    starts = [(size - STRETCH) * i // (STRETCHES - 1) for i in range(STRETCHES)]
    sample = np.concatenate([magnitudes(_deltas(base, parents, name, s, s + STRETCH)) for s in starts], axis=1)
    sample.sort(axis=1)
    share = k / size
    # Six standard deviations of the rank, as neighbours resemble each other.
    margin = 6.0 * math.sqrt(wanted * share * (1.0 - share)) + 2.0
    low, high = math.floor(wanted * (1.0 - share) - margin), math.ceil(wanted * (1.0 - share) + margin)
    return [(int(row[low]) if low >= 0 else 0, int(row[high]) if high < wanted else _LARGEST) for row in sample]
