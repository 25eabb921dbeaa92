"""TIES with one density and one weight a parent, as merge files set it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.base import Survey
from studbook.breeding.operators.consensus import Sparse, SparseMerge
from studbook.breeding.operators.cuts import CountedCuts, known_cuts, largest_changes, share_counts
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Share, matches
from studbook.tensors.kernels_consensus import keep_largest

__all__ = ["Ties"]


class Ties(SparseMerge, frozen=True, tag="ties/1"):
    """Keep each parent's largest changes, weigh them, elect every sign, add up or average those that agree.

    Formula:
        d_k = p_k - base
        t_k = d_k where |d_k| is among the floor(density_k * n) largest of its tensor and parent, else 0
        v   = sum_k w_k * t_k
        m   = sum of w_k * t_k over the k where it is not zero and has the sign of v, or plus where v = 0
        m   = m / (sum of those w_k), where ``normalize``
        child = base + scale * m

        n is the tensor's size; of equal magnitudes the lowest indices are kept. All in f32, in the order of the
        parents. An element whose m is zero keeps the base's bits.

    Source:
        Yadav et al., TIES-Merging, arXiv 2306.01708, in the form that merge files use: weights before the vote, and a
        tied vote elects plus. ``sign-aware-merge/1`` has the paper's rule, where a tied vote changes nothing.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        weights: One factor a parent, -1000..1000; negative ones only without ``normalize``.
        normalize: Divide by the weights that agree. Then only the ratios of the weights matter.
        scale: Factor on the merged change, -4..4; merge files call it lambda.
        skip: Globs over tensor names; a tensor that matches stays the base's.
        densities: Share of each parent's changes that is kept, 0..1, per tensor.

    Bound:
        |scale| * sqrt(sum_i u_i^2) + rounding, over the tensors not skipped. u_i is the largest |t_k[i]| of a parent with
        a weight, where ``normalize``; else the larger of the sums of the positive and of the negative w_k * t_k[i].

    When to use:
        Several specialists of one base whose changes pull in opposite directions, and merge files written for TIES.

    Failure modes:
        Without ``normalize`` the changes that agree add up and overshoot. Low densities lose skills that live in many
        small changes. A tensor smaller than 1 / density keeps nothing, where some merge tools keep one element.
    """

    family: ClassVar[str] = "ties"
    per_parent: ClassVar[tuple[str, ...]] = ("densities", "weights")

    densities: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One cut a parent."""
        if matches(name, self.skip):
            return Survey()
        return Survey(cuts=known_cuts(inputs, name, share_counts(self.densities, inputs.size(name))))

    def terms(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> tuple[Rows, ...]:
        """The largest changes of every parent."""
        return largest_changes(inputs, name, start, stop, survey.cuts)

    def sparse(self, name: str, inputs: Inputs, survey: Survey) -> Sparse:
        """See `SparseMerge.sparse`; what was kept is counted, which proves the cuts, wherever they came from."""
        counts = share_counts(self.densities, inputs.size(name))
        cuts = CountedCuts(survey.cuts, counts, inputs, f"{self.tag()}: {name}")
        return Sparse(lambda rows, start: cuts.apply(keep_largest, rows, start), finish=cuts.check)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, a sum of everything with a ramp of weights and vectors left alone, and nothing kept."""
        ramp = tuple(0.25 * (k + 1) for k in range(parents))
        return (
            cls(densities=(0.2,) * parents, weights=(1.0,) * parents, normalize=True, scale=1.0, skip=()),
            cls(densities=(1.0,) * parents, weights=ramp, normalize=False, scale=-0.5, skip=("*norm*",)),
            cls(densities=(0.0,) * parents, weights=(1.0,) * parents, normalize=True, scale=1.0, skip=()),
        )
