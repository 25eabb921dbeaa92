"""What a candidate costs beside the champion: numbers of one unit, each measured once, by one method."""

from __future__ import annotations

import math

from studbook.records import Check, Gates, Scorecard
from studbook.viability.words import settle

__all__ = ["BYTES", "DECODED_BYTES", "MULTIPLY_ADDS", "cost", "cost_checks", "ratio"]

BYTES = "bytes"
"""Unit of the cost measure that holds the file's size."""
DECODED_BYTES = "decoded-bytes"
"""Unit of the cost measure that holds the size of the tensors once decoded."""
MULTIPLY_ADDS = "multiply-adds"
"""Unit of the cost measure that holds the multiply-adds of these suites; before ``/LABEL`` those of answering one."""


def cost(card: Scorecard, unit: str) -> int | None:
    """A cost of one unit in whole numbers, rounded up; None unless it was measured once and is above 0."""
    found = [m.value for m in card.cost if m.unit == unit]
    return math.ceil(found[0]) if len(found) == 1 and 0.0 < found[0] < math.inf else None


def ratio(candidate: Scorecard, champion: Scorecard, unit: str) -> float | None:
    """Candidate's cost over the champion's in one unit; None unless both were measured once, by the same method."""
    mine = [m for m in candidate.cost if m.unit == unit]
    theirs = [m for m in champion.cost if m.unit == unit]
    if len(mine) != 1 or len(theirs) != 1 or mine[0].method != theirs[0].method or mine[0].basis != theirs[0].basis:
        return None
    first, second = mine[0].value, theirs[0].value
    return first / second if 0.0 < first < math.inf and 0.0 < second < math.inf else None


def cost_checks(card: Scorecard, champion: Scorecard, gates: Gates) -> tuple[Check, ...]:
    """Whether answering fixed prompts takes a candidate no more work than the policy lets it; one row a suite of cost.

    Args:
        card: The candidate's scorecard.
        champion: The champion's of the same role; it names the suites.
        gates: Thresholds of the policy; without a ``cost_ratio`` the rows are shown and always hold.
    """
    if card.artifact == champion.artifact:
        return ()
    labels = (result.cluster for result in champion.results if result.dimension == "cost")
    return tuple(_answering(card, champion, label, gates.cost_ratio) for label in labels)


def _answering(card: Scorecard, champion: Scorecard, label: str, most: float) -> Check:
    unit, asked = f"{MULTIPLY_ADDS}/{label}", most > 0.0
    share = ratio(card, champion, unit)
    if share is None:
        told = "what answering takes was not measured by one method: no data never promotes"
        return Check(name=f"cost/{label}", passed=not asked, detail=f"does not hold: {told}" if asked else told)
    limit = f"at most {most:g} times" if asked else "the policy names no limit"
    told = f"answering takes {cost(card, unit):,} multiply-adds, {settle(share):.3f} times the champion's ({limit})"
    held = not asked or settle(share) <= most
    return Check(name=f"cost/{label}", passed=held, detail=told if held else f"does not hold: {told}")
