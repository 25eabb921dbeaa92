"""Breadcrumbs: leave out each parent's largest and smallest changes, keep the band between them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Survey
from studbook.breeding.operators.consensus import Sparse, SparseMerge
from studbook.breeding.operators.cuts import CountedCuts, known_cuts
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Share, matches
from studbook.tensors.kernels_consensus import keep_band
from studbook.tensors.selection import count_of, mask

__all__ = ["Breadcrumbs"]


class Breadcrumbs(SparseMerge, frozen=True, tag="breadcrumbs/1"):
    """Drop each parent's outliers and its small changes, add up the band between them.

    Formula:
        d_k = p_k - base
        t_k = d_k where the rank of |d_k| in its tensor and parent is in high_k .. high_k + keep_k - 1, else 0
        keep_k = floor(density_k * n), high_k = min(floor(gamma_k * n), n - keep_k)
        m   = sum_k w_k * t_k; where ``elect`` only over the k where it is not zero and has the sign of that sum
        m   = m / (sum of the w_k added up), where ``normalize``
        child = base + scale * m

        n is the tensor's size; rank 0 is the largest magnitude, and of equal ones the lowest index comes first. All in
        f32, in the order of the parents. A vote of zero elects plus; weights whose sum is nearer to zero than 1e-8
        divide nothing. An element whose m is zero keeps the base's bits.

    Source:
        Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795; with ``elect`` the vote of Yadav et al., arXiv
        2306.01708, is added, which merge files call breadcrumbs_ties.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        weights: One factor a parent, -1000..1000; negative ones not where ``elect`` and ``normalize`` are both set.
        normalize: Divide by the weights that were added up.
        scale: Factor on the merged change, -4..4; merge files call it lambda.
        skip: Globs over tensor names; a tensor that matches stays the base's.
        densities: Share of each parent's changes that is kept, 0..1, per tensor.
        gammas: Share of each parent's largest changes that is left out, 0..1; less where the density leaves no room.
        elect: Whether a sign is elected and only changes that agree with it count.

    Bound:
        |scale| * sqrt(sum_i u_i^2) + rounding, over the tensors not skipped. u_i is the size of the weighted sum of the
        t_k[i], divided where ``normalize``; with ``elect`` as for `ties/1`.

    When to use:
        Many parents whose few extreme changes would dominate the sum. Densities of .85 to .95 and gammas near .01.

    Failure modes:
        Sums without ``normalize`` overshoot with many parents. Where a skill lives in the largest changes a gamma above
        .01 removes it.
    """

    family: ClassVar[str] = "breadcrumbs"
    per_parent: ClassVar[tuple[str, ...]] = ("densities", "gammas", "weights")

    densities: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]
    gammas: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]
    elect: bool

    @property
    def elects(self) -> bool:
        """See `SparseMerge.elects`."""
        return self.elect

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """Two cuts a parent: of the outliers, then of outliers and band together."""
        if matches(name, self.skip):
            return Survey()
        counts = self._counts(inputs.size(name))
        outliers, both = (known_cuts(inputs, name, counts[first::2]) for first in (0, 1))
        return Survey(cuts=tuple(cut for pair in zip(outliers, both, strict=True) for cut in pair))

    def terms(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> tuple[Rows, ...]:
        """The band of every parent."""
        found = []
        for k in range(len(self.densities)):
            delta = inputs.delta(k, name, start, stop)
            outliers, both = (mask(cut, delta, start) for cut in survey.cuts[2 * k : 2 * k + 2])
            found.append(np.where(both & ~outliers, delta, np.float32(0)))
        return tuple(found)

    def sparse(self, name: str, inputs: Inputs, survey: Survey) -> Sparse:
        """See `SparseMerge.sparse`; what was kept is counted, which proves the cuts, wherever they came from."""
        cuts = CountedCuts(survey.cuts, self._counts(inputs.size(name)), inputs, f"{self.tag()}: {name}")
        return Sparse(lambda rows, start: cuts.apply(keep_band, rows, start), finish=cuts.check)

    def _counts(self, size: int) -> list[int]:
        """How many changes are outliers, and outliers or band, for every parent in turn."""
        counts = []
        for density, gamma in zip(self.densities, self.gammas, strict=True):
            keep = count_of(density, size)
            high = min(count_of(gamma, size), size - keep)
            counts += [high, high + keep]
        return counts

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, with a vote and a ramp of weights and vectors left alone, and a band that reaches the smallest."""
        ramp = tuple(k + 1.0 for k in range(parents))
        usual = {"densities": (0.9,) * parents, "gammas": (0.01,) * parents, "weights": (0.3,) * parents}
        voted = {"densities": (0.5,) * parents, "gammas": (0.1,) * parents, "weights": ramp}
        small = {"densities": (0.4,) * parents, "gammas": (1.0,) * parents, "weights": (1.0,) * parents}
        return (
            cls(**usual, elect=False, normalize=False, scale=1.0, skip=()),
            cls(**voted, elect=True, normalize=True, scale=1.0, skip=("*norm*",)),
            cls(**small, elect=False, normalize=True, scale=-1.0, skip=()),
        )
