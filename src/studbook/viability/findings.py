"""A finding: the row of a comparison that goes on record, and the sentence a reader gets."""

from __future__ import annotations

from typing import Literal, NamedTuple

from studbook.records import Comparison
from studbook.statistics import EXACT_BELOW, Estimate, Paired
from studbook.viability.words import settle

__all__ = ["Finding", "Test", "paired_method", "row"]

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
    )


def paired_method(pair: Paired) -> str:
    """How the bounds of a paired difference were made, in words."""
    if pair.wins + pair.losses >= EXACT_BELOW:
        return "d -/+ z sqrt((psi - d^2) / n), psi = (wins + losses) / n"
    return f"exact Clopper-Pearson bounds, as only {pair.wins + pair.losses} items disagree"
