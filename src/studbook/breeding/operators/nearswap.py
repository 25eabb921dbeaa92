"""Nearswap: take the other model's value where it is near, and a bounded step towards it elsewhere."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, add_change
from studbook.breeding.operators.bounds import slack, wide_delta
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.tiled import tiled
from studbook.tensors.kernels_consensus import near
from studbook.tensors.reductions import block_squares, blocks

__all__ = ["NEAREST", "Nearswap", "Reach"]

# Differences below this count as this large; the tool the method comes from divides by no less.
NEAREST = np.float32(1e-6)

Reach = Annotated[
    float,
    Meta(
        description="largest step of an element",
        extra={"low": 1e-9, "high": 4.0},
        extra_json_schema={"minimum": 1e-9, "maximum": 4.0},
    ),
]


class Nearswap(Operator, frozen=True, tag="nearswap/1"):
    """Move the base towards one parent, by the whole difference where it is small and by t where it is not.

    Formula:
        child = base + w * (p - base) with w = min(1, t / max(|p - base|, 1e-6))

        Each operation is one f32 operation. Where w * (p - base) is zero the child keeps the base's bits; elsewhere,
        where w is 1, it takes p's.

    Source:
        alchemonaut, QuartetAnemoi-70B-t0.0001, 2024 (model card), where it is called NearSwap.

    Base:
        The model that is moved; the bound's reference.

    Attributes:
        t: Largest step of an element, 1e-9..4. Below 1e-6 no element is taken whole.

    Bound:
        sqrt(sum min(|p - base|, t)^2) + rounding.

    When to use:
        To let a strong base pick up what a parent shares with it: agreeing elements are taken over, outliers of the
        parent barely count. 1e-4 was the first value tried by its author.

    Failure modes:
        t near the usual size of the differences makes the child the parent. A parent of another base differs almost
        everywhere by more than t, and the child is the base with noise of size t.
    """

    family: ClassVar[str] = "nearswap"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)
    needs_base: ClassVar[bool] = True

    t: Reach

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        difference = inputs.delta(0, name, start, stop)
        share = np.divide(np.float32(self.t), np.maximum(np.abs(difference), NEAREST))
        step = np.multiply(np.minimum(share, np.float32(1)), difference)
        moved = add_change(inputs.base.read(name, start, stop), step)
        whole = (share >= 1) & (difference != 0)
        return np.where(whole, inputs.parents[0].read(name, start, stop), moved)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        reach = np.float32(self.t)

        def passes(rows: Rows, start: int, out: Rows) -> None:
            near(rows, reach, NEAREST, out)

        return tiled((inputs.base, *inputs.parents), passes)

    def _bound(self, inputs: Inputs) -> float:
        reach, square = float(np.float32(self.t)), 0.0
        for name in inputs.names:
            for start, stop in blocks(inputs.size(name)):
                square += block_squares(np.minimum(np.abs(wide_delta(inputs, 0, name, start, stop)), reach))
        change = math.sqrt(square)
        return change + slack(inputs, inputs.names, change, 5)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """A small step, a large one, and one below the smallest difference that counts."""
        return (cls(t=1e-4), cls(t=0.1), cls(t=1e-8))
