"""Fusion: what a change makes of the elements of a tensor, f64 inside and one rounding to f32.

An element starts as w = f64(value), or f64(code) * f64(scale) where the tensor is quantised, not rounded in between.
Dense: w + f64(delta). Sparse: the same, for the listed elements only; all others are w rounded. Low-rank: acc = B[:, 0]
A[0, :], further ranks added in ascending order, then w + (f64(alpha) / r) * acc. The order is fixed and no BLAS takes
part, so every host gets the same bits. Factors of f32 have exact products in f64, so a fused multiply-add changes nothing
in acc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.changes import Change, Dense, LowRank, Sparse
from studbook.models.quantisation import unpack_q4
from studbook.models.stored import Dtype, StoredTensor

try:
    from numba import njit
except ImportError:  # fusion is then slower but the same
    njit = None

__all__ = ["Wide", "fuse", "fused_tensor", "product", "product_reference", "wide_values"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Wide = Callable[[int, int], F64]
_CHUNK = 1 << 18


def wide_values(tensor: StoredTensor, start: int, stop: int) -> F64:
    """Elements start..stop-1 of a tensor in storage, row-major, f64: exact, code times scale where it is quantised."""
    if tensor.dtype is Dtype.F32:
        return tensor.values[start:stop].astype(np.float64)
    columns = tensor.columns
    first, last = start // columns, -(-stop // columns)
    scales = tensor.scales[first:last].astype(np.float64)
    if tensor.dtype is Dtype.Q8_0:
        codes, scales = tensor.codes[first:last], scales[:, np.newaxis]
    else:
        packed = np.frombuffer(tensor.payload, np.uint8).reshape(-1, columns // 2)
        codes, scales = unpack_q4(packed[first:last]).reshape(*scales.shape, tensor.block), scales[:, :, np.newaxis]
    values: F64 = (codes.astype(np.float64) * scales).reshape(-1)
    return values[start - first * columns : stop - first * columns]


def fuse(change: Change, wide: F64, start: int) -> F32:
    """Elements of a fused tensor; infinite where they overflow, which callers refuse.

    Args:
        change: What is done to the tensor.
        wide: f64, flat: its elements start..start+n-1.
        start: Index of the first of them.

    Returns:
        f32, flat, shape (n,).
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if isinstance(change, LowRank):
            acc = product(change.a, change.b, start, wide.size)
            scale = np.float64(change.alpha) / np.float64(change.count)
            fused: F32 = (wide + scale * acc).astype(np.float32)
            return fused
        if isinstance(change, Dense):
            delta = change.values.reshape(-1)[start : start + wide.size]
            return (wide + delta.astype(np.float64)).astype(np.float32)
        return _sparse(change, wide, start)


def fused_tensor(change: Change, wide: Wide, size: int) -> F32:
    """A whole fused tensor, f32, flat, read-only; ``wide`` gives its elements before the change, range by range."""
    out = np.empty(size, np.float32)
    for start in range(0, size, _CHUNK):
        stop = min(start + _CHUNK, size)
        out[start:stop] = fuse(change, wide(start, stop), start)
    out.setflags(write=False)
    return out


def product_reference(a: F32, b: F32, start: int, size: int) -> F64:
    """Some elements of B @ A, rank by rank in f64, in numpy: the meaning of the compiled `product`.

    Args:
        a: f32, shape (r, in).
        b: f32, shape (out, r).
        start: Index of the first element in the row-major product.
        size: How many.

    Returns:
        f64, flat, shape (size,).
    """
    columns = a.shape[1]
    first, last = start // columns, -(-(start + size) // columns)
    left, right = b[first:last].astype(np.float64), a.astype(np.float64)
    acc = left[:, :1] * right[0]
    for k in range(1, a.shape[0]):
        acc = acc + left[:, k : k + 1] * right[k]
    flat: F64 = acc.reshape(-1)
    return flat[start - first * columns : start - first * columns + size]


def _kernel(a: Any, b: Any, start: Any, out: Any) -> None:
    columns = a.shape[1]
    at = 0
    while at < out.size:
        row = (start + at) // columns
        first = (start + at) % columns
        count = min(columns - first, out.size - at)
        total, factors = out[at : at + count], b[row]
        factor, line = np.float64(factors[0]), a[0, first : first + count]
        for i in range(count):
            total[i] = factor * np.float64(line[i])
        for k in range(1, a.shape[0]):
            factor, line = np.float64(factors[k]), a[k, first : first + count]
            for i in range(count):
                total[i] = total[i] + factor * np.float64(line[i])
        at += count


def _compiled() -> Any:
    if njit is None:
        return None
    try:
        return njit(cache=True, nogil=True)(_kernel)
    except RuntimeError:  # no folder can be written to: compile in memory
        return njit(nogil=True)(_kernel)


_fast = _compiled()


def product(a: F32, b: F32, start: int, size: int) -> F64:
    """The same as `product_reference`, compiled where that is possible."""
    if _fast is None:
        return product_reference(a, b, start, size)
    out = np.empty(size, np.float64)
    _fast(a, b, np.int64(start), out)
    return out


def _sparse(change: Sparse, wide: F64, start: int) -> F32:
    out = wide.astype(np.float32)
    low, high = np.searchsorted(change.indices, (start, start + wide.size))
    at = change.indices[low:high].astype(np.int64) - start
    out[at] = (wide[at] + change.values[low:high].astype(np.float64)).astype(np.float32)
    return out
