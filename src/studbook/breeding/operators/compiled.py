"""The kernels that several operators share, each None where numba is missing."""

from __future__ import annotations

from collections.abc import Iterable
from threading import local

import numpy as np

from studbook.breeding.operators.base import Kernel
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import add_scaled, convert, pair_products, weighted_sum
from studbook.tensors.kernels_counting import add_products
from studbook.tensors.reductions import BLOCK, block_dot, blocks
from studbook.tensors.sources import TensorSource
from studbook.tensors.stacks import Room, Stack, read_stack
from studbook.tensors.storage import Raw, widen

__all__ = ["copied", "products", "rescaled", "summed"]

# Elements read at a time: whole blocks of the contract's reductions.
STEP = 4 * BLOCK


class _Rooms(local):
    """The scratch memory of a thread."""

    def __init__(self) -> None:
        self.stack, self.wide = Room(), Room()


_ROOMS = _Rooms()


def copied(source: TensorSource) -> Kernel | None:
    """The elements of one source."""

    def run(stack: Stack, start: int, out: Raw) -> None:
        if stack.dtype == out.dtype:
            out[:] = stack.rows[0]
        else:
            stack.feed(convert, 0, 0, out)

    return Kernel((source,), run, propagates=True) if COMPILED else None


def summed(sources: tuple[TensorSource, ...], factors: Iterable[float | np.float32]) -> Kernel | None:
    """sum_k f_k * x_k in ascending k, factors rounded to f32."""
    numbers = np.array(tuple(factors), np.float32)

    def run(stack: Stack, start: int, out: Raw) -> None:
        stack.feed(weighted_sum, numbers, out)

    return Kernel(sources, run, propagates=True) if COMPILED else None


def rescaled(
    base: TensorSource, sources: tuple[TensorSource, ...], factors: Iterable[float | np.float32]
) -> Kernel | None:
    """Base + sum_k f_k * (x_k - base), the sum added last, factors rounded to f32."""
    numbers = np.array(tuple(factors), np.float32)

    def run(stack: Stack, start: int, out: Raw) -> None:
        stack.feed(add_scaled, numbers, out)

    return Kernel((base, *sources), run, propagates=True) if COMPILED else None


def products(name: str, sources: tuple[TensorSource, ...]) -> list[list[float]]:
    """Inner products of several sources over one tensor: f64, the contract's order; each source is read once.

    Returns:
        A symmetric table, sources x sources.
    """
    size, count = sources[0].size(name), len(sources)
    table = np.zeros((count, count))
    for start in range(0, size, STEP):
        stack = read_stack(sources, name, start, min(STEP, size - start), _ROOMS.stack)
        if COMPILED and count == 2:
            stack.feed(pair_products, stack.size, BLOCK, table)
            continue
        wide = _ROOMS.wide.array(count, stack.size, np.float32)
        for k, row in enumerate(wide):
            if COMPILED:
                stack.feed(convert, k, 0, row)
            else:
                row[:] = widen(stack.rows[k])
        if COMPILED:
            add_products(wide, BLOCK, table)
            continue
        for i, left in enumerate(wide):
            for j in range(i + 1):
                for s, e in blocks(left.size):
                    table[i, j] += block_dot(left[s:e], wide[j, s:e])
    return [[float(table[max(i, j), min(i, j)]) for j in range(count)] for i in range(count)]
