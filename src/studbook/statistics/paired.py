"""Candidate against somebody else on the same items: counts, differences and their one-sided bounds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts, clopper_pearson, normal_quantile, wilson

__all__ = [
    "EXACT_BELOW",
    "Estimate",
    "Paired",
    "clustered_bounds",
    "mean_bounds",
    "paired_bounds",
    "paired_counts",
    "stratified_bounds",
    "unpaired_bounds",
]

EXACT_BELOW = 20
"""With fewer discordant pairs than this the normal approximation is not trusted."""


class Estimate(NamedTuple):
    """A difference with its one-sided bounds.

    Attributes:
        value: The estimate.
        lower: Lower bound.
        upper: Upper bound.
    """

    value: float
    lower: float
    upper: float


class Paired(NamedTuple):
    """How two answerers differ on shared items.

    Attributes:
        wins: Items only the candidate got right.
        losses: Items only the other got right.
        items: Shared items.
    """

    wins: int
    losses: int
    items: int

    @property
    def difference(self) -> float:
        """Candidate minus other, as a share of items."""
        return (self.wins - self.losses) / self.items

    @property
    def disagreement(self) -> float:
        """Share of discordant items, psi."""
        return (self.wins + self.losses) / self.items


def paired_counts(candidate: str, other: str) -> Paired:
    """Count discordant items of two strings of ``0`` and ``1``, one character an item.

    Raises:
        UsageError: if they are empty, of different length or hold anything else.
    """
    if len(candidate) != len(other) or not candidate or not set(candidate) | set(other) <= {"0", "1"}:
        raise UsageError(
            f"{len(candidate)} and {len(other)} results are not the same items, each right or wrong",
            reason="statistics.pairs",
            advice="Compare two scorecards of the same suite.",
        )
    mine, theirs = int(candidate, 2), int(other, 2)
    return Paired((mine & ~theirs).bit_count(), (theirs & ~mine).bit_count(), len(candidate))


def paired_bounds(wins: int, losses: int, n: int, alpha: float) -> Estimate:
    """The paired difference d with bounds d -/+ z sqrt((psi - d^2) / n).

    d = (wins - losses) / n and psi = (wins + losses) / n; source: Miller 2024, 2411.00640, section 4.
    With fewer than 20 discordant pairs two exact bounds are taken and the wider one counts:

    * Clopper-Pearson on the share of wins among the discordant pairs, theta: d = psi (2 theta - 1) with psi as seen.
      It agrees with McNemar's exact test about the sign of d.
    * Clopper-Pearson on wins and on losses out of n, combined by squares (Newcombe 1998, Statist. Med. 17): lower is
      d - sqrt((w - w_low)^2 + (l_high - l)^2). It knows that psi itself is uncertain: after ten losses and no win the
      first bound stands at the estimate itself and would miss the truth half of the time.

    Args:
        wins: Items only the candidate got right.
        losses: Items only the other got right.
        n: Shared items, at least 1.
        alpha: Error rate of each bound.

    Raises:
        UsageError: for impossible counts or error rates.
    """
    check_counts(min(wins, losses), n, alpha)
    check_counts(wins + losses, n, alpha)
    difference = (wins - losses) / n
    if wins + losses >= EXACT_BELOW:
        spread = _normal_spread(wins, losses, n, alpha)
        return Estimate(difference, difference - spread, difference + spread)
    return Estimate(difference, _few(wins, losses, n, alpha), -_few(losses, wins, n, alpha))


def _normal_spread(wins: int, losses: int, n: int, alpha: float) -> float:
    # n * psi - n * d^2 in integers: nothing cancels when every item is discordant.
    inner = (wins + losses) * n - (wins - losses) ** 2
    return normal_quantile(1.0 - alpha) * math.sqrt(inner / n) / n


def _few(wins: int, losses: int, n: int, alpha: float) -> float:
    pairs, difference = wins + losses, (wins - losses) / n
    theta = clopper_pearson(wins, pairs, alpha).lower if pairs else 0.5
    below = wins / n - clopper_pearson(wins, n, alpha).lower
    above = clopper_pearson(losses, n, alpha).upper - losses / n
    return max(-1.0, min(pairs / n * (2.0 * theta - 1.0), difference - math.hypot(below, above)))


def stratified_bounds(strata: Sequence[Paired], alpha: float) -> Estimate:
    """The unweighted mean of the strata's differences, with variance sum(var_k) / K^2.

    Each stratum enters with the distance of its own bound, so bound = mean -/+ sqrt(sum_k distance_k^2) / K: with 20 or
    more discordant pairs a stratum that is exactly z^2 var_k, with fewer it is the exact, wider one
    (square-and-add; Zou and Donner 2008, Statist. Med. 27). Items of different strata are taken as independent.

    Args:
        strata: Paired counts, one a suite.
        alpha: Error rate of each bound.

    Raises:
        UsageError: if there is no stratum, or for impossible counts or error rates.
    """
    if not strata:
        raise UsageError("there is no suite to average over", reason="statistics.strata", advice="Name a suite.")
    parts = [paired_bounds(*stratum, alpha) for stratum in strata]
    mean = math.fsum(part.value for part in parts) / len(parts)
    below = math.sqrt(math.fsum((part.value - part.lower) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(math.fsum((part.upper - part.value) ** 2 for part in parts)) / len(parts)
    return Estimate(mean, mean - below, mean + above)


def mean_bounds(differences: Sequence[float], alpha: float) -> Estimate:
    """The mean of real-valued paired differences with bounds mean -/+ z s / sqrt(n), s with n - 1.

    For Brier scores and log-likelihoods; n should be some dozens at least. Source: Miller 2024, 2411.00640, section 4.

    Args:
        differences: One a shared item, any unit.
        alpha: Error rate of each bound.

    Raises:
        UsageError: with fewer than two items, a value that is not finite, or an impossible error rate.
    """
    return clustered_bounds(differences, range(len(differences)), alpha)


def clustered_bounds(differences: Sequence[float], clusters: Sequence[Hashable], alpha: float) -> Estimate:
    """As `mean_bounds` where items of one cluster are not independent.

    Variance = G / (G - 1) * sum_g (sum_{i in g} (d_i - mean))^2 / n^2 over G clusters (CR1; Liang and Zeger 1986;
    Miller 2024, 2411.00640, section 2.2). With one item a cluster it is the plain s^2 / n.

    Args:
        differences: One a shared item, any unit.
        clusters: The cluster of each item.
        alpha: Error rate of each bound.

    Raises:
        UsageError: with fewer than two clusters, a value that is not finite, lists of different length, or an
            impossible error rate.
    """
    n, groups = len(differences), len(set(clusters))
    if n != len(clusters) or groups < 2 or not all(math.isfinite(d) for d in differences):
        raise UsageError(
            f"{n} values in {groups} clusters do not give a variance",
            reason="statistics.sample",
            advice="Use at least two clusters, one label an item, and finite values.",
        )
    check_counts(0, n, alpha)
    mean = math.fsum(differences) / n
    residuals: dict[Hashable, list[float]] = {}
    for value, cluster in zip(differences, clusters, strict=True):
        residuals.setdefault(cluster, []).append(value - mean)
    squares = math.fsum(math.fsum(part) ** 2 for part in residuals.values())
    spread = normal_quantile(1.0 - alpha) * math.sqrt(squares * groups / (groups - 1)) / n
    return Estimate(mean, mean - spread, mean + spread)


def unpaired_bounds(successes: int, trials: int, others: int, of: int, alpha: float) -> Estimate:
    """The difference of two shares measured on different items: Wilson bounds of each, combined by squares.

    Source: Newcombe 1998 (Statist. Med. 17, 873-890), method 10.

    Args:
        successes: Items the candidate got right.
        trials: Its items.
        others: Items the other got right.
        of: The other's items.
        alpha: Error rate of each bound.

    Raises:
        UsageError: for impossible counts or error rates.
    """
    mine, theirs = wilson(successes, trials, alpha), wilson(others, of, alpha)
    first, second = successes / trials, others / of
    below = math.hypot(first - mine.lower, theirs.upper - second)
    above = math.hypot(mine.upper - first, second - theirs.lower)
    return Estimate(first - second, first - second - below, first - second + above)
