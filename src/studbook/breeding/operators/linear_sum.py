"""Linear sum: a weighted sum of the parents, divided by the weights at the end where that is asked for."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, coefficients
from studbook.breeding.operators.bounds import linear, norm, slack
from studbook.breeding.operators.compiled import summed
from studbook.breeding.operators.consensus import Weight
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS
from studbook.breeding.operators.tiled import change_table, tiled
from studbook.errors import OutsideAllowlist
from studbook.tensors.kernels import weighted_sum
from studbook.tensors.stacks import Stack

__all__ = ["LinearSum"]

# A sum of weights nearer to zero than this divides nothing.
_NO_DIVISOR = 1e-8


class LinearSum(Operator, frozen=True, tag="linear-sum/1"):
    """Add the parents up, each times its weight, and divide by the sum of the weights where asked.

    Formula:
        child = sum_k w_k * p_k, divided by W = sum_k w_k where ``normalize``

        Products, sums (of parents and of weights) and the division are one f32 operation each, in the order of the
        parents.

    Source:
        Wortsman et al., Model soups, arXiv 2203.05482, with the order of operations that merge files are known by.

    Base:
        Only the reference of the bound; it need not be a parent.

    Attributes:
        weights: One weight a parent, -1000..1000.
        normalize: Divide by the sum of the weights, which may then not be nearer to zero than 1e-8.

    Bound:
        (sqrt(w^T G w) + |sum(w) - W| * ||base||) / |W| + rounding, with G the inner products of p_k - base and W = 1
        without ``normalize``.

    When to use:
        Merge files with weights that do not sum to 1, and sums that go beyond the parents on purpose.

    Failure modes:
        Without ``normalize`` weights that sum to another number than 1 rescale the whole model.
    """

    family: ClassVar[str] = "linear-sum"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("weights",)

    weights: Annotated[tuple[Weight, ...], Meta(max_length=MAX_PARENTS)]
    normalize: bool

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also weights that are divided by may not sum to zero.

        Raises:
            OutsideAllowlist: if a weight is out of range, or their sum divides nothing.
            ParentsDoNotFit: if there is not one weight a parent.
        """
        super().validate(parents)
        if self.normalize and abs(float(self._divisor())) < _NO_DIVISOR:
            raise OutsideAllowlist(
                "the weights sum to 0, and the sum is divided by",
                where=f"{self.tag()}: weights",
                advice="Use weights with another sum, or set normalize to false.",
                reason="operator.range",
            )

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        first, *others = zip(coefficients(self.weights), inputs.parents, strict=True)
        result = np.multiply(first[1].read(name, start, stop), first[0])
        for factor, parent in others:
            result = np.add(result, np.multiply(parent.read(name, start, stop), factor))
        return np.divide(result, self._divisor()) if self.normalize else result

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        factors, divisor = np.array(coefficients(self.weights), np.float32), self._divisor()
        if not self.normalize:
            return summed(inputs.parents, factors)

        def passes(rows: Rows, start: int, out: Rows) -> None:
            Stack(tuple(rows)).feed(weighted_sum, factors, out)
            np.divide(out, divisor, out=out)

        return tiled(inputs.parents, passes)

    def _divisor(self) -> np.float32:
        total = np.float32(0)
        for weight in coefficients(self.weights):
            total = np.add(total, weight, dtype=np.float32)
        return total

    def _bound(self, inputs: Inputs) -> float:
        factors = coefficients(self.weights)
        over = float(self._divisor()) if self.normalize else 1.0
        change, _ = linear(factors, change_table(inputs, inputs.names))
        drift = abs(math.fsum((*(float(f) for f in factors), -over))) * norm(inputs.base, inputs.names)
        terms = math.fsum(abs(float(f)) * norm(p, inputs.names) for f, p in zip(factors, inputs.parents, strict=True))
        scale = 1.0 / abs(over)
        # A product below the normal range errs by half a unit whatever its size, and the division enlarges it.
        tiny = max(1.0, scale) * (len(factors) + 2) * 2.0**-149
        elements = sum(inputs.size(name) for name in inputs.names)
        rounding = slack(inputs, inputs.names, scale * terms, len(factors) + 2)
        return scale * (change + drift) + rounding + math.sqrt(elements) * tiny

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """A mean, a step beyond the first parent, and a ramp with a negative weight that is divided."""
        ramp = tuple(0.25 * (k + 1) for k in range(parents))
        return (
            cls(weights=(1.0,) * parents, normalize=True),
            cls(weights=(1.5, -0.5) + (0.0,) * (parents - 2), normalize=False),
            cls(weights=(-0.5, *ramp[1:-1], 2.0), normalize=True),
        )
