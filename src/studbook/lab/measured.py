"""What was measured, held to everything about it that can be told without measuring again.

Whether a model really gave the answers that a scorecard lists is taken at its word (docs/policy.md). That there is one for
every item of the suites in force, that the verdicts follow from them, and that suites, floor reports, comparisons with
training rows and readiness records say what the lab's own files say, is not. A smoke takes a moment, so it is made again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from studbook.errors import DigestDiffers
from studbook.evaluation.contamination import compare_with_suites, parse_rows
from studbook.evaluation.costs import answered, counter, measures, scoring_work
from studbook.evaluation.floor import check_rows, floor_rows
from studbook.evaluation.floor_worker import rows_apart
from studbook.evaluation.scorecards import SuiteFile, engine_memory, evaluator_sha256, sampled
from studbook.evaluation.scorers import Answers, expected_calls, judge
from studbook.evaluation.scoring import KINDS
from studbook.evaluation.smokes import SMOKE_PROMPTS, smoked, spoken
from studbook.evaluation.suites import check_items, known_items, parse_items, scorer_sha256
from studbook.lab.absence import absent
from studbook.lab.desk import Desk
from studbook.lab.evaluators import check_measured_by
from studbook.lab.facts import Facts, require
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.records import (
    ContaminationReceipt,
    DriftReport,
    FloorReport,
    LicenceSource,
    Measure,
    ReadinessRecord,
    ReportedResult,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    SuiteManifest,
    SuiteResult,
    digest,
)

__all__ = [
    "check_contamination",
    "check_drift",
    "check_floor",
    "check_name",
    "check_ready",
    "check_reported",
    "check_result",
    "check_scorecard",
    "check_smoke",
    "check_suite",
]

_FIELD = "measured.field"
_CRITERIA = ("reproduce", "reject", "explain", "verify", "rollback")
# Scores are recorded in millionths.
_ROUNDING = 1e-6


def check_scorecard(desk: Desk, record: Scorecard) -> None:
    """A scorecard answers every item of every suite in force for its role, once, and judges the answers by their marks.

    Args:
        desk: The lab as it was before the record.
        record: The scorecard.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
    """
    locked = {d: desk.workspace.get(d, SuiteManifest) for d in desk.suites_lock[1].suites}
    wanted = tuple(d for d, manifest in locked.items() if manifest.role == record.role)
    sizes = [m.value for m in record.cost if m.unit == "bytes"]
    scored = [len(r.correct) for r in record.results if r.dimension == "task" and r.correct]
    facts = {
        "results": (tuple(r.suite for r in record.results), wanted),
        "cost": (sizes, [float(desk.workspace.blob_size(record.artifact))]),
        "agreement": (0 <= record.agreement.agreed <= record.agreement.sampled, True),
        "agreement.sampled": (record.agreement.sampled, sum(map(len, sampled(scored)))),
        "cost: fuel": (_stated(record, "fuel") > 0, record.agreement.sampled > 0),
    }
    require("scorecard", facts, _FIELD)
    if record.artifact not in absent(desk):
        require("scorecard", {"cost": (record.cost, _costs(desk, record))}, _FIELD)
    for result in record.results:
        check_result(desk, result, locked[result.suite])


def check_drift(desk: Desk, record: DriftReport) -> None:
    """A drift report answers every anchor of a frozen suite of that dimension for every layer, or says why it does not.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
        OutOfOrder: if another evaluator measured it than the one in force; ``evaluator.unadmitted``.
    """
    suite = desk.workspace.get(record.suite, SuiteManifest)
    measured = record.verdict == "pass"
    values = [int(v) for v in record.kl_micro.split()]
    facts = {
        "suite": (record.suite in desk.suites_lock[1].suites and suite.dimension == "drift", True),
        "kl_micro": (len(values), suite.count if measured else 0),
        "kl_micro: range": (min(values, default=0) >= 0, True),
        "cka: range": (all(0.0 <= v <= 1.0 for v in record.cka) and (measured or not record.cka), True),
        "items_before": (record.items_before == record.items_after == suite.items.sha256 or not measured, True),
    }
    require(f"drift-report: {suite.name}", facts, _FIELD)
    pair = (record.artifact, record.champion)
    if measured and not absent(desk).keys() & set(pair):
        one, other = (desk.model(artifact).shape.layer_count for artifact in pair)
        require(f"drift-report: {suite.name}", {"cka": (len(record.cka), one if one == other else 0)}, _FIELD)
    check_measured_by(desk, record)


def check_reported(desk: Desk, record: ReportedResult) -> None:
    """A reported result says of itself that it is one, and speaks of a model that is known here.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
    """
    named = {m.artifact.sha256 for _, m in desk.manifests()}
    facts = {
        "measure.basis": (record.measure.basis, "reported"),
        "artifact": (record.artifact in named, True),
        "attached_by": (record.attached_by, record.header.owner),
    }
    require("reported-result", facts, _FIELD)


def check_smoke(desk: Desk, record: RuntimeSmoke) -> None:
    """A smoke that passed was finite and the same twice; where engine and model are here, it is made again.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
        StudbookError: any of its kinds, if the engine refuses the model.
    """
    silent = digest([[] for _ in SMOKE_PROMPTS])
    facts = {
        "passed": (record.passed and not (record.finite and record.deterministic and record.logits), False),
        "tokens": (record.tokens >= 0 and (record.tokens == 0) == (record.outputs_sha256 == silent), True),
    }
    require("runtime-smoke", facts, _FIELD)
    ours = record.evaluator == evaluator_sha256()
    if (ours or record.engine == ENGINE_SHA256) and record.artifact not in absent(desk):
        require("runtime-smoke", _smoked_again(desk, record, metered=ours), _FIELD)


def check_floor(_desk: Desk, record: FloorReport) -> None:
    """Of a suite's answerers the oracle passes, and nobody else does.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
    """
    names = [row.answerer for row in record.rows]
    passed = [row.answerer for row in record.rows if row.verdict == "pass"]
    facts = {
        "rows": (len(names) > 1 and len(set(names)) == len(names), True),
        "rows.verdict": (passed, ["oracle"]),
    }
    require("floor-report", facts, _FIELD)


def check_suite(desk: Desk, record: SuiteManifest) -> None:
    """A suite's counts are those of its items, and its floor report comes out again of the same scorer.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
        OutOfOrder: if a worthless answerer comes near to passing, or the oracle fails an item; ``suite.floor``.
        StudbookError: any of its kinds, if its items are not there, or are none that could have been frozen.
    """
    data = desk.workspace.blob(record.items.sha256)
    items = parse_items(data, f"items of {record.name}")
    floor = desk.workspace.get(record.floor, FloorReport)
    facts: dict[str, tuple[object, object]] = {
        "items.size": (record.items.size, len(data)),
        "count": (record.count, len(items)),
    }
    # Another version's scorer may have judged otherwise; a suite frozen under it is not used any more.
    kind = KINDS.get(record.scorer)
    kind = kind if kind and record.scorer_sha256 == scorer_sha256(record.scorer) else None
    if kind:
        check_items(items, record.scorer, record.dimension, record.role, Path(f"suite {record.name}"))
    if kind and not kind.runs:
        # Programs are not run again: that they were is taken at its word, as a model's answers are.
        asked = record.scorer, record.pass_mark, record.max_new_tokens
        path = desk.workspace.blob_path(record.items.sha256)
        again = rows_apart(path, *asked, desk.worker_limits()) if kind.patterns else floor_rows(items, *asked)
        facts["floor"] = (floor.rows, again)
    require(f"suite {record.name}", facts, _FIELD)
    if kind:
        check_rows(floor.rows, record.scorer, f"suite {record.name}")


def check_contamination(desk: Desk, record: ContaminationReceipt) -> None:
    """Compare the training rows with the suites again.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
        StudbookError: any of its kinds, if rows or items are not there.
    """
    rows = parse_rows(desk.workspace.blob(record.training), f"training slice {record.training[:16]}")
    again = compare_with_suites(record.header, record.training, rows, _suites(desk, record.suites))
    fields = ("training_rows", "items", "shared_prompts", "shared_items", "shared_runs", "clean")
    require("contamination", {f: (getattr(record, f), getattr(again, f)) for f in fields}, _FIELD)


def check_ready(desk: Desk, record: ReadinessRecord) -> None:
    """A readiness record speaks of the whole ledger before it, and of five criteria.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
    """
    position = len(desk.entries())
    facts = {
        "entries": (record.entries, position),
        "head": (record.head, desk.workspace.ledger.entries[position].previous),
        "criteria": (tuple(c.name for c in record.criteria), _CRITERIA),
        "ready": (record.ready, all(c.passed for c in record.criteria)),
    }
    require("readiness", facts, _FIELD)


def check_name(desk: Desk, record: SourceManifest) -> None:
    """What is registered is not called as something else was called already, or as a channel or a digest.

    Raises:
        DigestDiffers: naming whose name it is; ``measured.name``.
    """
    if isinstance(record.source, LicenceSource):
        return
    named = {m.artifact.sha256 for _, m in desk.all(SourceManifest) if _called(m, record.name)}
    named |= {c.artifact.sha256 for _, c in desk.candidates() if c.name == record.name}
    taken = named - {record.artifact.sha256}
    if taken or record.name in desk.channels() or re.fullmatch(r"[0-9a-f]{8,64}", record.name):
        whose = f"{sorted(taken)[0][:12]} is called that" if taken else "it would be taken for something else"
        raise DigestDiffers(
            f"cannot be called {record.name}: {whose}",
            where=f"source {record.name}: name",
            advice="Name models by their digest until you know who registered this, and with which key.",
            reason="measured.name",
        )


def check_result(desk: Desk, result: SuiteResult, suite: SuiteManifest) -> None:
    """One suite's answers; of a run that went wrong there are none, and nothing passes on it.

    Args:
        desk: The lab.
        result: The answers.
        suite: The suite they are to.

    Raises:
        DigestDiffers: naming the field; ``measured.field``.
    """
    lists = (result.correct, result.logliks, result.briers)
    judged = result.verdict in ("pass", "fail")
    counts = [suite.count if judged else 0] * len(lists)
    items = known_items(desk.workspace.blob(suite.items.sha256)) if KINDS[suite.scorer].whole else ()
    calls = expected_calls(suite.scorer, suite.count, items)
    written = [int(v) for v in result.written.split()]
    facts: dict[str, tuple[object, object]] = {
        "cluster": (result.cluster, suite.cluster),
        "dimension": (result.dimension, suite.dimension),
        "expected_calls": (result.expected_calls, calls),
        "correct": ([len(found) for found in lists], counts),
        "written": (len(written), suite.count if judged and suite.dimension == "cost" else 0),
        "written: range": (all(1 <= count <= suite.max_new_tokens + 1 for count in written), True),
    }
    if judged:
        # Millionths of a Brier score round up to 2 at most, and a log-likelihood to 0.
        answers = Answers(
            [c == "1" for c in result.correct],
            [v / 1e6 for v in result.logliks],
            [v / 1e6 for v in result.briers],
            result.actual_calls,
        )
        again = judge(answers, suite.count, suite.scorer, suite.pass_mark, items)
        close = KINDS[suite.scorer].lower and abs(again.score - suite.pass_mark) <= _ROUNDING
        facts |= {
            "items_before": (result.items_before, suite.items.sha256),
            "items_after": (result.items_after, suite.items.sha256),
            "actual_calls": (result.actual_calls, calls),
            "verdict": (result.verdict, result.verdict if close else again.verdict),
        }
    require(f"scorecard: {suite.name}", facts, _FIELD)


def _costs(desk: Desk, record: Scorecard) -> tuple[Measure, ...]:
    """What the shapes of the model and the tokens of the items say it costs; of a run that went wrong its own count.

    Fuel is taken at its word, as the answers are that it was burnt for, but not what counted it.
    """
    model = desk.model(record.artifact)
    suites = {r.suite: s for r, s in zip(record.results, _suites(desk, [r.suite for r in record.results]), strict=True)}
    if all(r.verdict in ("pass", "fail") for r in record.results):
        work = scoring_work(model, [(s.manifest.scorer, s.items) for s in suites.values()])
    else:
        work = _stated(record, "multiply-adds")
    taken = []
    for result in (r for r in record.results if r.written):
        written, burnt = [int(v) for v in result.written.split()], _stated(record, f"fuel/{result.cluster}")
        taken.append(answered(model, result.cluster, suites[result.suite].items, written, burnt))
    # Another evaluator counted with its own engine, and what it names is not this one's to judge.
    counted = counter() if record.evaluator == evaluator_sha256() else counter(record.cost)
    return measures(model, work, _stated(record, "fuel"), taken, counted)


def _stated(record: Scorecard, unit: str) -> int:
    return int(next((m.value for m in record.cost if m.unit == unit), 0.0))


def _smoked_again(desk: Desk, record: RuntimeSmoke, *, metered: bool) -> Facts:
    """Everything that follows from the bytes of engine and model; fuel too where the meter is ours."""
    limit, where = engine_memory(desk.worker_limits()), f"model {record.artifact[:16]}"
    with Engine(desk.workspace.blob(record.artifact), memory_limit=limit, fuel=True, where=where) as engine:
        again = smoked(record.header, record.evaluator, spoken(engine))
    fields = ["engine", "prompts", "outputs_sha256", "tokens", "logits", "finite", "deterministic", "passed"]
    fields += ["fuel"] if metered else []
    return {field: (getattr(record, field), getattr(again, field)) for field in fields}


def _suites(desk: Desk, digests: Sequence[str]) -> list[SuiteFile]:
    found = []
    for held in digests:
        manifest = desk.workspace.get(held, SuiteManifest)
        path = desk.workspace.blob_path(manifest.items.sha256)
        found.append(SuiteFile(held, manifest, path, known_items(desk.workspace.blob(manifest.items.sha256), path)))
    return found


def _called(manifest: SourceManifest, name: str) -> bool:
    return manifest.name == name and not isinstance(manifest.source, LicenceSource)
