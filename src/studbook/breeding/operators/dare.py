"""DARE: drop most of each parent's change at random and rescale what is left."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey, add_change, coefficients
from studbook.breeding.operators.bounds import Wide, gram, linear, slack, wide_delta
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Keep, Pattern, Scale, Seed, matches
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import add_dropped
from studbook.tensors.philox import Stream, keep_threshold, stream_for
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

__all__ = ["Dare"]


class Dare(Operator, frozen=True, tag="dare/1"):
    """Keep each element of a parent's change with probability ``keep`` and divide what is kept by it.

    Formula:
        child = base + sum_k (s_k / keep) * m_k * (p_k - base)

        m_k[i] is 1 where word i of the stream of (seed, digest of p_k, tensor name) is below round(keep * 2^32), else
        0. s_k / keep is one f64 division rounded once to f32. All other operations are f32, in the order of the
        parents. An element whose sum is zero keeps the base's bits.

    Source:
        Yu et al., Language models are super Mario (DARE), arXiv 2311.03099; without the later sign election.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        keep: Probability of keeping an element of a change, .001..1.
        scales: One factor a parent, -4..4.
        seed: Seed of the masks. The masks do not depend on ``scales``, and grow when ``keep`` grows.
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        sqrt(c^T G c) + rounding, with c_k = s_k / keep and G the inner products of the masked changes: the masks are a
        function of the record and the parents' digests, so they are known before the run.

    When to use:
        Large parents with redundant changes, before adding several of them. ``keep`` of .1 to .5.

    Failure modes:
        Small models have little redundancy: a low ``keep`` multiplies few changes by a large factor. Two seeds can
        differ by more than two operators do; breed several.
    """

    family: ClassVar[str] = "dare"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("scales",)

    keep: Keep
    scales: Annotated[tuple[Scale, ...], Meta(max_length=MAX_PARENTS)]
    seed: Seed
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One stream a parent."""
        return Survey(streams=tuple(self._stream(k, name, inputs) for k in range(len(inputs.parents))))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        base = inputs.base.read(name, start, stop)
        if matches(name, self.skip):
            return base.copy()
        change = np.zeros(stop - start, np.float32)
        for k, (factor, stream) in enumerate(zip(self._factors(), survey.streams, strict=True)):
            term = np.multiply(inputs.delta(k, name, start, stop), factor)
            change = np.add(change, np.where(stream.keep_mask(start, stop, self.keep), term, np.float32(0)))
        return add_change(base, change)

    def _factors(self) -> tuple[np.float32, ...]:
        return coefficients(scale / self.keep for scale in self.scales)

    def _stream(self, parent: int, name: str, inputs: Inputs) -> Stream:
        return stream_for(self.seed, bytes.fromhex(inputs.parents[parent].sha256), name)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        if matches(name, self.skip) or not COMPILED:
            return copied(inputs.base)
        factors = np.array(self._factors(), np.float32)
        keys = np.array([stream.key for stream in survey.streams], np.uint32)
        highest = np.uint32(keep_threshold(self.keep) - 1)

        def run(stack: Stack, start: int, out: Raw) -> None:
            stack.feed(add_dropped, start, factors, keys, highest, out)

        return Kernel((inputs.base, *inputs.parents), run)

    def _bound(self, inputs: Inputs) -> float:
        def masked(parent: int, name: str, start: int, stop: int) -> Wide:
            kept = self._stream(parent, name, inputs).keep_mask(start, stop, self.keep)
            return wide_delta(inputs, parent, name, start, stop) * kept

        names, factors = inputs.kept(self.skip), self._factors()
        change, terms = linear(factors, gram(inputs, names, masked, len(factors)))
        return change + slack(inputs, names, terms, len(factors) + 3)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, all kept, and nothing added."""
        return (
            cls(keep=0.25, scales=(0.3,) * parents, seed=7, skip=()),
            cls(keep=1.0, scales=(0.3,) * parents, seed=7, skip=("*norm*",)),
            cls(keep=0.5, scales=(0.0,) * parents, seed=2**53 - 1, skip=()),
        )
