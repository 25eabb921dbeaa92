"""M2N2: an archive in which models compete for items and choose partners that know what they lack.

Source: Abrantes, Lange and Tang, Competition and Attraction Improve Model Fusion, arXiv 2508.16204. With s_ij = 1 where
model i answers item j rightly:

* competition: z_j = (sum_i s_ij)^alpha, fitness f_i = sum_j s_ij / z_j. An item that few can answer is worth more.
* first parent: drawn in proportion to f_i.
* attraction: the partner i is drawn in proportion to sum_j max(0, s_ij - s_1j) / z_j: what it knows that parent 1 does not.
  Items nobody answers contribute nothing.
* child: a mixing ratio t and a split point w, both uniform. Layers before w are mixed with t, the others with 1 - t.
* archive: the child enters, the least fit of all leaves.

It begins with the parents themselves. A member is kept as its scales against the base, one a parent and block: a mix of
two members is again such a point, so every descendant, however many mixes away, is one recipe over approved parents. It
is rounded to the grid of the space once a mix.

``lerp`` mixes (1 - t) A + t B, which is what spherical mixing of whole weights comes to where two models are close to
their base; ``slerp`` is spherical on the task vectors, (sin((1 - t) T) A + sin(t T) B) / sin T in every block, T the
angle between the two there; it keeps their length where lerp shortens it. Neither is part of how bytes are computed: the
record of a recipe holds the rounded scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from studbook.errors import UsageError
from studbook.population.genomes import Draws, Genome, founders, snap
from studbook.population.loop import Proposal, Result
from studbook.records.population import GenomeSpace

__all__ = ["ALPHA", "ARCHIVE", "Member", "NaturalNiches", "attraction", "fitness", "mixing"]

ALPHA = 1.0
"""Exponent of competition; at 0 nobody shares and fitness is the number of right answers."""
ARCHIVE = 12
"""Members of the archive."""
# Beyond this cosine the spherical formula divides by almost nothing and says the same as the straight one.
_STRAIGHT = 0.9995
Table = Sequence[Sequence[float]]


class Member(NamedTuple):
    """A model of the archive.

    Attributes:
        genome: Its scales.
        correct: One character an item, ``1`` where it answers rightly.
    """

    genome: Genome
    correct: str


def fitness(members: Sequence[Member], alpha: float = ALPHA) -> list[float]:
    """f_i = sum_j s_ij / z_j with z_j = (sum_i s_ij)^alpha; one number a member."""
    worth = _worth(members, alpha)
    return [_sum(worth, member.correct, None) for member in members]


def attraction(members: Sequence[Member], known: str, alpha: float = ALPHA) -> list[float]:
    """sum_j max(0, s_ij - k_j) / z_j; one number a member, 0 for whoever knows no more than ``known``.

    Args:
        members: The archive.
        known: One character an item: what the first parent answers, or all parents drawn so far together.
        alpha: Exponent of competition.
    """
    worth = _worth(members, alpha)
    return [_sum(worth, member.correct, known) for member in members]


def mixing(t: float, a: Sequence[float], b: Sequence[float], table: Table | None) -> tuple[float, float]:
    """The factors of two mixed points.

    Args:
        t: Share of the second.
        a: Scales of the first in one block, one a parent.
        b: Scales of the second, likewise.
        table: Inner products of the parents' task vectors in this block; None mixes straight.
    """
    if table is None:
        return 1.0 - t, t
    own, other = _inner(a, a, table), _inner(b, b, table)
    if not (own > 0.0 and other > 0.0):
        return 1.0 - t, t
    cosine = _inner(a, b, table) / math.sqrt(own * other)
    if not abs(cosine) <= _STRAIGHT:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


class NaturalNiches:
    """The search.

    Args:
        space: Scales over parents and blocks.
        seed: Seed of the draws.
        mix: How two members are mixed.
        tables: For every block the inner products of the parents' task vectors; needed for ``slerp``.
        archive: Members of the archive, at least the number of parents.
        alpha: Exponent of competition.

    Raises:
        UsageError: if the space holds no parents, or slerp has no tables.
    """

    def __init__(
        self,
        space: GenomeSpace,
        seed: int,
        mix: Literal["lerp", "slerp"] = "lerp",
        tables: Mapping[int, Table] | None = None,
        archive: int = ARCHIVE,
        alpha: float = ALPHA,
    ) -> None:
        if mix == "slerp" and tables is None:
            raise UsageError("spherical mixing needs the angles between the parents", where="--mix")
        self.space, self.alpha = space, alpha
        self.size = max(archive, space.parents)
        self.members: list[Member] = []
        self._founders = founders(space)
        self._tables = tables if mix == "slerp" else None
        self._draws = Draws(seed, "m2n2")
        self._begun = False

    def ask(self) -> Sequence[Proposal]:
        """The parents at first, then one child at a time."""
        if not self._begun:
            return [Proposal(genome, "founder") for genome in self._founders]
        if len(self.members) < 2:
            # Parents that cannot be run leave nothing to mix; walk on from chance.
            return [Proposal(snap(self.space, [self._draws.share() for _ in self.space.genes]))]
        first = self._draws.weighted(fitness(self.members, self.alpha))
        pull = attraction(self.members, self.members[first].correct, self.alpha)
        if not sum(pull) > 0.0:
            pull = [float(i != first) for i in range(len(self.members))]
        second = self._draws.weighted(pull)
        t, split = self._draws.share(), 1 + self._draws.below(self.space.layers)
        return [Proposal(self._child(self.members[first].genome, self.members[second].genome, t, split))]

    def tell(self, results: Sequence[Result]) -> None:
        """Let the children in, and the least fit out."""
        self._begun = True
        for proposal, outcome, _ in results:
            known = any(member.genome == proposal.genome for member in self.members)
            if outcome.detail or known:
                continue
            self.members.append(Member(proposal.genome, "".join(outcome.correct)))
            if len(self.members) > self.size:
                scores = fitness(self.members, self.alpha)
                # Of equals the newest leaves.
                del self.members[min(range(len(scores)), key=lambda i: (scores[i], -i))]

    def _child(self, first: Genome, second: Genome, t: float, split: int) -> Genome:
        a, b = ([n / 10**self.space.decimals for n in genome] for genome in (first, second))
        values: list[float] = []
        for start in range(0, len(a), self.space.parents):
            gene, own = self.space.genes[start], slice(start, start + self.space.parents)
            share = t if gene.layer < split else 1.0 - t
            table = self._tables[gene.block] if self._tables is not None else None
            left, right = mixing(share, a[own], b[own], table)
            values += [left * x + right * y for x, y in zip(a[own], b[own], strict=True)]
        return snap(self.space, values)


def _worth(members: Sequence[Member], alpha: float) -> list[float]:
    """1 / z_j for every item, 0 where nobody answers it."""
    known = [column.count("1") for column in zip(*(member.correct for member in members), strict=True)]
    return [count**-alpha if count else 0.0 for count in known]


def _sum(worth: Sequence[float], correct: str, without: str | None) -> float:
    if without is None:
        return math.fsum(w for w, bit in zip(worth, correct, strict=True) if bit == "1")
    return math.fsum(w for w, bit, had in zip(worth, correct, without, strict=True) if bit == "1" and had == "0")


def _inner(a: Sequence[float], b: Sequence[float], table: Table) -> float:
    return math.fsum(x * y * table[i][j] for i, x in enumerate(a) for j, y in enumerate(b))
