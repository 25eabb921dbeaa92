"""Adapter fuse: a model with adapter packages built in for good."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Self

from studbook.adapters.source import AdapterSource
from studbook.breeding.operators.base import Operator, Survey
from studbook.breeding.operators.bounds import gram, slack, wide_delta
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS
from studbook.errors import ParentsDoNotFit
from studbook.tensors.sources import ArraySource

__all__ = ["AdapterFuse"]


class AdapterFuse(Operator, frozen=True, tag="adapter-fuse/1"):
    """Build adapter packages into the model they were made for.

    Formula:
        child = p_n, with p_1 the model and p_(k + 1) the package k seen over p_k

        A package's view gives the fused values: f64 arithmetic, ranks in ascending order, one rounding to f32 for each
        package; tensors it does not name are those below. The child is stored as f32.

    Source:
        Hu et al., LoRA, arXiv 2106.09685, for low-rank packages; the fusion rules are those of the package format.

    Base:
        The f32 model the packages were made for. The first parent is that model, or a quantised build of it.

    Attributes:
        No field: the parents say it all, the model first, then the packages in the order of fusion.

    Bound:
        ||p_n - base|| + rounding.

    When to use:
        When an adapter has proved itself and the model is to be merged, quantised or shipped with it.

    Failure modes:
        Packages do not commute: another order rounds differently, and two that were trained apart may undo each other.
        A package over a quantised build carries that build's rounding into f32 for good.
    """

    family: ClassVar[str] = "adapter-fuse"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)

    @property
    def storage(self) -> str | None:
        """Always f32."""
        return "f32"

    def check(self, inputs: Inputs) -> None:
        """As `Operator.check`; also every parent after the first must be a package over the one before it.

        Raises:
            ParentsDoNotFit: as `Operator.check`, if a parent after the first is a model, or if packages stand in another
                order than they were opened in.
        """
        super().check(inputs)
        for place, (below, above) in enumerate(pairwise(inputs.parents), start=1):
            # Arrays in memory have no file behind them that could be mistaken for a package.
            if isinstance(above, ArraySource):
                continue
            if not isinstance(above, AdapterSource):
                message = "is a model; after the first parent only adapter packages follow"
                raise ParentsDoNotFit(message, where=f"parent {place}", reason="parents.adapter-kind")
            if above.below.sha256 != below.sha256:
                message = "this package was opened over another parent than the one before it"
                raise ParentsDoNotFit(message, where=f"parent {place}", reason="parents.adapter-order")

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        return inputs.parents[-1].read(name, start, stop).copy()

    def _bound(self, inputs: Inputs) -> float:
        last = len(inputs.parents) - 1
        square = gram(inputs, inputs.names, lambda _, name, s, e: wide_delta(inputs, last, name, s, e), 1)[0][0]
        return math.sqrt(square) + slack(inputs, inputs.names, 0.0, 0)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """The only one there is."""
        return (cls(),)
