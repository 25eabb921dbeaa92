"""Experiments: registered before the run, run with the machinery of rounds on development suites, concluded once.

A charter says what will be bred, against what it will be held, and how the answers will be read. `run` breeds every arm
(the primary one as a candidate, the others as ablation rows), scores arms, champion and parents, lets the parents answer
as one, and gives random search the same number of recipes. Selection and sealed suites are never opened, and nothing is
released: whoever wants the primary arm promoted puts it before a decision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from studbook.errors import OutOfOrder, RecordRefused, UsageError
from studbook.evaluation.scorecards import Subject, score_jointly
from studbook.files import read_file
from studbook.lab import breeding, clock, experiment_analysis, judging, rounds, search
from studbook.lab.breeding import Herd, Order
from studbook.lab.desk import Desk
from studbook.lab.experiment_analysis import Planned
from studbook.lab.experiment_charter import ANSWERED, analysed, budget_of, check_charter
from studbook.lab.experiment_check import Cited, conclude
from studbook.lab.frozen import of_role
from studbook.lab.missing import need_operators, need_scorers
from studbook.lab.pending import require_key
from studbook.records import (
    Analysis,
    CandidateManifest,
    ExperimentBudget,
    ExperimentCharter,
    ExperimentResult,
    Factor,
    FailureCluster,
    SearchReceipt,
    SuiteResult,
    digest,
    read_plain_json,
    replace,
)
from studbook.records.base import Name, Text
from studbook.records.experiments import BASELINES

__all__ = ["Experiment", "Experiments", "Plan", "read_plan"]

_LIMIT = 1 << 20


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as a person writes it.

    Attributes:
        name: What to call it.
        hypothesis: What is expected, in words.
        cluster: Label of the failure cluster to breed for.
        operator: Tag of the operator.
        seeds: Seeds of the arms, where the operator draws, and of the random searches.
        fixed: Fields of the operator that are the same in every arm.
        factors: Field -> its value off and on; every combination is an arm.
        primary: The arm the hypothesis is about, one digit a factor; all on by default.
        parents: Names of the parents; every approved one by default.
        metric: ``joint-mean`` or ``target``.
        alpha: Error rate of each bound; the policy's by default.
    """

    name: Name
    hypothesis: Annotated[Text, Meta(min_length=1)]
    cluster: Name
    operator: Name
    seeds: tuple[int, ...]
    fixed: dict[str, Any] = {}
    factors: dict[str, tuple[Any, Any]] = {}
    primary: str | None = None
    parents: tuple[str, ...] | None = None
    metric: Literal["joint-mean", "target"] = "joint-mean"
    alpha: float | None = None


class Experiment(Struct, frozen=True):
    """A charter and what came of it.

    Attributes:
        digest: Digest of the charter.
        charter: The charter.
        entered: When it was registered, in UTC.
        label: Label of its cluster.
        result_digest: Digest of the result; None while there is none.
        result: The result.
        names: What people call the models of the result, by digest.
    """

    digest: str
    charter: ExperimentCharter
    entered: str
    label: str
    result_digest: str | None
    result: ExperimentResult | None
    names: dict[str, str]


class _Bred(NamedTuple):
    """Manifests and artifacts of the arms, in the order of the charter."""

    manifests: tuple[str, ...]
    artifacts: tuple[str, ...]


class Experiments:
    """The lab's experiments."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def new(self, path: Path) -> Experiment:
        """Register the charter of an experiment; nothing is bred.

        Args:
            path: JSON object with the fields of `Plan`.

        Raises:
            RecordRefused: if it is not JSON, or a field is missing, unknown or of the wrong type.
            StudbookError: any of its kinds, as a round before its first candidate, and as `check_charter`.
        """
        plan = read_plan(path)
        desk = self._desk
        need_operators(desk, [{"operator": plan.operator}], f"experiment {plan.name}", desk.policy[0])
        known = {c.name: (d, c) for d, c in desk.all(ExperimentCharter)}
        charter = _draft(desk, plan, path)
        if plan.name in known and known[plan.name][0] == digest(charter):
            return _shown(desk, digest(charter), charter)
        try:
            check_charter(desk, charter)
        except UsageError as error:
            if error.reason == "experiment.scorer":
                need_scorers(desk, charter.suites, ANSWERED, f"experiment {plan.name}")
            raise
        return _shown(desk, desk.workspace.commit(charter), charter)

    def run(self, name: str) -> Experiment:
        """Do what a charter says; the same call goes on where an earlier one was cut short, and ends with the result.

        Args:
            name: Name of the experiment, or the digest of its charter.

        Raises:
            UsageError: if there is no such charter.
            OutOfOrder: ``experiment.ground`` if champion, policy, parents or suites are not the chartered ones any more,
                ``experiment.smoke`` if an arm does not run.
            StudbookError: any of its kinds, if a worker fails.
        """
        desk = self._desk
        found, charter = _find(desk, name)
        shown = _shown(desk, found, charter)
        if shown.result is not None:
            return shown
        need_operators(desk, [{"operator": charter.operator}], f"experiment {charter.name}", found)
        require_key(desk, ExperimentResult, SearchReceipt, CandidateManifest)
        herd = _ground(desk, charter, shown.label)
        bred = _breed(desk, charter, herd)
        cards = judging.evaluate(desk, [charter.champion, *charter.parents, *bred.artifacts], "development")
        searches = tuple(_search(desk, charter, shown.label, seed) for seed in charter.seeds)
        cited = Cited(
            runs=tuple((m, cards[a].digest) for m, a in zip(bred.manifests, bred.artifacts, strict=True)),
            champion=cards[charter.champion].digest,
            parents=tuple(cards[p].digest for p in charter.parents),
            searches=searches,
            ensemble=_ensemble(desk, charter),
        )
        desk.workspace.commit(conclude(desk, desk.header, found, cited))
        return _shown(desk, found, charter)

    def show(self, name: str | None = None) -> tuple[Experiment, ...]:
        """One experiment, or every one, those without a result included: what was promised is never out of sight.

        Raises:
            UsageError: if there is no such charter.
        """
        chosen = list(self._desk.all(ExperimentCharter)) if name is None else [_find(self._desk, name)]
        return tuple(_shown(self._desk, found, charter) for found, charter in chosen)


def read_plan(path: Path) -> Plan:
    """An experiment's file as it was written; what it means in a lab is asked later.

    Raises:
        UsageError: if there is no such file.
        RecordRefused: if it is not JSON, or a field is missing, unknown or of the wrong type.
    """
    fields = read_plain_json(read_file(path, _LIMIT), path)
    try:
        return msgspec.convert(fields, Plan)
    except msgspec.ValidationError as error:
        advice = "Mend the file; docs/experiments.md lists the fields."
        raise RecordRefused(str(error), where=path, advice=advice, reason="experiment.file") from error


def _draft(desk: Desk, plan: Plan, path: Path) -> ExperimentCharter:
    """The charter of a plan as the lab is now; parents, cluster and champion are settled as for a round."""
    herd, cluster, _ = rounds.start(desk, plan.cluster, [], plan.parents, clock.today())
    policy_digest, policy = desk.policy
    fields: dict[str, Any] = {
        "name": plan.name,
        "hypothesis": plan.hypothesis,
        "cluster": digest(cluster),
        "policy": policy_digest,
        "champion": herd.champion,
        "base": herd.base,
        "parents": herd.parents,
        "compatibility": herd.compatibility,
        "suites": analysed(desk, plan.cluster, plan.metric),
        "operator": plan.operator,
        "fixed": plan.fixed,
        "factors": [Factor(field=f, off=off, on=on) for f, (off, on) in plan.factors.items()],
        "primary": "1" * len(plan.factors) if plan.primary is None else plan.primary,
        "seeds": plan.seeds,
        "baselines": BASELINES,
        "stopping": "every-arm-and-seed-once",
        "analysis": Analysis(
            metric=plan.metric,
            test="paired-bounds",
            alpha=policy.gates.alpha if plan.alpha is None else plan.alpha,
            margin=policy.gates.practical_minimum,
        ),
        "budget": ExperimentBudget(candidates=1, calls=1),
    }
    header = desk.header
    try:
        # The rules of the record are asked here, where the file can still be named.
        plain = {"kind": ExperimentCharter.kind(), "header": header, **fields}
        charter = msgspec.convert(msgspec.to_builtins(plain), ExperimentCharter)
    except msgspec.ValidationError as error:
        advice = "Mend the file; docs/experiments.md lists the fields."
        raise RecordRefused(str(error), where=path, advice=advice, reason="experiment.file") from error
    made: ExperimentCharter = replace(charter, budget=budget_of(desk, charter))
    return made


def _find(desk: Desk, name: str) -> tuple[str, ExperimentCharter]:
    held = list(desk.all(ExperimentCharter))
    found = [(d, c) for d, c in held if c.name == name or (len(name) >= 8 and d.startswith(name))]
    if len(found) != 1:
        known = ", ".join(c.name for _, c in held) or "none"
        raise UsageError(f"{name!r} is not the name of one experiment", where="NAME", advice=f"Registered: {known}.",
                         reason="usage.experiment")  # fmt: skip
    return found[0]


def _shown(desk: Desk, found: str, charter: ExperimentCharter) -> Experiment:
    entry = desk.workspace.entry(found)
    results = [(d, r) for d, r in desk.all(ExperimentResult) if r.charter == found]
    result_digest, result = results[0] if results else (None, None)
    return Experiment(
        digest=found,
        charter=charter,
        entered=entry.time if entry else "",
        label=desk.workspace.get(charter.cluster, FailureCluster).label,
        result_digest=result_digest,
        result=result,
        names={a: desk.name_of(a) for r in (charter, *([result] if result else [])) for a in r.subjects()},
    )


def _ground(desk: Desk, charter: ExperimentCharter, label: str) -> Herd:
    """The herd of the charter; refused where the lab is not the one it was written for."""
    _require_ground(charter, {"policy": desk.policy[0], "champion": desk.champion()})
    herd, cluster, _ = rounds.start(desk, label, [], charter.parents, clock.today())
    suites = analysed(desk, label, charter.analysis.metric)
    _require_ground(charter, {"cluster": digest(cluster), "base": herd.base, "parents": herd.parents, "suites": suites})
    return herd._replace(compatibility=charter.compatibility)


def _require_ground(charter: ExperimentCharter, now: dict[str, object]) -> None:
    for field, value in now.items():
        if getattr(charter, field) != value:
            raise OutOfOrder(
                f"{field} is not the one it was registered for",
                where=f"experiment {charter.name}: {field}",
                advice="What was promised cannot be kept any more. Register a new one: studbook experiment new FILE",
                reason="experiment.ground",
            )


def _breed(desk: Desk, charter: ExperimentCharter, herd: Herd) -> _Bred:
    """Every arm and seed: the primary arm as candidates, the others as ablation rows that are never eligible."""
    plan = experiment_analysis.planned(charter)
    orders = [_order(desk, charter, herd, run) for run in plan]
    manifests = breeding.breed_all(desk, orders, f"breeding {len(orders)} runs")
    artifacts = tuple(breeding.manifest_of(desk, m).artifact.sha256 for m in manifests)
    smokes = judging.smoke_all(desk, artifacts)
    for run, artifact in zip(plan, artifacts, strict=True):
        if artifact not in smokes or not smokes[artifact].passed:
            raise OutOfOrder(
                f"arm {run.arm or 'primary'} did not pass its runtime smoke",
                where=f"experiment {charter.name}",
                advice="An arm that does not run has no outcome, and the experiment none. Look at its smoke record.",
                reason="experiment.smoke",
            )
    return _Bred(manifests, artifacts)


def _order(desk: Desk, charter: ExperimentCharter, herd: Herd, run: Planned) -> Order:
    purpose: Literal["candidate", "ablation"] = "candidate" if run.arm == charter.primary else "ablation"
    return breeding.plan(desk, herd, [run.recipe], purpose)[0]


def _search(desk: Desk, charter: ExperimentCharter, label: str, seed: int) -> str:
    """The receipt of a random search with as many recipes as the experiment has runs."""
    request = search.Request(
        method="random",
        evaluations=charter.budget.candidates,
        seed=seed,
        parents=charter.parents,
        objective="mean",
    )
    return search.search(desk, label, request).receipt


def _ensemble(desk: Desk, charter: ExperimentCharter) -> tuple[SuiteResult, ...]:
    """What the parents answer as one; a worker of its own, as for every model."""
    wanted = [s for s in of_role(desk, "development") if s.digest in charter.suites]
    subjects = [Subject(p, desk.workspace.blob_path(p), desk.model(p)) for p in charter.parents]
    desk.progress.say("the parents answer as one")
    folder = desk.workspace.work_folder(f"ensemble-{digest(charter)[:16]}")
    return score_jointly(subjects, wanted, folder, desk.worker_limits())
