"""Compiled sums over the changes of widened rows, in f64 and in the order of `studbook.tensors.reductions`.

``rows`` is f32, C-contiguous, shape (models, n): elements of the base, then those of every parent. Blocks are 65,536
elements, in a block lane i % 16 is summed in ascending i, and the lanes fold 8, 4, 2, 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studbook.tensors.compiling import compiled

__all__ = ["block_table", "row_tables", "sizes", "squares"]

TILE = 1024
LANES = 16
BLOCK = 65_536


@compiled
def _folded(lanes: Any) -> float:
    width = LANES // 2
    while width:
        for j in range(width):
            lanes[j] += lanes[j + width]
        width //= 2
    result: float = lanes[0]
    return result


@compiled
def squares(base: Any, row: Any, words: Any, highest: Any) -> tuple[float, float]:
    """Sums of squares of one block of f32 changes, f64 in the contract's order: of all, and of those that `drop` keeps.

    Args:
        base: f32, at most 65,536 elements.
        row: f32, the parent's.
        words: u32.
        highest: u32.
    """
    every, kept = np.zeros(LANES, np.float64), np.zeros(LANES, np.float64)
    zero = np.float64(0)
    for s in range(0, row.size, LANES):
        x, b, w = row[s : s + LANES], base[s : s + LANES], words[s : s + LANES]
        for j in range(x.size):
            change = np.float64(x[j] - b[j])
            square = change * change
            every[j] += square
            kept[j] += square if w[j] <= highest else zero
    return _folded(every), _folded(kept)


@compiled
def _dot(left: Any, right: Any, lanes: Any) -> None:
    whole = left.size // LANES * LANES
    for s in range(0, whole, LANES):
        x, y = left[s : s + LANES], right[s : s + LANES]
        for j in range(LANES):
            lanes[j] += x[j] * y[j]
    x, y = left[whole:], right[whole:]
    for j in range(x.size):
        lanes[j] += x[j] * y[j]


@compiled
def _add_block(rows: Any, first: Any, last: Any, pairs: Any, held: Any, lanes: Any, table: Any) -> None:
    """The inner products of one block of changes, added to a table."""
    count = rows.shape[0] - 1
    lanes[:] = 0
    for s in range(first, last, TILE):
        e = min(s + TILE, last)
        base = rows[0, s:e]
        for k in range(count):
            row, to = rows[k + 1, s:e], held[k, : e - s]
            for i in range(to.size):
                to[i] = np.float64(row[i]) - np.float64(base[i])
        for i in range(count):
            for j in range(0 if pairs else i, i + 1):
                _dot(held[i, : e - s], held[j, : e - s], lanes[i, j])
    for i in range(count):
        for j in range(0 if pairs else i, i + 1):
            table[i, j] += _folded(lanes[i, j])


@compiled
def block_table(rows: Any, pairs: Any, table: Any) -> None:
    """Inner products of the f64 changes of one block, in the contract's order, added to ``table``.

    Args:
        rows: The base and the parents, at most 65,536 elements.
        pairs: False for the diagonal only.
        table: f64, shape (parents, parents); the part above the diagonal is left alone.
    """
    count = rows.shape[0] - 1
    held, lanes = np.empty((count, TILE + 24), np.float64), np.empty((count, count, LANES), np.float64)
    _add_block(rows, 0, rows.shape[1], pairs, held, lanes, table)


@compiled
def row_tables(rows: Any, columns: Any, tables: Any) -> None:
    """As `block_table` for every row of a tensor, in blocks that count from its first element.

    Args:
        rows: The base and the parents, whole rows of ``columns``.
        columns: Length of a row.
        tables: f64, shape (rows of the tensor, parents, parents).
    """
    count = rows.shape[0] - 1
    held, lanes = np.empty((count, TILE + 24), np.float64), np.empty((count, count, LANES), np.float64)
    for r in range(tables.shape[0]):
        end = (r + 1) * columns
        for s in range(r * columns, end, BLOCK):
            _add_block(rows, s, min(s + BLOCK, end), True, held, lanes, tables[r])


@compiled
def _largest_term(rows: Any, s: Any, e: Any, weights: Any, most: Any) -> None:
    most[:] = 0
    for k in range(weights.size):
        row, counts = rows[k + 1, s:e], np.float64(weights[k] != 0)
        for i in range(most.size):
            own = abs(np.float64(row[i])) * counts
            most[i] = own if (own > most[i]) | (own != own) else most[i]  # a NaN stays: no bound is finite then


@compiled
def _sums(rows: Any, s: Any, e: Any, weights: Any, elect: Any, held: Any) -> None:
    """Into row 0 the largest size of the sum, into row 1 the sum of the sizes; row 2 is used on the way."""
    most, size, below = held[0, : e - s], held[1, : e - s], held[2, : e - s]
    most[:] = 0
    size[:] = 0
    below[:] = 0
    zero = np.float64(0)
    for k in range(weights.size):
        row, weight = rows[k + 1, s:e], weights[k]
        if elect:
            for i in range(most.size):
                product = np.float64(row[i]) * weight
                size[i] += abs(product)
                most[i] += product if product > zero else zero
                below[i] += zero if product > zero else -product
        else:
            for i in range(most.size):
                product = np.float64(row[i]) * weight
                size[i] += abs(product)
                most[i] += product
    for i in range(most.size):
        own = abs(most[i])
        most[i] = below[i] if below[i] > own else own


@compiled
def sizes(rows: Any, weights: Any, elect: Any, normalize: Any, over: Any) -> tuple[float, float]:
    """Sums of squares over one block of what ``combined_bound`` of the merges of sparse changes asks of every element.

    Args:
        rows: The base, which is not used, and the terms, at most 65,536 elements.
        weights: f64, one a term.
        elect: Whether a sign is elected.
        normalize: Whether the weights that were added divide.
        over: f64, what both numbers are divided by.

    Returns:
        Of the largest size of the combined term, and of the sum of the sizes of the products.
    """
    largest, absolute, held = np.zeros(LANES, np.float64), np.zeros(LANES, np.float64), np.empty((3, TILE + 24))
    for s in range(0, rows.shape[1], TILE):
        e = min(s + TILE, rows.shape[1])
        most, size = held[0, : e - s], held[1, : e - s]
        if elect and normalize:
            _largest_term(rows, s, e, weights, most)
            size[:] = most
        else:
            _sums(rows, s, e, weights, elect, held)
            for i in range(most.size):
                most[i] /= over
                size[i] /= over
        _dot(most, most, largest)
        _dot(size, size, absolute)
    return _folded(largest), _folded(absolute)
