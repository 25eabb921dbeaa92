"""Evidence that may be looked at after every event: e-processes, all as natural logarithms.

An e-process starts at 1 and is expected to stay at or below 1 while the null hypothesis holds, whenever one stops; so
P(ever >= 1 / alpha) <= alpha (Ville 1939). Act when the logarithm reaches log(1 / alpha); wait otherwise. Several
e-processes of the same data may be averaged. Source: Ramdas et al. 2023 (arXiv 2210.01948) for the notions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts, log_upper_tail

__all__ = [
    "Betting",
    "Watch",
    "average",
    "log_mcnemar_e",
    "log_non_inferiority_e",
    "log_rate_e",
    "log_shifting_e",
    "log_two_sample_e",
    "reached",
]

# How many times as often: what `log_shifting_e` and `Watch` bet on, in equal parts.
_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


def reached(log_e: float, alpha: float) -> bool:
    """Whether the evidence is enough: E >= 1 / alpha.

    Raises:
        UsageError: unless 0 < alpha < 1.
    """
    check_counts(0, 1, alpha)
    return log_e >= -math.log(alpha)


def average(logs: Sequence[float]) -> float:
    """The mean of several e-processes of the same data, in logs: an e-process itself, however they depend on each other.

    A family of nulls is then refused falsely with at most the error rate that it is held against (Vovk and Wang 2021,
    Ann. Statist. 49); one of them alone has to reach as many times more as there are of them.

    Args:
        logs: Their natural logarithms; at least one.

    Raises:
        UsageError: if there is none.
    """
    if not logs:
        raise UsageError(
            "there is nothing to average", reason="statistics.average", advice="Name one e-process at least."
        )
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs)) if math.isfinite(top) else top


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


def log_shifting_e(counts: Iterable[tuple[float, int, int]]) -> float:
    """`log_two_sample_e` where the share of the cohort is raised as it goes: the share has to be set before each request.

    If an event is t times as likely in the cohort, it falls there with chance s t / (s t + 1 - s), so that against t = 1
    its likelihood ratio is t / (1 + s (t - 1)) there and 1 / (1 + s (t - 1)) beside it, expected at or below 1 wherever
    the true t is at or below 1. The ratios of t = 1.25, 1.5, 2, 3, 5 and 10 are averaged.

    Args:
        counts: For each share the cohort had, above 0 and below 1: the share, events in the cohort, events beside it.

    Raises:
        UsageError: for negative counts or an impossible share.
    """
    held = list(counts)
    for share, inside, outside in held:
        check_counts(min(inside, outside), max(inside, outside, 1), share)
    cohort = sum(inside for _, inside, _ in held)
    return average(
        [
            cohort * math.log(ratio) - sum((i + o) * math.log1p(share * (ratio - 1.0)) for share, i, o in held)
            for ratio in _RATIOS
        ]
    )


class Betting:
    """What `log_non_inferiority_e` computes, one difference at a time.

    Args:
        margin: m, at least 0 and below 1.

    Attributes:
        log_e: log K after what was added so far.

    Raises:
        UsageError: for an impossible margin.
    """

    def __init__(self, margin: float) -> None:
        if not 0.0 <= margin < 1.0:
            raise UsageError(f"{margin} is not a margin", reason="statistics.margin", advice="Use 0 <= margin < 1.")
        self.log_e = 0.0
        self._margin, self._cap = margin, 1.0 / (2.0 * (1.0 - margin))
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, difference: float) -> float:
        """Bet on a difference, and learn from it; returns log K.

        Raises:
            UsageError: for a difference outside -1..1.
        """
        if not -1.0 <= difference <= 1.0:
            raise UsageError(
                f"{difference} is not a difference", reason="statistics.difference", advice="Use scores of 0..1."
            )
        gain = difference + self._margin
        self.log_e += math.log1p(_bet(self._count, self._mean, self._squares, self._cap) * gain)
        self._count += 1
        step = gain - self._mean
        self._mean += step / self._count
        self._squares += step * (gain - self._mean)
        return self.log_e


class Watch:
    """Evidence that events became more frequent than a known baseline rate at some time, and stayed so.

    Likelihood ratios of 1.25, 1.5, 2, 3, 5 and 10 times the rate (of less than 1) begin anew at every one of a known
    number of moments and are all averaged; one that has not begun counts 1. So what was well for long does not hide what
    came later, for the price of a logarithm. Source: Shin, Ramdas and Rinaldo 2022 (arXiv 2203.03532), with the number
    of beginnings bounded, so that it is an e-process.

    Args:
        baseline: The rate that is allowed, above 0 and below 1.
        moments: How often `begin` may be called at most.

    Raises:
        UsageError: for an impossible rate, or no moment.
    """

    def __init__(self, baseline: float, moments: int) -> None:
        check_counts(0, moments, baseline)
        rates = [ratio * baseline for ratio in _RATIOS if ratio * baseline < 1.0] or [(1.0 + baseline) / 2.0]
        self._gains = [(rate / baseline, (1.0 - rate) / (1.0 - baseline)) for rate in rates]
        self._sums = [0.0] * len(rates)
        self._moments, self._begun = moments, 0

    def begin(self) -> None:
        """Begin anew beside what began before; does nothing once all moments are used up."""
        if self._begun < self._moments:
            self._begun += 1
            self._sums = [total + 1.0 for total in self._sums]

    def add(self, event: bool) -> None:
        """Take one request, with the event or without."""
        self._sums = [
            min(total * (yes if event else no), 1e300) for total, (yes, no) in zip(self._sums, self._gains, strict=True)
        ]

    @property
    def log_e(self) -> float:
        """The evidence so far, as a natural logarithm."""
        left = self._moments - self._begun
        return math.log(sum(total + left for total in self._sums) / (len(self._sums) * self._moments))


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
    betting = Betting(margin)
    return tuple(betting.add(difference) for difference in differences)


def _bet(count: int, mean: float, squares: float, cap: float) -> float:
    if count == 0 or mean <= 0.0:
        return 0.0
    return min(mean * count / squares, cap) if squares > 0.0 else cap
