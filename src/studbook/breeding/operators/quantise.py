"""Quantise: the same values, to be stored in fewer bits."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import numpy as np

from studbook.breeding.operators.base import Kernel, Operator, Survey
from studbook.breeding.operators.bounds import distance, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.errors import ParentsDoNotFit
from studbook.tensors.reductions import sum_of_squares

__all__ = ["Quantise", "block_length"]

# Largest code of each storage; the step is the largest magnitude of a row or block divided by it.
TOP = {"q8_0": 127, "q4_0": 7}


class Quantise(Operator, frozen=True, tag="quantise/1"):
    """Store one parent in 8 or 4 bits an element.

    Formula:
        child = p, written as ``dtype``; a reader sees q * step with q = round(p / step), step = max|p| / top

        top is 127 and the maximum runs over a row for q8_0; 7 and a block (the largest even divisor of the row, at
        most 32) for q4_0. A vector is one row. The container's writer does the rounding; every tensor is quantised.

    Source:
        The storage rules of the SLM1 container.

    Base:
        The reference of the bound, usually the parent itself.

    Attributes:
        dtype: ``q8_0`` or ``q4_0``.

    Bound:
        ||p - base|| + sqrt(sum over elements of (step / 2)^2) + rounding.

    When to use:
        To make a model smaller (about 4 or 7 times) after its quality is settled.

    Failure modes:
        One outlier coarsens its whole row in q8_0. q4_0 costs accuracy in small models, most in a tied embedding. A
        row of odd length cannot be q4_0.
    """

    family: ClassVar[str] = "quantise"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    dtype: Literal["q8_0", "q4_0"]

    @property
    def storage(self) -> str | None:
        """The storage asked for."""
        return self.dtype

    def check(self, inputs: Inputs) -> None:
        """As `Operator.check`; also every row must be storable.

        Raises:
            ParentsDoNotFit: if a row is odd and q4_0 is asked for, naming the tensor.
        """
        super().check(inputs)
        for name in inputs.names:
            if self.dtype == "q4_0" and inputs.columns(name) % 2:
                raise ParentsDoNotFit(
                    f"a row of {inputs.columns(name)} elements cannot be q4_0",
                    where=f"{self.tag()}: {name}",
                    advice="Use q8_0, or a model whose dimensions are even.",
                    reason="parents.row-length",
                )

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        return inputs.parents[0].read(name, start, stop).copy()

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        return copied(inputs.parents[0])

    def _bound(self, inputs: Inputs) -> float:
        steps = largest = 0.0
        for name in inputs.names:
            columns = inputs.columns(name)
            length = block_length(columns) if self.dtype == "q4_0" else columns
            maxima = np.abs(inputs.parents[0].flat(name).reshape(-1, length)).max(axis=1).astype(np.float64)
            square = length * sum_of_squares(maxima)
            steps += square / (2 * TOP[self.dtype]) ** 2
            largest += square
        # The step is rounded to f32 and may step down by one unit; q * step is rounded once more when it is read.
        rounding = 2.0**-22 * math.sqrt(largest) + slack(inputs, inputs.names, 0.0, 0)
        return distance(inputs) + math.sqrt(steps) * (1.0 + 2.0**-20) + rounding

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Both storages."""
        return (cls(dtype="q8_0"), cls(dtype="q4_0"))


def block_length(columns: int) -> int:
    """Largest even divisor of a row's length that is at most 32; 0 when the length is odd."""
    return max((n for n in range(2, 33, 2) if columns % n == 0), default=0)
