"""Dequantise: the values a reader sees, stored in full."""

from __future__ import annotations

from typing import ClassVar, Self

from studbook.breeding.operators.base import Kernel, Operator, Survey
from studbook.breeding.operators.bounds import distance, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows

__all__ = ["Dequantise"]


class Dequantise(Operator, frozen=True, tag="dequantise/1"):
    """Store one parent's values as f32, whatever they were stored in.

    Formula:
        child = p, every element as a reader of p sees it, written as f32

        For q8_0 and q4_0 that is f32(q * step), code and step as stored; tensors that are f32 keep their bits.

    Source:
        The storage rules of the SLM1 container.

    Base:
        The reference of the bound, usually the parent itself.

    Attributes:
        There are none; what is stored decides everything.

    Bound:
        ||p - base|| + rounding.

    When to use:
        Before fine-tuning or editing a model of which only the small form was kept.

    Failure modes:
        What quantisation lost stays lost. The file grows to 4 or 7 times its size. A parent that is f32 already gives a
        copy, recognised by its digest.
    """

    family: ClassVar[str] = "dequantise"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    @property
    def storage(self) -> str | None:
        """Always f32."""
        return "f32"

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        return inputs.parents[0].read(name, start, stop).copy()

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        return copied(inputs.parents[0])

    def _bound(self, inputs: Inputs) -> float:
        return distance(inputs) + slack(inputs, inputs.names, 0.0, 0)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """The only one there is."""
        return (cls(),)
