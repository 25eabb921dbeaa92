"""Who has to go: the smallest sufficient set of modules, or what stands in the way. Pure arithmetic over plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

__all__ = ["EXACT", "Candidate", "choose"]

EXACT: Final = 20_000
"""Sets that are looked at before the choice becomes approximate."""


class Candidate(NamedTuple):
    """A module that may go.

    Attributes:
        revision: Which one.
        gains: Limit -> what it holds of it.
        size: Bytes it gives back.
        used: When it was last used; a larger number is later.
        falls: It and all that cannot stay without it.
    """

    revision: str
    gains: Mapping[str, int]
    size: int
    used: int
    falls: frozenset[str]


def choose(candidates: Sequence[Candidate], short: Mapping[str, int]) -> frozenset[str] | None:
    """The fewest modules that give back what is short; among such sets the fewest bytes, then the longest unused.

    Exact while at most `EXACT` sets have to be looked at. Beyond that the set found holds at most d * c times the fewest,
    d the number of limits that are short and c the most modules that fall together: for every limit the largest holders
    go first, of which no set can do with fewer, and whoever is not needed in the end stays.

    Args:
        candidates: Who may go, each with whatever falls with it among them.
        short: Limit -> how much has to be given back; nothing below 1.

    Returns:
        Their revisions, empty if nothing is short; None if all of them together do not suffice.
    """
    if not _enough(candidates, short):
        return None
    looks = 0
    for count in range(_least(candidates, short), len(candidates) + 1):
        best: tuple[int, list[int], frozenset[str]] | None = None
        for some in combinations(candidates, count):
            looks += 1
            if looks > EXACT:
                return _approximate(candidates, short)
            names = frozenset(candidate.revision for candidate in some)
            if all(candidate.falls <= names for candidate in some) and _enough(some, short):
                cost = sum(c.size for c in some), sorted((c.used for c in some), reverse=True), names
                best = cost if best is None or cost[:2] < best[:2] else best
        if best is not None:
            return best[2]
    raise AssertionError("all of them suffice, as was seen above")


def _enough(some: Iterable[Candidate], short: Mapping[str, int]) -> bool:
    left = dict(short)
    for candidate in some:
        for limit in left:
            left[limit] -= candidate.gains.get(limit, 0)
    return all(amount <= 0 for amount in left.values())


def _largest(candidates: Sequence[Candidate], limit: str, amount: int) -> list[Candidate]:
    """The fewest holders of one limit that suffice for it; the longest unused first among equals."""
    found = []
    for candidate in sorted(candidates, key=lambda c: (-c.gains.get(limit, 0), c.used)):
        if amount <= 0:
            break
        amount -= candidate.gains.get(limit, 0)
        found.append(candidate)
    return found


def _least(candidates: Sequence[Candidate], short: Mapping[str, int]) -> int:
    """No fewer can suffice."""
    return max((len(_largest(candidates, limit, amount)) for limit, amount in short.items()), default=0)


def _approximate(candidates: Sequence[Candidate], short: Mapping[str, int]) -> frozenset[str]:
    by_name = {candidate.revision: candidate for candidate in candidates}
    named = [c for limit, amount in short.items() for c in _largest(candidates, limit, amount)]
    chosen = {name for candidate in named for name in candidate.falls}
    for candidate in sorted(named, key=lambda c: -c.used):  # the latest used stays if it may
        above = {n for n in chosen if candidate.revision in by_name[n].falls}
        fewer = chosen - candidate.falls - above
        if _closed(fewer, by_name) and _enough([by_name[name] for name in fewer], short):
            chosen = fewer
    return frozenset(chosen)


def _closed(names: Iterable[str], by_name: Mapping[str, Candidate]) -> bool:
    held = set(names)
    return all(by_name[name].falls <= held for name in held)
