"""What merges of sparse changes share: weighted sums, the vote about a sign, normalisation, and the bound of them all.

An operator says which sparse change (`SparseMerge.terms`) every parent brings to an element. The rest is here, in f32, in
the order of the parents: products with the weights, the vote, the sum of those that agree, the division, the scale.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey, add_change, coefficients
from studbook.breeding.operators.bounds import Wide, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Pattern, Scale, matches
from studbook.breeding.operators.tiled import tiled, tiled_by_row, wide_pieces
from studbook.errors import OutsideAllowlist
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels_consensus import add_terms, vote
from studbook.tensors.kernels_tables import sizes
from studbook.tensors.reductions import block_squares, blocks

__all__ = [
    "Sparse",
    "SparseMerge",
    "Terms",
    "Weight",
    "combined",
    "combined_bound",
    "merge_pass",
]

# The range is stated as `studbook.breeding.operators.parameters` states its own.
Weight = Annotated[
    float,
    Meta(
        description="factor on a parent's change, and the weight of its vote",
        extra={"low": -1000.0, "high": 1000.0},
        extra_json_schema={"minimum": -1000.0, "maximum": 1000.0},
    ),
]
Terms = Callable[[str, int, int], Sequence[Rows]]
# Called with f32 rows, the base and the parents, and the index of the first element: the parents' rows become terms.
Sparsify = Callable[[Rows, int], None]
# Called with f32 rows, the base and the terms, and the f32 array that the child's elements go to.
Merge = Callable[[Rows, Rows], None]
# A sum of weights nearer to zero than this divides nothing, as merge tools have it.
_NO_DIVISOR = 1e-8


@dataclass(frozen=True)
class Sparse:
    """The compiled form of `SparseMerge.terms`.

    Attributes:
        run: See `Sparsify`.
        whole_rows: Whether it has to be given whole rows of the tensor.
        finish: See `Kernel.finish`.
    """

    run: Sparsify
    whole_rows: bool = False
    finish: Callable[[], None] | None = None


class SparseMerge(Operator, frozen=True):
    """base + scale * (weighted sum of the parents' sparse changes), with or without a vote and a division.

    Attributes:
        weights: One factor a parent.
        normalize: Divide by the weights that were added up.
        scale: Factor on the merged change.
        skip: Globs over tensor names; a tensor that matches stays the base's.
    """

    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)

    weights: Annotated[tuple[Weight, ...], Meta(max_length=MAX_PARENTS)]
    normalize: bool
    scale: Scale
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    @property
    def elects(self) -> bool:
        """Whether only changes that agree with the elected sign are added up."""
        return True

    @abstractmethod
    def terms(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> tuple[Rows, ...]:
        """Every parent's sparse change of the elements start..stop-1: f32, each of shape (stop - start,)."""

    @abstractmethod
    def sparse(self, name: str, inputs: Inputs, survey: Survey) -> Sparse:
        """The compiled form of `terms`."""

    def validate(self, parents: int | None = None) -> None:
        """See `Operator.validate`.

        Raises:
            OutsideAllowlist: also if a weight is negative where a sum of weights divides the changes that agree.
            ParentsDoNotFit: as `Operator.validate`.
        """
        super().validate(parents)
        negative = next((k for k, weight in enumerate(self.weights) if weight < 0), None)
        if negative is not None and self.elects and self.normalize:
            raise OutsideAllowlist(
                f"{self.weights[negative]!r} is negative, and the weights that agree are divided by",
                where=f"{self.tag()}: weights[{negative}]",
                advice="Use weights of 0 or more, or set normalize to false.",
                reason="operator.weights",
            )

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
        found = self.terms(name, start, stop, inputs, survey)
        merged = combined(found, coefficients(self.weights), elect=self.elects, normalize=self.normalize)
        return add_change(base, np.multiply(merged, np.float32(self.scale)))

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        if matches(name, self.skip) or not COMPILED:
            return copied(inputs.base)
        found = self.sparse(name, inputs, survey)
        merge = merge_pass(coefficients(self.weights), elect=self.elects, normalize=self.normalize, scale=self.scale)

        def passes(rows: Rows, start: int, out: Rows) -> None:
            found.run(rows, start)
            merge(rows, out)

        reads = (inputs.base, *inputs.parents)
        if found.whole_rows:
            return tiled_by_row(reads, name, inputs.columns(name), passes)
        return tiled(reads, passes, found.finish)

    def _bound(self, inputs: Inputs) -> float:
        names = inputs.kept(self.skip)
        surveys = {name: self.survey(name, inputs) for name in names}
        return combined_bound(
            inputs,
            names,
            lambda name, start, stop: self.terms(name, start, stop, inputs, surveys[name]),
            coefficients(self.weights),
            elect=self.elects,
            normalize=self.normalize,
            scale=self.scale,
            sparse=lambda name: self.sparse(name, inputs, surveys[name]),
        )


def combined(terms: Sequence[Rows], weights: Sequence[np.float32], *, elect: bool, normalize: bool) -> Rows:
    """Weighted sum of sparse changes: f32, shape as the terms.

    Every product and every sum is one f32 operation, in the order of the parents, from +0.0. With ``elect`` the sum of all
    products elects a sign (a sum of zero elects plus) and only products of that sign, never zeros, are added up. With
    ``normalize`` the sum is divided by the sum of the weights that were added: of those that agree where a sign is
    elected, else of all, where a sum of weights nearer to zero than 1e-8 divides nothing.

    Source: Yadav et al., TIES-Merging, arXiv 2306.01708, with the weights merge tools put on every change.
    """
    products = [np.multiply(term, weight) for term, weight in zip(terms, weights, strict=True)]
    total = _sum(products)
    if not elect:
        divisor = _divisor(weights)
        return np.divide(total, divisor) if normalize and divisor is not None else total
    plus, zero = total >= 0, np.float32(0)
    agrees = [np.where(plus, product > 0, product < 0) for product in products]
    top = _sum([np.where(agree, product, zero) for agree, product in zip(agrees, products, strict=True)])
    if not normalize:
        return top
    bottom = _sum([np.where(agree, weight, zero) for agree, weight in zip(agrees, weights, strict=True)])
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def combined_bound(
    inputs: Inputs,
    names: Iterable[str],
    terms: Terms,
    weights: Sequence[np.float32],
    *,
    elect: bool,
    normalize: bool,
    scale: float,
    sparse: Callable[[str], Sparse] | None = None,
) -> float:
    """Upper bound of ||child - base|| where the child is base + scale * `combined` terms.

    By element: without a vote |sum of the products|; with one the larger of the sums of the positive and of the negative
    products; divided, with a vote, the largest |term|: a mean of changes of one sign is no larger than the largest.

    Args:
        inputs: Base and parents.
        names: The tensors that change.
        terms: (name, start, stop) -> the f32 terms that are combined in the run.
        weights: As multiplied with.
        elect: As in `combined`.
        normalize: As in `combined`.
        scale: Factor on the combined terms.
        sparse: The compiled form of ``terms`` of a tensor, if there is one; the bound is the same.
    """
    names = tuple(names)
    factors = [abs(float(weight)) for weight in weights]
    divisor = _divisor(weights) if normalize and not elect else None
    largest = absolute = 0.0
    over = 1.0 if divisor is None else abs(float(divisor))
    for name in names:
        found = sparse(name) if sparse is not None and COMPILED else None
        if found is None or found.whole_rows:
            by_block = _plain_sizes(inputs, name, terms, weights, elect=elect, normalize=normalize, over=over)
        else:
            by_block = _fast_sizes(inputs, name, found, weights, elect=elect, normalize=normalize, over=over)
        for most, size in by_block:
            largest += most
            absolute += size
    factor = abs(float(np.float32(scale)))
    change, sizes = factor * math.sqrt(largest), factor * math.sqrt(absolute)
    elements = sum(inputs.size(name) for name in names)
    # A product, and a quotient by few weights, below the normal range errs by half a unit whatever its size.
    divisors = [f for f in factors if f > 0] if elect and normalize else [] if divisor is None else [float(divisor)]
    tiny = max(1.0, factor) * max((1.0, *(1.0 / abs(d) for d in divisors))) * (len(factors) + 4) * 2.0**-149
    return change + slack(inputs, names, sizes, 2 * len(factors) + 6) + math.sqrt(elements) * tiny


def _plain_sizes(
    inputs: Inputs, name: str, terms: Terms, weights: Sequence[np.float32], *, elect: bool, normalize: bool, over: float
) -> Iterator[tuple[float, float]]:
    """Block by block, sums of squares of the largest sizes of the combined terms, and of their absolute sums."""
    for start, stop in blocks(inputs.size(name)):
        wide = [term.astype(np.float64) for term in terms(name, start, stop)]
        products = [term * float(weight) for term, weight in zip(wide, weights, strict=True)]
        if elect and normalize:
            most = size = np.maximum.reduce([np.abs(t) * (w != 0) for t, w in zip(wide, weights, strict=True)])
        else:
            size = np.add.reduce([np.abs(product) for product in products]) / over
            most = _elected_size(products) if elect else np.abs(np.add.reduce(products)) / over
        yield block_squares(most), block_squares(size)


def _fast_sizes(
    inputs: Inputs,
    name: str,
    found: Sparse,
    weights: Sequence[np.float32],
    *,
    elect: bool,
    normalize: bool,
    over: float,
) -> Iterator[tuple[float, float]]:
    """The compiled form of `_plain_sizes`."""
    factors = np.array(weights, np.float64)
    for start, rows in wide_pieces(name, inputs, blocks(inputs.size(name))):
        found.run(rows, start)
        yield sizes(rows, factors, elect, normalize, over)
    if found.finish:
        found.finish()


def merge_pass(weights: Sequence[np.float32], *, elect: bool, normalize: bool, scale: float) -> Merge:
    """The compiled form of what follows the terms: `combined`, the scale, and the sum with the base."""
    factors, factor = np.array(weights, np.float32), np.float32(scale)
    divisor = _divisor(weights) if normalize else None
    over = np.float32(1) if divisor is None else divisor

    def voted(rows: Rows, out: Rows) -> None:
        vote(rows, factors, normalize, factor, out)

    def added(rows: Rows, out: Rows) -> None:
        add_terms(rows, factors, divisor is not None, over, factor, out)

    return voted if elect else added


def _sum(parts: Sequence[Rows]) -> Rows:
    total = np.zeros_like(parts[0])
    for part in parts:
        total = np.add(total, part)
    return total


def _divisor(weights: Sequence[np.float32]) -> np.float32 | None:
    """The sum of all weights, f32, in the order of the parents; None where it divides nothing."""
    total = np.float32(0)
    for weight in weights:
        total = np.add(total, weight, dtype=np.float32)
    return None if abs(float(total)) < _NO_DIVISOR else total


def _elected_size(products: Sequence[Wide]) -> Wide:
    above = np.add.reduce([np.maximum(product, 0.0) for product in products])
    below = np.add.reduce([np.maximum(-product, 0.0) for product in products])
    larger: Wide = np.maximum(above, below)
    return larger
