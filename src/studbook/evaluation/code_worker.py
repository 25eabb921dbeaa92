"""The code worker: one program and some calls in, the printed form of each value out. It never sees a right value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["work"]

_PLAIN = (int, float, str, bool, bytes, type(None), list, tuple, dict, set)
_LONGEST = 1 << 16


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Run a program and evaluate calls of it.

    Args:
        job: ``program`` (Python source) and ``calls`` (expressions).

    Returns:
        ``values``: ``repr`` of each call's value, null where the call raised or gave no plain value; null for all
        where the program itself did not run.
    """
    names: dict[str, Any] = {"__name__": "program"}
    try:
        exec(compile(job["program"], "program", "exec"), names)
        return {"values": [_value(call, names) for call in job["calls"]]}
    except BaseException:
        # Whatever a foreign program raises, SystemExit too, is its failure and not the worker's.
        return {"values": [None for _ in job["calls"]]}


def _value(call: str, names: dict[str, Any]) -> str | None:
    try:
        value = eval(compile(call, "call", "eval"), names)
        text = repr(value) if type(value) in _PLAIN else None
    except Exception:
        return None
    return text if text is not None and len(text) <= _LONGEST else None
