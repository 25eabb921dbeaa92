"""How unlike the others a model behaves, and the grid in which the best of every kind is kept.

* Descriptor: one bit an item of the descriptor suites, right or wrong, and how far off its wrong answers are.
* Distance of two models: the share of items they answer differently (Hamming). Novelty: the mean distance to the five
  nearest. Source: Lehman and Stanley 2011, Abandoning objectives, Evolutionary Computation 19.
* Grid: a model's cell is the skill in which it leads the field by most and the skill it is worst at; of every cell the
  best stays. Source: Mouret and Clune 2015, Illuminating search spaces by mapping elites, arXiv 1504.04909.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studbook.errors import UsageError

__all__ = ["CLASSES", "NEAREST", "cells", "elites", "errors_of", "hamming", "nearest", "novelty_ppm"]

NEAREST = 5
"""Neighbours whose distance counts."""
CLASSES = ("near", "unsure", "lost")
"""Wrong answers by the log-likelihood of the right one: above -1 nat, above -4, and below."""
_EDGES = (-1_000_000, -4_000_000)
_MICRO = 1_000_000


def hamming(a: str, b: str) -> int:
    """Share of items two models answer differently, in millionths.

    Raises:
        UsageError: if they did not answer the same number of items, or none.
    """
    if len(a) != len(b) or not a:
        raise UsageError(f"{len(a)} and {len(b)} answers are not the same items", reason="novelty.items")
    return round((int(a, 2) ^ int(b, 2)).bit_count() * _MICRO / len(a))


def nearest(own: str, others: Mapping[str, str], count: int = NEAREST) -> tuple[tuple[str, int], ...]:
    """The nearest models with their distance in millionths; equals stand in order of their digests.

    Args:
        own: Answers of one model.
        others: Digest -> answers of everybody else.
        count: How many.
    """
    found = sorted((hamming(own, bits), artifact) for artifact, bits in others.items())
    return tuple((artifact, distance) for distance, artifact in found[:count])


def novelty_ppm(near: Sequence[tuple[str, int]]) -> int:
    """Mean distance to some neighbours in millionths; a million for a model that is alone."""
    return sum(distance for _, distance in near) // len(near) if near else _MICRO


def errors_of(correct: str, logliks: Sequence[int]) -> tuple[int, ...]:
    """Wrong items of every class of `CLASSES`.

    Args:
        correct: One character an item.
        logliks: Log-likelihood of each right answer, in millionths of a nat.
    """
    wrong = [value for bit, value in zip(correct, logliks, strict=True) if bit == "0"]
    near = sum(value > _EDGES[0] for value in wrong)
    unsure = sum(_EDGES[1] < value <= _EDGES[0] for value in wrong)
    return near, unsure, len(wrong) - near - unsure


def cells(shares: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The cell of every model, as ``leads in SKILL, worst at SKILL``.

    Args:
        shares: Digest -> skill -> share of right answers.
    """
    labels = list(next(iter(shares.values()), {}))
    mean = {k: sum(row[k] for row in shares.values()) / len(shares) for k in labels}
    return {
        artifact: f"leads in {max(labels, key=lambda k: row[k] - mean[k])}, worst at {min(labels, key=lambda k: row[k])}"
        for artifact, row in shares.items()
        if labels
    }


def elites(cell_of: Mapping[str, str], quality: Mapping[str, float]) -> dict[str, str]:
    """Cell -> digest of the best model in it; of equals the one whose digest comes first."""
    best: dict[str, str] = {}
    for artifact in sorted(cell_of, key=lambda a: (-quality[a], a)):
        best.setdefault(cell_of[artifact], artifact)
    return best
