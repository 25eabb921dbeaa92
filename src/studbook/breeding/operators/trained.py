"""What operators that train have in common: a recipe, slices by digest, and a reach that the child never leaves.

The training itself runs in a worker of its own (`studbook.breeding.trained_worker`), which alone may import torch. What
it learned comes back as a model beside base and parents; from there on an operator of this family is arithmetic as any
other: the change that was learned, made shorter where it goes beyond the reach.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Each, Operator, Survey
from studbook.breeding.operators.bounds import distance, norm
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import Seed, Share
from studbook.errors import OutOfOrder, OutsideAllowlist
from studbook.tensors.reductions import block_squares, blocks, combine
from studbook.tensors.sources import TensorSource

__all__ = ["BatchRows", "Learned", "Rate", "Reach", "SliceDigest", "Slices", "Steps", "Trained"]


def _range(low: float, high: float, description: str) -> Meta:
    schema = {"minimum": low, "maximum": high}
    return Meta(description=description, extra={"low": low, "high": high}, extra_json_schema=schema)


Steps = Annotated[int, _range(1, 100_000, "optimiser steps: the budget")]
Rate = Annotated[float, _range(1e-7, 1.0, "peak learning rate; it falls linearly to 0")]
BatchRows = Annotated[int, _range(1, 4096, "rows a step")]
Reach = Annotated[float, _range(1e-6, 4.0, "largest ||child - start|| over ||start||, L2 over all tensors")]
SliceDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="SHA-256 of a slice of rows")]
Slices = Annotated[tuple[SliceDigest, ...], Meta(max_length=64)]


class Learned(Operator, frozen=True):
    """The part of a recipe that every operator has which learns from rows.

    Attributes:
        steps: Optimiser steps: the budget, never seconds.
        rate: Peak learning rate.
        batch: Rows a step.
        seed: Seed of the rows' order and of fresh weights.
        reach: The child's largest distance from where it starts, over the start's norm.
    """

    worker: ClassVar[str] = "studbook.breeding.trained_worker"
    reproducibility: ClassVar[Literal["exact", "environment-bound"]] = "environment-bound"

    steps: Steps
    rate: Rate
    batch: BatchRows
    seed: Seed
    reach: Reach

    def start(self, inputs: Inputs) -> TensorSource:
        """The model that training starts from: the one parent."""
        return inputs.parents[0]

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """The factor of the learned change, the same for every tensor.

        Raises:
            OutOfOrder: if nothing was learned yet; ``training.worker``.
        """
        start, learned = self.start(inputs), self._learned(inputs)
        squares = {name: _squares(start, learned, name) for name in start.names}
        moved, most = math.sqrt(combine(squares.values())), self.reach * norm(start, start.names)
        factor = float(np.float32(most / moved)) if moved > most else 1.0
        return {name: Survey(factors=(factor,)) for name in start.names}

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """As `survey_model`, for one tensor."""
        return self.survey_model(inputs, lambda function, names: map(function, names))[name]

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        learned = self._learned(inputs).read(name, start, stop)
        if survey.factors == (1.0,):
            return learned.copy()
        before = self.start(inputs).read(name, start, stop)
        change: Rows = np.float32(survey.factors[0]) * (learned - before)
        return before + change

    def _learned(self, inputs: Inputs) -> TensorSource:
        if inputs.learned is None:
            message = "nothing was learned: only its own worker can run it"
            raise OutOfOrder(message, where=self.tag(), reason="training.worker")
        return inputs.learned

    def _bound(self, inputs: Inputs) -> float:
        start = self.start(inputs)
        size = norm(start, start.names)
        apart = distance(inputs) if start is not inputs.base else 0.0
        # One f32 difference, product and sum an element, and a factor that was rounded: 2^-20 of both ends is ample.
        return apart + self.reach * size + 2.0**-20 * (1.0 + 2.0 * self.reach) * size + 1e-20


class Trained(Learned, frozen=True):
    """The part of a training recipe that every operator has which reads the slices of one failure cluster.

    Attributes:
        rehearsal: Share of the rows that come from rehearsed slices.
        data: Digests of the slices it is trained on.
        rehearsed: Digests of the slices that keep other skills alive.
    """

    rehearsal: Share
    data: Slices
    rehearsed: Slices

    def slices(self) -> tuple[str, ...]:
        """Digests of every slice a worker has to read."""
        return (*self.data, *self.rehearsed)

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also at least one slice, none named twice, and rows to rehearse where a share asks.

        Raises:
            OutsideAllowlist: as `Operator.validate`; ``operator.slices``.
            ParentsDoNotFit: as `Operator.validate`.
        """
        super().validate(parents)
        named = self.slices()
        faults = (
            ("data", not self.data, "names no slice to train on"),
            ("rehearsed", len(set(named)) < len(named), "names a slice twice, or one that is trained on"),
            ("rehearsed", bool(self.rehearsed) != (self.rehearsal > 0.0), "needs slices exactly where rehearsal > 0"),
        )
        for field, wrong, what in faults:
            if wrong:
                advice = 'In a recipe write data "cluster", and rehearsed "others" or [] with rehearsal 0.'
                raise OutsideAllowlist(what, where=f"{self.tag()}: {field}", advice=advice, reason="operator.slices")

    @classmethod
    def common(cls, **changes: Any) -> dict[str, Any]:
        """The shared fields of an example, with changes."""
        fields: dict[str, Any] = {
            "steps": 60,
            "rate": 1e-3,
            "batch": 96,
            "seed": 1,
            "reach": 0.5,
            "rehearsal": 0.25,
            "data": ("1" * 64,),
            "rehearsed": ("2" * 64,),
        }
        return fields | changes


def _squares(first: TensorSource, second: TensorSource, name: str) -> float:
    """Sum of (second - first)^2 over one tensor, f64 in the contract's order."""
    return combine(
        block_squares(second.read(name, s, e).astype(np.float64) - first.read(name, s, e).astype(np.float64))
        for s, e in blocks(first.size(name))
    )
