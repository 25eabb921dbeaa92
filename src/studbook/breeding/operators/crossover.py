"""Crossover: every unit of the child comes whole from one parent, drawn from a keyed stream."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.base import Kernel, Operator, Survey
from studbook.breeding.operators.bounds import largest_delta, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Seed
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import choose
from studbook.tensors.philox import Stream, stream_for
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

__all__ = ["BLOCK", "Crossover", "unit_name"]

# Elements of a block: also the block of q4_0, so a crossed model quantises along the same seams.
BLOCK = 32


class Crossover(Operator, frozen=True, tag="crossover/1"):
    """Copy every unit from one parent, chosen by a keyed draw.

    Formula:
        child[unit] = p_c[unit] with c = (u64(word) * number of parents) >> 32

        A unit is a whole ``tensor``; a ``layer`` (all tensors whose name agrees up to its first all-digit part, such as
        ``layers.3``; a tensor without one is a unit of its own); a ``row`` (the last dimension; a vector is one row);
        or a ``block`` (32 elements of the flat tensor from element 0, the last one shorter). The words are those of the
        stream of (seed, digest of the base, name): word 0 under the tensor's or layer's name for ``tensor`` and
        ``layer``; word r under the tensor's name for row or block r.

    Source:
        Uniform crossover, Syswerda 1989, over units of weights.

    Base:
        Keys the draws and is the reference of the bound; its values are not used.

    Attributes:
        granularity: ``tensor``, ``layer``, ``row`` or ``block``.
        seed: Seed of the draws.

    Bound:
        sqrt(sum_i max_k (p_k - base)[i]^2) + rounding, whatever the draw.

    When to use:
        To search among parents close to each other, or to find which layers carry a skill.

    Failure modes:
        Fine units of distant parents break what neighbouring rows learned together. A draw may take everything from
        one parent: then the child is that parent's copy and is recognised by its digest.
    """

    family: ClassVar[str] = "crossover"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)

    granularity: Literal["tensor", "layer", "row", "block"]
    seed: Seed

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The one choice for a tensor, or the stream of its finer ones."""
        key = unit_name(name) if self.granularity == "layer" else name
        stream = stream_for(self.seed, bytes.fromhex(inputs.base.sha256), key)
        if self.granularity in ("tensor", "layer"):
            return Survey(choice=int(stream.choices(0, 1, len(inputs.parents))[0]))
        return Survey(streams=(stream,))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        if survey.choice >= 0:
            return inputs.parents[survey.choice].read(name, start, stop).copy()
        unit = inputs.columns(name) if self.granularity == "row" else BLOCK
        picked = _picked(survey.streams[0], start, stop, unit, len(inputs.parents))
        result = inputs.parents[0].read(name, start, stop).copy()
        for k, parent in enumerate(inputs.parents[1:], start=1):
            np.copyto(result, parent.read(name, start, stop), where=picked == k)
        return result

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        if survey.choice >= 0 or not COMPILED:
            return copied(inputs.parents[survey.choice])
        unit = inputs.columns(name) if self.granularity == "row" else BLOCK

        def run(stack: Stack, start: int, out: Raw) -> None:
            first, last = start // unit, -(-(start + out.size) // unit)
            stack.feed(choose, start, unit, survey.streams[0].choices(first, last, len(inputs.parents)), out)

        return Kernel(inputs.parents, run)

    def _bound(self, inputs: Inputs) -> float:
        return largest_delta(inputs, inputs.names) + slack(inputs, inputs.names, 0.0, 0)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """One of each granularity."""
        return (
            cls(granularity="tensor", seed=1),
            cls(granularity="layer", seed=1),
            cls(granularity="row", seed=1),
            cls(granularity="block", seed=0),
        )


def unit_name(name: str) -> str:
    """The layer a tensor belongs to: its name up to its first all-digit part, or all of it."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isascii() and part.isdigit():
            return ".".join(parts[: place + 1])
    return name


def _picked(stream: Stream, start: int, stop: int, unit: int, parents: int) -> NDArray[np.int64]:
    """Which parent every element start..stop-1 comes from, i64."""
    first, last = start // unit, -(-stop // unit)
    choices = stream.choices(first, last, parents)
    return np.repeat(choices, unit)[start - first * unit : stop - first * unit]
