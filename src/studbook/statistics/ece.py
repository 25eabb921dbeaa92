"""Expected calibration error, and what it is when calibration is perfect.

The error is biased upwards, by .1 and more with a hundred items: read it beside its null band or not at all. What
gates are Brier score and log-likelihood, which are proper and paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts
from studbook.statistics.draws import Draws
from studbook.statistics.paired import Estimate

__all__ = ["calibration_error", "calibration_null_band"]

Floats = npt.NDArray[np.float64]
_CELLS = 1 << 22


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
    places, sure = _binned(confidences, bins)
    if len(correct) != len(sure):
        raise _refused(f"{len(sure)} confidences and {len(correct)} answers")
    return float(_errors(np.asarray(correct, dtype=np.float64)[None, :], sure, places, bins)[0])


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
    places, sure = _binned(confidences, bins)
    check_counts(0, len(sure), alpha)
    if resamples < 100:
        raise _refused(f"{resamples} resamples")
    draws, block, found = Draws(seed), max(1, _CELLS // len(sure)), []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        right = draws.uniform(rows * len(sure)).reshape(rows, -1) < sure
        found.append(_errors(right.astype(np.float64), sure, places, bins))
    errors = np.concatenate(found)
    low, high = np.quantile(errors, (alpha, 1.0 - alpha))
    return Estimate(float(errors.mean()), float(low), float(high))


def _binned(confidences: Sequence[float], bins: int) -> tuple[npt.NDArray[np.int64], Floats]:
    sure = np.asarray(confidences, dtype=np.float64)
    if sure.ndim != 1 or not len(sure) or bins < 1 or not ((sure >= 0.0) & (sure <= 1.0)).all():
        raise _refused(f"{len(sure)} confidences in {bins} bins")
    return np.minimum((sure * bins).astype(np.int64), bins - 1), sure


def _errors(right: Floats, sure: Floats, places: npt.NDArray[np.int64], bins: int) -> Floats:
    members = np.zeros((len(sure), bins))
    members[np.arange(len(sure)), places] = 1.0
    return np.asarray(np.abs((right - sure) @ members).sum(axis=1) / len(sure), dtype=np.float64)


def _refused(what: str) -> UsageError:
    return UsageError(
        f"{what} do not give a calibration error",
        reason="statistics.calibration",
        advice="Use one confidence of 0..1 and one answer an item, at least one bin and at least 100 resamples.",
    )
