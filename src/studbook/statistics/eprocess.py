"""Evidence that may be looked at after every event: e-processes, all as natural logarithms.

An e-process starts at 1 and is expected to stay at or below 1 while the null hypothesis holds, whenever one stops; so
P(ever >= 1 / alpha) <= alpha (Ville 1939). Act when the logarithm reaches log(1 / alpha); wait otherwise. Several
e-processes of the same data may be averaged. Source: Ramdas et al. 2023 (arXiv 2210.01948) for the notions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts, log_upper_tail

__all__ = ["log_mcnemar_e", "log_non_inferiority_e", "log_rate_e", "log_two_sample_e", "reached"]


def reached(log_e: float, alpha: float) -> bool:
    """Whether the evidence is enough: E >= 1 / alpha.

    Raises:
        UsageError: unless 0 < alpha < 1.
    """
    check_counts(0, 1, alpha)
    return log_e >= -math.log(alpha)


def log_rate_e(events: int, others: int, baseline: float) -> float:
    """Evidence that events are more frequent than a known baseline rate r: the mixture of likelihood ratios, in logs.

    Bernoulli likelihood ratios of a rate t against r are averaged over t uniform on (r, 1), a beta-binomial mixture cut
    at r: E = B(e + 1, o + 1) (1 - I_r(e + 1, o + 1)) / ((1 - r) r^e (1 - r)^o). Each ratio with t > r is expected at
    or below 1 for every true rate at or below r, so the null is one-sided. 1 - I_r(e + 1, o + 1) is the binomial tail
    P(Bin(e + o + 1, 1 - r) >= o + 1). For rollback. Source: Robbins 1970 (Ann. Math. Statist. 41); Waudby-Smith and
    Ramdas 2024 (arXiv 2010.09686).

    Args:
        events: Events seen so far, such as errors.
        others: Requests without one.
        baseline: The rate that is allowed, r, above 0 and below 1.

    Raises:
        UsageError: for negative counts or an impossible rate.
    """
    check_counts(min(events, others), max(events, others, 1), baseline)
    beta = math.lgamma(events + 1) + math.lgamma(others + 1) - math.lgamma(events + others + 2)
    tail = log_upper_tail(others + 1, events + others + 1, 1.0 - baseline)
    return beta + tail - events * math.log(baseline) - (others + 1) * math.log1p(-baseline)


def log_mcnemar_e(wins: int, losses: int) -> float:
    """Evidence that the candidate wins more of the discordant pairs than it loses, valid at every look.

    E(b, c) = 2 * 2^(b + c) * B(b + 1, c + 1) * (1 - I_1/2(b + 1, c + 1)): `log_rate_e` with the baseline 1/2. Promote
    at E >= 1 / alpha. Source: as `log_rate_e`; McNemar 1947 for conditioning on the discordant pairs.

    Args:
        wins: Items only the candidate got right.
        losses: Items only the other got right.

    Raises:
        UsageError: for negative counts.
    """
    return log_rate_e(wins, losses, 0.5)


def log_two_sample_e(events: int, baseline_events: int, share: float) -> float:
    """Evidence that events are more frequent in a cohort than beside it, when neither rate is known.

    Of all events a share of at most ``share`` falls into the cohort if its rate is not higher, whatever the rates are
    and however they drift together: `log_rate_e` on the events alone. Every request has to enter the cohort with the
    same chance, whatever came before; where one user sends many, count users.
    Source: Lindon and Malek 2022 (arXiv 2011.03567).

    Args:
        events: Events in the cohort.
        baseline_events: Events outside it.
        share: Chance that a request enters the cohort, above 0 and below 1.

    Raises:
        UsageError: for negative counts or an impossible share.
    """
    return log_rate_e(events, baseline_events, share)


def log_non_inferiority_e(differences: Iterable[float], margin: float) -> tuple[float, ...]:
    """Evidence that the mean paired difference is above -margin, after every item, by betting on it.

    K = prod(1 + lambda_i (d_i + m)), lambda_i = clip(mean / variance of the past, 0, 1 / (2 (1 - m))): mean of d + m
    and its population variance over the items before i; nothing is bet on the first item, and the cap when the past
    does not vary and its mean is above 0. No factor falls below 1/2. Source: Waudby-Smith and Ramdas 2024 (JRSS B 86,
    arXiv 2010.09686), section 4.

    Args:
        differences: Candidate minus other, each -1..1, in order of arrival.
        margin: m, at least 0 and below 1.

    Returns:
        log K after each item.

    Raises:
        UsageError: for a difference outside -1..1 or an impossible margin.
    """
    if not 0.0 <= margin < 1.0:
        raise UsageError(f"{margin} is not a margin", reason="statistics.margin", advice="Use 0 <= margin < 1.")
    cap = 1.0 / (2.0 * (1.0 - margin))
    wealth, mean, squares = 0.0, 0.0, 0.0
    path = []
    for count, difference in enumerate(differences):
        if not -1.0 <= difference <= 1.0:
            raise UsageError(
                f"{difference} is not a difference", reason="statistics.difference", advice="Use scores of 0..1."
            )
        gain = difference + margin
        wealth += math.log1p(_bet(count, mean, squares, cap) * gain)
        path.append(wealth)
        step = gain - mean
        mean += step / (count + 1)
        squares += step * (gain - mean)
    return tuple(path)


def _bet(count: int, mean: float, squares: float, cap: float) -> float:
    if count == 0 or mean <= 0.0:
        return 0.0
    return min(mean * count / squares, cap) if squares > 0.0 else cap
