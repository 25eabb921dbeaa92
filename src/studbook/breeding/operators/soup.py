"""Soup: a blend whose weights are drawn, so that a seed names a whole recipe."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, ClassVar, Self

import numpy as np
from msgspec import Meta

from studbook.breeding.operators.base import Kernel, Operator, Survey
from studbook.breeding.operators.compiled import summed
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Seed
from studbook.breeding.operators.weighted import rounded, sum_bound, summed_rows
from studbook.tensors.philox import stream_for

__all__ = ["DOMAIN", "Concentration", "Soup"]

DOMAIN = b"studbook/soup/1\x00"
# Draws lie on this many points of a circle; spacings between them are exact integers.
POINTS = 1 << 32

Concentration = Annotated[
    int,
    Meta(
        description="concentration of a Dirichlet law",
        extra={"low": 1, "high": 64},
        extra_json_schema={"minimum": 1, "maximum": 64},
    ),
]


class Soup(Operator, frozen=True, tag="soup/1"):
    """Average the parents with weights drawn from a symmetric Dirichlet law.

    Formula:
        child = sum_k w_k * p_k with w ~ Dirichlet(a, ..., a)

        Of the stream of (seed, SHA-256('studbook/soup/1' NUL | raw digests of the parents in order), 'weights') the
        first n * a - 1 words, n parents, are sorted as u_1 <= u_2 <= ...; with u_0 = 0 and u_(n a) = 2^32 the weight of
        parent k (from 0) is (u_(a (k + 1)) - u_(a k)) / 2^32, exact in f64 and rounded once to f32. Products and sums
        are one f32 operation each, in the order of the parents.

    Source:
        Wortsman et al., Model soups, arXiv 2203.05482. Spacings of uniforms: Devroye, Non-Uniform Random Variate
        Generation, 1986, chapters V.2 and XI.4.

    Base:
        Only the reference of the bound; it need not be a parent.

    Attributes:
        seed: Seed of the draw; with the parents' digests it decides the weights.
        concentration: The a of the law, 1..64: 1 is uniform over all weights, 64 is close to equal ones (the standard
            deviation of a weight is sqrt((n - 1) / (n^2 (n a + 1)))).

    Bound:
        sqrt(sum over tensors of (||sum_k w_k (p_k - base)|| + |sum_k w_k - 1| ||base|| + rounding)^2).

    When to use:
        Random search over mixtures, as a first generation for a search or as the baseline such a search has to beat.

    Failure modes:
        Those of ``blend/1``. Many parents with concentration 1 leave most of them with almost no weight.
    """

    family: ClassVar[str] = "soup"
    parents_needed: ClassVar[tuple[int, int]] = (2, MAX_PARENTS)

    seed: Seed
    concentration: Concentration

    def weights(self, inputs: Inputs) -> tuple[float, ...]:
        """The weights of the parents, multiples of 2^-32 that sum to exactly 1."""
        count = len(inputs.parents)
        digests = b"".join(bytes.fromhex(parent.sha256) for parent in inputs.parents)
        stream = stream_for(self.seed, hashlib.sha256(DOMAIN + digests).digest(), "weights")
        drawn = np.sort(stream.words(0, count * self.concentration - 1))
        ends = [0, *drawn[self.concentration - 1 :: self.concentration].tolist(), POINTS]
        return tuple((right - left) / POINTS for left, right in pairwise(ends))

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The drawn weights; the same for every tensor."""
        return Survey(factors=rounded(self.weights(inputs)))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        return summed_rows(name, start, stop, inputs, survey.factors)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        return summed(inputs.parents, survey.factors)

    def _bound(self, inputs: Inputs) -> float:
        return sum_bound(inputs, dict.fromkeys(inputs.names, self.survey("", inputs)))

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Any mixture, and one close to equal weights."""
        return (cls(seed=1, concentration=1), cls(seed=2, concentration=64))
