"""What a candidate costs beside the champion: numbers of one unit, each measured once, by one method."""

from __future__ import annotations

import math

from studbook.records import Check, Gates, Scorecard
from studbook.viability.words import settle

__all__ = ["BYTES", "DECODED_BYTES", "FUEL", "MULTIPLY_ADDS", "cost", "cost_checks", "ratio"]

BYTES = "bytes"
"""Unit of the cost measure that holds the file's size."""
DECODED_BYTES = "decoded-bytes"
"""Unit of the cost measure that holds the size of the tensors once decoded."""
MULTIPLY_ADDS = "multiply-adds"
"""Unit of the cost measure that holds the multiply-adds of these suites; before ``/LABEL`` those of answering one."""
FUEL = "fuel"
"""Unit of what the engine counted while the model generated on the sample; before ``/LABEL`` while it answered a suite."""
_ROWS = (("", MULTIPLY_ADDS), ("/fuel", FUEL))


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
    """Whether answering fixed prompts takes a candidate no more work than the policy lets it; two rows a suite of cost.

    Multiply-adds follow from shapes and tokens; fuel is what the engine really did, the rest of the work included.

    Args:
        card: The candidate's scorecard.
        champion: The champion's of the same role; it names the suites.
        gates: Thresholds of the policy; without a ``cost_ratio`` the rows are shown and always hold.
    """
    if card.artifact == champion.artifact:
        return ()
    labels = (result.cluster for result in champion.results if result.dimension == "cost")
    rows = ((f"cost/{label}{more}", unit, label) for label in labels for more, unit in _ROWS)
    return tuple(_answering(name, card, champion, (unit, label), gates.cost_ratio) for name, unit, label in rows)


def _answering(name: str, card: Scorecard, champion: Scorecard, measured: tuple[str, str], most: float) -> Check:
    unit, asked = "/".join(measured), most > 0.0
    share = ratio(card, champion, unit)
    if share is None:
        told = f"the {measured[0]} of answering were not measured by one method: no data never promotes"
        return Check(name=name, passed=not asked, detail=f"does not hold: {told}" if asked else told)
    limit = f"at most {most:g} times" if asked else "the policy names no limit"
    told = f"answering takes {cost(card, unit):,} {measured[0]}, {settle(share):.3f} times the champion's ({limit})"
    held = not asked or settle(share) <= most
    return Check(name=name, passed=held, detail=told if held else f"does not hold: {told}")
