"""CUSUM: a small lasting shift, noticed soon. It calls a person and decides nothing.

Source: Page 1954 (Biometrika 41); Montgomery, Introduction to Statistical Quality Control, chapter 9.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from studbook.errors import UsageError

__all__ = ["first_alarm", "next_sum", "upper_sums"]


def upper_sums(values: Iterable[float], target: float, slack: float) -> tuple[float, ...]:
    """The upper cumulative sum after every value: S_i = max(0, S_(i-1) + x_i - target - slack), S_0 = 0.

    It grows while values lie above target + slack and falls back to 0 otherwise. For a fall pass values and target with
    the other sign.

    Args:
        values: In order of arrival, any unit.
        target: Where they should lie.
        slack: Half of the shift worth noticing, at least 0.

    Raises:
        UsageError: for a value that is not finite or a negative slack.
    """
    if not (math.isfinite(target) and 0.0 <= slack < math.inf):
        raise _refused(f"target {target} and slack {slack}")
    total, path = 0.0, []
    for value in values:
        if not math.isfinite(value):
            raise _refused(f"the value {value}")
        total = next_sum(total, value, target, slack)
        path.append(total)
    return tuple(path)


def next_sum(total: float, value: float, target: float, slack: float) -> float:
    """One step of `upper_sums`, from the sum before it; nothing is checked."""
    return max(0.0, total + value - target - slack)


def first_alarm(path: Iterable[float], limit: float) -> int | None:
    """Index of the first sum above the limit; None while there is none.

    Args:
        path: What `upper_sums` gave.
        limit: Decision interval, in the unit of the values.
    """
    return next((index for index, total in enumerate(path) if total > limit), None)


def _refused(what: str) -> UsageError:
    return UsageError(
        f"{what} cannot be summed", reason="statistics.cusum", advice="Use finite values and a slack of at least 0."
    )
