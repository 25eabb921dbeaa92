"""Proper scores: how much probability the model puts where it belongs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Answers, Kind

__all__ = ["ProperScores"]


class ProperScores(Kind):
    """Mean Brier score over items, 0..2, lower is better. Source: Brier 1950 (Monthly Weather Review 78)."""

    name = "proper-scores"
    mark = 0.75
    lower = True
    reads = "likelihood"

    def score(self, answers: Answers, _items: Sequence[Item]) -> float:
        """The mean Brier score."""
        return math.fsum(answers.brier) / len(answers.brier)
