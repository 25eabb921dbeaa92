"""Blend: a weighted mean of the parents."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, coefficients
from studbook.breeding.operators.bounds import linear, norm, slack
from studbook.breeding.operators.compiled import summed
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Share
from studbook.breeding.operators.tiled import change_table
from studbook.errors import OutsideAllowlist

__all__ = ["Blend"]

TOLERANCE = 1e-6


class Blend(Operator, frozen=True, tag="blend/1"):
    """Average the parents with weights that sum to one.

    Formula:
        child = sum_k w_k * p_k

        Each product and each sum is one f32 operation, in the order of the parents.

    Source:
        Wortsman et al., Model soups, arXiv 2203.05482.

    Base:
        Only the reference of the bound; it need not be a parent.

    Attributes:
        weights: One weight a parent, each 0..1, summing to 1 within 1e-6; otherwise the record is refused, because a
            sum off by more would silently rescale the model. To go beyond the parents use ``task-delta/1``.

    Bound:
        sqrt(w^T G w) + |sum(w) - 1| * ||base|| + rounding, with G the inner products of p_k - base.

    When to use:
        Parents fine-tuned from one base on different skills, when nothing is known about their conflicts. It is the
        first thing to try and a strong baseline.

    Failure modes:
        Parents from different bases average to noise. A skill that only one of many parents has fades with 1/n.
        Equal parents give back their own values up to one f32 rounding an operation (exactly for weights such as .5).
    """

    family: ClassVar[str] = "blend"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("weights",)

    weights: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also the weights must sum to 1 within 1e-6.

        Raises:
            OutsideAllowlist: if a weight is out of range or the sum is not 1.
            ParentsDoNotFit: if there is not one weight a parent.
        """
        super().validate(parents)
        found = math.fsum(self.weights)
        if not abs(found - 1.0) <= TOLERANCE:
            raise OutsideAllowlist(
                f"the weights sum to {found!r}, not to 1",
                where=f"{self.tag()}: weights",
                advice="Divide every weight by their sum.",
                reason="operator.range",
            )

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        first, *others = zip(coefficients(self.weights), inputs.parents, strict=True)
        result = np.multiply(first[1].read(name, start, stop), first[0])
        for factor, parent in others:
            result = np.add(result, np.multiply(parent.read(name, start, stop), factor))
        return result

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        return summed(inputs.parents, coefficients(self.weights))

    def _bound(self, inputs: Inputs) -> float:
        factors = coefficients(self.weights)
        count = len(factors)
        table = change_table(inputs, inputs.names)
        change, _ = linear(factors, table)
        drift = abs(math.fsum(float(f) for f in factors) - 1.0) * norm(inputs.base, inputs.names)
        terms = math.fsum(float(f) * norm(p, inputs.names) for f, p in zip(factors, inputs.parents, strict=True))
        return change + drift + slack(inputs, inputs.names, terms, count + 1)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Uniform, and a ramp."""
        ramp = parents * (parents + 1) / 2
        return (
            cls(weights=(1.0 / parents,) * parents),
            cls(weights=tuple((k + 1) / ramp for k in range(parents))),
        )
