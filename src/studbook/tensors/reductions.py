"""Sums whose last bit does not depend on the machine: f64, fixed blocks, fixed lanes, fixed order.

A block is 65,536 elements on a grid that starts at element 0 of the tensor, never at an I/O chunk. Inside a block
element i goes to lane i % 16, each lane is summed in ascending order, and the lanes fold 8, 4, 2, 1. Blocks may be
computed by any thread; their results are added in ascending order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels_counting import lane_dot, lane_sum

__all__ = [
    "BLOCK",
    "LANES",
    "Values",
    "block_dot",
    "block_squares",
    "block_sum",
    "blocks",
    "combine",
    "dot",
    "sum_of_squares",
    "total",
]

BLOCK = 65_536
LANES = 16
Values = NDArray[np.float32] | NDArray[np.float64]


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """The (start, stop) of every block of a tensor of ``size`` elements."""
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def block_sum(values: Values) -> float:
    """Sum of one block (f32 or f64, flat, at most 65,536 elements)."""
    return float(lane_sum(_checked(values))) if COMPILED else _lanes(values.astype(np.float64))


def block_squares(values: Values) -> float:
    """Sum of squares of one block; the square of an f32 is exact in f64, so no fused operation could differ."""
    if COMPILED:
        return float(lane_dot(_checked(values), values))
    wide = values.astype(np.float64)
    return _lanes(wide * wide)


def block_dot(left: Values, right: Values) -> float:
    """Dot product of one block of two tensors; the product of two f32 is exact in f64.

    Raises:
        UsageError: if their lengths differ.
    """
    if left.shape != right.shape:
        raise UsageError(f"cannot multiply shapes {left.shape} and {right.shape}", reason="reductions.shape")
    if COMPILED:
        return float(lane_dot(_checked(left), right))
    return _lanes(left.astype(np.float64) * right.astype(np.float64))


def combine(partials: Iterable[float]) -> float:
    """Block results, in ascending order of the grid, as one f64."""
    result = 0.0
    for partial in partials:
        result += partial
    return result


def total(values: Values) -> float:
    """Sum over a whole flat tensor, f64."""
    return combine(block_sum(values[s:e]) for s, e in blocks(values.size))


def sum_of_squares(values: Values) -> float:
    """Sum of squares over a whole flat tensor, f64."""
    return combine(block_squares(values[s:e]) for s, e in blocks(values.size))


def dot(left: Values, right: Values) -> float:
    """Dot product of two whole flat tensors, f64.

    Raises:
        UsageError: if their lengths differ.
    """
    if left.shape != right.shape:
        raise UsageError(f"cannot multiply shapes {left.shape} and {right.shape}", reason="reductions.shape")
    return combine(block_dot(left[s:e], right[s:e]) for s, e in blocks(left.size))


def _checked(values: Values) -> Values:
    if values.ndim != 1 or values.size > BLOCK:
        raise UsageError(f"a block is flat and has at most {BLOCK} elements", reason="reductions.block")
    return values


def _lanes(terms: NDArray[np.float64]) -> float:
    _checked(terms)
    if not terms.size:
        return 0.0
    if short := -terms.size % LANES:
        terms = np.concatenate([terms, np.zeros(short)])
    # accumulate is defined as r[i] = r[i-1] + a[i]; reduce may pair or vectorise as it likes. + 0.0 turns a sum of
    # negative zeros into the +0.0 that a lane starting from +0.0 has.
    lanes = np.add.accumulate(terms.reshape(-1, LANES), axis=0)[-1] + 0.0
    width = LANES // 2
    while width:
        lanes = lanes[:width] + lanes[width : 2 * width]
        width //= 2
    return float(lanes[0])
