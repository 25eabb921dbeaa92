"""The red team: candidates that cheat, run for real against the evaluator, each with the code it must be rejected with.

Some are code that a worker runs, as a generating candidate would be; some are SLM1 files that the lab's own engine loads.
A new way to cheat is one function and one line here. What the worker of a cheat says of itself is believed nowhere: the
code that counts is the error that was met, or the verdict that the suite's own scorer gives.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from studbook.errors import StudbookError
from studbook.evaluation import redteam_models, redteam_worker
from studbook.evaluation.scorecards import Subject, SuiteFile, evaluator_sha256, score
from studbook.evaluation.scorers import Answers, Judged, exact, judge
from studbook.models.slm import parse_slm
from studbook.records import Header, RedTeamReport, RedTeamRow
from studbook.sandbox import Limits, run_worker

__all__ = ["EXPECTED", "run_red_team"]

# So long a cheat may run, so much it may write, and so much memory it has: enough to cheat, and soon over.
_SECONDS, _BYTES = 1, 1 << 20
_ITEMS = 64

EXPECTED: dict[str, str] = {
    "answers-read": "verdict.fail",
    "score-file-written": "verdict.error",
    "timer-patched": "budget",
    "early-exit": "verdict.error",
    "output-flood": "budget",
    "answers-without-end": "verdict.fail",
    "metrics-in-logs": "verdict.fail",
    "answers-that-are-no-text": "verdict.fail",
    "nan-logits": "verdict.error",
    "nan-weights": "slm.payload.non-finite",
    "invalid-utf8": "verdict.fail",
    "cached-answers": "digest",
}
"""Every cheating candidate, and the code it has to be rejected with."""


class _Bench(NamedTuple):
    """What every cheat is run with."""

    header: Header
    suite: SuiteFile
    limits: Limits


class _Outcome(NamedTuple):
    """How one cheat ended: a code, words, and the measures that were in force."""

    code: str
    detail: str
    isolation: tuple[str, ...]


def run_red_team(header: Header, suite: SuiteFile, folder: Path, limits: Limits) -> RedTeamReport:
    """Run every cheating candidate against the evaluator on the items of one suite.

    Args:
        header: Record header.
        suite: A frozen exact-match suite; its first items are asked.
        folder: An empty folder; each candidate gets one of its own below it.
        limits: What a worker may use, and the measures it demands; a cheat gets less time and space.

    Raises:
        OutsideAllowlist: if this machine does not offer a measure that is demanded; nothing has run then.
    """
    bench = _Bench(header, suite, limits)
    rows, isolation = [], set[str]()
    for name, expected in EXPECTED.items():
        place = folder / name
        place.mkdir()
        outcome = _run(name, bench, place)
        isolation |= {*outcome.isolation}
        rows.append(
            RedTeamRow(
                candidate=name,
                expected=expected,
                found=outcome.code,
                detail=outcome.detail[:400],
                rejected=outcome.code == expected,
            )
        )
    return RedTeamReport(
        header=header,
        evaluator=evaluator_sha256(),
        suite=suite.digest,
        rows=tuple(rows),
        isolation=tuple(sorted(isolation)),
        passed=all(row.rejected for row in rows),
    )


def _run(name: str, bench: _Bench, folder: Path) -> _Outcome:
    try:
        return _MODELS[name](bench, folder) if name in _MODELS else _code(name, bench, folder)
    except StudbookError as error:
        if error.reason == "policy.isolation":
            raise
        # Paths of this machine stay out of the record.
        return _Outcome(error.reason, error.message.replace(str(folder), "its folder"), ())


def _code(name: str, bench: _Bench, folder: Path) -> _Outcome:
    """Run a cheat that is code, and score the texts it came back with, outside of it."""
    items = bench.suite.items[:_ITEMS]
    card = folder.parent / f"{name}-scorecard.json"
    job: dict[str, Any] = {
        "cheat": name,
        "prompts": [item.prompt for item in items],
        "guesses": sorted({item.expected for item in items}),
        "answers": str(bench.suite.path.absolute()),
        "card": str(card.absolute()),
    }
    limits = replace(bench.limits, seconds=_SECONDS, file_bytes=_BYTES, folder_bytes=0)
    answer = run_worker(redteam_worker.__name__, job, folder, limits)
    if card.exists():
        return _Outcome("verdict.pass", "wrote a file outside its folder", answer.isolation)
    return _judged(_scored(bench, answer.value.get("texts")), answer.isolation)


def _scored(bench: _Bench, texts: object) -> Judged:
    """The suite's verdict on texts; of whatever else an answer holds nothing is read."""
    items, manifest = bench.suite.items[:_ITEMS], bench.suite.manifest
    said = texts if isinstance(texts, list) else []
    right = [exact(i.expected, text, manifest.max_new_tokens) for i, text in zip(items, said, strict=False)]
    loglik = [0.0 if ok else math.log(1e-30) for ok in right]
    answers = Answers(right, loglik, [0.0 if ok else 2.0 for ok in right], len(said))
    return judge(answers, len(items), manifest.scorer, manifest.pass_mark)


def _judged(found: Judged, isolation: Sequence[str]) -> _Outcome:
    return _Outcome(f"verdict.{found.verdict}", found.detail, tuple(isolation))


def _weights(data: bytes) -> Callable[[_Bench, Path], _Outcome]:
    """A cheat that is weights: read by the lab's reader, scored by its engine."""

    def run(bench: _Bench, folder: Path) -> _Outcome:
        subject = _subject(data, data, folder)
        card = score(bench.header, subject, bench.suite.manifest.role, [bench.suite], folder, bench.limits)
        result = card.results[0]
        return _Outcome(f"verdict.{result.verdict}", result.detail, card.isolation)

    return run


def _cached(bench: _Bench, folder: Path) -> _Outcome:
    """Under the digest of one model lies another, whose answers are better."""
    subject = _subject(redteam_models.broken_text(), redteam_models.infinite_logits(), folder)
    card = score(bench.header, subject, bench.suite.manifest.role, [bench.suite], folder, bench.limits)
    return _Outcome("verdict.pass", "was scored with the answers of another model", card.isolation)


def _subject(claimed: bytes, stored: bytes, folder: Path) -> Subject:
    path = folder.parent / f"{folder.name}.slm"
    path.write_bytes(stored)
    return Subject(hashlib.sha256(claimed).hexdigest(), path, parse_slm(claimed, folder.name))


_MODELS: dict[str, Callable[[_Bench, Path], _Outcome]] = {
    "nan-logits": _weights(redteam_models.infinite_logits()),
    "nan-weights": _weights(redteam_models.nan_payload()),
    "invalid-utf8": _weights(redteam_models.broken_text()),
    "cached-answers": _cached,
}
