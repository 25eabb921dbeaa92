"""Compiled passes over elements that end in a few numbers: counts, histograms, places, sums in fixed lanes.

Magnitudes come in as the bits of f32 (u32, any sign); integer work has one result whatever the order. Sums follow the
lanes of `studbook.tensors.reductions`. The numpy of the modules that use these says what they mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studbook.tensors.compiling import compiled

__all__ = ["add_products", "count_equal_parts", "count_high", "count_low", "lane_dot", "lane_sum", "nth_equal", "sift"]

TILE = 1024
# Elements summed between two writes of the lanes: a loop of known length that LLVM unrolls, with the lanes side by side in
# vector registers. The order within a lane stays ascending.
GROUP = 128


@compiled
def count_equal_parts(bits: Any, part: Any) -> int:
    """How many elements have all the bits of ``part`` (of their own unsigned type): the NaNs and infinities."""
    count = 0
    for s in range(0, bits.size, TILE):
        held = bits[s : s + TILE]
        few: Any = np.uint16(0)
        for i in range(held.size):
            # Narrow on purpose: eight or sixteen of these fit a vector register.
            few = np.uint16(few + np.uint16((held[i] & part) == part))
        count += few
    return count


@compiled
def count_high(bits: Any, low_bits: Any, counts: Any) -> None:
    """Count magnitudes by their bits above ``low_bits`` (i64); what is found is added to ``counts`` (i64)."""
    for i in range(bits.size):
        counts[(np.int64(bits[i]) & np.int64(0x7FFFFFFF)) >> low_bits] += 1


@compiled
def count_low(bits: Any, bucket: Any, low_bits: Any, counts: Any) -> None:
    """Count the magnitudes of one bucket of `count_high` by their low bits; ``counts`` (i64) as there."""
    first = np.int64(bucket) << low_bits
    for i in range(bits.size):
        place = (np.int64(bits[i]) & np.int64(0x7FFFFFFF)) - first
        if 0 <= place < counts.size:
            counts[place] += 1


@compiled
def sift(bits: Any, start: Any, low: Any, high: Any, held: Any, places: Any, count: Any) -> tuple[int, int]:
    """Count the magnitudes above a bracket, and hold those inside in order.

    Args:
        bits: u32, signs ignored.
        start: Index of the first.
        low: Smallest magnitude inside, u32.
        high: Largest magnitude inside, u32.
        held: u32; magnitudes go here from ``count`` on.
        places: u32, of the same length; their indices.
        count: How many are held already.

    Returns:
        How many lie above, and how many are held now; more than there is room for if it may not be enough: it stops.
    """
    above, span = 0, np.uint32(high - low)
    for s in range(0, bits.size, TILE):
        part = bits[s : min(s + TILE, bits.size)]
        if count + part.size > held.size:
            return above, held.size + 1
        for i in range(part.size):
            above += (part[i] & np.uint32(0x7FFFFFFF)) > high
        for i in range(part.size):
            size = part[i] & np.uint32(0x7FFFFFFF)
            # Below the bracket the difference wraps around and is large too: one comparison for both ends.
            if np.uint32(size - low) <= span:
                held[count] = size
                places[count] = start + s + i
                count += 1
    return above, count


@compiled
def nth_equal(bits: Any, wanted: Any, rank: Any) -> tuple[int, int]:
    """Index of the rank-th element (from 1) whose magnitude is ``wanted``, or -1; and how many were seen."""
    seen = 0
    for i in range(bits.size):
        if np.int64(bits[i]) & np.int64(0x7FFFFFFF) == wanted:
            seen += 1
            if seen == rank:
                return i, seen
    return -1, seen


@compiled
def _folded(lanes: Any) -> float:
    width = 8
    while width:
        for j in range(width):
            lanes[j] += lanes[j + width]
        width //= 2
    result: float = lanes[0]
    return result


@compiled
def lane_sum(values: Any) -> float:
    """Sum of one block, f32 or f64: see `studbook.tensors.reductions.block_sum`."""
    lanes, whole = np.zeros(16, np.float64), values.size // GROUP * GROUP
    for s in range(0, whole, GROUP):
        x = values[s : s + GROUP]
        for j in range(16):
            total = lanes[j]
            for r in range(0, GROUP, 16):
                total += np.float64(x[r + j])
            lanes[j] = total
    x = values[whole:]
    for i in range(x.size):
        lanes[i % 16] += np.float64(x[i])
    return _folded(lanes)


@compiled
def lane_dot(left: Any, right: Any) -> float:
    """Dot product of two blocks of one length, f32 or f64: see `studbook.tensors.reductions.block_dot`."""
    lanes, whole = np.zeros(16, np.float64), left.size // GROUP * GROUP
    for s in range(0, whole, GROUP):
        x, y = left[s : s + GROUP], right[s : s + GROUP]
        for j in range(16):
            total = lanes[j]
            for r in range(0, GROUP, 16):
                total += np.float64(x[r + j]) * np.float64(y[r + j])
            lanes[j] = total
    x, y = left[whole:], right[whole:]
    for i in range(x.size):
        lanes[i % 16] += np.float64(x[i]) * np.float64(y[i])
    return _folded(lanes)


@compiled
def add_products(rows: Any, block: Any, table: Any) -> None:
    """Add the inner products of all pairs of rows, block by block, to a table.

    Args:
        rows: f32, shape (rows, n); its first element starts a block.
        block: Elements of a block.
        table: f64, shape (rows, rows); the upper half stays as it is.
    """
    for s in range(0, rows.shape[1], block):
        for i in range(rows.shape[0]):
            for j in range(i + 1):
                table[i, j] += lane_dot(rows[i, s : s + block], rows[j, s : s + block])
