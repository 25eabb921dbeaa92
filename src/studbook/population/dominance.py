"""Who is better than whom when every score is measured with noise: fronts, crowding, and a bounded archive.

* Noisy dominance: a dominates b if every paired one-sided lower bound of a - b is at least -epsilon and one is above 0.
  Two that dominate each other by that rule are a trade-off, and neither does.
* Fronts: front 1 is what nobody dominates, front 2 what nobody else dominates, and so on. Noisy dominance can run in a
  ring; then those dominated by the fewest come first. Source: Deb et al. 2002, NSGA-II, section III-A.
* Crowding: the sum over objectives of the gap between both neighbours, over the front's range; the ends have no such
  gap and always stay. Source: the same, section III-B.
* Bounded archive: the first so many by front, crowding and digest. Epsilon keeps out what is only luckily better;
  source: Laumanns et al. 2002, Combining convergence and diversity, Evolutionary Computation 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studbook.statistics import paired_bounds, paired_counts

__all__ = ["Scored", "Standing", "archive_of", "crowding", "dominates", "fronts", "standings"]

_MICRO = 1_000_000


class Scored(NamedTuple):
    """A model with what it is compared by.

    Attributes:
        artifact: Digest of its file.
        correct: Objective -> one character an item, ``1`` right and ``0`` wrong; the same items for everybody.
        able: Whether it keeps every constraint; one that does not is never compared.
    """

    artifact: str
    correct: Mapping[str, str]
    able: bool = True

    def shares(self) -> list[float]:
        """Share of right answers an objective, 0..1."""
        return [bits.count("1") / len(bits) for bits in self.correct.values()]


class Standing(NamedTuple):
    """Where a model stands.

    Attributes:
        artifact: Digest of its file.
        rank: Its front, from 1; 0 where a constraint is broken.
        crowding_ppm: How alone it stands there, in millionths; -1 for an end of the front.
    """

    artifact: str
    rank: int
    crowding_ppm: int

    @property
    def order(self) -> tuple[int, int, str]:
        """Best first; equals stand in order of their digests."""
        alone = -(1 << 60) if self.crowding_ppm < 0 else -self.crowding_ppm
        return (self.rank or 1 << 30, alone, self.artifact)


def dominates(a: Scored, b: Scored, epsilon: float, alpha: float) -> bool:
    """Whether a dominates b and b does not dominate a.

    Args:
        a: One model.
        b: Another, on the same items.
        epsilon: Share of items a lower bound may lie below 0.
        alpha: Error rate of every one-sided bound.

    Raises:
        UsageError: if their items differ.
    """
    counts = [paired_counts(a.correct[k], b.correct[k]) for k in a.correct]

    def better(pairs: Sequence[tuple[int, int, int]]) -> bool:
        bounds = [paired_bounds(wins, losses, items, alpha).lower for wins, losses, items in pairs]
        return all(low >= -epsilon for low in bounds) and any(low > 0.0 for low in bounds)

    forth = better([(p.wins, p.losses, p.items) for p in counts])
    return forth and not better([(p.losses, p.wins, p.items) for p in counts])


def fronts(field: Sequence[Scored], epsilon: float, alpha: float) -> list[list[Scored]]:
    """The fronts, best first; models that break a constraint stand in none.

    Args:
        field: The models, each once.
        epsilon: As in `dominates`.
        alpha: Likewise.
    """
    left = sorted((s for s in field if s.able), key=lambda s: s.artifact)
    above = {b.artifact: {a.artifact for a in left if a is not b and dominates(a, b, epsilon, alpha)} for b in left}
    found: list[list[Scored]] = []
    while left:
        here = {s.artifact for s in left}
        fewest = min(len(above[s.artifact] & here) for s in left)
        front = [s for s in left if len(above[s.artifact] & here) == fewest]
        found.append(front)
        left = [s for s in left if s not in front]
    return found


def crowding(front: Sequence[Scored]) -> dict[str, int]:
    """Crowding of every model of a front, in millionths; -1 for whoever is first or last in an objective."""
    ends: set[str] = set()
    sums = {s.artifact: 0.0 for s in front}
    values = {s.artifact: s.shares() for s in front}
    for place in range(len(next(iter(values.values()), []))):
        row = sorted(values, key=lambda a: (values[a][place], a))
        low, high = values[row[0]][place], values[row[-1]][place]
        ends |= {row[0], row[-1]}
        for before, own, after in zip(row, row[1:], row[2:], strict=False):
            sums[own] += (values[after][place] - values[before][place]) / (high - low) if high > low else 0.0
    return {a: -1 if a in ends else round(total * _MICRO) for a, total in sums.items()}


def standings(field: Sequence[Scored], epsilon: float, alpha: float) -> list[Standing]:
    """Where every model stands, best first; those that break a constraint come last with rank 0."""
    found = [Standing(s.artifact, 0, 0) for s in field if not s.able]
    for rank, front in enumerate(fronts(field, epsilon, alpha), 1):
        alone = crowding(front)
        found += [Standing(s.artifact, rank, alone[s.artifact]) for s in front]
    return sorted(found, key=lambda s: s.order)


def archive_of(ranked: Sequence[Standing], capacity: int) -> tuple[str, ...]:
    """The first models of a bounded archive: by front, then how alone they stand, then digest.

    Args:
        ranked: Where everybody stands, in any order.
        capacity: Most that stay.
    """
    able = sorted((s for s in ranked if s.rank), key=lambda s: s.order)
    return tuple(s.artifact for s in able[:capacity])
