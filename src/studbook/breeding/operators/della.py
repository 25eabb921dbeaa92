"""DELLA: drop changes at random, the small ones more often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from studbook.breeding.operators.base import Survey, quiet
from studbook.breeding.operators.consensus import Sparse, SparseMerge
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Seed, Share, matches
from studbook.breeding.operators.tiled import drop_drawn, words_of
from studbook.errors import OutsideAllowlist
from studbook.tensors.kernels_consensus import drop_ranked, subtract_row
from studbook.tensors.philox import Stream, stream_for
from studbook.tensors.selection import magnitudes

__all__ = ["Della"]

_LARGEST = np.uint32(0x7FFFFFFF)


class Della(SparseMerge, frozen=True, tag="della/1"):
    """Keep changes with a probability that grows with their rank in their row, rescale, add up those that agree.

    Formula:
        d_k = p_k - base
        q_k[j] = (density_k - epsilon_k) + (2 * epsilon_k) * ((c - 1 - j) / (c - 1)) for rank j of |d_k| in a row of c
        t_k = d_k where its word is below round(q_k[j] * 2^32), else 0; times f32(1 / q_k[j]) where ``rescale``
        m   = sum_k w_k * t_k; where ``elect`` only over the k where it is not zero and has the sign of that sum
        m   = m / (sum of the w_k added up), where ``normalize``
        child = base + scale * m

        Rank 0 is the largest magnitude of the row, and of equal ones the lowest index comes first; a vector is one row,
        and a row of one element is kept with its density. q is f64, one operation at a time. Word i is that of the
        stream of (seed, digest of p_k, tensor name). Density 1 keeps everything and density 0 nothing, whatever epsilon
        is. All else is f32, in the order of the parents. A vote of zero elects plus; weights whose sum is nearer to zero
        than 1e-8 divide nothing. An element whose m is zero keeps the base's bits.

    Source:
        Deep, Bhardwaj and Poria, DELLA-Merging, arXiv 2406.11617. Rescaling divides every change by its own probability,
        as the paper does; some merge tools match the sum of magnitudes instead.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        weights: One factor a parent, -1000..1000; negative ones not where ``elect`` and ``normalize`` are both set.
        normalize: Divide by the weights that were added up.
        scale: Factor on the merged change, -4..4; merge files call it lambda.
        skip: Globs over tensor names; a tensor that matches stays the base's.
        densities: Mean probability of keeping an element, one a parent, 0..1.
        epsilons: Half of the range of probabilities, one a parent; density - epsilon above 0, density + epsilon below 1.
        elect: Whether a sign is elected and only changes that agree with it count.
        rescale: Divide what is kept by its probability.
        seed: Seed of the draws. They do not depend on the weights.

    Bound:
        |scale| * sqrt(sum_i u_i^2) + rounding, over the tensors not skipped. u_i is the size of the weighted sum of the
        t_k[i], divided where ``normalize``; with ``elect`` as for `ties/1`. The draws are known before the run.

    When to use:
        As DARE, where large changes matter more than small ones. Densities of .3 to .7 and epsilons of .1 to .2.

    Failure modes:
        A small density - epsilon multiplies what is kept of the smallest changes by a large factor. Small models have
        little redundancy. Two seeds can differ by more than two operators do.
    """

    family: ClassVar[str] = "della"
    per_parent: ClassVar[tuple[str, ...]] = ("densities", "epsilons", "weights")

    densities: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]
    epsilons: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]
    elect: bool
    rescale: bool
    seed: Seed

    @property
    def elects(self) -> bool:
        """See `SparseMerge.elects`."""
        return self.elect

    def validate(self, parents: int | None = None) -> None:
        """See `Operator.validate`.

        Raises:
            OutsideAllowlist: also if a density and its epsilon lead outside 0..1.
            ParentsDoNotFit: as `Operator.validate`.
        """
        super().validate(parents)
        for k, (density, epsilon) in enumerate(zip(self.densities, self.epsilons, strict=True)):
            if density not in (0.0, 1.0) and not (density - epsilon > 0 and density + epsilon < 1):
                raise OutsideAllowlist(
                    f"{density!r} -+ {epsilon!r} is not between 0 and 1",
                    where=f"{self.tag()}: epsilons[{k}]",
                    advice="Use an epsilon smaller than the density and than 1 - density.",
                    reason="operator.epsilon",
                )

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One stream a parent."""
        if matches(name, self.skip):
            return Survey()
        return Survey(streams=tuple(stream_for(self.seed, bytes.fromhex(p.sha256), name) for p in inputs.parents))

    def terms(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> tuple[Rows, ...]:
        """What every parent's draw leaves."""
        columns, found = inputs.columns(name), []
        for k, stream in enumerate(survey.streams):
            chances = self._chances(k, columns)
            # A rank needs its whole row, so rows are read whole and cut down to the range afterwards.
            first = start // columns * columns
            whole = inputs.delta(k, name, first, -(-stop // columns) * columns)
            rank = _ranks(whole, columns)[start - first : stop - first]
            delta = whole[start - first : stop - first]
            kept = stream.words(start, stop) < np.rint(chances * 2.0**32).astype(np.uint64)[rank]
            if self.rescale:
                delta = np.multiply(delta, np.divide(1.0, chances).astype(np.float32)[rank])
            found.append(np.where(kept, delta, np.float32(0)))
        return tuple(found)

    def sparse(self, name: str, inputs: Inputs, survey: Survey) -> Sparse:
        """See `SparseMerge.sparse`; ranks are found by a sort of every row."""
        columns = inputs.columns(name)
        drops = [self._drop(k, columns, stream) for k, stream in enumerate(survey.streams)]

        def run(rows: Rows, start: int) -> None:
            for row, one in zip(rows[1:], drops, strict=True):
                one(rows[0], row, start)

        return Sparse(run, whole_rows=True)

    def _drop(self, parent: int, columns: int, stream: Stream) -> Callable[[Rows, Rows, int], None]:
        """What turns a parent's row into its term, given the base's row and the index of the first element."""
        chances = self._chances(parent, columns)
        limits = np.rint(chances * 2.0**32).astype(np.uint64)
        with quiet():
            factors = np.divide(1.0, chances).astype(np.float32) if self.rescale else np.ones(columns, np.float32)

        def alike(base: Rows, row: Rows, start: int) -> None:
            drop_drawn(base, row, stream, start, int(limits[0]), factors[0])

        def ranked(base: Rows, row: Rows, start: int) -> None:
            subtract_row(base, row)
            drop_ranked(row, columns, words_of(stream, start, row.size), limits, factors)

        return alike if (limits == limits[0]).all() and (factors == factors[0]).all() else ranked

    def _chances(self, parent: int, columns: int) -> NDArray[np.float64]:
        """Probability of every rank in a row, f64."""
        density, epsilon = self.densities[parent], self.epsilons[parent]
        if density in (0.0, 1.0) or columns == 1:
            return np.full(columns, density)
        share = np.arange(columns - 1, -1, -1, dtype=np.float64) / float(columns - 1)
        return (density - epsilon) + (2.0 * epsilon) * share

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, a plain sum without rescaling and vectors left alone, and everything kept with a ramp of weights."""
        drawn: dict[str, Any] = {"densities": (0.5,) * parents, "epsilons": (0.15,) * parents, "seed": 7}
        whole: dict[str, Any] = {"densities": (1.0,) * parents, "epsilons": (0.15,) * parents, "seed": 2**53 - 1}
        third, ramp = (0.3,) * parents, tuple(k + 1.0 for k in range(parents))
        return (
            cls(**drawn, weights=(1.0,) * parents, elect=True, normalize=True, rescale=True, scale=1.0, skip=()),
            cls(**drawn, weights=third, elect=False, normalize=False, rescale=False, scale=1.0, skip=("*norm*",)),
            cls(**whole, weights=ramp, elect=False, normalize=True, rescale=True, scale=-1.0, skip=()),
        )


def _ranks(delta: Rows, columns: int) -> NDArray[np.int64]:
    """Rank of every magnitude in its row, 0 the largest, ties in the order of the columns: i64, flat."""
    descending = (_LARGEST - magnitudes(delta)).reshape(-1, columns)
    order = np.argsort(descending, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(columns), order.shape), axis=1)
    return ranks.reshape(-1)
