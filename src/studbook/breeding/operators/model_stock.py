"""Model stock: as far from the base towards the parents' mean as the parents agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.base import Kernel, Operator, Survey, add_change
from studbook.breeding.operators.bounds import slack, wide_delta
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS
from studbook.breeding.operators.tiled import change_table, changed, row_change_tables, tiled
from studbook.breeding.operators.weighted import change_bound, changed_rows, rounded
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels_consensus import add_by_row
from studbook.tensors.reductions import BLOCK, LANES

__all__ = ["SINGULAR", "ModelStock", "row_dots", "stock_ratio"]

# Below this |denominator| there is no finite estimate, and the base is kept.
SINGULAR = 1e-6
# Elements of the slabs of rows that are reduced together.
SLAB = 1 << 20

Wide = NDArray[np.float64]


class ModelStock(Operator, frozen=True, tag="model-stock/1"):
    """Go from the base towards the parents' mean by a ratio that follows from the angle between their changes.

    Formula:
        child = base + t * mean_k(p_k - base) with t = n * c / (1 + (n - 1) * c)

        n is the number of parents and c the mean of the cosines of all pairs of differences, each clipped to -1..1 and
        0 where a difference is all zeros; t = 0 where |1 + (n - 1) c| < 1e-6. One t a tensor, or one a row (the last
        dimension; a vector is one row) with ``filter_wise``. Inner products are f64: over a tensor in the contract's
        order, over a row in the same order counted from the row's first element. f32(t / n) multiplies every
        difference; differences, products and sums are one f32 operation each, in the order of the parents.

    Source:
        Jang et al., Model Stock: all we need is just a few fine-tuned models, arXiv 2403.19522, section 4.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        filter_wise: Whether every row has its own ratio instead of every tensor.

    Bound:
        sqrt(sum over tensors or rows of (||t mean_k(p_k - base)|| + rounding)^2).

    When to use:
        A few fine-tunes of one base on the same data or task, with other seeds or settings. It has nothing to tune.

    Failure modes:
        Differences that are nearly orthogonal keep the base. When they oppose each other t is negative and may be
        large: the child moves away from the parents. Rows of few elements have cosines of chance.
    """

    family: ClassVar[str] = "model-stock"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)

    filter_wise: bool

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The factor of every difference: one for the tensor, or one a row."""
        count = len(inputs.parents)
        if not self.filter_wise:
            table = np.array(change_table(inputs, (name,))).reshape(count, count, 1)
            return Survey(factors=rounded([float(stock_ratio(table)[0] / count)] * count))
        parts = [(stock_ratio(table) / count).astype(np.float32) for table in _row_tables(name, inputs)]
        return Survey(row_factors=np.concatenate(parts))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        if survey.row_factors is None:
            return changed_rows(name, start, stop, inputs, survey.factors)
        factors = _spread(survey.row_factors, start, stop, inputs.columns(name))
        change = np.zeros(stop - start, np.float32)
        for k in range(len(inputs.parents)):
            change = np.add(change, np.multiply(inputs.delta(k, name, start, stop), factors))
        return add_change(inputs.base.read(name, start, stop), change)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        factors = survey.row_factors
        if factors is None:
            return changed(inputs, survey.factors)
        columns = inputs.columns(name)

        def passes(rows: Rows, start: int, out: Rows) -> None:
            add_by_row(rows, start, columns, factors, out)

        return tiled((inputs.base, *inputs.parents), passes)

    def _bound(self, inputs: Inputs) -> float:
        if not self.filter_wise:
            return change_bound(inputs, {name: self.survey(name, inputs) for name in inputs.names})
        change, terms, count = 0.0, 0.0, len(inputs.parents)
        for name in inputs.names:
            for table in _row_tables(name, inputs):
                factor = (stock_ratio(table) / count).astype(np.float32).astype(np.float64)
                lengths = np.abs(factor) * sum(np.sqrt(table[k, k]) for k in range(count))
                squares = factor * factor * np.maximum(table.sum(axis=(0, 1)), 0.0) + 2.0**-36 * lengths * lengths
                change += math.fsum(squares.tolist())
                terms += math.fsum((lengths * lengths).tolist())
        return math.sqrt(change) + slack(inputs, inputs.names, math.sqrt(terms), count + 3)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """By tensor, and by row."""
        return (cls(filter_wise=False), cls(filter_wise=True))


def stock_ratio(table: Wide) -> Wide:
    """The t of the formula, f64, shape (m,), for m groups of parents.

    Args:
        table: Inner products of the differences, f64, shape (parents, parents, m).
    """
    count = table.shape[0]
    total, pairs = np.zeros(table.shape[2]), list(combinations(range(count), 2))
    for i, j in pairs:
        size = np.sqrt(table[i, i]) * np.sqrt(table[j, j])
        cosine = np.divide(table[i, j], size, out=np.zeros_like(size), where=size > 0)
        total = total + np.clip(cosine, -1.0, 1.0)
    mean = total / len(pairs)
    below = 1.0 + (count - 1) * mean
    ratio: Wide = np.divide(count * mean, below, out=np.zeros_like(mean), where=np.abs(below) >= SINGULAR)
    return ratio


def row_dots(left: Wide, right: Wide) -> Wide:
    """Dot product of every pair of rows, f64, shape (rows,): each row as `reductions.dot` reduces a flat tensor.

    Args:
        left: f64, shape (rows, columns).
        right: f64, the same shape.
    """
    result = np.zeros(left.shape[0])
    for at in range(0, left.shape[1], BLOCK):
        terms = left[:, at : at + BLOCK] * right[:, at : at + BLOCK]
        terms = np.pad(terms, ((0, 0), (0, -terms.shape[1] % LANES)))
        lanes = np.add.accumulate(terms.reshape(terms.shape[0], -1, LANES), axis=1)[:, -1] + 0.0
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        result = result + lanes[:, 0]
    return result


def _row_tables(name: str, inputs: Inputs) -> Iterator[Wide]:
    """Inner products of the differences by row, f64, shape (parents, parents, rows), for slab after slab of rows."""
    return row_change_tables(name, inputs) if COMPILED else _plain_row_tables(name, inputs)


def _plain_row_tables(name: str, inputs: Inputs) -> Iterator[Wide]:
    columns, size, count = inputs.columns(name), inputs.size(name), len(inputs.parents)
    step = columns * max(1, SLAB // (columns * count))
    for start in range(0, size, step):
        stop = min(start + step, size)
        parts = [wide_delta(inputs, k, name, start, stop).reshape(-1, columns) for k in range(count)]
        table = np.empty((count, count, parts[0].shape[0]))
        for i in range(count):
            for j in range(i + 1):
                table[i, j] = table[j, i] = row_dots(parts[i], parts[j])
        yield table


def _spread(by_row: Rows, start: int, stop: int, columns: int) -> Rows:
    """The factor of every element start..stop-1."""
    first, last = start // columns, -(-stop // columns)
    return np.repeat(by_row[first:last], columns)[start - first * columns : stop - first * columns]
