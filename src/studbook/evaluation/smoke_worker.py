"""The smoke worker: a model in, what it said to the fixed prompts out. Nothing but the engine reads the model here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import to_builtins

from studbook.evaluation.generate_worker import open_engine, warm
from studbook.evaluation.smokes import spoken

__all__ = ["warm", "work"]


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Let a model speak.

    Args:
        job: ``model`` (path), ``sha256``, ``memory`` (most bytes of the engine's memory).

    Returns:
        The fields of `studbook.evaluation.smokes.Spoken`.
    """
    with open_engine(job) as engine:
        found: dict[str, Any] = to_builtins(spoken(engine))
    return found
