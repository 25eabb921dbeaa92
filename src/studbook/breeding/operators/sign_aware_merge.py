"""Sign-aware merge (TIES): trim, elect a sign, average those that agree."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Operator, Survey, add_change, coefficients
from studbook.breeding.operators.bounds import largest_delta, slack
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Pattern, Scale, Share, VoteWeight, matches
from studbook.tensors.reductions import blocks
from studbook.tensors.selection import Cut, count_of, mask, top_k

__all__ = ["SignAwareMerge"]


class SignAwareMerge(Operator, frozen=True, tag="sign-aware-merge/1"):
    """Keep each parent's largest changes, settle every sign by vote, average the changes that agree with it.

    Formula:
        d_k = p_k - base
        t_k = d_k where |d_k| is among the floor(density * n) largest of its tensor and parent, else 0
        v   = sum_k w_k * t_k
        m   = sum of w_k * t_k over the k with sign(t_k) = sign(v), divided by the sum of their w_k; 0 where v = 0
        child = base + scale * m

        n is the tensor's size; of equal magnitudes the lowest indices are kept. All in f32, in the order of the
        parents. An element whose m is zero keeps the base's bits.

    Source:
        Yadav et al., TIES-Merging, arXiv 2306.01708. A tied vote changes nothing here, as sgn(0) = 0 in the paper.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        density: Share of each parent's changes that is kept, 0..1, per tensor.
        weights: One vote weight a parent, .001..1000; only their ratios matter.
        scale: Factor on the merged change, -4..4.
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        |scale| * sqrt(sum_i max_k d_k[i]^2) + rounding: a mean of changes of one sign is no larger than the largest.

    When to use:
        Several specialists of one base whose changes pull in opposite directions, where a blend cancels them.

    Failure modes:
        Low density loses skills that live in many small changes. A heavy weight decides every vote. Embeddings are
        fragile: skip them if rare tokens matter.
    """

    family: ClassVar[str] = "sign-aware-merge"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("weights",)

    density: Share
    weights: Annotated[tuple[VoteWeight, ...], Meta(max_length=MAX_PARENTS)]
    scale: Scale
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One cut a parent."""
        if matches(name, self.skip):
            return Survey()
        return Survey(cuts=tuple(self._cut(k, name, inputs) for k in range(len(inputs.parents))))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        base = inputs.base.read(name, start, stop)
        if matches(name, self.skip):
            return base.copy()
        weights = coefficients(self.weights)
        zero = np.float32(0)
        trimmed = []
        for k, cut in enumerate(survey.cuts):
            delta = inputs.delta(k, name, start, stop)
            trimmed.append(np.where(mask(cut, delta, start), delta, zero))
        vote = np.zeros(stop - start, np.float32)
        for weight, delta in zip(weights, trimmed, strict=True):
            vote = np.add(vote, np.multiply(delta, weight))
        elected = np.sign(vote)
        top, bottom = np.zeros_like(vote), np.zeros_like(vote)
        for weight, delta in zip(weights, trimmed, strict=True):
            agrees = np.sign(delta) == elected  # where nothing is elected, only zeros agree
            top = np.add(top, np.where(agrees, np.multiply(delta, weight), zero))
            bottom = np.add(bottom, np.where(agrees, weight, zero))
        merged = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        return add_change(base, np.multiply(merged, np.float32(self.scale)))

    def _cut(self, parent: int, name: str, inputs: Inputs) -> Cut:
        size = inputs.size(name)
        return top_k(
            lambda: (inputs.delta(parent, name, s, e) for s, e in blocks(size)), count_of(self.density, size), size
        )

    def _bound(self, inputs: Inputs) -> float:
        names = inputs.kept(self.skip)
        change = abs(float(np.float32(self.scale))) * largest_delta(inputs, names)
        return change + slack(inputs, names, change, 2 * len(self.weights) + 6)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, nothing kept, everything kept with a ramp of votes and vectors left alone."""
        return (
            cls(density=0.2, weights=(1.0,) * parents, scale=1.0, skip=()),
            cls(density=0.0, weights=(1.0,) * parents, scale=1.0, skip=()),
            cls(density=1.0, weights=tuple(k + 1.0 for k in range(parents)), scale=-0.5, skip=("*norm*",)),
        )
