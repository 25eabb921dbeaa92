"""Expected calibration error, and what it is when calibration is perfect.

The error is biased upwards, by .1 and more with a hundred items: read it beside its null band or not at all. What
gates are Brier score and log-likelihood, which are proper and paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import lt

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts
from studbook.statistics.bootstrap import quantile
from studbook.statistics.draws import Draws
from studbook.statistics.paired import Estimate

__all__ = ["calibration_error", "calibration_null_band"]


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float:
    """Sum over bins of |number right - sum of confidences| / n, with ``bins`` bins of equal width on 0..1.

    A bin holds its lower end; the last one also holds 1. Source: Naeini et al. 2015 (AAAI); Guo et al. 2017
    (arXiv 1706.04599), section 2.

    Args:
        confidences: Predicted chance of being right, one an item, 0..1.
        correct: Whether the item was right.
        bins: Number of bins, at least 1.

    Raises:
        UsageError: for no items, lists of different length, a confidence outside 0..1, or no bin.
    """
    groups = _binned(confidences, bins)
    if len(correct) != len(confidences):
        raise _refused(f"{len(confidences)} confidences and {len(correct)} answers")
    gaps = (abs(sum(bool(correct[i]) for i in group) - math.fsum(confidences[i] for i in group)) for group in groups)
    return math.fsum(gaps) / len(correct)


def calibration_null_band(
    confidences: Sequence[float], alpha: float, seed: int, *, bins: int = 15, resamples: int = 2000
) -> Estimate:
    """The error of a perfectly calibrated model with these confidences: its mean and its alpha, 1 - alpha quantiles.

    Every answer is drawn as right with its own confidence, again and again. An observed error inside the band is no
    sign of miscalibration. Source: Vaicenavicius et al. 2019 (AISTATS, arXiv 1902.06977), consistency resampling.

    Args:
        confidences: Predicted chance of being right, one an item, 0..1.
        alpha: Error rate of each end.
        seed: Of the answers, 0..2^64 - 1.
        bins: Number of bins, at least 1.
        resamples: How many times all answers are drawn; at least 100.

    Raises:
        UsageError: for no items, a confidence outside 0..1, no bin, too few resamples or an impossible error rate.
    """
    groups = [[confidences[i] for i in group] for group in _binned(confidences, bins)]
    check_counts(0, len(confidences), alpha)
    if resamples < 100:
        raise _refused(f"{resamples} resamples")
    draws, sums = Draws(seed), [math.fsum(group) for group in groups]
    errors = []
    for _ in range(resamples):
        gaps = (
            abs(sum(map(lt, draws.uniform(len(group)), group)) - total)
            for group, total in zip(groups, sums, strict=True)
        )
        errors.append(math.fsum(gaps) / len(confidences))
    errors.sort()
    return Estimate(math.fsum(errors) / resamples, quantile(errors, alpha), quantile(errors, 1.0 - alpha))


def _binned(confidences: Sequence[float], bins: int) -> list[list[int]]:
    """Indices of the items of every bin that holds any."""
    if not confidences or bins < 1 or not all(0.0 <= sure <= 1.0 for sure in confidences):
        raise _refused(f"{len(confidences)} confidences in {bins} bins")
    groups: dict[int, list[int]] = {}
    for index, sure in enumerate(confidences):
        groups.setdefault(min(int(sure * bins), bins - 1), []).append(index)
    return [groups[place] for place in sorted(groups)]


def _refused(what: str) -> UsageError:
    return UsageError(
        f"{what} do not give a calibration error",
        reason="statistics.calibration",
        advice="Use one confidence of 0..1 and one answer an item, at least one bin and at least 100 resamples.",
    )
