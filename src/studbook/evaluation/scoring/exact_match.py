"""Exact match: greedy decoding would write the expected answer and end."""

from __future__ import annotations

from studbook.evaluation.scoring.base import Kind

__all__ = ["ExactMatch"]


class ExactMatch(Kind):
    """Share of items answered exactly, token for token, end marker included."""

    name = "exact-match"
    mark = 0.25
    floor = 0.25
    reads = "likelihood"
