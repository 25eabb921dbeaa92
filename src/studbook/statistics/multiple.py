"""What several questions at once cost: adjusted p values."""

from __future__ import annotations

from collections.abc import Sequence

from studbook.errors import UsageError

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values of Holm's step-down procedure, in the order given; reject those <= alpha.

    Sorted ascending, adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). It keeps the chance of any false
    rejection in the family below alpha under every dependence. Source: Holm 1979 (Scand. J. Statist. 6).

    Args:
        p_values: One a question, each 0..1.

    Raises:
        UsageError: if one is outside 0..1 or not a number.
    """
    order = _ascending(p_values)
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values of the step-up procedure, in the order given; reject those <= q.

    Sorted ascending, adjusted_(i) = min over j >= i of min(1, m / j p_(j)). Of the rejected a share of at most q is
    wrong on average, when the questions are independent or positively dependent; that some are wrong is accepted. For
    lists that somebody looks through (which clusters fail, which items drift), never for a promotion.
    Source: Benjamini and Hochberg 1995 (JRSS B 57).

    Args:
        p_values: One a question, each 0..1.

    Raises:
        UsageError: if one is outside 0..1 or not a number.
    """
    order = _ascending(p_values)
    adjusted, running = [1.0] * len(p_values), 1.0
    for rank in range(len(order), 0, -1):
        index = order[rank - 1]
        running = min(running, len(order) * p_values[index] / rank)
        adjusted[index] = running
    return tuple(adjusted)


def _ascending(p_values: Sequence[float]) -> list[int]:
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise UsageError("a p value lies outside 0..1", reason="statistics.p", advice="Correct the test it came from.")
    return sorted(range(len(p_values)), key=lambda i: p_values[i])
