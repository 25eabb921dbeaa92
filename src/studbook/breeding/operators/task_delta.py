"""Task delta: scaled differences from a shared base, added up."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, add_change, coefficients
from studbook.breeding.operators.bounds import linear, slack
from studbook.breeding.operators.compiled import copied, rescaled
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Pattern, Scale, matches
from studbook.breeding.operators.tiled import change_table

__all__ = ["TaskDelta"]


class TaskDelta(Operator, frozen=True, tag="task-delta/1"):
    """Add scaled differences from a shared base.

    Formula:
        child = base + sum_k s_k * (p_k - base)

        Differences, products and sums are one f32 operation each, in the order of the parents; the sum is added to the
        base last. An element whose sum is zero keeps the base's bits.

    Source:
        Ilharco et al., Editing models with task arithmetic, arXiv 2212.04089.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        scales: One factor a parent, -4..4; negative ones remove a task.
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        sqrt(s^T G s) + rounding, with G the inner products of p_k - base over the tensors not skipped.

    When to use:
        Specialists of one base whose skills should be added to it. About .3 for four parents is a good first scale.

    Failure modes:
        Scales of .6 and more for several parents overshoot and collapse all skills at once. A wrong base adds the
        distance between the bases.
    """

    family: ClassVar[str] = "task-delta"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("scales",)

    scales: Annotated[tuple[Scale, ...], Meta(max_length=MAX_PARENTS)]
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        base = inputs.base.read(name, start, stop)
        if matches(name, self.skip):
            return base.copy()
        change = np.zeros(stop - start, np.float32)
        for k, factor in enumerate(coefficients(self.scales)):
            change = np.add(change, np.multiply(inputs.delta(k, name, start, stop), factor))
        return add_change(base, change)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        if matches(name, self.skip):
            return copied(inputs.base)
        return rescaled(inputs.base, inputs.parents, coefficients(self.scales))

    def _bound(self, inputs: Inputs) -> float:
        names, factors = inputs.kept(self.skip), coefficients(self.scales)
        table = change_table(inputs, names)
        change, terms = linear(factors, table)
        return change + slack(inputs, names, terms, len(factors) + 3)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Nothing, a usual scale, and signs that alternate with one tensor left alone."""
        return (
            cls(scales=(0.0,) * parents, skip=()),
            cls(scales=(0.3,) * parents, skip=()),
            cls(scales=tuple(0.5 * (-1) ** k for k in range(parents)), skip=("*norm*",)),
        )
