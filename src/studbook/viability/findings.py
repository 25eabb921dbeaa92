"""A finding: the row of a comparison that goes on record, and the sentence a reader gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from msgspec.structs import replace

from studbook.records import Comparison
from studbook.statistics import EXACT_BELOW, Estimate, Paired
from studbook.viability.words import settle

__all__ = ["Finding", "Test", "cited", "paired_method", "row"]

Test = Literal["non-inferiority", "superiority", "parent", "utility", "shown"]


class Finding(NamedTuple):
    """One answered question.

    Attributes:
        row: What goes on record.
        words: What did not hold, with numbers; for the winner the same numbers are the reason it won.
    """

    row: Comparison
    words: str


def row(
    test: Test,
    against: str,
    on: str,
    pair: Paired,
    estimate: Estimate,
    *,
    threshold: float,
    passed: bool,
    method: str,
    p: float = 1.0,
) -> Comparison:
    """A comparison row with its numbers rounded to nine decimals."""
    return Comparison(
        test=test,
        against=against,
        on=on,
        items=pair.items,
        wins=pair.wins,
        losses=pair.losses,
        difference=settle(estimate.value),
        lower=settle(estimate.lower),
        upper=settle(estimate.upper),
        p_value=p,  # from integers, rounded once: equal everywhere as it is
        threshold=settle(threshold),
        passed=passed,
        method=method,
        scorecards=(),
    )


def cited(rows: Iterable[Comparison], own: str | None, others: Mapping[str, str]) -> tuple[Comparison, ...]:
    """The same rows with the scorecards they were computed from.

    Args:
        rows: Comparisons of one candidate.
        own: Digest of the candidate's scorecard, if it has one.
        others: Artifact -> digest of its scorecard, for whoever it was compared with.
    """
    return tuple(replace(r, scorecards=tuple(d for d in (own, others.get(r.against)) if d)) for r in rows)


def paired_method(pair: Paired) -> str:
    """How the bounds of a paired difference were made, in words."""
    if pair.wins + pair.losses >= EXACT_BELOW:
        return "d -/+ z sqrt((psi - d^2) / n), psi = (wins + losses) / n"
    return f"exact Clopper-Pearson bounds, as only {pair.wins + pair.losses} items disagree"
