"""Running written programs: one fresh worker each, without network, exec or files, and no right value in reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studbook.errors import OverBudget, StudbookError
from studbook.evaluation.items import Item
from studbook.evaluation.scoring import Kind
from studbook.sandbox import Limits, run_worker

__all__ = ["run_programs"]

# What one program may use, whatever the lab allows its workers.
_SECONDS, _MEMORY, _FILE = 5, 2 << 30, 1 << 20
# A program that is ended for these did not merely fail; the suite is not scored.
_INTEGRITY = ("sandbox.", "output.", "policy.")


def run_programs(
    kind: Kind, items: Sequence[Item], texts: Sequence[object], folder: Path, limits: Limits
) -> list[object]:
    """What running each text gives: the printed values of the item's calls, or None where it could not be run.

    Args:
        kind: The kind of scorer; where it runs nothing the texts come back as they are.
        items: The items.
        texts: What was written to each; shorter where an answerer stopped early.
        folder: Where each worker gets an empty folder of its own.
        limits: What a worker of the lab may use; a program gets no more than 5 s and 2 GiB of it.

    Raises:
        StudbookError: if a program asked the system for what no worker may do, or left what no worker may leave.
    """
    if not kind.runs:
        return list(texts)
    small = Limits(
        seconds=min(_SECONDS, limits.seconds),
        memory_bytes=min(_MEMORY, limits.memory_bytes),
        file_bytes=_FILE,
        files=16,
        demands=limits.demands,
    )
    done: dict[tuple[str, tuple[str, ...]], object] = {}
    out: list[object] = []
    for item, text in zip(items, texts, strict=False):
        if not isinstance(text, str):
            out.append(None)
            continue
        key = text, tuple(item.rule["calls"])
        if key not in done:
            own = folder / f"program-{len(done)}-{len(list(folder.glob('program-*')))}"
            own.mkdir()
            done[key] = _run(kind.runs, {"program": text, "calls": list(key[1])}, own, small)
        out.append(done[key])
    return out


def _run(module: str, job: dict[str, Any], folder: Path, limits: Limits) -> object:
    try:
        return run_worker(module, job, folder, limits).value.get("values")
    except OverBudget:
        return None
    except StudbookError as error:
        if error.reason.startswith(_INTEGRITY):
            raise
        return None
