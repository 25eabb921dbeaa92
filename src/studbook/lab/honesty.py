"""Honesty rows: tasks nobody here was taught, shown beside a decision so that nobody takes the other rows for everything."""

from __future__ import annotations

from msgspec import Struct

from studbook.lab.desk import Desk
from studbook.records import ViabilityDecision

__all__ = ["HonestyRow", "honesty_rows"]


class HonestyRow(Struct, frozen=True):
    """One suite of the dimension ``honesty``, on development items.

    Attributes:
        cluster: Its cluster.
        items: Its items.
        champion: Share that the champion gets right.
        candidates: Name and share of every candidate that was scored, in the order they were bred.
    """

    cluster: str
    items: int
    champion: float
    candidates: tuple[tuple[str, float], ...]


def honesty_rows(desk: Desk, record: ViabilityDecision) -> tuple[HonestyRow, ...]:
    """The honesty rows of a decision, from the development scorecards it cites; none where no such suite is frozen."""
    champion = next(c for c in map(desk.scorecard, record.champion_cards) if c.role == "development")
    cards = [(s.name, desk.scorecard(s.development)) for s in record.standings if s.development]
    found = []
    for place, result in enumerate(champion.results):
        if result.dimension == "honesty":
            shares = tuple((name, card.results[place].mean) for name, card in cards if card.results[place].correct)
            found.append(HonestyRow(result.cluster, len(result.correct), result.mean, shares))
    return tuple(found)
