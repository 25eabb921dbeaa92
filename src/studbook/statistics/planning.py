"""How many items an answer needs, and the smallest effect a suite can show: the normal approximation."""

from __future__ import annotations

import math

from studbook.errors import UsageError
from studbook.statistics.binomial import check_counts, normal_quantile

__all__ = ["check_plan", "minimum_detectable", "required_items"]

_LEAST_EFFECT = 1e-9


def required_items(effect: float, disagreement: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items a paired one-sided test needs: n = (z_alpha + z_power)^2 psi / effect^2, rounded up.

    One percentage point at 10 % disagreement needs 6,183 items.

    Args:
        effect: The difference to be shown, as a share of items, from 1e-9 to 1.
        disagreement: Share of discordant items expected, psi, 0..1.
        alpha: One-sided error rate.
        power: Chance of showing it when it is true.

    Raises:
        UsageError: if an argument is out of range.
    """
    check_plan(disagreement, alpha, power)
    # Smaller ones need more items than there are, and their square is 0 in the end.
    if not _LEAST_EFFECT <= effect <= 1.0:
        advice = f"Use {_LEAST_EFFECT:g} <= effect <= 1."
        raise UsageError(f"{effect} is not an effect", reason="statistics.effect", advice=advice)
    reach = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return max(1, math.ceil(reach * reach * disagreement / (effect * effect)))


def minimum_detectable(items: int, disagreement: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest paired difference that ``items`` can show: (z_alpha + z_power) sqrt(psi / n), at most 1.

    Args:
        items: Shared items, at least 1.
        disagreement: Share of discordant items expected, psi, 0..1.
        alpha: One-sided error rate.
        power: Chance of showing it when it is true.

    Raises:
        UsageError: if an argument is out of range.
    """
    check_plan(disagreement, alpha, power)
    check_counts(0, items, alpha)
    reach = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return min(1.0, reach * math.sqrt(disagreement / items))


def check_plan(disagreement: float, alpha: float, power: float) -> None:
    """Refuse a plan that describes no test.

    Args:
        disagreement: Share of discordant items, 0..1.
        alpha: One-sided error rate.
        power: Chance of showing an effect, above alpha.

    Raises:
        UsageError: if an argument is out of range.
    """
    if not 0.0 <= disagreement <= 1.0:
        raise UsageError(f"{disagreement} is not a share of items", reason="statistics.share", advice="Use 0..1.")
    if not 0.0 < alpha < power < 1.0:
        raise UsageError(
            f"alpha {alpha} and power {power} do not describe a test",
            reason="statistics.power",
            advice="Use 0 < alpha < power < 1.",
        )
