"""Bounds of any figure without a formula for its variance: resample the items, look at the spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts, normal_quantile
from studbook.statistics.draws import Draws
from studbook.statistics.paired import Estimate

__all__ = ["Statistic", "bootstrap_bounds", "mean_of"]

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""A figure of every row at once: (rows, items) -> (rows,)."""

_STANDARD = NormalDist()
_CELLS = 1 << 22


def mean_of(rows: Floats) -> Floats:
    """The mean of every row; (rows, items) -> (rows,)."""
    return np.asarray(rows.mean(axis=-1), dtype=np.float64)


def bootstrap_bounds(
    values: Sequence[float],
    alpha: float,
    seed: int,
    *,
    statistic: Statistic = mean_of,
    method: Literal["percentile", "bca"] = "bca",
    resamples: int = 9999,
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
        statistic: The figure, of every row at once.
        method: ``percentile`` or ``bca``.
        resamples: How many; at least 100.

    Raises:
        UsageError: for too few items or resamples, a value or figure that is not finite, or an impossible error rate.
    """
    items = np.asarray(values, dtype=np.float64)
    check_counts(0, max(1, len(items)), alpha)
    if items.ndim != 1 or len(items) < 2 or resamples < 100 or not np.isfinite(items).all():
        raise UsageError(
            f"{len(items)} values and {resamples} resamples do not give bounds",
            reason="statistics.sample",
            advice="Use at least two finite values and at least 100 resamples.",
        )
    value = float(_figures(items[None, :], statistic)[0])
    drawn = np.sort(_resampled(items, statistic, Draws(seed), resamples))
    shares = (alpha, 1.0 - alpha)
    if method == "bca" and drawn[0] < drawn[-1]:
        shares = _corrected(drawn, value, _left_out(items, statistic), alpha)
    low, high = (float(np.quantile(drawn, share)) for share in shares)
    return Estimate(value, low, high)


def _figures(rows: Floats, statistic: Statistic) -> Floats:
    found = np.asarray(statistic(rows), dtype=np.float64)
    if found.shape != (len(rows),) or not np.isfinite(found).all():
        raise UsageError(
            f"the statistic gave {found.shape} for {len(rows)} rows, or a value that is not finite",
            reason="statistics.sample",
            advice="Give one finite figure a row.",
        )
    return found


def _resampled(items: Floats, statistic: Statistic, draws: Draws, resamples: int) -> Floats:
    # Rows are drawn in blocks, so memory is bounded; the stream does not depend on the size of a block.
    block = max(1, _CELLS // len(items))
    found = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        found.append(_figures(items[draws.below(len(items), rows * len(items)).reshape(rows, -1)], statistic))
    return np.concatenate(found)


def _left_out(items: Floats, statistic: Statistic) -> Floats:
    count = len(items)
    block = max(1, _CELLS // count)
    found = []
    for start in range(0, count, block):
        rows = np.arange(start, min(count, start + block))
        columns = np.arange(count - 1)[None, :]
        found.append(_figures(items[columns + (columns >= rows[:, None])], statistic))
    return np.concatenate(found)


def _corrected(drawn: Floats, value: float, left_out: Floats, alpha: float) -> tuple[float, float]:
    below = (float((drawn < value).sum()) + float((drawn <= value).sum())) / (2 * len(drawn))
    # An estimate outside all its resamples has no finite correction; half a resample is the most that can be said.
    bias = normal_quantile(min(max(below, 0.5 / len(drawn)), 1.0 - 0.5 / len(drawn)))
    away = left_out.mean() - left_out
    squares = float((away**2).sum())
    speed = float((away**3).sum()) / (6.0 * squares**1.5) if squares > 0.0 else 0.0

    def moved(z: float) -> float:
        slope = 1.0 - speed * (bias + z)
        return _STANDARD.cdf(bias + (bias + z) / slope) if slope > 0.0 else float(math.copysign(1.0, z) > 0)

    reach = normal_quantile(1.0 - alpha)
    return moved(-reach), moved(reach)
