"""The one clock of the lab: UTC, as the days in records and the times in the ledger are."""

from __future__ import annotations

from datetime import UTC, date, datetime

__all__ = ["now", "today"]


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def today() -> date:
    """The calendar day of this moment, in UTC; a machine's own day may be another one."""
    return now().date()
