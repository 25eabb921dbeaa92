"""DARE, then the vote of TIES: random masks, elected signs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Survey
from studbook.breeding.operators.consensus import Sparse, SparseMerge
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Seed, Share, matches
from studbook.breeding.operators.tiled import drop_drawn
from studbook.tensors.philox import keep_threshold, stream_for

__all__ = ["DareTies"]


class DareTies(SparseMerge, frozen=True, tag="dare-ties/1"):
    """Drop changes at random, rescale what is left, elect every sign, add up or average the changes that agree.

    Formula:
        d_k = p_k - base
        t_k = m_k * d_k, times f32(1 / density_k) where ``rescale``
        v   = sum_k w_k * t_k
        m   = sum of w_k * t_k over the k where it is not zero and has the sign of v, or plus where v = 0
        m   = m / (sum of those w_k), where ``normalize``
        child = base + scale * m

        m_k[i] is 1 where word i of the stream of (seed, digest of p_k, tensor name) is below round(density_k * 2^32),
        else 0: the masks of ``dare/1``. All in f32, in the order of the parents. An element whose m is zero keeps the
        base's bits.

    Source:
        Yu et al., Language models are super Mario (DARE), arXiv 2311.03099, followed by the vote of Yadav et al.,
        TIES-Merging, arXiv 2306.01708. Rescaling divides by the density, as the paper does; some merge tools match the
        sum of magnitudes instead, which is the same on average.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        weights: One factor a parent, -1000..1000; negative ones only without ``normalize``.
        normalize: Divide by the weights that agree.
        scale: Factor on the merged change, -4..4; merge files call it lambda.
        skip: Globs over tensor names; a tensor that matches stays the base's.
        densities: Probability of keeping an element, one a parent, 0..1; 0 keeps nothing.
        rescale: Divide what is kept by its density.
        seed: Seed of the masks. The masks do not depend on the weights, and grow when a density grows.

    Bound:
        |scale| * sqrt(sum_i u_i^2) + rounding, over the tensors not skipped. u_i is the largest |t_k[i]| of a parent with
        a weight, where ``normalize``; else the larger of the sums of the positive and of the negative w_k * t_k[i]. The
        masks are a function of the record and the parents' digests, so they are known before the run.

    When to use:
        Large parents with redundant changes that also disagree in sign. Densities of .3 to .7.

    Failure modes:
        Small models have little redundancy. Low densities leave most votes to a single parent, so the vote then settles
        little. Two seeds can differ by more than two operators do; breed several.
    """

    family: ClassVar[str] = "dare-ties"
    per_parent: ClassVar[tuple[str, ...]] = ("densities", "weights")

    densities: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]
    rescale: bool
    seed: Seed

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One stream a parent."""
        if matches(name, self.skip):
            return Survey()
        return Survey(streams=tuple(stream_for(self.seed, bytes.fromhex(p.sha256), name) for p in inputs.parents))

    def terms(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> tuple[Rows, ...]:
        """The masked changes of every parent."""
        found = []
        for k, (density, stream) in enumerate(zip(self.densities, survey.streams, strict=True)):
            delta = inputs.delta(k, name, start, stop)
            delta = np.multiply(delta, self._factor(density)) if self.rescale else delta
            found.append(np.where(stream.keep_mask(start, stop, density), delta, np.float32(0)))
        return tuple(found)

    def sparse(self, name: str, inputs: Inputs, survey: Survey) -> Sparse:
        """See `SparseMerge.sparse`."""
        factors = [self._factor(density) for density in self.densities]
        limits = [keep_threshold(density) for density in self.densities]

        def run(rows: Rows, start: int) -> None:
            for k, (stream, factor, limit) in enumerate(zip(survey.streams, factors, limits, strict=True)):
                drop_drawn(rows[0], rows[k + 1], stream, start, limit, factor)

        return Sparse(run)

    def _factor(self, density: float) -> np.float32:
        # A density that keeps nothing has no factor, and its inverse may be no f32.
        return np.float32(1.0 / density if self.rescale and keep_threshold(density) else 1.0)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, a mean without rescaling and with a ramp of weights and vectors left alone, and all kept."""
        half, ones = (0.5,) * parents, (1.0,) * parents
        ramp, third = tuple(k + 1.0 for k in range(parents)), (0.3,) * parents
        return (
            cls(densities=half, weights=third, normalize=False, rescale=True, scale=1.0, seed=7, skip=()),
            cls(densities=half, weights=ramp, normalize=True, rescale=False, scale=1.0, seed=7, skip=("*norm*",)),
            cls(densities=ones, weights=third, normalize=True, rescale=True, scale=-0.5, seed=2**53 - 1, skip=()),
        )
