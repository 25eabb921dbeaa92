"""Bounds of any figure without a formula for its variance: resample the items, look at the spread."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts, normal_quantile
from studbook.statistics.draws import Draws
from studbook.statistics.paired import Estimate

__all__ = ["bootstrap_bounds", "mean_of", "quantile"]

_STANDARD = NormalDist()


def mean_of(values: Sequence[float]) -> float:
    """The mean, summed exactly."""
    return math.fsum(values) / len(values)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of sorted values lies, with a straight line between neighbours.

    Source: Hyndman and Fan 1996 (Am. Statist. 50), definition 7.

    Args:
        ordered: Sorted ascending, at least one.
        share: 0..1.
    """
    place = share * (len(ordered) - 1)
    below = min(math.floor(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def bootstrap_bounds(
    values: Sequence[float],
    alpha: float,
    seed: int,
    *,
    statistic: Callable[[Sequence[float]], float] = mean_of,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = 1999,
) -> Estimate:
    """A figure of the items with one-sided bounds from resampled items; the same seed gives the same bounds.

    Percentile: the alpha and 1 - alpha quantiles of the resampled figures. BCa corrects their bias and skewness: with
    z0 = Phi^-1(share of resamples below the estimate, ties half) and the acceleration a = sum u^3 / (6 (sum u^2)^1.5),
    u the mean of the leave-one-out figures minus each, quantiles are taken at Phi(z0 + (z0 + z) / (1 - a (z0 + z))),
    z = -/+ z_(1 - alpha). Source: Efron 1987 (JASA 82); Efron and Tibshirani 1993, chapter 14. Where the resamples do
    not vary, both bounds are the estimate. Items have to be independent; where they come in clusters use
    `clustered_bounds`, or resample one figure a cluster.

    Args:
        values: One an item, at least two, finite.
        alpha: Error rate of each bound.
        seed: Of the resamples, 0..2^64 - 1.
        statistic: The figure; it is asked once a resample, and for BCa once an item.
        method: ``percentile`` or ``bca``.
        resamples: How many; at least 100.

    Raises:
        UsageError: for too few items or resamples, a value or figure that is not finite, or an impossible error rate.
    """
    items = tuple(values)
    check_counts(0, max(1, len(items)), alpha)
    if len(items) < 2 or resamples < 100 or not all(math.isfinite(value) for value in items):
        raise UsageError(
            f"{len(items)} values and {resamples} resamples do not give bounds",
            reason="statistics.sample",
            advice="Use at least two finite values and at least 100 resamples.",
        )
    value, draws = _figure(statistic, items), Draws(seed)
    drawn = sorted(
        _figure(statistic, [items[i] for i in draws.below(len(items), len(items))]) for _ in range(resamples)
    )
    shares = (alpha, 1.0 - alpha)
    if method == "bca" and drawn[0] < drawn[-1]:
        left_out = [_figure(statistic, items[:i] + items[i + 1 :]) for i in range(len(items))]
        shares = _corrected(drawn, value, left_out, alpha)
    return Estimate(value, quantile(drawn, shares[0]), quantile(drawn, shares[1]))


def _figure(statistic: Callable[[Sequence[float]], float], items: Sequence[float]) -> float:
    found = float(statistic(items))
    if not math.isfinite(found):
        raise UsageError(
            f"the statistic of {len(items)} items is {found}",
            reason="statistics.sample",
            advice="Give a finite figure for every resample.",
        )
    return found


def _corrected(drawn: Sequence[float], value: float, left_out: Sequence[float], alpha: float) -> tuple[float, float]:
    below = (bisect_left(drawn, value) + bisect_right(drawn, value)) / (2 * len(drawn))
    # An estimate outside all its resamples has no finite correction; half a resample is the most that can be said.
    bias = normal_quantile(min(max(below, 0.5 / len(drawn)), 1.0 - 0.5 / len(drawn)))
    centre = mean_of(left_out)
    away = [centre - figure for figure in left_out]
    squares = math.fsum(u * u for u in away)
    speed = math.fsum(u**3 for u in away) / (6.0 * squares**1.5) if squares > 0.0 else 0.0

    def moved(z: float) -> float:
        slope = 1.0 - speed * (bias + z)
        return _STANDARD.cdf(bias + (bias + z) / slope) if slope > 0.0 else float(z > 0.0)

    reach = normal_quantile(1.0 - alpha)
    return moved(-reach), moved(reach)
