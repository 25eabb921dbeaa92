"""Results of experiments, held against the ledger: promised first, run as promised, concluded from the answers.

`conclude` is the only way to a result; `check_result` takes it again from what a result cites and wants equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.lab import experiment_analysis as analysis
from studbook.lab.desk import Desk
from studbook.lab.experiment_analysis import Bits, Planned, Rival
from studbook.lab.experiment_charter import operator_of
from studbook.lab.facts import require
from studbook.lab.measured import check_result as check_answers
from studbook.records import (
    ArmRun,
    BaselineRun,
    CandidateManifest,
    ExperimentCharter,
    ExperimentResult,
    Header,
    LineageTemplate,
    Scorecard,
    SearchReceipt,
    SuiteManifest,
    SuiteResult,
    digest,
)

__all__ = ["Cited", "check_result", "conclude"]

_REGISTER = "Register a new charter, with seeds nobody has seen, and run that: studbook experiment new FILE"


class Cited(NamedTuple):
    """What a result rests on.

    Attributes:
        runs: Manifest and scorecard of every candidate, in the order the charter asks for them.
        champion: Scorecard of the champion.
        parents: Scorecards of the parents, in their order.
        searches: Receipts of the random searches, in the order of the seeds.
        ensemble: Answers of the parents' output ensemble.
    """

    runs: tuple[tuple[str, str], ...]
    champion: str
    parents: tuple[str, ...]
    searches: tuple[str, ...]
    ensemble: tuple[SuiteResult, ...]


def check_result(desk: Desk, record: ExperimentResult) -> None:
    """Refuse a result that is not its charter's: another order, other arms, seeds or baselines, other numbers.

    Args:
        desk: The lab as it was before the result.
        record: The result.

    Raises:
        OutOfOrder: ``experiment.order`` if a candidate or search is older than the charter, ``experiment.twice``.
        DigestDiffers: ``experiment.arms``, ``experiment.seeds``, ``experiment.baselines``, ``experiment.run`` or
            ``experiment.result``, naming the field.
        StudbookError: any of its kinds, if something it cites is not there.
    """
    charter = desk.workspace.get(record.charter, ExperimentCharter)
    plan = analysis.planned(charter)
    told, asked = [r.arm for r in record.runs], [p.arm for p in plan]
    if sorted(set(told)) != sorted(set(asked)) or len(told) != len(asked):
        _refuse("arms", f"runs are of the arms {_listed(told)}; the charter asks for {_listed(asked)}", "runs")
    if [(r.arm, r.seed) for r in record.runs] != [(p.arm, p.seed) for p in plan]:
        _refuse("seeds", "its runs are of other seeds than the charter's, or in another order", "runs.seed")
    held = [(b.baseline, b.seed) for b in record.baselines]
    if held != _rows(charter):
        missing = [name for name, seed in _rows(charter) if (name, seed) not in held]
        _refuse(
            "baselines", f"its baselines are not all of the charter's: {_listed(missing or ['order'])}", "baselines"
        )
    if any(r.charter == record.charter and digest(r) != digest(record) for _, r in desk.all(ExperimentResult)):
        text = "is another result of a charter that has one: an experiment is concluded once"
        raise OutOfOrder(text, where="experiment-result: charter", reason="experiment.twice", advice=_REGISTER)
    again = conclude(desk, record.header, record.charter, _cited(charter, record))
    facts = {f: (getattr(record, f), getattr(again, f)) for f in record.__struct_fields__ if f != "header"}
    require(f"experiment result {charter.name}", facts, "experiment.result")


def conclude(desk: Desk, header: Header, charter_digest: str, cited: Cited) -> ExperimentResult:
    """The result of a charter from the records it rests on.

    Args:
        desk: The lab.
        header: Header of the record.
        charter_digest: Digest of the charter.
        cited: The records.

    Raises:
        OutOfOrder: ``experiment.order`` or ``experiment.no-data``.
        DigestDiffers: ``experiment.run`` if a record is of something else than the charter asks for.
    """
    charter = desk.workspace.get(charter_digest, ExperimentCharter)
    evaluator = desk.scorecard(cited.champion).evaluator
    suites = charter.suites
    runs, answers = [], {}
    for run, (manifest, card) in zip(analysis.planned(charter), cited.runs, strict=True):
        artifact = _candidate(desk, charter_digest, charter, run, manifest)
        bits = analysis.bits_of(_card(desk, card, artifact, evaluator), suites, f"arm {run.arm or 'primary'}")
        answers[run.arm, run.seed] = bits
        runs.append(ArmRun(arm=run.arm, seed=run.seed, manifest=manifest, artifact=artifact, scorecard=card,
                           score=analysis.score(bits)))  # fmt: skip
    rows, rivals = _baselines(desk, charter_digest, charter, cited, evaluator)
    contrasts = tuple(analysis.contrast(charter, answers, rival) for rival in rivals)
    effects = analysis.attribution(charter, answers)
    return ExperimentResult(
        header=header,
        charter=charter_digest,
        evaluator=evaluator,
        runs=tuple(runs),
        outcomes=tuple(analysis.outcome(charter, answers, arm) for arm in dict.fromkeys(r.arm for r in runs)),
        baselines=tuple(rows),
        ensemble=cited.ensemble,
        contrasts=contrasts,
        attribution=effects,
        supported=all(c.beaten for c in contrasts),
        unsupported=analysis.shortfalls(contrasts, effects),
    )


def _rows(charter: ExperimentCharter) -> list[tuple[str, int | None]]:
    """Baseline and seed of every row, in order."""
    first: list[tuple[str, int | None]] = [("champion", None), ("no-op", None)]
    parents: list[tuple[str, int | None]] = [("parents", None)] * len(charter.parents)
    return [*first, *parents, ("ensemble", None), *(("random-search", seed) for seed in charter.seeds)]


def _cited(charter: ExperimentCharter, record: ExperimentResult) -> Cited:
    cards = [row.scorecard or "" for row in record.baselines]
    end = 2 + len(charter.parents)
    return Cited(
        runs=tuple((run.manifest, run.scorecard) for run in record.runs),
        champion=cards[0],
        parents=tuple(cards[2:end]),
        searches=tuple(row.receipt or "" for row in record.baselines[end + 1 :]),
        ensemble=record.ensemble,
    )


def _candidate(desk: Desk, charter_digest: str, charter: ExperimentCharter, run: Planned, manifest: str) -> str:
    """The artifact of a candidate that was bred after its charter, and as that asks for."""
    found = desk.workspace.get(manifest, CandidateManifest)
    template = desk.workspace.get(found.template, LineageTemplate)
    _require_after(desk, charter_digest, found.template, f"arm {run.arm or 'primary'}")
    base, parents, operator = operator_of(desk, charter, run.recipe)
    facts = {
        "operator": (template.operator, operator),
        "base": (template.base, base),
        "parents": (template.parents, parents),
        "cluster": (template.cluster, charter.cluster),
        "policy": (template.policy, charter.policy),
        "purpose": (found.purpose, "candidate" if run.arm == charter.primary else "ablation"),
    }
    require(f"arm {run.arm or 'primary'}", facts, "experiment.run")
    return found.artifact.sha256


def _require_after(desk: Desk, charter: str, made: str, what: str) -> None:
    promised, entered = desk.workspace.entry(charter), desk.workspace.entry(made)
    if promised is None or entered is None or entered.sequence < promised.sequence:
        raise OutOfOrder(
            f"{what} was made before its charter was registered",
            where="experiment-result: charter",
            advice=_REGISTER,
            reason="experiment.order",
        )


def _card(desk: Desk, card: str, artifact: str, evaluator: str) -> Scorecard:
    found = desk.scorecard(card)
    measured = (found.artifact, found.role, found.evaluator)
    facts = {"scorecard": (measured, (artifact, "development", evaluator))}
    require(f"scorecard {card[:16]}", facts, "experiment.run")
    return found


def _baselines(
    desk: Desk, charter_digest: str, charter: ExperimentCharter, cited: Cited, evaluator: str
) -> tuple[list[BaselineRun], list[Rival]]:
    rows: list[BaselineRun] = []
    rivals: list[Rival] = []

    def row(name: str, artifact: str, card: str, receipt: str | None = None, seed: int | None = None) -> Bits:
        bits = analysis.bits_of(_card(desk, card, artifact, evaluator), charter.suites, name)
        rows.append(BaselineRun(baseline=name, seed=seed, artifact=artifact, scorecard=card, receipt=receipt,
                                score=analysis.score(bits)))  # fmt: skip
        return bits

    # Doing nothing keeps the champion's answers and costs nothing, so it is beaten by more than the margin alone.
    for name, needed in (("champion", 0.0), ("no-op", charter.analysis.margin)):
        rivals.append(Rival(name, None, {None: row(name, charter.champion, cited.champion)}, needed))
    for parent, card in zip(charter.parents, cited.parents, strict=True):
        rivals.append(Rival("parents", parent, {None: row("parents", parent, card)}, 0.0))
    bits = _ensemble(desk, charter, cited.ensemble)
    empty = {"artifact": None, "scorecard": None, "receipt": None, "seed": None}
    rows.append(BaselineRun(baseline="ensemble", score=analysis.score(bits), **empty))
    rivals.append(Rival("ensemble", None, {None: bits}, 0.0))
    searched: dict[int | None, Bits] = {}
    for seed, receipt in zip(charter.seeds, cited.searches, strict=True):
        found = _search(desk, charter_digest, charter, seed, receipt)
        searched[seed] = row("random-search", found.artifact, found.scorecard, receipt, seed)
    rivals.append(Rival("random-search", None, searched, 0.0))
    return rows, rivals


def _ensemble(desk: Desk, charter: ExperimentCharter, results: Sequence[SuiteResult]) -> Bits:
    require("ensemble", {"suites": (tuple(r.suite for r in results), charter.suites)}, "experiment.run")
    for result in results:
        check_answers(desk, result, desk.workspace.get(result.suite, SuiteManifest))
    return analysis.bits_of(results, charter.suites, "ensemble")


def _search(desk: Desk, charter_digest: str, charter: ExperimentCharter, seed: int, receipt: str) -> SearchReceipt:
    found = desk.workspace.get(receipt, SearchReceipt)
    _require_after(desk, charter_digest, receipt, f"random search {seed}")
    facts = {
        "method": (found.method, "random"),
        "seed": (found.seed, seed),
        "budget": (found.budget, charter.budget.candidates),
        "cluster": (found.cluster, charter.cluster),
        "policy": (found.policy, charter.policy),
        "parents": ((found.base, found.parents), (charter.base, charter.parents)),
        "objective": (
            (found.objective, found.space.kind, found.space.layers, found.space.filters),
            ("mean", "scales", 1, ()),
        ),
    }
    require(f"random search {seed}", facts, "experiment.run")
    return found


def _refuse(rule: str, what: str, field: str) -> None:
    raise DigestDiffers(
        what, where=f"experiment-result: {field}", advice=f"Do not rely on it. {_REGISTER}", reason=f"experiment.{rule}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(name or "primary" for name in names)) or "none"
