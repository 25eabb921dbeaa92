"""Mutation: bounded noise on one parent, in proportion to each tensor's size."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, add_change
from studbook.breeding.operators.bounds import distance, norm, slack, squares
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import Pattern, Seed, Share, matches
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import add_noise
from studbook.tensors.philox import stream_for
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

__all__ = ["Mutation"]


class Mutation(Operator, frozen=True, tag="mutation/1"):
    """Add uniform noise to one parent, scaled to the root mean square of every tensor.

    Formula:
        child = p + a * u with a = f32(strength * sqrt(sum(p^2) / n)) per tensor and u in [-1, 1)

        u[i] = ((word i >> 8) - 2^23) * 2^-23 from the stream of (seed, digest of p, tensor name), exact in f32; the sum
        of squares is f64 in the contract's order. An element whose noise is zero keeps its bits.

    Source:
        Bounded uniform mutation of evolution strategies; the noise law is the numeric contract's.

    Base:
        The reference of the bound; the child starts from the parent, which may be the base itself.

    Attributes:
        strength: Largest change of an element, in root mean squares of its tensor, 0..1.
        seed: Seed of the noise. The noise does not depend on ``strength``.
        skip: Globs over tensor names; a tensor that matches stays the parent's.

    Bound:
        ||p - base|| + strength * ||p over the tensors not skipped|| + rounding.

    When to use:
        To probe how robust a model is, and to make near neighbours for a search. .01 is visible, .1 is strong.

    Failure modes:
        Noise seldom improves a trained model; tied embeddings and norms are the most fragile: skip them.
    """

    family: ClassVar[str] = "mutation"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    strength: Share
    seed: Seed
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """Amplitude and stream."""
        parent = inputs.parents[0]
        square = squares(parent, name) / max(inputs.size(name), 1)
        stream = stream_for(self.seed, bytes.fromhex(parent.sha256), name)
        return Survey(streams=(stream,), amplitude=float(np.float32(self.strength * math.sqrt(square))))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        values = inputs.parents[0].read(name, start, stop)
        if matches(name, self.skip):
            return values.copy()
        noise = survey.streams[0].noise(start, stop)
        return add_change(values, np.multiply(noise, np.float32(survey.amplitude)))

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        parent = inputs.parents[0]
        if matches(name, self.skip) or not COMPILED:
            return copied(parent)
        amplitude = np.float32(survey.amplitude)
        first, second = (np.uint32(part) for part in survey.streams[0].key)

        def run(stack: Stack, start: int, out: Raw) -> None:
            stack.feed(add_noise, start, amplitude, first, second, out)

        return Kernel((parent,), run)

    def _bound(self, inputs: Inputs) -> float:
        names = inputs.kept(self.skip)
        change = self.strength * norm(inputs.parents[0], names)
        return distance(inputs) + change + slack(inputs, names, change, 3)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, and none."""
        return (
            cls(strength=0.01, seed=3, skip=("tok_embeddings*", "*norm*")),
            cls(strength=0.0, seed=3, skip=()),
            cls(strength=1.0, seed=11, skip=()),
        )
