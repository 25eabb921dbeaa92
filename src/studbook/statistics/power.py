"""What a round can find: the exact power of McNemar's test, for one candidate and for finalists of many."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from studbook.errors import UsageError
from studbook.statistics.binomial import mcnemar, upper_tail
from studbook.statistics.planning import check_plan

__all__ = ["finalist_power", "mcnemar_detectable", "mcnemar_power", "screening_power"]

_STANDARD = NormalDist()


@lru_cache(maxsize=4096)
def mcnemar_power(items: int, gain: float, disagreement: float, alpha: float = 0.05) -> float:
    """Chance that the exact one-sided McNemar test shows a true gain: p <= alpha.

    sum over m of P(Bin(n, psi) = m) P(Bin(m, theta) >= c_m), theta = (psi + gain) / (2 psi), c_m the fewest wins of m
    with p <= alpha. Terms of m beyond 1e-15 of the mass are left out. Source: Lachenbruch 1992 (Statist. Med. 11).

    Args:
        items: Shared items, at least 1.
        gain: True difference as a share of items; at most ``disagreement`` in size.
        disagreement: Share of discordant items, psi, above 0.
        alpha: One-sided error rate, after whatever correction applies.

    Raises:
        UsageError: if an argument is out of range.
    """
    _check(items, gain, disagreement, alpha)
    theta = (disagreement + gain) / (2.0 * disagreement)
    spread = 9.0 * math.sqrt(items * disagreement) + 9.0
    first = max(0, math.floor(items * disagreement - spread))
    last = min(items, math.ceil(items * disagreement + spread))
    found, needed = 0.0, _fewest_wins(first, alpha, first // 2)
    for pairs in range(first, last + 1):
        needed = _fewest_wins(pairs, alpha, needed)
        found += _chance(pairs, items, disagreement) * upper_tail(needed, pairs, theta)
    return min(1.0, found)


def _fewest_wins(pairs: int, alpha: float, start: int) -> int:
    # pairs + 1 when no number is enough. More pairs never need fewer wins, so the search goes on where it ended.
    wins = start
    while wins <= pairs and mcnemar(wins, pairs - wins) > alpha:
        wins += 1
    return wins


def mcnemar_detectable(items: int, disagreement: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true gain the exact test shows with this power; infinite when even psi itself is not enough.

    Args:
        items: Shared items, at least 1.
        disagreement: Share of discordant items, psi, above 0.
        alpha: One-sided error rate, after whatever correction applies.
        power: Chance of showing it.

    Raises:
        UsageError: if an argument is out of range.
    """
    check_plan(disagreement, alpha, power)
    if mcnemar_power(items, disagreement, disagreement, alpha) < power:
        return math.inf
    low, high = 0.0, disagreement
    for _ in range(30):
        middle = (low + high) / 2.0
        if mcnemar_power(items, middle, disagreement, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def screening_power(candidates: int, finalists: int, items: int, gain: float, disagreement: float) -> float:
    """Chance that the one better candidate is among the finalists after a look at ``items`` development items.

    Differences to the champion are taken as normal and independent: P(at most finalists - 1 of the others lie above),
    the binomial of P(other above x) averaged over x ~ N(gain, (psi - gain^2) / n); others ~ N(0, psi / n). Candidates
    that share a champion are correlated and a little easier to tell apart, so this is on the safe side.

    Args:
        candidates: Everybody who is ranked, the better one included.
        finalists: How many go on, at least 1.
        items: Development items.
        gain: True difference of the better one.
        disagreement: Share of discordant items of each, psi.

    Raises:
        UsageError: if an argument is out of range.
    """
    _check(items, gain, disagreement, 0.05)
    if not (candidates >= 1 and finalists >= 1):
        raise _refused(f"{finalists} of {candidates} candidates")
    if finalists >= candidates:
        return 1.0
    own, theirs = math.sqrt((disagreement - gain * gain) / items), math.sqrt(disagreement / items)
    steps, reach = 400, 8.0
    found = 0.0
    for index in range(steps + 1):
        z = reach * (2.0 * index / steps - 1.0)
        above = 1.0 - _STANDARD.cdf((gain + own * z) / theirs)
        found += _STANDARD.pdf(z) * (1.0 - upper_tail(finalists, candidates - 1, above))
    return min(1.0, found * 2.0 * reach / steps)


def finalist_power(
    candidates: int,
    finalists: int,
    development: int,
    selection: int,
    gain: float,
    disagreement: float,
    alpha: float = 0.05,
) -> float:
    """Chance that a round shows its one better candidate: it passes the screen, then Holm over the finalists.

    `screening_power` times `mcnemar_power` at alpha / finalists, Holm's first and hardest step. Both looks are on
    different items. Practical minimum, net utility and confirmation come on top.

    Args:
        candidates: Everybody who is ranked.
        finalists: How many meet the selection items, at least 1.
        development: Development items.
        selection: Selection items.
        gain: True difference of the better one.
        disagreement: Share of discordant items of each, psi.
        alpha: One-sided error rate of the round.

    Raises:
        UsageError: if an argument is out of range.
    """
    seen = screening_power(candidates, finalists, development, gain, disagreement)
    return seen * mcnemar_power(selection, gain, disagreement, alpha / min(finalists, candidates))


def _chance(pairs: int, items: int, share: float) -> float:
    if share >= 1.0:
        return float(pairs == items)
    return math.exp(
        math.lgamma(items + 1)
        - math.lgamma(pairs + 1)
        - math.lgamma(items - pairs + 1)
        + pairs * math.log(share)
        + (items - pairs) * math.log1p(-share)
    )


def _check(items: int, gain: float, disagreement: float, alpha: float) -> None:
    if not (items >= 1 and 0.0 < disagreement <= 1.0 and abs(gain) <= disagreement and 0.0 < alpha < 1.0):
        raise _refused(f"{items} items, gain {gain}, disagreement {disagreement} and alpha {alpha}")


def _refused(what: str) -> UsageError:
    return UsageError(
        f"{what} do not describe a test",
        reason="statistics.power",
        advice="Use at least one item, 0 < disagreement <= 1, a gain no larger than it, and 0 < alpha < 1.",
    )
