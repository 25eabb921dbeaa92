"""Which models of a pool have children together.

With s_ij = 1 where model i answers item j rightly:

* ``niches``: z_j = (sum_i s_ij)^alpha and f_i = sum_j s_ij / z_j. The first parent is drawn in proportion to f_i, every
  further one in proportion to sum_j max(0, s_ij - s_Kj) / z_j, where s_Kj = 1 if a parent drawn before knows item j.
  For two parents this is the rule of Abrantes, Lange and Tang, arXiv 2508.16204. Items nobody answers count nothing.
* ``front``: models that are best on some item and that no other covers; drawn in proportion to the items on whose front
  they stand. Source: Agrawal et al. 2025, arXiv 2507.19457, section 3.2.
* ``all``: everybody, in order, as many as fit.

Against monopolies a weight is divided by the square root of 1 + the children a model has had. A mate's weight is further
multiplied by 1 - the largest sign-conflict rate between its task vector and those of the parents drawn before: weights
that pull in opposite directions cancel in every merge. Source: Yadav et al. 2023, arXiv 2306.01708, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from studbook.population.genomes import Draws
from studbook.population.m2n2 import Member, attraction, fitness

__all__ = ["Draw", "PoolMethod", "Ready", "draw_parents"]

PoolMethod = Literal["all", "niches", "front"]
_MICRO = 1_000_000


class Ready(NamedTuple):
    """A model that may be a parent.

    Attributes:
        artifact: Digest of its file.
        correct: One character an item, the same items for everybody.
        children: Candidates that were bred from it before.
    """

    artifact: str
    correct: str
    children: int


class Draw(NamedTuple):
    """What was drawn.

    Attributes:
        chosen: Digests of the parents, in order.
        weights_ppm: Weight of every member in the first draw, of a million shared by all.
    """

    chosen: tuple[str, ...]
    weights_ppm: tuple[int, ...]


def draw_parents(
    members: Sequence[Ready],
    method: PoolMethod,
    size: int,
    seed: int,
    first: str = "",
    conflicts: Mapping[frozenset[str], float] = MappingProxyType({}),
) -> Draw:
    """Draw some parents; the same members, method, size and seed give the same ones.

    Args:
        members: The pool, in order.
        method: The rule.
        size: Parents that are wanted; all members where there are fewer.
        seed: Seed of the draws.
        first: Digest of a member that is a parent in any case, the first; nobody by default.
        conflicts: Two digests -> share of elements their task vectors move in opposite directions, 0..1.
    """
    weights = _weights(members, method)
    total = math.fsum(weights) or 1.0
    shown = tuple(math.floor(w / total * _MICRO) for w in weights)
    chosen = [i for i, m in enumerate(members) if m.artifact == first]
    if method == "all" or len(members) <= size:
        order = [*chosen, *(i for i in range(len(members)) if i not in chosen)]
        return Draw(tuple(members[i].artifact for i in order[:size]), shown)
    draws = Draws(seed, f"parents/{method}")
    while len(chosen) < size:
        if chosen and method == "niches":
            weights = _braked(_attraction(members, chosen), members)
        left = [0.0 if i in chosen else w * _fits(members, i, chosen, conflicts) for i, w in enumerate(weights)]
        if not sum(left) > 0.0:
            # Nobody knows anything more: whoever is left is as good as any other.
            left = [float(i not in chosen) for i in range(len(members))]
        chosen.append(draws.weighted(left))
    return Draw(tuple(members[i].artifact for i in chosen), shown)


def _weights(members: Sequence[Ready], method: PoolMethod) -> list[float]:
    if method == "all":
        return [1.0] * len(members)
    found = fitness(_as_members(members)) if method == "niches" else _front(members)
    return _braked(found, members)


def _attraction(members: Sequence[Ready], chosen: Sequence[int]) -> list[float]:
    """What everybody knows that none of the chosen does, shared by all who know it."""
    union = 0
    for i in chosen:
        union |= int(members[i].correct, 2)
    return attraction(_as_members(members), format(union, f"0{len(members[0].correct)}b"))


def _fits(
    members: Sequence[Ready], place: int, chosen: Sequence[int], conflicts: Mapping[frozenset[str], float]
) -> float:
    pairs = (frozenset((members[place].artifact, members[i].artifact)) for i in chosen)
    return 1.0 - max((conflicts.get(pair, 0.0) for pair in pairs), default=0.0)


def _as_members(members: Sequence[Ready]) -> list[Member]:
    return [Member((), m.correct) for m in members]


def _front(members: Sequence[Ready]) -> list[float]:
    """Items on whose front a model stands, 0 for one that another covers; of equals the first stays."""
    bits = [int(m.correct, 2) if m.correct else 0 for m in members]
    covered = [
        any(own | other == other and (own != other or k < i) for k, other in enumerate(bits) if k != i)
        for i, own in enumerate(bits)
    ]
    return [0.0 if hidden else float(own.bit_count()) for own, hidden in zip(bits, covered, strict=True)]


def _braked(weights: Sequence[float], members: Sequence[Ready]) -> list[float]:
    return [w / math.sqrt(1 + m.children) for w, m in zip(weights, members, strict=True)]
