"""Exactly the k largest magnitudes, found once and then applied to any range of elements.

Magnitudes are ordered by the bits of |x| (the same order as the numbers for finite f32; -0.0 equals +0.0). Of equal
magnitudes those with the lowest index are kept, so k means k. Two counting passes over 16 and 15 bits find the
threshold, a third finds the last tie that is kept; all of it is integer work, so chunks and threads cannot show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels_counting import count_high, count_low, nth_equal

__all__ = [
    "Chunks",
    "Cut",
    "RowCuts",
    "count_of",
    "cut_of",
    "magnitudes",
    "mask",
    "row_cuts",
    "row_mask",
    "top_k",
]

Chunks = Callable[[], Iterable[NDArray[np.float32]]]

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LOW_BITS = 15
_ALL_ONES = 0xFFFFFFFF
_SLAB = 1 << 20


@dataclass(frozen=True)
class Cut:
    """Where the kept magnitudes end.

    Attributes:
        bits: Threshold, the bits of a magnitude (u32); larger ones are kept.
        last_index: Of the elements equal to the threshold, those up to this index are kept.
    """

    bits: int
    last_index: int


@dataclass(frozen=True)
class RowCuts:
    """One cut a row.

    Attributes:
        columns: Length of a row.
        bits: Thresholds, u32, shape (rows,).
        last: Last column kept of those equal to the threshold, i64, shape (rows,).
    """

    columns: int
    bits: NDArray[np.uint32]
    last: NDArray[np.int64]


def count_of(share: float, size: int) -> int:
    """floor(share * size), exact, with ``share`` read as the decimal that a record writes for it.

    The f64 nearest to 0.29 lies below 0.29, and 0.29 * 100 in f64 is 28.999...; whoever wrote 0.29 means 29 of 100.
    The shortest decimal that names the f64 is what canonical JSON writes, so the record's text is what counts.

    Args:
        share: 0..1.
        size: Number of elements.

    Raises:
        UsageError: if the share is not between 0 and 1.
    """
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"a share lies between 0 and 1, not {share!r}", reason="selection.share")
    exact = Fraction(repr(float(share))) * size
    return exact.numerator // exact.denominator


def magnitudes(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Bits of |x|, u32, same shape; comparing them compares magnitudes."""
    return values.view(np.uint32) & _MAGNITUDE


def top_k(chunks: Chunks, k: int, size: int) -> Cut:
    """The cut that keeps the k largest magnitudes of a sequence of ``size`` elements.

    Args:
        chunks: Called up to three times; gives the elements in order, f32, in pieces of any length.
        k: How many to keep.
        size: Number of elements in all pieces.

    Raises:
        UsageError: unless 0 <= k <= size.
    """
    if not 0 <= k <= size:
        raise UsageError(f"cannot keep {k} of {size} elements", reason="selection.count")
    if k == 0:
        return Cut(_ALL_ONES, -1)
    if k == size:
        return Cut(0, size - 1)
    high, wanted = _bucket(_histogram(chunks, None), k)
    low, wanted = _bucket(_histogram(chunks, high), wanted)
    bits = (high << _LOW_BITS) | low
    return Cut(bits, _index_of_tie(chunks, bits, wanted))


def cut_of(values: NDArray[np.float32], k: int) -> Cut:
    """The cut that keeps the k largest magnitudes of a flat array.

    Raises:
        UsageError: unless 0 <= k <= values.size.
    """
    return top_k(lambda: (values[s : s + _SLAB] for s in range(0, values.size, _SLAB)), k, values.size)


def mask(cut: Cut, values: NDArray[np.float32], start: int) -> NDArray[np.bool_]:
    """Which of the elements start..start+n-1 are kept: bool, shape (n,)."""
    found = magnitudes(values)
    bits = np.uint32(cut.bits)
    # Indices above last_index lose their ties; counting from start avoids an index array.
    ties = max(0, min(cut.last_index + 1 - start, values.size))
    kept = found > bits
    kept[:ties] |= found[:ties] == bits
    return kept


def row_cuts(values: NDArray[np.float32], columns: int, k: int) -> RowCuts:
    """The cuts that keep the k largest magnitudes of every row of a row-major flat tensor.

    Raises:
        UsageError: unless 0 <= k <= columns and columns divides the size.
    """
    if not 0 <= k <= columns or columns == 0 or values.size % columns:
        raise UsageError(f"cannot keep {k} of each row of {columns}", reason="selection.count")
    rows = values.size // columns
    if k == 0:
        return RowCuts(columns, np.full(rows, _ALL_ONES, np.uint32), np.full(rows, -1, np.int64))
    if k == columns:
        return RowCuts(columns, np.zeros(rows, np.uint32), np.full(rows, columns - 1, np.int64))
    bits, last = np.empty(rows, np.uint32), np.empty(rows, np.int64)
    slab = max(1, _SLAB // columns)
    for at in range(0, rows, slab):
        part = slice(at, min(at + slab, rows))
        found = magnitudes(values[part.start * columns : part.stop * columns]).reshape(-1, columns)
        bits[part] = np.partition(found, columns - k, axis=1)[:, columns - k]
        ties = found == bits[part, None]
        wanted = k - (found > bits[part, None]).sum(axis=1)
        last[part] = np.argmax(np.cumsum(ties, axis=1) == wanted[:, None], axis=1)
    return RowCuts(columns, bits, last)


def row_mask(cuts: RowCuts, values: NDArray[np.float32], start: int) -> NDArray[np.bool_]:
    """Which of the elements start..start+n-1 of a row-major tensor are kept: bool, shape (n,)."""
    row, column = np.divmod(np.arange(start, start + values.size), cuts.columns)
    found, bits = magnitudes(values), cuts.bits[row]
    kept: NDArray[np.bool_] = (found > bits) | ((found == bits) & (column <= cuts.last[row]))
    return kept


def _histogram(chunks: Chunks, bucket: int | None) -> NDArray[np.int64]:
    """Counts by the high 16 bits, or by the low 15 bits of the elements in one high bucket."""
    width = 1 << (16 if bucket is None else _LOW_BITS)
    counts = np.zeros(width, np.int64)
    for chunk in chunks():
        if COMPILED and bucket is None:
            count_high(chunk.view(np.uint32), _LOW_BITS, counts)
            continue
        if COMPILED:
            count_low(chunk.view(np.uint32), bucket, _LOW_BITS, counts)
            continue
        found = magnitudes(chunk)
        high = found >> np.uint32(_LOW_BITS)
        part = high if bucket is None else found[high == np.uint32(bucket)] & np.uint32((1 << _LOW_BITS) - 1)
        counts += np.bincount(part, minlength=width)
    return counts


def _find_equal(values: NDArray[np.float32], bits: int, rank: int) -> tuple[int, int]:
    """Index of the rank-th element (from 1) whose magnitude is ``bits``, or -1; and how many of them were passed."""
    if COMPILED:
        place, seen = nth_equal(values.view(np.uint32), bits, rank)
        return int(place), int(seen)
    ties = np.flatnonzero(magnitudes(values) == np.uint32(bits))
    return (int(ties[rank - 1]), rank) if rank <= ties.size else (-1, ties.size)


def _bucket(counts: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """The bucket, counted from the largest, that holds the wanted-th element, and its rank in there (from 1)."""
    reached = np.cumsum(counts[::-1])
    place = int(np.searchsorted(reached, wanted))
    bucket = counts.size - 1 - place
    return bucket, wanted - int(reached[place] - counts[bucket])


def _index_of_tie(chunks: Chunks, bits: int, wanted: int) -> int:
    """Index of the wanted-th element (from 1) whose magnitude is ``bits``."""
    start = 0
    for chunk in chunks():
        place, seen = _find_equal(chunk, bits, wanted)
        if place >= 0:
            return start + place
        wanted -= seen
        start += chunk.size
    raise UsageError("the elements changed while the largest were counted", reason="selection.changed")
