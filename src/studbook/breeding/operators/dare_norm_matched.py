"""DARE with a measured factor: what is kept of a change is brought back to the change's own length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, add_change, coefficients
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.consensus import Sparse, combined, combined_bound
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Keep, Pattern, Scale, Seed, matches
from studbook.breeding.operators.tiled import drop_drawn, wide_pieces, words_of
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import add_dropped
from studbook.tensors.kernels_tables import squares
from studbook.tensors.philox import Stream, keep_threshold, stream_for
from studbook.tensors.reductions import block_squares, blocks, combine
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

__all__ = ["DareNormMatched"]


class DareNormMatched(Operator, frozen=True, tag="dare-norm-matched/1"):
    """Keep each element of a parent's change with probability ``keep`` and give the rest the whole change's length.

    Formula:
        d_k = p_k - base
        child = base + sum_k f32(s_k * r_k) * m_k * d_k
        r_k = min(sqrt(sum_i d_k[i]^2 / sum_i (m_k[i] * d_k[i])^2), 1 / keep) per tensor

        m_k[i] is 1 where word i of the stream of (seed, digest of p_k, tensor name) is below round(keep * 2^32), else 0:
        the masks of ``dare/1``. The sums are f64 in the contract's order over the f32 differences; quotient, root and
        product are one f64 operation each. Where only zeros are kept nothing is added. All else is f32, in the order of
        the parents. An element whose sum is zero keeps the base's bits.

    Source:
        The masks of Yu et al., Language models are super Mario (DARE), arXiv 2311.03099; the factor keeps the L2 norm of
        each tensor's change instead of its expectation, and is never larger than DARE's own.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        keep: Probability of keeping an element of a change, .001..1.
        scales: One factor a parent, -4..4.
        seed: Seed of the masks. The masks do not depend on ``scales``, and grow when ``keep`` grows.
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        ||sum_k s_k * r_k * m_k * d_k|| + rounding, over the tensors not skipped; by the triangle inequality it is at most
        sum_k |s_k| ||d_k||, whatever ``keep`` is.

    When to use:
        Where a low ``keep`` makes DARE overshoot: 1 / keep multiplies the length of a change by about 1 / sqrt(keep), this
        factor leaves it as it was.

    Failure modes:
        The expectation of a change shrinks to about sqrt(keep) of it, so a skill may fade. Tensors of a few elements
        depend on which of them were kept.
    """

    family: ClassVar[str] = "dare-norm-matched"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("scales",)

    keep: Keep
    scales: Annotated[tuple[Scale, ...], Meta(max_length=MAX_PARENTS)]
    seed: Seed
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One stream and one factor a parent."""
        if matches(name, self.skip):
            return Survey()
        streams = tuple(stream_for(self.seed, bytes.fromhex(p.sha256), name) for p in inputs.parents)
        ratios = [self._ratio(whole, kept) for whole, kept in self._squares(name, inputs, streams)]
        factors = coefficients(scale * ratio for scale, ratio in zip(self.scales, ratios, strict=True))
        return Survey(streams=streams, factors=tuple(float(factor) for factor in factors))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        base = inputs.base.read(name, start, stop)
        if matches(name, self.skip):
            return base.copy()
        terms = self._terms(name, start, stop, inputs, survey)
        return add_change(base, combined(terms, coefficients(survey.factors), elect=False, normalize=False))

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        if matches(name, self.skip) or not COMPILED:
            return copied(inputs.base)
        factors = np.array(survey.factors, np.float32)
        keys = np.array([stream.key for stream in survey.streams], np.uint32)
        highest = np.uint32(keep_threshold(self.keep) - 1)

        def run(stack: Stack, start: int, out: Raw) -> None:
            stack.feed(add_dropped, start, factors, keys, highest, out)

        return Kernel((inputs.base, *inputs.parents), run)

    def _terms(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> list[Rows]:
        return [self._masked(k, name, start, stop, inputs, stream) for k, stream in enumerate(survey.streams)]

    def _masked(self, parent: int, name: str, start: int, stop: int, inputs: Inputs, stream: Stream) -> Rows:
        delta = inputs.delta(parent, name, start, stop)
        return np.where(stream.keep_mask(start, stop, self.keep), delta, np.float32(0))

    def _ratio(self, whole: float, kept: float) -> float:
        return min(math.sqrt(whole / kept), 1.0 / self.keep) if kept > 0 else 0.0

    def _squares(self, name: str, inputs: Inputs, streams: Sequence[Stream]) -> list[tuple[float, float]]:
        """Sums of squares of every parent's change of a tensor: of the whole change, and of what is kept of it."""
        parts = list(blocks(inputs.size(name)))
        if COMPILED:
            return self._fast_squares(name, inputs, streams, parts)
        found = []
        for k, stream in enumerate(streams):
            whole = combine(block_squares(inputs.delta(k, name, s, e)) for s, e in parts)
            kept = combine(block_squares(self._masked(k, name, s, e, inputs, stream)) for s, e in parts)
            found.append((whole, kept))
        return found

    def _fast_squares(
        self, name: str, inputs: Inputs, streams: Sequence[Stream], parts: Sequence[tuple[int, int]]
    ) -> list[tuple[float, float]]:
        highest, totals = np.uint32(keep_threshold(self.keep) - 1), [(0.0, 0.0)] * len(streams)
        for start, rows in wide_pieces(name, inputs, parts):
            for k, stream in enumerate(streams):
                words = words_of(stream, start, rows.shape[1])
                whole, kept = squares(rows[0], rows[k + 1], words, highest)
                totals[k] = (totals[k][0] + whole, totals[k][1] + kept)
        return totals

    def _bound(self, inputs: Inputs) -> float:
        total = 0.0
        for name in inputs.kept(self.skip):
            survey = self.survey(name, inputs)
            total += self._tensor_bound(name, inputs, survey) ** 2
        return math.sqrt(total)

    def _tensor_bound(self, name: str, inputs: Inputs, survey: Survey) -> float:
        return combined_bound(
            inputs,
            (name,),
            lambda tensor, start, stop: self._terms(tensor, start, stop, inputs, survey),
            coefficients(survey.factors),
            elect=False,
            normalize=False,
            scale=1.0,
            sparse=lambda _: Sparse(lambda rows, start: self._drop(rows, start, survey.streams)),
        )

    def _drop(self, rows: Rows, start: int, streams: Sequence[Stream]) -> None:
        """The compiled form of `_terms`, in place."""
        for row, stream in zip(rows[1:], streams, strict=True):
            drop_drawn(rows[0], row, stream, start, keep_threshold(self.keep), np.float32(1))

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, all kept, and nothing added."""
        return (
            cls(keep=0.25, scales=(0.3,) * parents, seed=7, skip=()),
            cls(keep=1.0, scales=(0.3,) * parents, seed=7, skip=("*norm*",)),
            cls(keep=0.5, scales=(0.0,) * parents, seed=2**53 - 1, skip=()),
        )
