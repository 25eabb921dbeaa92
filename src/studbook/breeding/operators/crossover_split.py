"""Crossover split: consecutive stretches of the flat model, each from one parent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey, in_turn
from studbook.breeding.operators.bounds import slack, wide_delta
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Share
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import convert
from studbook.tensors.reductions import block_squares, blocks
from studbook.tensors.selection import count_of
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

__all__ = ["CrossoverSplit"]


class CrossoverSplit(Operator, frozen=True, tag="crossover-split/1"):
    """Cut the flat model at a few points and copy every stretch from another parent.

    Formula:
        child[i] = p_k[i] for floor(x_k * n) <= i < floor(x_(k+1) * n)

        n counts the elements of all tensors and i runs through them in canonical order, row-major within a tensor;
        x_0 = 0, the last x is 1, and the points stand between. The products are exact (see ``top-k`` in the contract).

    Source:
        Holland, Adaptation in Natural and Artificial Systems, 1975 (one-point crossover), and its n-point form; one
        point between two models as in Abrantes et al., Competition and attraction improve model fusion, arXiv
        2508.16204.

    Base:
        Only the reference of the bound.

    Attributes:
        points: Where the next parent starts, as shares 0..1 of all elements, ascending, one fewer than the parents.
            Equal points leave the parent between them out.

    Bound:
        sqrt(sum over stretches of ||p_k - base||^2 within the stretch) + rounding.

    When to use:
        To search over where one model's early and another one's late layers meet: the genome is one number.

    Failure modes:
        A point inside a tensor joins rows that were never trained together. Points move in elements, not in layers: a
        large embedding at the start takes up a large share of the range.
    """

    family: ClassVar[str] = "crossover-split"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)

    points: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS - 1)]

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also the points must ascend and be one fewer than the parents.

        Raises:
            OutsideAllowlist: if a point is out of range or lies before the one ahead of it.
            ParentsDoNotFit: if the points are not one fewer than the parents.
        """
        wanted = len(self.points) + 1
        super().validate(wanted if parents is None else parents)
        if parents not in (None, wanted):
            raise ParentsDoNotFit(
                f"{len(self.points)} values for {parents} parents",
                where=f"{self.tag()}: points",
                advice="Give one point fewer than there are parents.",
                reason="operator.parents",
            )
        for place, (before, point) in enumerate(pairwise(self.points), start=1):
            if point < before:
                raise OutsideAllowlist(
                    f"{point!r} comes after {before!r}",
                    where=f"{self.tag()}: points[{place}]",
                    advice="Write the points in ascending order.",
                    reason="operator.range",
                )

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """Where in every tensor the next parent's elements start."""
        size = sum(inputs.size(name) for name in inputs.names)
        cuts = [count_of(point, size) for point in self.points]
        surveys, before = {}, 0
        for name in inputs.names:
            count = inputs.size(name)
            surveys[name] = Survey(splits=tuple(min(max(cut - before, 0), count) for cut in cuts))
            before += count
        return surveys

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """As `survey_model`, for one tensor."""
        return self.survey_model(inputs, in_turn)[name]

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        result = np.empty(stop - start, np.float32)
        for parent, first, last in _stretches(survey, start, stop):
            result[first - start : last - start] = inputs.parents[parent].read(name, first, last)
        return result

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        parents = [parent for parent, _, _ in _stretches(survey, 0, inputs.size(name))]
        if len(parents) == 1 or not COMPILED:
            return copied(inputs.parents[parents[0]])
        places = {parent: place for place, parent in enumerate(parents)}

        def run(stack: Stack, start: int, out: Raw) -> None:
            for parent, first, last in _stretches(survey, start, start + out.size):
                place = places[parent]
                stack.feed(convert, place, first - start, out[first - start : last - start])

        return Kernel(tuple(inputs.parents[parent] for parent in parents), run)

    def _bound(self, inputs: Inputs) -> float:
        square = 0.0
        for name, survey in self.survey_model(inputs, in_turn).items():
            for start, stop in blocks(inputs.size(name)):
                for parent, first, last in _stretches(survey, start, stop):
                    square += block_squares(wide_delta(inputs, parent, name, first, last))
        return math.sqrt(square) + slack(inputs, inputs.names, 0.0, 0)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Equal stretches, and one parent alone with the others at its ends."""
        equal = tuple((k + 1) / parents for k in range(parents - 1))
        return (cls(points=equal), cls(points=(0.29,) + (1.0,) * (parents - 2)))


def _stretches(survey: Survey, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(parent, first, last + 1) of the stretches that cover start..stop-1, in order, none empty."""
    ends = (*survey.splits, stop)
    at = start
    for parent, end in enumerate(ends):
        last = min(max(end, at), stop)
        if last > at:
            yield parent, at, last
            at = last
