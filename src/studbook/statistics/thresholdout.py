"""Thresholdout: the noisy alternative to the Ladder, here to be compared with and used by no decision.

A query is answered from the training items unless the holdout disagrees by more than a noisy threshold; then the
answer is the holdout's, with noise, and one of a limited number of such answers is spent.
Source: Dwork et al. 2015 (arXiv 1506.02629, figure 1).
"""

from __future__ import annotations

from studbook.errors import UsageError
from studbook.statistics.draws import Draws

__all__ = ["Thresholdout"]


class Thresholdout:
    """A holdout behind noise.

    Args:
        threshold: T, the disagreement that is let pass, as a share; at least 0.
        noise: sigma, above 0: Laplace of scale 2 sigma is added to the threshold, 4 sigma to the comparison, and sigma
            to the answer.
        budget: Answers that may come from the holdout.
        seed: Of the noise, 0..2^64 - 1.

    Raises:
        UsageError: if an argument is out of range.
    """

    def __init__(self, threshold: float, noise: float, budget: int, seed: int) -> None:
        if not (threshold >= 0.0 and noise > 0.0 and budget >= 0):
            raise UsageError(
                f"threshold {threshold}, noise {noise} and budget {budget} do not describe a holdout",
                reason="statistics.thresholdout",
                advice="Use threshold >= 0, noise > 0 and budget >= 0.",
            )
        self._threshold, self._noise, self._draws = threshold, noise, Draws(seed)
        self.left = budget
        self._limit = threshold + 2.0 * noise * self._draws.laplace()

    def ask(self, training: float, holdout: float) -> float | None:
        """One query.

        Args:
            training: The figure on training items.
            holdout: The same figure on holdout items.

        Returns:
            The answer, or None when the budget is spent.
        """
        if self.left < 1:
            return None
        if abs(holdout - training) <= self._limit + 4.0 * self._noise * self._draws.laplace():
            return training
        self.left -= 1
        self._limit = self._threshold + 2.0 * self._noise * self._draws.laplace()
        return holdout + self._noise * self._draws.laplace()
