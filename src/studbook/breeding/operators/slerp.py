"""Slerp: along the arc between two parents, tensor by tensor."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey
from studbook.breeding.operators.compiled import copied, products, summed
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import Pattern, Share, matches
from studbook.breeding.operators.weighted import rounded, sum_bound, summed_rows
from studbook.tensors.trigonometry import acos, sin

__all__ = ["PARALLEL", "Slerp", "arc_factors"]

# Above this |cosine| the arc is a line to f32, and sin(angle) too small to divide by.
PARALLEL = 0.9995


class Slerp(Operator, frozen=True, tag="slerp/1"):
    """Go from one parent to another along the arc between them, one angle a tensor.

    Formula:
        child = a * p_0 + b * p_1 with a = sin((1 - t) * angle) / sin(angle), b = sin(t * angle) / sin(angle)

        angle is the one between the two whole tensors; its cosine is an f64 inner product and two f64 norms in the
        contract's order. Where |cosine| > 0.9995 or a tensor is all zeros a = 1 - t and b = t. Sine and arc cosine come
        from + - * / and sqrt alone; a and b are rounded once to f32; products and sum are one f32 operation each.

    Source:
        Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985.

    Base:
        The reference of the bound, and the values of skipped tensors; often the first parent.

    Attributes:
        t: Way from the first parent (0) to the second (1).
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        sqrt(sum over tensors of (||a (p_0 - base) + b (p_1 - base)|| + |a + b - 1| ||base|| + rounding)^2).

    When to use:
        Two parents whose tensors point in clearly different directions: the child keeps their length where a mean would
        shrink it.

    Failure modes:
        Fine-tunes of one base are nearly parallel, and slerp is then a blend. Parents that point in opposite
        directions have no one arc between them and are mixed along the line, which passes near zero.
    """

    family: ClassVar[str] = "slerp"
    parents_needed: ClassVar[tuple[int, int]] = (2, 2)

    t: Share
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The two factors of a tensor; none for a skipped one."""
        if matches(name, self.skip):
            return Survey()
        (first, both), (_, second) = products(name, inputs.parents)
        return Survey(factors=rounded(arc_factors(self.t, first, second, both)))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        if not survey.factors:
            return inputs.base.read(name, start, stop).copy()
        return summed_rows(name, start, stop, inputs, survey.factors)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        if not survey.factors:
            return copied(inputs.base)
        return summed(inputs.parents, survey.factors)

    def _bound(self, inputs: Inputs) -> float:
        return sum_bound(inputs, {name: self.survey(name, inputs) for name in inputs.kept(self.skip)})

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Half way, a quarter with one kind of tensor left alone, and both ends."""
        return (
            cls(t=0.5, skip=()),
            cls(t=0.25, skip=("*norm*",)),
            cls(t=0.0, skip=()),
            cls(t=1.0, skip=()),
        )


def arc_factors(t: float, first: float, second: float, both: float) -> tuple[float, float]:
    """The factors of two vectors on the arc between them, f64.

    Args:
        t: 0..1.
        first: Square of the first vector's norm.
        second: Square of the second's.
        both: Their inner product.
    """
    size = math.sqrt(first) * math.sqrt(second)
    cosine = both / size if size else 1.0
    if abs(cosine) > PARALLEL:
        return 1.0 - t, t
    angle = acos(cosine)
    whole = sin(angle)
    return sin((1.0 - t) * angle) / whole, sin(t * angle) / whole
