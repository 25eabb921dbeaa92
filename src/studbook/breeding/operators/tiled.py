"""Kernels and surveys that work on widened rows, tile by tile, with the passes of `studbook.tensors.kernels_consensus`.

A tile of the base and of every parent is widened to f32, passes compute the child's elements from it, and these are
rounded to their storage. Tiles are small enough to stay in a core's second-level cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import local

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.base import Kernel
from studbook.breeding.operators.bounds import gram, wide_delta
from studbook.breeding.operators.compiled import rescaled
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import convert, philox_words
from studbook.tensors.kernels_consensus import drop
from studbook.tensors.kernels_tables import block_table, row_tables
from studbook.tensors.philox import Stream
from studbook.tensors.reductions import BLOCK, blocks
from studbook.tensors.sources import TensorSource
from studbook.tensors.stacks import Room, Stack, read_stack
from studbook.tensors.storage import Raw

__all__ = [
    "Passes",
    "change_table",
    "changed",
    "drop_drawn",
    "row_change_tables",
    "tiled",
    "tiled_by_row",
    "wide_pieces",
    "words_of",
]

# Called with f32 rows of shape (sources, n), the index of the first element, and the f32 array of shape (n,) that the
# child's elements go to. The rows may be written to.
Passes = Callable[[Rows, int, Rows], None]
# No multiple of 1024: rows a multiple of 4 KiB apart would make a core take a store into one for a store into the next.
TILE = 26_224
# Elements of the slabs of rows that are reduced together.
SLAB = 1 << 20


class _Rooms(local):
    """The scratch memory of a thread."""

    def __init__(self) -> None:
        self.stack, self.rows, self.child, self.words = Room(), Room(), Room(), Room()


_ROOMS = _Rooms()


def tiled(reads: tuple[TensorSource, ...], passes: Passes, finish: Callable[[], None] | None = None) -> Kernel | None:
    """The kernel that computes every tile with ``passes``; None without numba.

    Args:
        reads: The sources of the rows.
        passes: See `Passes`.
        finish: See `Kernel`.
    """

    def run(stack: Stack, start: int, out: Raw) -> None:
        for s in range(0, out.size, TILE):
            e = min(s + TILE, out.size)
            child = _room_for(out[s:e])
            passes(_widened(stack, s, e), start + s, child)
            _round(child, out[s:e])

    return Kernel(reads, run, finish) if COMPILED else None


def tiled_by_row(reads: tuple[TensorSource, ...], name: str, columns: int, passes: Passes) -> Kernel | None:
    """As `tiled`, with tiles that are whole rows of the tensor; rows cut by a chunk are read again in full.

    Args:
        reads: The sources of the rows.
        name: The tensor.
        columns: Length of a row.
        passes: See `Passes`; the index it is given is that of a row's first element.
    """
    step = max(1, TILE // columns) * columns

    def run(stack: Stack, start: int, out: Raw) -> None:
        stop = start + out.size
        first, last = start // columns * columns, -(-stop // columns) * columns
        if (first, last) != (start, stop):
            stack = read_stack(reads, name, first, last - first, _ROOMS.stack)
        for s in range(first, last, step):
            e = min(s + step, last)
            child = np.asarray(_ROOMS.child.array(1, e - s, np.float32)[0])
            passes(_widened(stack, s - first, e - first), s, child)
            low, high = max(s, start), min(e, stop)
            _round(child[low - s : high - s], out[low - start : high - start])

    return Kernel(reads, run) if COMPILED else None


def changed(inputs: Inputs, factors: Sequence[float]) -> Kernel | None:
    """The kernel of `studbook.breeding.operators.weighted.changed_rows`: parents whose factor is zero are not read."""
    used = [k for k, factor in enumerate(factors) if factor != 0]
    return rescaled(inputs.base, tuple(inputs.parents[k] for k in used), [factors[k] for k in used])


def drop_drawn(base: Rows, row: Rows, stream: Stream, start: int, limit: int, factor: np.float32) -> None:
    """Turn a parent's row into its changes times a factor, with +0.0 where the stream's word is not below a limit.

    Args:
        base: f32, the base's elements.
        row: f32, the parent's.
        stream: Gives the words.
        start: Index of the first element.
        limit: 0..2^32.
        factor: f32.
    """
    if limit == 0:
        row[:] = 0
        return
    words = words_of(stream, start, row.size)
    drop(base, row, words, np.uint32(limit - 1), factor)


def words_of(stream: Stream, start: int, size: int) -> NDArray[np.uint32]:
    """Words of the elements start..start+size-1, until the next call in this thread: u32, shape (size,)."""
    first, last = start // 4, -(-(start + size) // 4)
    words = _ROOMS.words.array(2, last - first, np.uint64).reshape(-1)
    philox_words(np.uint64(first), np.uint32(stream.key[0]), np.uint32(stream.key[1]), words)
    found: NDArray[np.uint32] = words.view(np.uint32)[start - 4 * first :][:size]
    return found


def change_table(inputs: Inputs, names: Iterable[str], *, pairs: bool = True) -> list[list[float]]:
    """Inner products of the f64 differences parent - base over several tensors: `bounds.gram` of them, bit for bit.

    Args:
        inputs: Base and parents.
        names: Which tensors.
        pairs: False where only the diagonal is wanted; the rest is then not defined.

    Returns:
        A symmetric table, parents x parents.
    """
    count = len(inputs.parents)
    if not COMPILED:
        return gram(inputs, names, lambda k, n, s, e: wide_delta(inputs, k, n, s, e), count)
    table = np.zeros((count, count))
    for name in names:
        for _, rows in wide_pieces(name, inputs, blocks(inputs.size(name))):
            block_table(rows, pairs, table)
    return [[float(table[max(i, j), min(i, j)]) for j in range(count)] for i in range(count)]


def row_change_tables(name: str, inputs: Inputs) -> Iterator[NDArray[np.float64]]:
    """As `change_table` for every row of a tensor: f64, shape (parents, parents, rows), for slab after slab of rows."""
    columns, size, count = inputs.columns(name), inputs.size(name), len(inputs.parents)
    if columns > BLOCK:
        for at in range(0, size, columns):
            table = np.zeros((count, count))
            for _, rows in wide_pieces(name, inputs, ((at + s, at + e) for s, e in blocks(columns))):
                block_table(rows, True, table)
            yield _mirrored(table.reshape(1, count, count))
        return
    step = columns * max(1, SLAB // (columns * count))
    for _, rows in wide_pieces(name, inputs, ((at, min(at + step, size)) for at in range(0, size, step))):
        tables = np.zeros((rows.shape[1] // columns, count, count))
        row_tables(rows, columns, tables)
        yield _mirrored(tables)


def _mirrored(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lower triangles as whole tables, rows of the tensor last."""
    whole: NDArray[np.float64] = np.moveaxis(tables, 0, -1).copy()
    for i in range(whole.shape[0]):
        for j in range(i):
            whole[j, i] = whole[i, j]
    return whole


def wide_pieces(name: str, inputs: Inputs, pieces: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Rows]]:
    """The start of every piece and its elements, base first: f32, shape (models, n), until the next one."""
    sources = (inputs.base, *inputs.parents)
    for start, stop in pieces:
        stack = read_stack(sources, name, start, stop - start, _ROOMS.stack)
        yield start, _widened(stack, 0, stop - start)


def _widened(stack: Stack, start: int, stop: int) -> Rows:
    rows: Rows = _ROOMS.rows.array(len(stack.rows), stop - start, np.float32)
    for k, row in enumerate(rows):
        stack.feed(convert, k, start, row)
    return rows


def _room_for(out: Raw) -> Rows:
    """Where f32 elements go first: straight to where they are kept, if that is f32."""
    return out if out.dtype == np.float32 else _ROOMS.child.array(1, out.size, np.float32)[0]


def _round(child: Rows, out: Raw) -> None:
    if child is not out:
        Stack((child,)).feed(convert, 0, 0, out)
