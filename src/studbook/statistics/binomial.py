"""Exact binomial tails and the intervals and tests that follow from them."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from studbook.errors import UsageError

__all__ = [
    "Interval",
    "check_counts",
    "clopper_pearson",
    "log_upper_tail",
    "mcnemar",
    "normal_quantile",
    "upper_tail",
    "wilson",
    "zero_failure_bound",
]

_STANDARD = NormalDist()


class Interval(NamedTuple):
    """Two one-sided bounds of a share, each at the same error rate.

    Attributes:
        lower: Lower bound, 0..1.
        upper: Upper bound, 0..1.
    """

    lower: float
    upper: float


def check_counts(part: int, whole: int, alpha: float = 0.5) -> None:
    """Refuse counts and error rates that describe nothing.

    Args:
        part: Items of one kind.
        whole: All items.
        alpha: One-sided error rate.

    Raises:
        UsageError: unless 0 <= part <= whole, whole >= 1 and 0 < alpha < 1.
    """
    if not (whole >= 1 and 0 <= part <= whole):
        raise UsageError(f"{part} of {whole} items is not a count", reason="statistics.count", advice=_NO_ITEMS)
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"{alpha} is not an error rate", reason="statistics.alpha", advice="Use 0 < alpha < 1.")


_NO_ITEMS = "A share needs at least one item, and no part can be larger than the whole."


@lru_cache(maxsize=256)
def normal_quantile(share: float) -> float:
    """The value below which ``share`` of a standard normal distribution lies; 1.6449 for 0.95.

    Raises:
        UsageError: unless 0 < share < 1.
    """
    check_counts(0, 1, share)
    return _STANDARD.inv_cdf(share)


def upper_tail(successes: int, trials: int, share: float) -> float:
    """P(X >= successes) for X ~ Bin(trials, share), summed term by term from the thin side.

    Terms fall off from the starting one, so the sum ends after about sqrt(trials) of them; the first is taken in log
    space. Relative error about 1e-12.

    Args:
        successes: Smallest count that belongs to the tail.
        trials: Number of trials.
        share: Probability of a success, 0..1.
    """
    if successes <= 0 or share >= 1.0:
        return 1.0 if successes <= trials else 0.0
    if successes > trials or share <= 0.0:
        return 0.0
    if successes > trials * share:
        return _outward(successes, trials, share)
    return 1.0 - _outward(trials - successes + 1, trials, 1.0 - share)


def _outward(successes: int, trials: int, share: float) -> float:
    odds = share / (1.0 - share)
    term = math.exp(_log_term(successes, trials, share))
    total = 0.0
    for count in range(successes, trials + 1):
        total += term
        if term < total * 1e-18:
            break
        term *= (trials - count) / (count + 1) * odds
    return min(total, 1.0)


def log_upper_tail(successes: int, trials: int, share: float) -> float:
    """Natural logarithm of P(X >= successes) for X ~ Bin(trials, share); finite where the tail itself is no float.

    Absolute error about 1e-12 on the thin side.

    Args:
        successes: Smallest count that belongs to the tail.
        trials: Number of trials.
        share: Probability of a success, 0..1.
    """
    tail = upper_tail(successes, trials, share)
    if tail > 1e-200 or successes > trials or share <= 0.0:
        return math.log(tail) if tail > 0.0 else -math.inf
    # So far out every term is smaller than the one before, so they are summed in units of the first.
    odds, term, total = share / (1.0 - share), 1.0, 0.0
    for count in range(successes, trials + 1):
        total += term
        if term < total * 1e-18:
            break
        term *= (trials - count) / (count + 1) * odds
    return _log_term(successes, trials, share) + math.log(total)


def _log_term(successes: int, trials: int, share: float) -> float:
    return (
        math.lgamma(trials + 1)
        - math.lgamma(successes + 1)
        - math.lgamma(trials - successes + 1)
        + successes * math.log(share)
        + (trials - successes) * math.log1p(-share)
    )


@lru_cache(maxsize=8192)
def clopper_pearson(successes: int, trials: int, alpha: float) -> Interval:
    """The exact bounds of a share: lower solves P(X >= successes) = alpha, upper solves P(X <= successes) = alpha.

    Source: Clopper and Pearson 1934 (Biometrika 26). Use ``alpha / 2`` for a two-sided interval.

    Args:
        successes: Successes seen.
        trials: Trials, at least 1.
        alpha: Error rate of each bound.

    Raises:
        UsageError: for impossible counts or error rates.
    """
    check_counts(successes, trials, alpha)
    return Interval(_lower(successes, trials, alpha), 1.0 - _lower(trials - successes, trials, alpha))


def _lower(successes: int, trials: int, alpha: float) -> float:
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high or high - low < 1e-16:
            return middle
        if upper_tail(successes, trials, middle) < alpha:
            low = middle
        else:
            high = middle


def wilson(successes: int, trials: int, alpha: float) -> Interval:
    """Score bounds of a share: (p + z^2/2n -/+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z at 1 - alpha.

    Source: Wilson 1927 (JASA 22). Close to nominal for any count, where Clopper-Pearson is conservative.

    Args:
        successes: Successes seen.
        trials: Trials, at least 1.
        alpha: Error rate of each bound.

    Raises:
        UsageError: for impossible counts or error rates.
    """
    check_counts(successes, trials, alpha)
    z = normal_quantile(1.0 - alpha)
    share, unit = successes / trials, z * z / trials
    middle = share + unit / 2
    spread = abs(z) * math.sqrt(share * (1.0 - share) / trials + unit / (4 * trials))
    lower = 0.0 if successes == 0 else (middle - spread) / (1.0 + unit)
    upper = 1.0 if successes == trials else (middle + spread) / (1.0 + unit)
    return Interval(lower, upper)


@lru_cache(maxsize=8192)
def mcnemar(wins: int, losses: int) -> float:
    """Exact one-sided McNemar test: p = P(Bin(wins + losses, 1/2) >= wins), 1 when there is no discordant pair.

    Computed in integers and rounded once. Source: McNemar 1947 (Psychometrika 12), exact form.

    Args:
        wins: Items only the candidate got right.
        losses: Items only the other got right.

    Raises:
        UsageError: for negative counts.
    """
    check_counts(min(wins, losses), max(wins, losses, 1))
    pairs = wins + losses
    tail, term = 0, 1
    # The lighter side is summed: P(X >= w) = P(X <= n - w) = 1 - P(X <= w - 1).
    last = min(losses, wins - 1)
    for count in range(last + 1):
        tail += term
        term = term * (pairs - count) // (count + 1)
    whole = 1 << pairs
    return (tail if losses <= wins - 1 else whole - tail) / whole


def zero_failure_bound(trials: int, alpha: float = 0.05) -> float:
    """Exact upper bound of a failure rate after ``trials`` without one: 1 - alpha^(1/trials).

    Raises:
        UsageError: for no trials or an impossible error rate.
    """
    check_counts(0, trials, alpha)
    return -math.expm1(math.log(alpha) / trials)
