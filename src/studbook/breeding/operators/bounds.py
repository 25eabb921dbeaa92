"""Provable upper bounds of ||child - base||, declared before a run.

The exact size of a linear change comes from inner products of the parents' differences (f64, fixed order); on top lies
a slack for rounding. One f32 operation errs by at most 2^-24 of its result plus 2^-150 below the normal range (IEEE
754), so a chain of m operations on terms t errs by less than m * 2^-23 * sum|t| per element, the last addition to the
base by 2^-24 of the child, and underflow by less than 2^-130 per element for all parameters in range.
Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 2.2 and 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.inputs import Inputs
from studbook.tensors.reductions import block_dot, block_squares, blocks, combine
from studbook.tensors.sources import TensorSource

__all__ = ["distance", "gram", "largest_delta", "linear", "norm", "slack", "squares", "wide_delta"]

Wide = NDArray[np.float64]
Read = Callable[[int, str, int, int], Wide]


def wide_delta(inputs: Inputs, parent: int, name: str, start: int, stop: int) -> Wide:
    """Difference parent - base in f64 of the elements start..stop-1: shape (stop - start,)."""
    left = inputs.parents[parent].read(name, start, stop).astype(np.float64)
    return left - inputs.base.read(name, start, stop).astype(np.float64)


def norm(source: TensorSource, names: Iterable[str]) -> float:
    """L2 norm over several tensors of one model."""
    result = 0.0
    for name in names:
        result += squares(source, name)
    return math.sqrt(result)


def squares(source: TensorSource, name: str) -> float:
    """Sum of squares of one tensor, read block by block, f64 in the contract's order."""
    return combine(block_squares(source.read(name, s, e)) for s, e in blocks(source.size(name)))


def distance(inputs: Inputs) -> float:
    """||parents[0] - base|| over all tensors."""
    return math.sqrt(gram(inputs, inputs.names, lambda _, name, s, e: wide_delta(inputs, 0, name, s, e), 1)[0][0])


def gram(inputs: Inputs, names: Iterable[str], read: Read, count: int) -> list[list[float]]:
    """Inner products over all the named tensors.

    Args:
        inputs: Base and parents.
        names: Which tensors.
        read: (parent, name, start, stop) -> f64 elements.
        count: Number of parents.

    Returns:
        A symmetric count x count table.
    """
    table = [[0.0] * count for _ in range(count)]
    for name in names:
        for start, stop in blocks(inputs.size(name)):
            parts = [read(k, name, start, stop) for k in range(count)]
            for i in range(count):
                for j in range(i + 1):
                    table[i][j] += block_dot(parts[i], parts[j])
    return [[table[max(i, j)][min(i, j)] for j in range(count)] for i in range(count)]


def linear(factors: Sequence[np.float32], table: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Size of sum_k c_k d_k.

    Args:
        factors: The c_k, as multiplied with.
        table: Inner products of the d_k.

    Returns:
        An upper bound of ||sum_k c_k d_k||, and sum_k |c_k| ||d_k|| for `slack`.
    """
    c = [float(f) for f in factors]
    terms = math.fsum(abs(ci) * math.sqrt(table[i][i]) for i, ci in enumerate(c))
    square = math.fsum(ci * cj * table[i][j] for i, ci in enumerate(c) for j, cj in enumerate(c))
    # Terms may cancel; the f64 sums behind the table are good to well below 2^-36 of the terms themselves.
    return math.sqrt(max(square, 0.0) + 2.0**-36 * terms * terms), terms


def largest_delta(inputs: Inputs, names: Iterable[str]) -> float:
    """sqrt(sum_i max_k (parent_k - base)_i^2): what taking any parent's difference at every element cannot exceed."""
    result = 0.0
    for name in names:
        for start, stop in blocks(inputs.size(name)):
            parts = [np.abs(wide_delta(inputs, k, name, start, stop)) for k in range(len(inputs.parents))]
            result += block_squares(np.maximum.reduce(parts))
    return math.sqrt(result)


def slack(inputs: Inputs, names: Iterable[str], terms: float, operations: int) -> float:
    """What rounding can add to ||child - start|| over the named tensors.

    Args:
        inputs: Base and parents; the child is written next to base and first parent, whose norms enter.
        names: The tensors that change.
        terms: L2 norm of the terms' absolute sum.
        operations: f32 operations a term passes through.
    """
    names = tuple(names)
    size = sum(inputs.size(name) for name in names)
    starts = norm(inputs.base, names) + norm(inputs.parents[0], names)
    return 2.0**-23 * (operations * terms + starts) + math.sqrt(size) * 2.0**-130
