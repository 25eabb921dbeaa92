"""Low-rank fusion: w + scale * sum_k left[:, k] right[k, :], rank by rank in f64, rounded once to f32.

The order is fixed and no BLAS takes part: matrix products of libraries differ in most elements from the plain sum and
from machine to machine. The numpy form is what it means; the compiled one gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from numba import njit
except ImportError:  # fusion is then slower but the same
    njit = None

__all__ = ["fuse", "fuse_reference"]

_BLOCK = 1 << 18


def fuse_reference(
    values: NDArray[np.float32],
    start: int,
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    scale: float,
    out: NDArray[np.float32],
) -> None:
    """Add a low-rank product to some elements of a matrix.

    Args:
        values: f32, flat: elements start..start+n-1 of the matrix, row-major.
        start: Index of the first of them.
        left: f32, shape (rows, rank).
        right: f32, shape (rank, columns).
        scale: f64.
        out: f32, flat, as long as ``values``; what it is written to.
    """
    columns = right.shape[1]
    at = 0
    while at < values.size:
        row, first = divmod(start + at, columns)
        if first or values.size - at < columns:
            rows, last = 1, min(columns, first + values.size - at)
        else:
            rows, last = min((values.size - at) // columns, max(1, _BLOCK // columns)), columns
        count = rows * (last - first)
        total = np.zeros((rows, last - first))
        for k in range(right.shape[0]):
            total += left[row : row + rows, k : k + 1].astype(np.float64) * right[k, first:last].astype(np.float64)
        part = values[at : at + count].astype(np.float64).reshape(rows, last - first)
        with np.errstate(over="ignore", invalid="ignore"):
            out[at : at + count] = (part + scale * total).astype(np.float32).reshape(-1)
        at += count


def _kernel(values: Any, start: Any, left: Any, right: Any, scale: Any, out: Any) -> None:
    rank, columns = right.shape
    room = np.empty(columns, np.float64)
    at = 0
    while at < values.size:
        row = (start + at) // columns
        first = (start + at) % columns
        count = min(columns - first, values.size - at)
        total = room[:count]
        factors = left[row]
        for i in range(count):
            total[i] = 0.0
        for k in range(rank):
            factor = np.float64(factors[k])
            line = right[k, first : first + count]
            for i in range(count):
                total[i] += factor * np.float64(line[i])
        part = values[at : at + count]
        fused = out[at : at + count]
        for i in range(count):
            fused[i] = np.float32(np.float64(part[i]) + scale * total[i])
        at += count


def _compiled() -> Any:
    if njit is None:
        return None
    try:
        return njit(cache=True, nogil=True)(_kernel)
    except RuntimeError:  # no folder can be written to: compile in memory
        return njit(nogil=True)(_kernel)


_fast = _compiled()


def fuse(
    values: NDArray[np.float32],
    start: int,
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    scale: float,
    out: NDArray[np.float32],
) -> None:
    """The same as `fuse_reference`, compiled where that is possible."""
    if _fast is None:
        fuse_reference(values, start, left, right, scale, out)
    else:
        _fast(values, np.int64(start), left, right, np.float64(scale), out)
