"""Multislerp: a weighted mean of directions, at the weighted mean of lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey
from studbook.breeding.operators.compiled import products, summed
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, VoteWeight
from studbook.breeding.operators.tiled import change_table, changed
from studbook.breeding.operators.weighted import (
    change_bound,
    changed_rows,
    rounded,
    sum_bound,
    summed_rows,
)

__all__ = ["LARGEST_FACTOR", "VANISHED", "Multislerp", "sphere_factors"]

# Below this length the f64 inner products no longer say where a mean of unit vectors points.
VANISHED = 1e-4
LARGEST_FACTOR = 2.0**64


class Multislerp(Operator, frozen=True, tag="multislerp/1"):
    """Average the directions of several parents and give the result their average length, one tensor at a time.

    Formula:
        child = r * m / ||m|| with m = sum_k w_k v_k / ||v_k||, r = sum_k w_k ||v_k||, sum_k w_k = 1

        v_k is p_k, or p_k - base when ``around_base`` is set; then the result is added to the base. It is computed as
        sum_k c_k * v_k with c_k = r * w_k / (||v_k|| * ||m||) in f64 from inner products in the contract's order,
        rounded once to f32; products and sums are one f32 operation each. A v_k of zeros has no direction and is left
        out of m. Where ||m|| < 1e-4 (directions that cancel) or a c_k would pass 2^64, c_k = w_k. The peer's step in
        the tangent space at m adds sum_k w_k (u_k - (u_k . m) m / ||m||^2), u_k = v_k / ||v_k||, which is zero for the
        weights that made m; it is left out here.

    Source:
        Goddard, Multi-SLERP, 2025 (the method of the merge tools); Buss & Fillmore, Spherical averages, ACM TOG 2001.

    Base:
        The centre of the sphere when ``around_base`` is set; else only the reference of the bound.

    Attributes:
        weights: One relative weight a parent, .001..1000; only their ratios count.
        around_base: Whether directions are those of the differences from the base.

    Bound:
        sqrt(sum over tensors of (||sum_k c_k v_k|| + rounding)^2) around the base; else as for ``slerp/1``.

    When to use:
        More than two parents of clearly different directions, or (around the base) task vectors that a mean would
        shorten.

    Failure modes:
        Directions that nearly cancel leave a direction of noise at full length. Around the base the differences of
        unrelated tasks are stretched to single-task length: more change than a mean makes.
    """

    family: ClassVar[str] = "multislerp"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("weights",)

    weights: Annotated[tuple[VoteWeight, ...], Meta(max_length=MAX_PARENTS)]
    around_base: bool

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The factors of the parents, or of their differences from the base."""
        table = change_table(inputs, (name,)) if self.around_base else products(name, inputs.parents)
        return Survey(factors=rounded(sphere_factors(self.weights, table)))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        rows = changed_rows if self.around_base else summed_rows
        return rows(name, start, stop, inputs, survey.factors)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        return changed(inputs, survey.factors) if self.around_base else summed(inputs.parents, survey.factors)

    def _bound(self, inputs: Inputs) -> float:
        bound = change_bound if self.around_base else sum_bound
        return bound(inputs, {name: self.survey(name, inputs) for name in inputs.names})

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Equal weights, and a ramp around the base."""
        return (
            cls(weights=(1.0,) * parents, around_base=False),
            cls(weights=tuple(k + 1.0 for k in range(parents)), around_base=True),
        )


def sphere_factors(weights: Sequence[float], table: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The c_k of the formula, f64.

    Args:
        weights: Positive, one a vector; they are divided by their sum.
        table: Inner products of the vectors.
    """
    whole = math.fsum(weights)
    shares = tuple(weight / whole for weight in weights)
    norms = [math.sqrt(table[k][k]) for k in range(len(shares))]
    units = [share / norm if norm else 0.0 for share, norm in zip(shares, norms, strict=True)]
    square = math.fsum(a * b * table[i][j] for i, a in enumerate(units) for j, b in enumerate(units))
    length = math.sqrt(max(square, 0.0))
    if not length >= VANISHED:
        return shares
    average = math.fsum(share * norm for share, norm in zip(shares, norms, strict=True))
    factors = tuple(average / length * unit for unit in units)
    return factors if max(factors) <= LARGEST_FACTOR else shares
