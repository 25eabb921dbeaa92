"""Running the workers and turning what they say into scorecards and smokes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import convert

import studbook.models
import studbook.schemas
from studbook.environment import environment_class
from studbook.evaluation import score_worker
from studbook.evaluation.costs import answered, measures, meter
from studbook.evaluation.items import Item
from studbook.evaluation.programs import run_programs
from studbook.evaluation.scorers import Answers, exact, expected_calls, judge
from studbook.evaluation.scoring import KINDS, Kind
from studbook.evaluation.smokes import Spoken, smoked
from studbook.models.engine import ENGINE_SHA256
from studbook.models.slm import Slm
from studbook.records import (
    Agreement,
    Header,
    RuntimeSmoke,
    Scorecard,
    SuiteManifest,
    SuiteResult,
    digest,
)
from studbook.records.evaluation import Role
from studbook.sandbox import Limits, run_worker

__all__ = [
    "Subject",
    "SuiteFile",
    "engine_memory",
    "evaluator_sha256",
    "sampled",
    "score",
    "score_jointly",
    "smoke",
]

AGREEMENT_SAMPLE = 64
_MOST_MEMORY = (4 << 30) - (64 << 10)  # of a 32-bit module
_MICRO = 1_000_000


class Subject(NamedTuple):
    """A model to be evaluated.

    Attributes:
        sha256: Its digest.
        path: Where it lies.
        model: The same, parsed.
    """

    sha256: str
    path: Path
    model: Slm


class SuiteFile(NamedTuple):
    """A frozen suite with its items.

    Attributes:
        digest: Digest of its manifest.
        manifest: The manifest.
        path: The items file.
        items: The same, parsed.
    """

    digest: str
    manifest: SuiteManifest
    path: Path
    items: tuple[Item, ...]


def evaluator_sha256() -> str:
    """Identity of the evaluator: engine and sources of scorers, the batch layout and the class of machine.

    Scorecards of different evaluators are never compared.
    """
    return digest(
        {
            "engine": ENGINE_SHA256,
            "meter": meter(),
            "sources": _sources(),
            "batch": score_worker.BATCH,
            "scorers": sorted(KINDS),
            "environment": environment_class(),
        }
    )


@cache
def _sources() -> dict[str, str]:
    """Digest of every source file that has a part in measuring; what a process runs is what it read at its start."""
    models = Path(next(iter(studbook.models.__path__)))
    files = [
        *sorted(models.rglob("*.py")),
        *sorted(Path(__file__).parent.rglob("*.py")),
        Path(studbook.schemas.__file__),
    ]
    return {f"{f.parent.name}/{f.name}": hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def engine_memory(limits: Limits) -> int:
    """Most bytes of the engine's memory in a worker, file and decoded model in it; the other half is the process's own.

    The engine's own limit is met first, so a model that is too large is refused and ends no worker.
    """
    return min(limits.memory_bytes // 2, _MOST_MEMORY)


def smoke(header: Header, subject: Subject, folder: Path, limits: Limits) -> RuntimeSmoke:
    """Load a model into the engine in a worker and let it speak, twice.

    Args:
        header: Record header.
        subject: The model.
        folder: An empty folder for the worker.
        limits: What the worker may use.

    Raises:
        StudbookError: any of its kinds, if the worker fails; OverBudget if the model does not fit into its memory.
    """
    job = _job(subject, memory=engine_memory(limits))
    answer = run_worker("studbook.evaluation.smoke_worker", job, folder, limits, [subject.path]).value
    return smoked(header, evaluator_sha256(), convert(answer, Spoken))


def score(
    header: Header, subject: Subject, role: Role, suites: Sequence[SuiteFile], folder: Path, limits: Limits
) -> Scorecard:
    """Score a model on all suites of one role, and let it generate on a sample beside that.

    Args:
        header: Record header.
        subject: The model.
        role: The role; every suite has it.
        suites: The suites, in the order of the lock.
        folder: An empty folder; each worker gets one of its own below it.
        limits: What each worker may use.

    Raises:
        StudbookError: any of its kinds, if a worker fails.
    """
    scoring, generating = folder / "score", folder / "generate"
    scoring.mkdir()
    generating.mkdir()
    wrote = {s.digest: _wrote(subject, s, folder, limits) for s in suites if _kind(s).reads == "text" or _costs(s)}
    said = {
        s.digest: run_programs(_kind(s), s.items, wrote[s.digest]["texts"], folder, limits)
        for s in suites
        if _kind(s).reads == "text"
    }
    job = _job(subject, suites=[_asked(suite, said.get(suite.digest)) for suite in suites])
    reads = [subject.path, *(s.path for s in suites)]
    answer, isolation = run_worker("studbook.evaluation.score_worker", job, scoring, limits, reads)
    written = [[len(ids) for ids in wrote[s.digest]["ids"]] if _costs(s) else [] for s in suites]
    results = tuple(_result(*row) for row in zip(suites, answer["suites"], written, strict=True))
    taken = [
        answered(subject.model, suite.manifest.cluster, suite.items, counts, wrote[suite.digest]["fuel"])
        for suite, result, counts in zip(suites, results, written, strict=True)
        if result.written
    ]
    exactly = [raw["exact"] for raw in answer["suites"]]
    agreement, fuel = _agreement(subject, suites, results, exactly, generating, limits)
    return Scorecard(
        header=header,
        artifact=subject.sha256,
        role=role,
        evaluator=evaluator_sha256(),
        mode="score",
        agreement=agreement,
        results=results,
        cost=measures(subject.model, answer["multiply_adds"], fuel, taken),
        isolation=isolation,
    )


def score_jointly(
    subjects: Sequence[Subject], suites: Sequence[SuiteFile], folder: Path, limits: Limits
) -> tuple[SuiteResult, ...]:
    """Score several models that answer as one: their output ensemble. It is no artifact, so it gets no scorecard.

    Args:
        subjects: The models, at least two.
        suites: The suites.
        folder: An empty folder for the worker.
        limits: What the worker may use.

    Raises:
        ParentsDoNotFit: if the models differ in layout or tokenizer.
        StudbookError: any of its kinds, if the worker fails.
    """
    first, *others = subjects
    beside = [[str(s.path.absolute()), s.sha256] for s in others]
    job = _job(first, suites=[_asked(suite, None) for suite in suites], beside=beside)
    reads = [*(s.path for s in subjects), *(s.path for s in suites)]
    answer = run_worker("studbook.evaluation.score_worker", job, folder, limits, reads).value
    return tuple(_result(suite, raw, ()) for suite, raw in zip(suites, answer["suites"], strict=True))


def sampled(counts: Sequence[int]) -> list[range]:
    """Places of the items on which the model generates too, one range a task suite that was scored.

    Args:
        counts: Items of each.
    """
    return [range(0, count, max(1, count * len(counts) // AGREEMENT_SAMPLE)) for count in counts]


def _result(suite: SuiteFile, raw: dict[str, Any], written: Sequence[int]) -> SuiteResult:
    manifest = suite.manifest
    answers = Answers(raw["correct"], raw["loglik"], raw["brier"], raw["calls"])
    judged = judge(answers, manifest.count, manifest.scorer, manifest.pass_mark, suite.items)
    drifted = not raw["before"] == raw["after"] == manifest.items.sha256
    usable = judged.verdict in ("pass", "fail") and not drifted
    return SuiteResult(
        suite=suite.digest,
        cluster=manifest.cluster,
        dimension=manifest.dimension,
        items_before=raw["before"],
        items_after=raw["after"],
        expected_calls=expected_calls(manifest.scorer, manifest.count, suite.items),
        actual_calls=raw["calls"],
        correct="".join("1" if c else "0" for c in raw["correct"]) if usable else "",
        loglik_micro=_numbers(raw["loglik"]) if usable else "",
        brier_micro=_numbers(raw["brier"]) if usable else "",
        written=" ".join(map(str, written)) if usable else "",
        verdict="error" if drifted else judged.verdict,
        detail="the suite's items changed during the run" if drifted else judged.detail,
    )


def _kind(suite: SuiteFile) -> Kind:
    return KINDS[suite.manifest.scorer]


def _asked(suite: SuiteFile, said: Sequence[object] | None) -> dict[str, Any]:
    """One suite as the scoring worker is asked about it."""
    limit = suite.manifest.max_new_tokens
    return {"path": str(suite.path.absolute()), "scorer": suite.manifest.scorer, "limit": limit, "said": said}


def _costs(suite: SuiteFile) -> bool:
    return suite.manifest.dimension == "cost"


def _wrote(subject: Subject, suite: SuiteFile, folder: Path, limits: Limits) -> dict[str, Any]:
    """What the model writes to each prompt of a suite, by a worker that sees no answer."""
    own = folder / f"written-{suite.digest[:16]}"
    own.mkdir()
    prompts = [item.prompt for item in suite.items]
    return _generated(subject, prompts, suite.manifest.max_new_tokens + 1, own, limits)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(str(round(v * _MICRO)) for v in values)


def _agreement(
    subject: Subject,
    suites: Sequence[SuiteFile],
    results: Sequence[SuiteResult],
    exactly: Sequence[Sequence[bool]],
    folder: Path,
    limits: Limits,
) -> tuple[Agreement, int]:
    """Generate on a fixed sample of task items, and compare with what scoring says greedy decoding would write.

    Returns:
        How often both agree, and the fuel it took; 0 where there is no sample.
    """
    rows = zip(suites, results, exactly, strict=True)
    tasks = [(s, hits) for s, r, hits in rows if s.manifest.dimension == "task" and r.correct]
    places = sampled([len(suite.items) for suite, _ in tasks])
    sample = [(suite.items[i], hits[i]) for (suite, hits), own in zip(tasks, places, strict=True) for i in own]
    if not sample:
        return Agreement(sampled=0, agreed=0), 0
    limit = max(s.manifest.max_new_tokens for s, _ in tasks)
    said = _generated(subject, [item.prompt for item, _ in sample], limit + 1, folder, limits)
    pairs = zip(sample, said["texts"], strict=True)
    same = sum(exact(item.expected, text, limit) == right for (item, right), text in pairs)
    return Agreement(sampled=len(sample), agreed=same), said["fuel"]


def _generated(subject: Subject, prompts: Sequence[str], limit: int, folder: Path, limits: Limits) -> dict[str, Any]:
    job = _job(subject, memory=engine_memory(limits), prompts=list(prompts), max_new_tokens=limit)
    answer: dict[str, Any] = run_worker(
        "studbook.evaluation.generate_worker", job, folder, limits, [subject.path]
    ).value
    return answer


def _job(subject: Subject, **more: Any) -> dict[str, Any]:
    return {"model": str(subject.path.absolute()), "sha256": subject.sha256, **more}
