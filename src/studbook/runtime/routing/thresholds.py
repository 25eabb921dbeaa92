"""Thresholds: measured on a calibration set, bound to what they were measured with, and slow to change.

A confidence is read off a curve that isotonic regression fits (pool adjacent violators; Ayer et al. 1955, Ann. Math.
Statist. 26): the share of answers that were right at a mean log-probability, never falling. A margin is compared as it is.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence

from studbook.errors import UsageError
from studbook.records import CurvePoint, Header, RouteThreshold, canonical

__all__ = ["confidence", "confidence_threshold", "isotonic", "margin_threshold", "rows_sha256", "supersedes"]


def confidence(threshold: RouteThreshold, score: float | None) -> float:
    """Share right that the curve of a threshold says for a score; 0 for no score and below the first corner."""
    if score is None or not math.isfinite(score):
        return 0.0
    place = bisect_right([point.score for point in threshold.curve], score)
    return threshold.curve[place - 1].share if place else 0.0


def isotonic(scores: Sequence[float], right: Sequence[bool]) -> tuple[CurvePoint, ...]:
    """The never falling step curve with the least squared error; scores that are equal share a corner.

    Args:
        scores: Finite numbers, in any order.
        right: Whether the answer with that score was right.

    Raises:
        UsageError: if there is none, or one is not finite; ``route.calibration``.
    """
    if not scores or len(scores) != len(right) or not all(map(math.isfinite, scores)):
        text = f"{len(scores)} scores and {len(right)} results are no calibration set of finite scores"
        raise UsageError(text, reason="route.calibration", advice="Give every answer a score and whether it was right.")
    pools: list[list[float]] = []
    for score, was_right in sorted(zip(scores, right, strict=True)):
        if pools and pools[-1][0] == score:
            pools[-1][1] += was_right
            pools[-1][2] += 1
        else:
            pools.append([score, float(was_right), 1.0])
    merged: list[list[float]] = []
    for pool in pools:
        merged.append(pool)
        # Means are compared crosswise, in whole numbers: nothing is rounded.
        while len(merged) > 1 and merged[-2][1] * merged[-1][2] >= merged[-1][1] * merged[-2][2]:
            _, value, count = merged.pop()
            merged[-1][1] += value
            merged[-1][2] += count
    return tuple(CurvePoint(score=score, share=value / count) for score, value, count in merged)


def confidence_threshold(
    header: Header,
    scores: Sequence[float],
    right: Sequence[bool],
    share: float,
    *,
    engine: str,
    model: str,
    band: float = 0.02,
) -> RouteThreshold:
    """A threshold on a model's confidence: its answer stands where that share of such answers was right.

    Args:
        header: The header of the record.
        scores: Mean log-probability of every answer of the calibration set.
        right: Whether it was right.
        share: Share right that is asked for, 0..1.
        engine: Digest of the engine.
        model: Digest of the artifact.
        band: Half the width of the hysteresis, in shares.

    Raises:
        UsageError: if there is no calibration set; ``route.calibration``.
    """
    return RouteThreshold(
        header=header,
        purpose="confidence",
        encoder=None,
        engine=engine,
        model=model,
        calibration=rows_sha256(scores, right),
        items=len(scores),
        value=share,
        low=share - band,
        high=share + band,
        curve=isotonic(scores, right),
    )


def margin_threshold(
    header: Header, margins: Sequence[float], right: Sequence[bool], share: float, *, encoder: str, band: float = 0.25
) -> RouteThreshold:
    """The smallest margin from which on at least a share of the router's choices was right.

    Args:
        header: The header of the record.
        margins: Lead of every choice on the calibration set.
        right: Whether the choice was right.
        share: Share right that is asked for; where no margin reaches it, only leads beyond all that were seen count.
        encoder: Digest of the RouterState.
        band: Half the width of the hysteresis, as a part of the margin.

    Raises:
        UsageError: if there is no calibration set; ``route.calibration``.
    """
    rows_sha256(margins, right)
    pairs = sorted(zip(margins, right, strict=True), reverse=True)
    value, good = math.nextafter(max(margins), math.inf), 0
    for number, (margin, was_right) in enumerate(pairs, 1):
        good += was_right
        last = number == len(pairs) or pairs[number][0] != margin
        if last and good >= share * number:
            value = margin
    return RouteThreshold(
        header=header,
        purpose="margin",
        encoder=encoder,
        engine=None,
        model=None,
        calibration=rows_sha256(margins, right),
        items=len(margins),
        value=value,
        low=value * (1.0 - band),
        high=value * (1.0 + band),
        curve=(),
    )


def rows_sha256(scores: Sequence[float], right: Sequence[bool]) -> str:
    """SHA-256 of a calibration set: the canonical JSON of its pairs, sorted.

    Raises:
        UsageError: if there is none; ``route.calibration``.
    """
    if not scores or len(scores) != len(right):
        text = f"{len(scores)} scores and {len(right)} results are no calibration set"
        raise UsageError(text, reason="route.calibration", advice="Give every choice a score and whether it was right.")
    return hashlib.sha256(
        canonical(sorted([float(s), bool(r)] for s, r in zip(scores, right, strict=True)))
    ).hexdigest()


def supersedes(current: RouteThreshold, fresh: RouteThreshold) -> bool:
    """Whether a threshold that was measured again takes the place of the one in force.

    It does where it is about something else, or its value lies outside the band of the one in force: a small change of
    the calibration set moves nothing.
    """
    about = ("purpose", "encoder", "engine", "model")
    if any(getattr(current, field) != getattr(fresh, field) for field in about):
        return True
    return not current.low <= fresh.value <= current.high
