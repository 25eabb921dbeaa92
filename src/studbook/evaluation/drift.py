"""Drift reports: a model beside the champion on anchors, measured by a worker and written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studbook.evaluation.scorecards import Subject, SuiteFile, evaluator_sha256
from studbook.records import DriftReport, Header
from studbook.sandbox import Limits, run_worker

__all__ = ["measure_drift"]

_MICRO = 1_000_000
# KL is never negative and CKA never above 1; f64 sums of them may come out a hair beyond.
_ROUNDING = 1e-9


def measure_drift(
    header: Header, subject: Subject, champion: Subject, suites: Sequence[SuiteFile], folder: Path, limits: Limits
) -> tuple[DriftReport, ...]:
    """One report a suite of anchors.

    Args:
        header: Record header.
        subject: The model.
        champion: The champion.
        suites: The suites of dimension drift.
        folder: An empty folder for the worker.
        limits: What the worker may use.

    Raises:
        StudbookError: any of its kinds, if the worker fails.
    """
    job = {
        "model": str(subject.path.absolute()),
        "sha256": subject.sha256,
        "champion": str(champion.path.absolute()),
        "champion_sha256": champion.sha256,
        "suites": [str(s.path.absolute()) for s in suites],
    }
    reads = [subject.path, champion.path, *(s.path for s in suites)]
    answer, isolation = run_worker("studbook.evaluation.drift_worker", job, folder, limits, reads)
    made = []
    for suite, raw in zip(suites, answer["suites"], strict=True):
        refused = _refused(suite, raw)
        made.append(
            DriftReport(
                header=header,
                artifact=subject.sha256,
                champion=champion.sha256,
                suite=suite.digest,
                evaluator=evaluator_sha256(),
                items_before=raw["before"],
                items_after=raw["after"],
                kl_micro="" if refused else " ".join(str(round(max(0.0, v) * _MICRO)) for v in raw["kl"]),
                cka=() if refused else tuple(round(min(1.0, v), 6) for v in raw["cka"]),
                verdict="error" if refused else "pass",
                detail=refused,
                isolation=isolation,
            )
        )
    return tuple(made)


def _refused(suite: SuiteFile, raw: dict[str, Any]) -> str:
    """Why what the worker said proves nothing; empty when it does."""
    if not raw["before"] == raw["after"] == suite.manifest.items.sha256:
        return "the suite's items changed during the run"
    if raw["refused"]:
        return str(raw["refused"])
    if len(raw["kl"]) != suite.manifest.count:
        return f"{suite.manifest.count} anchors were needed, {len(raw['kl'])} came"
    if not all(math.isfinite(v) and -_ROUNDING <= v <= 1e6 for v in raw["kl"]):
        return "a divergence is not a finite number >= 0"
    if not all(math.isfinite(v) and 0.0 <= v <= 1.0 + _ROUNDING for v in raw["cka"]):
        return "an alignment is not a finite number in 0..1"
    return ""
