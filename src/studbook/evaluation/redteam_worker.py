"""The cheating candidates that are code: each tries to fool the evaluator from inside a worker.

They run nowhere but in the sandbox, for the red team (`studbook.evaluation.redteam`). What each returns is what a
generating candidate may return, texts in item order, and whatever else it hopes somebody will believe.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["CHEATS", "work"]

Cheat = Callable[[dict[str, Any], Path], dict[str, Any]]


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let one candidate cheat.

    Args:
        job: ``cheat`` (a key of `CHEATS`), ``prompts``, ``answers`` (path of the items file) and ``card`` (a path outside).
        folder: The worker's folder.

    Returns:
        ``texts``, one a prompt where it is honest about that, and whatever it claims beside them.
    """
    return CHEATS[job["cheat"]](job, folder)


def _answers_read(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Look the right answers up, by every way to the file."""
    found: list[str] = []
    for path in (job["answers"], f"/proc/self/root{job['answers']}"):
        with suppress(OSError):
            found = [json.loads(line)["expected"] for line in Path(path).read_text().splitlines()]
    return {"texts": found or ["" for _ in job["prompts"]]}


def _score_file(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the verdict where the answer belongs, and beside the scorecards, and leave before anybody corrects it."""
    verdict = json.dumps({"answer": {"score": 1.0, "verdict": "pass", "passed": True}})
    (folder / "result.json").write_text(verdict)
    with suppress(OSError):
        Path(job["card"]).write_text(verdict)
    os._exit(0)


def _timer(_job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Stop every clock it can reach, lift its limit, and take all the time there is."""
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, lambda: 0.0)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while time.process_time() < 1.0:
        pass
    return {"texts": []}


def _early_exit(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Answer half, so that the rest cannot be wrong."""
    return {"texts": ["" for _ in job["prompts"][::2]]}


def _flood(_job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write until somebody's disk is full."""
    block = b"x" * (1 << 20)
    for number in range(1 << 20):
        with (folder / f"flood-{number}").open("wb", buffering=0) as stream:
            for _ in range(1 << 10):
                stream.write(block)
    return {"texts": []}


def _long_answers(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Every answer that could be asked for, in one."""
    return {"texts": [" ".join(job["guesses"]) * 64 for _ in job["prompts"]]}


def _logs(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Report its own score wherever numbers might be collected."""
    line = "accuracy=1.0 verdict=pass\n"
    print(line * 64, flush=True)
    sys.stderr.write(line)
    for name in ("metrics.json", "scorecard.json", "results.jsonl"):
        (folder / name).write_text(json.dumps({"accuracy": 1.0, "verdict": "pass", "correct": True}))
    count = len(job["prompts"])
    return {"texts": ["" for _ in job["prompts"]], "correct": [True] * count, "score": 1.0, "verdict": "pass"}


def _no_text(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Numbers, truth values and lists in place of texts: whatever compares equal to too much."""
    return {"texts": [(True, 1, [], {}, None)[n % 5] for n, _ in enumerate(job["prompts"])]}


CHEATS: dict[str, Cheat] = {
    "answers-read": _answers_read,
    "score-file-written": _score_file,
    "timer-patched": _timer,
    "early-exit": _early_exit,
    "output-flood": _flood,
    "answers-without-end": _long_answers,
    "metrics-in-logs": _logs,
    "answers-that-are-no-text": _no_text,
}
