"""The fixtures of `ledger_fixtures` for all tests here."""

from __future__ import annotations

from ledger_fixtures import long, young

__all__ = ["long", "young"]
