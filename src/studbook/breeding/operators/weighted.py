"""Linear combinations with one set of factors a tensor: what the spherical and the pooled operators compute.

Two forms: a sum of parents, ``sum_k c_k * p_k``, and a change of the base, ``base + sum_k c_k * (p_k - base)``. The
factors are f32 values and stand in ``Survey.factors``, one a parent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from studbook.breeding.operators.base import Survey, add_change, coefficients
from studbook.breeding.operators.bounds import Wide, gram, linear, norm, slack
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.tiled import change_table

__all__ = [
    "change_bound",
    "changed_rows",
    "rounded",
    "sum_bound",
    "summed_rows",
    "table_of_changes",
    "table_of_parents",
]


def rounded(factors: Iterable[float]) -> tuple[float, ...]:
    """Factors as the f32 values that are multiplied with, for ``Survey.factors``."""
    return tuple(float(factor) for factor in coefficients(factors))


def summed_rows(name: str, start: int, stop: int, inputs: Inputs, factors: Sequence[float]) -> Rows:
    """Sum of c_k * p_k over the parents, for the elements start..stop-1: f32, shape (stop - start,).

    Products and sums are one f32 operation each, in the order of the parents.
    """
    first, *others = zip(coefficients(factors), inputs.parents, strict=True)
    result = np.multiply(first[1].read(name, start, stop), first[0])
    for factor, parent in others:
        result = np.add(result, np.multiply(parent.read(name, start, stop), factor))
    return result


def changed_rows(name: str, start: int, stop: int, inputs: Inputs, factors: Sequence[float]) -> Rows:
    """Base changed by sum_k c_k * (p_k - base) of the elements start..stop-1: f32, shape (stop - start,).

    Differences, products and sums are one f32 operation each, in the order of the parents; the sum is added to the base
    last, and where it is zero the base's bits stay. A parent whose factor is zero is not read.
    """
    change = np.zeros(stop - start, np.float32)
    for k, factor in enumerate(coefficients(factors)):
        if factor != 0:
            change = np.add(change, np.multiply(inputs.delta(k, name, start, stop), factor))
    return add_change(inputs.base.read(name, start, stop), change)


def table_of_parents(name: str, inputs: Inputs) -> list[list[float]]:
    """Inner products of the parents over one tensor: f64, the contract's order, parents x parents."""

    def read(parent: int, tensor: str, start: int, stop: int) -> Wide:
        return inputs.parents[parent].read(tensor, start, stop).astype(np.float64)

    return gram(inputs, (name,), read, len(inputs.parents))


def table_of_changes(name: str, inputs: Inputs) -> list[list[float]]:
    """Inner products of the f64 differences parent - base over one tensor, parents x parents."""
    return change_table(inputs, (name,))


def sum_bound(inputs: Inputs, surveys: Mapping[str, Survey]) -> float:
    """Upper bound of ||child - base|| for `summed_rows` over the tensors of ``surveys``.

    By tensor: ||sum_k c_k (p_k - base)|| + |sum_k c_k - 1| * ||base|| + rounding; over tensors: the root of the squares.
    """
    squares = []
    for name, survey in surveys.items():
        factors = coefficients(survey.factors)
        change, _ = linear(factors, table_of_changes(name, inputs))
        drift = abs(math.fsum((*survey.factors, -1.0))) * norm(inputs.base, (name,))
        terms = math.fsum(
            abs(factor) * norm(parent, (name,)) for factor, parent in zip(survey.factors, inputs.parents, strict=True)
        )
        squares.append((change + drift + slack(inputs, (name,), terms, len(factors) + 1)) ** 2)
    return math.sqrt(math.fsum(squares))


def change_bound(inputs: Inputs, surveys: Mapping[str, Survey]) -> float:
    """Upper bound of ||child - base|| for `changed_rows` over the tensors of ``surveys``.

    By tensor: sqrt(c^T G c) + rounding, with G the inner products of p_k - base; over tensors: the root of the squares.
    """
    squares = []
    for name, survey in surveys.items():
        change, terms = linear(coefficients(survey.factors), table_of_changes(name, inputs))
        squares.append((change + slack(inputs, (name,), terms, len(survey.factors) + 3)) ** 2)
    return math.sqrt(math.fsum(squares))
