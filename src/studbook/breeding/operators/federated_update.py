"""Federated update: a weighted mean of the clients' changes, each held to a norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey, coefficients, in_turn
from studbook.breeding.operators.bounds import linear, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Pattern, Scale, matches
from studbook.breeding.operators.tiled import change_table, changed
from studbook.breeding.operators.weighted import changed_rows, rounded
from studbook.errors import ParentsDoNotFit
from studbook.tensors.reductions import combine

__all__ = ["ClientWeight", "FederatedUpdate", "Length"]

ClientWeight = Annotated[
    float,
    Meta(
        description="relative weight of a client, such as its number of samples",
        extra={"low": 1e-9, "high": 1e9},
        extra_json_schema={"minimum": 1e-9, "maximum": 1e9},
    ),
]
Length = Annotated[
    float,
    Meta(
        description="L2 norm over all tensors; 1e60 is beyond any f32 model",
        extra={"low": 1e-9, "high": 1e60},
        extra_json_schema={"minimum": 1e-9, "maximum": 1e60},
    ),
]


class FederatedUpdate(Operator, frozen=True, tag="federated-update/1"):
    """Add the weighted mean of the clients' changes to the base, after clipping each one's norm.

    Formula:
        child = base + scale * sum_k (w_k / W) * min(1, clip / ||d_k||) * d_k with d_k = p_k - base

        ||d_k|| runs over all tensors not skipped: f64 differences and squares in the contract's order, tensors in
        canonical order. Clients with ||d_k|| > limit are left out, and W is the sum of the weights of the others. Every
        factor is computed in f64 and rounded once to f32; differences, products and sums are one f32 operation each, in
        the order of the parents; the sum is added to the base last.

    Source:
        McMahan et al., Communication-efficient learning of deep networks from decentralized data, arXiv 1602.05629
        (FedAvg); the clipping as in McMahan et al., Learning differentially private recurrent language models, arXiv
        1710.06963, without the noise: nothing here makes a result private.

    Base:
        The model the clients started the round from.

    Attributes:
        weights: One relative weight a client, 1e-9..1e9, such as its number of samples.
        clip: Largest norm a client's change keeps; a larger one is scaled down to it.
        limit: Norm above which a client is left out.
        scale: Factor on the mean change (the server's step), -4..4; 1 is plain averaging.
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        sqrt(c^T G c) + rounding, with c the factors and G the inner products of the d_k; at most |scale| * clip.

    When to use:
        A round of federated fine-tuning, with clients as parents in the declared order. clip near the median of the
        norms holds every client to an ordinary share.

    Failure modes:
        A client below the limit may still pull in a harmful direction: norms say nothing about it. A clip far below all
        norms turns weights by sample into weights by direction.
    """

    family: ClassVar[str] = "federated-update"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("weights",)

    weights: Annotated[tuple[ClientWeight, ...], Meta(max_length=MAX_PARENTS)]
    clip: Length
    limit: Length
    scale: Scale
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def excluded(self, inputs: Inputs) -> tuple[tuple[int, str], ...]:
        """Clients that are left out: index among the parents, and why."""
        return tuple(
            (k, f"norm {norm:.6g} is above the limit {self.limit:g}")
            for k, norm in enumerate(self._norms(inputs, in_turn))
            if norm > self.limit
        )

    def notes(self, inputs: Inputs) -> tuple[str, ...]:
        """Every client that was left out, by the digest of its model, and why."""
        return tuple(f"client {inputs.parents[k].sha256[:12]} left out: {why}" for k, why in self.excluded(inputs))

    def factors(self, inputs: Inputs) -> tuple[float, ...]:
        """The factor of every client's change, f32 values; 0 for a client that is left out.

        Raises:
            ParentsDoNotFit: if every client is left out.
        """
        return self._factors(self._norms(inputs, in_turn))

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """The clients' factors, the same for every tensor not skipped.

        Raises:
            ParentsDoNotFit: if every client is left out.
        """
        found = Survey(factors=self._factors(self._norms(inputs, each)))
        return {name: Survey() if matches(name, self.skip) else found for name in inputs.names}

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """As `survey_model`, for one tensor."""
        return self.survey_model(inputs, in_turn)[name]

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        if not survey.factors:
            return inputs.base.read(name, start, stop).copy()
        return changed_rows(name, start, stop, inputs, survey.factors)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        return changed(inputs, survey.factors) if survey.factors else copied(inputs.base)

    def _norms(self, inputs: Inputs, each: Each) -> list[float]:
        """||d_k|| over the tensors not skipped."""
        surveys = each(lambda name: Survey(factors=_squares(name, inputs)), inputs.kept(self.skip))
        by_tensor = [survey.factors for survey in surveys]
        return [math.sqrt(combine(squares[k] for squares in by_tensor)) for k in range(len(inputs.parents))]

    def _factors(self, norms: list[float]) -> tuple[float, ...]:
        inside = {k: weight for k, weight in enumerate(self.weights) if norms[k] <= self.limit}
        if not inside:
            raise ParentsDoNotFit(
                f"all {len(norms)} clients are above the limit {self.limit:g}; the smallest norm is {min(norms):.6g}",
                where=f"{self.tag()}: limit",
                advice="Raise the limit, or leave the base as it is this round.",
                reason="parents.all-excluded",
            )
        return rounded(self._factor(k, norms[k], inside) for k in range(len(norms)))

    def _factor(self, client: int, norm: float, inside: Mapping[int, float]) -> float:
        if client not in inside:
            return 0.0
        shrink = self.clip / norm if norm > self.clip else 1.0
        return self.scale * (inside[client] / math.fsum(inside.values())) * shrink

    def _bound(self, inputs: Inputs) -> float:
        names, factors = inputs.kept(self.skip), coefficients(self.factors(inputs))
        change, terms = linear(factors, change_table(inputs, names))
        return change + slack(inputs, names, terms, len(factors) + 3)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Plain averaging, and clipping with unequal weights and one kind of tensor left alone."""
        return (
            cls(weights=(1.0,) * parents, clip=1e60, limit=1e60, scale=1.0, skip=()),
            cls(
                weights=tuple(100.0 * (k + 1) for k in range(parents)),
                clip=1.5,
                limit=1e60,
                scale=0.5,
                skip=("*norm*",),
            ),
        )


def _squares(name: str, inputs: Inputs) -> tuple[float, ...]:
    """Sum of squares of every client's change of one tensor."""
    table = change_table(inputs, (name,), pairs=False)
    return tuple(table[k][k] for k in range(len(inputs.parents)))
