"""Sign-aware merge (TIES): trim, elect a sign, average those that agree."""

from __future__ import annotations

from threading import Lock
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey, add_change, coefficients
from studbook.breeding.operators.bounds import largest_delta, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Pattern, Scale, Share, VoteWeight, matches
from studbook.errors import BytesLie
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import elect
from studbook.tensors.kernels_cuts import delta_cuts
from studbook.tensors.selection import Cut, count_of, mask
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

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
        return Survey(cuts=self._cuts(name, inputs))

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """As `Operator.survey_model`; cuts that were found are left in the cache, if there is one."""
        surveys = super().survey_model(inputs, each)
        if inputs.cuts:
            inputs.cuts.save()
        return surveys

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

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`; what was kept is counted, which proves the cuts, wherever they came from."""
        if matches(name, self.skip) or not COMPILED:
            return copied(inputs.base)
        cuts = np.array([cut.bits for cut in survey.cuts], np.uint32).view(np.float32)
        after = np.array([cut.last_index + 1 for cut in survey.cuts], np.int64)
        weights, scale = np.array(coefficients(self.weights), np.float32), np.float32(self.scale)
        total, lock = np.zeros_like(after), Lock()

        def run(stack: Stack, start: int, out: Raw) -> None:
            kept = np.zeros_like(after)
            stack.feed(elect, cuts, after - start, weights, scale, out, kept)
            with lock:
                np.add(total, kept, out=total)

        return Kernel((inputs.base, *inputs.parents), run, lambda: self._check_kept(name, inputs, total.tolist()))

    def _cuts(self, name: str, inputs: Inputs) -> tuple[Cut, ...]:
        k = count_of(self.density, inputs.size(name))
        # Only a compiled run counts what a cut keeps, and only a counted one may come from a cache.
        store, base = inputs.cuts if COMPILED else None, inputs.base.sha256
        known = {p.sha256: store.find(p.sha256, base, name, k) if store else None for p in inputs.parents}
        missing = {parent.sha256: parent for parent in inputs.parents if known[parent.sha256] is None}
        found = delta_cuts(inputs.base, tuple(missing.values()), name, k) if missing else ()
        for digest, new in zip(missing, found, strict=True):
            known[digest] = new
            if store:
                store.keep(digest, base, name, k, new)
        cuts = (known[parent.sha256] for parent in inputs.parents)
        return tuple(cut for cut in cuts if cut is not None)

    def _check_kept(self, name: str, inputs: Inputs, kept: list[int]) -> None:
        wanted = count_of(self.density, inputs.size(name))
        for place, (parent, count) in enumerate(zip(inputs.parents, kept, strict=True)):
            if count != wanted:
                if inputs.cuts:
                    inputs.cuts.forget(parent.sha256, inputs.base.sha256)
                raise BytesLie(
                    f"{count} changes of parent {place} lie above a cut that is for {wanted}",
                    where=f"{self.tag()}: {name}",
                    advice="A model changed while it was read, or a cached cut was wrong and is now removed: run it again.",
                    reason="cuts.count",
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
