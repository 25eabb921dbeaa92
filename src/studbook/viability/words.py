"""Numbers as people read them; every reason and assumption of a decision is put together from these."""

from __future__ import annotations

__all__ = ["brier", "counted", "p_value", "percent", "points", "settle", "told_apart"]


def settle(value: float) -> float:
    """Round to nine decimals, so that the last bits of a C library cannot change a record; -0.0 becomes 0.0."""
    return round(value, 9) + 0.0


def percent(share: float) -> str:
    """A share of items: ``71.2 %``."""
    return f"{100 * share:.1f} %"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, always with its sign: ``-33.0 pp``."""
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f} pp"


def told_apart(value: float, threshold: float) -> tuple[str, str]:
    """Both as percentage points, with as many digits (1 to 5) as it takes to see that they differ."""
    for digits in range(1, 5):
        if points(value, digits) != points(threshold, digits):
            return points(value, digits), points(threshold, digits)
    return points(value, 5), points(threshold, 5)


def p_value(value: float) -> str:
    """A p value with two significant digits: ``p = 0.41``, and ``p < 0.0001`` below that."""
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def brier(score: float) -> str:
    """A mean Brier score or a difference of two: ``0.312``."""
    return f"{round(score, 3) + 0.0:.3f}"


def counted(number: int, noun: str) -> str:
    """A number and its noun: ``1 finalist``, ``3 finalists``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
