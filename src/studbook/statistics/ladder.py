"""The Ladder: how the side that makes candidates may learn from items that judge without wearing them out.

Only steps that the items can tell from noise become visible; everything else repeats the old score, so a thousand
small queries teach nothing. Source: Blum and Hardt 2015 (arXiv 1502.04585), the parameter-free Ladder (algorithm 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from studbook.errors import UsageError

__all__ = ["Ladder", "climb"]


class Ladder(NamedTuple):
    """What has been let out so far.

    Attributes:
        released: The score everybody may see, rounded to 1/n.
        best: The per-item scores it was measured on; never shown.
    """

    released: float
    best: tuple[float, ...]


def climb(ladder: Ladder | None, scores: Sequence[float]) -> Ladder:
    """One query: the ladder after it. ``released`` is the answer to the query.

    The first score is released. Later the mean, rounded to 1/n, is released iff it is above the released one strictly
    by more than s / sqrt(n), s the sample standard deviation (n - 1) of the per-item differences to the best; else the
    old ladder is the answer. Deterministic: nothing is drawn.

    Args:
        ladder: What was let out before; None before the first query.
        scores: Per-item scores of the candidate, 0..1, higher is better; at least two items, always in one order.

    Raises:
        UsageError: for fewer than two items, another number of items than before, or a score outside 0..1.
    """
    n = len(scores)
    if n < 2 or (ladder and len(ladder.best) != n) or not all(0.0 <= score <= 1.0 for score in scores):
        raise UsageError(
            f"{n} scores are not a query of this ladder",
            reason="statistics.ladder",
            advice="Give one score of 0..1 an item, always of the same suite.",
        )
    mean = math.fsum(scores) / n
    here = Ladder(round(mean * n) / n, tuple(scores))
    if ladder is None:
        return here
    differences = [score - old for score, old in zip(scores, ladder.best, strict=True)]
    centre = math.fsum(differences) / n
    deviation = math.sqrt(math.fsum((d - centre) ** 2 for d in differences) / (n - 1))
    return here if mean > ladder.released + deviation / math.sqrt(n) else ladder
