"""Numbers as the page shows them: rounded for people; ``review.json`` keeps every digit."""

from __future__ import annotations

from studbook.exchange.text import plain

__all__ = ["amount", "number", "span"]

_SMALL, _LARGE = 0.001, 1000.0
_UNITS = {"share": "pp", "brier-0-2": "Brier"}
_WHOLE = frozenset(("bytes", "decoded-bytes", "multiply-adds", "model-calls", "sealed-openings", "acts-of-people"))


def number(value: float) -> str:
    """A number to 3 decimals; 3 significant digits where it is smaller, whole and in groups from 1,000 on.

    Args:
        value: A number of any unit; exactly 0 is ``0``.
    """
    size = abs(value)
    if size == 0:
        return "0"
    return f"{value:.3g}" if size < _SMALL else f"{value:.3f}" if size < _LARGE else f"{value:,.0f}"


def amount(value: float, unit: str) -> str:
    """A difference with its unit, as Markdown; a difference of shares in percentage points.

    Args:
        value: The difference.
        unit: As a record has it: ``share``, ``bytes``, ``utility`` and others.
    """
    return f"{_bare(value, unit)} {_UNITS.get(unit) or plain(unit)}"


def span(low: float, high: float, unit: str) -> str:
    """Two bounds with their unit, as `amount` shows them."""
    return f"{_bare(low, unit)} to {amount(high, unit)}"


def _bare(value: float, unit: str) -> str:
    return f"{100 * value:.2f}" if unit == "share" else f"{value:,.0f}" if unit in _WHOLE else number(value)
