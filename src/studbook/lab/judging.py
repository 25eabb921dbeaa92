"""Smoke and scorecards of models, each made once; the failure cluster; the decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from msgspec import structs

from studbook.errors import BytesLie, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.evaluation.drift import measure_drift
from studbook.evaluation.scorecards import Subject, SuiteFile, evaluator_sha256, score, smoke
from studbook.evaluation.scorers import expected_calls
from studbook.evaluation.scoring import KINDS
from studbook.evaluation.suites import known_items
from studbook.executor import in_order
from studbook.lab.desk import Desk
from studbook.lab.evaluators import require_in_force
from studbook.lab.facts import require
from studbook.lab.frozen import GATING_ROLES, of_role
from studbook.lab.pending import require_key
from studbook.lab.slices import compare, receipts_of, require_clean, taught
from studbook.lab.sources import require_model, slice_of
from studbook.records import (
    CandidateManifest,
    ContaminationReceipt,
    DataSource,
    DriftReport,
    FailureCluster,
    LineageTemplate,
    OperatorReceipt,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    SuiteManifest,
)
from studbook.records.evaluation import Role
from studbook.viability import Contender, check_judges

__all__ = [
    "Card",
    "already",
    "check_budget",
    "check_cluster",
    "contender",
    "contenders",
    "declare_cluster",
    "drift",
    "evaluate",
    "require_judges",
    "require_label",
    "require_smoke",
    "smoke_all",
    "with_cards",
]


# Roles that a round does not need, and that nobody may learn from either.
_MORE_ROLES: tuple[Role, ...] = ("descriptor", "canary")


class Card(NamedTuple):
    """A scorecard with its digest.

    Attributes:
        digest: Digest of the record.
        card: The record.
    """

    digest: str
    card: Scorecard


def check_budget(desk: Desk, candidates: int) -> None:
    """Refuse a round whose candidates would need more model calls than the policy allows.

    Asked before any is bred, and again when its decision is replayed. Counted: every candidate on the development items
    and every finalist on the selection items, a call a choice where there are choices, existing scorecards included, so
    that a round that goes on after a crash is not judged otherwise.

    Raises:
        OverBudget: with the arithmetic.
    """
    _, policy = desk.policy
    if candidates > policy.budget.candidates:
        raise OverBudget(
            f"{candidates} candidates; the policy allows {policy.budget.candidates} a round",
            where="policy: budget.candidates",
        )
    suites = [desk.workspace.get(suite, SuiteManifest) for suite in desk.suites_lock[1].suites]
    development, selection = (
        sum(_calls(desk, s) for s in suites if s.role == role) for role in ("development", "selection")
    )
    finalists = min(candidates, policy.gates.finalists)
    calls = candidates * development + finalists * selection
    if calls > policy.budget.evaluations:
        raise OverBudget(
            f"{candidates} candidates x {development} calls on development items + {finalists} finalists x {selection} on "
            f"selection items = {calls} model calls; the policy allows {policy.budget.evaluations}",
            where="policy: budget.evaluations",
        )


def _calls(desk: Desk, suite: SuiteManifest) -> int:
    """Model calls that one model takes for a suite; of a scorer that this version does not have, one an item."""
    kind = KINDS.get(suite.scorer)
    items = known_items(desk.workspace.blob(suite.items.sha256)) if kind and kind.whole else ()
    return expected_calls(suite.scorer, suite.count, items) if kind else suite.count


def smoke_all(desk: Desk, artifacts: Sequence[str]) -> dict[str, RuntimeSmoke]:
    """Smoke every model once per evaluator; a model that cannot run has no smoke.

    Raises:
        UsageError: if one of them is an adapter package or a checkpoint; nothing has run then.
    """
    for artifact in artifacts:
        require_model(desk, artifact)
    require_in_force(desk)
    evaluator = evaluator_sha256()
    known = {s.artifact: s for _, s in desk.unrevoked(RuntimeSmoke) if s.evaluator == evaluator}
    missing = [a for a in dict.fromkeys(artifacts) if a not in known]
    if missing:
        require_key(desk, RuntimeSmoke)

    def work(artifact: str) -> RuntimeSmoke | StudbookError:
        try:
            folder = desk.workspace.work_folder(f"smoke-{artifact[:16]}")
            return smoke(desk.header, _subject(desk, artifact), folder, desk.worker_limits())
        except (BytesLie, OverBudget) as error:  # the model's own doing; anything else pauses the round
            return error

    for made in desk.progress.count("runtime smoke", in_order(work, missing), len(missing)):
        if isinstance(made, StudbookError):
            desk.progress.say(f"smoke failed: {made}")
        else:
            desk.workspace.commit(made)
            known[made.artifact] = made
    return {a: known[a] for a in artifacts if a in known}


def require_smoke(desk: Desk, artifacts: Sequence[str]) -> None:
    """Refuse models of which one does not run.

    Raises:
        UsageError: as `smoke_all`.
        OutOfOrder: naming the model; ``order.smoke``.
    """
    smokes = smoke_all(desk, artifacts)
    for artifact in artifacts:
        if artifact not in smokes or not smokes[artifact].passed:
            raise OutOfOrder(f"{desk.name_of(artifact)} did not pass its runtime smoke", reason="order.smoke")


def evaluate(desk: Desk, artifacts: Sequence[str], role: Role) -> dict[str, Card]:
    """Scorecards of some models on every suite of a role; one that exists already is not made again.

    The cache key is artifact, suites and evaluator together, so an answer can never be another model's.

    Raises:
        StudbookError: any of its kinds, if a worker fails.
    """
    require_in_force(desk)
    suites = of_role(desk, role)
    known = _cards(desk, role, suites)
    missing = [a for a in dict.fromkeys(artifacts) if a not in known]
    if missing:
        require_key(desk, Scorecard)
    made = _score_missing(desk, missing, role, suites)
    for card in desk.progress.count(f"evaluating on {role} suites", made, len(missing)):
        known[card.artifact] = Card(desk.workspace.commit(card), card)
    return {a: known[a] for a in dict.fromkeys(artifacts)}


def drift(desk: Desk, artifacts: Sequence[str], champion: str, role: Role) -> None:
    """Measure how far models drifted from the champion on a role's anchors, each once; nothing where there are none.

    Raises:
        StudbookError: any of its kinds, if a worker fails.
    """
    anchors = [s for s in of_role(desk, role) if s.manifest.dimension == "drift"]
    evaluator = evaluator_sha256()
    known = {(r.artifact, r.champion, r.suite) for _, r in desk.unrevoked(DriftReport) if r.evaluator == evaluator}
    wanted = [(a, [s for s in anchors if (a, champion, s.digest) not in known]) for a in dict.fromkeys(artifacts)]
    missing = [(a, suites) for a, suites in wanted if suites and a != champion]

    def work(asked: tuple[str, Sequence[SuiteFile]]) -> tuple[DriftReport, ...]:
        folder = desk.workspace.work_folder(f"drift-{asked[0][:16]}")
        subjects = _subject(desk, asked[0]), _subject(desk, champion)
        return measure_drift(desk.header, *subjects, asked[1], folder, desk.worker_limits())

    if missing:
        require_key(desk, DriftReport)
        for made in desk.progress.count(f"drift on {role} anchors", in_order(work, missing), len(missing)):
            for report in made:
                desk.workspace.commit(report)


def already(desk: Desk, artifact: str, role: Role) -> bool:
    """Whether a model has a scorecard on a role's suites under the evaluator in force."""
    return artifact in _cards(desk, role, of_role(desk, role))


def _cards(desk: Desk, role: Role, suites: Sequence[SuiteFile]) -> dict[str, Card]:
    wanted, evaluator = tuple(s.digest for s in suites), evaluator_sha256()
    return {
        c.artifact: Card(d, c)
        for d, c in desk.unrevoked(Scorecard)
        if c.role == role and c.evaluator == evaluator and tuple(r.suite for r in c.results) == wanted and _valid(c)
    }


def _valid(card: Scorecard) -> bool:
    """Whether a scorecard may be used again: every suite was scored, and both modes agreed on the sample."""
    scored = all(r.verdict in ("pass", "fail") for r in card.results)
    return scored and card.agreement.sampled == card.agreement.agreed


def require_label(desk: Desk, label: str) -> tuple[SuiteFile, ...]:
    """Every frozen suite, if one of them judges this label.

    Raises:
        UsageError: if none does, with the labels there are.
        OutOfOrder: if no suite is frozen.
    """
    suites = tuple(s for role in GATING_ROLES for s in of_role(desk, role))
    suites += tuple(s for role in _MORE_ROLES for s in of_role(desk, role, needed=False))
    known = sorted({s.manifest.cluster for s in suites if s.manifest.dimension == "task"})
    if label not in known:
        advice = f"Known labels: {', '.join(known)}."
        raise UsageError(f"no frozen suite has the label {label!r}", advice=advice, reason="usage.cluster")
    return suites


def require_judges(desk: Desk, label: str, scope: Sequence[str] = ()) -> None:
    """Refuse a round that the frozen suites could not decide and confirm, before anything is bred.

    Args:
        desk: The lab.
        label: The target cluster.
        scope: What a specialist shall answer for; none for a round whose winner serves everybody.

    Raises:
        UsageError: as `require_label`.
        OutOfOrder: as that, and as `studbook.viability.check_judges`.
    """
    suites = [s.manifest for s in require_label(desk, label)]
    policy = desk.policy[1]
    for asked in scope:
        require_label(desk, asked)
    rules = structs.replace(policy, protected=tuple(scope)) if scope else policy
    for role in GATING_ROLES:
        check_judges(role, [(m.dimension, m.cluster) for m in suites if m.role == role], rules, label)


def declare_cluster(desk: Desk, label: str, base: str, scope: Sequence[str] = ()) -> tuple[str, FailureCluster]:
    """Show that the champion fails on a label, and bind what may be learned from and what judges the answer.

    Args:
        desk: The lab.
        label: The cluster.
        base: Digest of the parents' shared base; its data manifests hold the training slice.
        scope: What a specialist shall answer for; none for a round whose winner serves everybody.

    Raises:
        UsageError: if no suite has this label.
        OutOfOrder: if the champion does not fail there, there is no training slice, or slice and suites overlap.
    """
    champion = desk.champion()
    suites = require_label(desk, label)
    judging = [s for s in suites if s.manifest.cluster == label and s.manifest.dimension == "task"]
    card = evaluate(desk, [champion], "development")[champion]
    failed, of = _failures(desk, card, label)
    found = slice_of(desk, label, base)
    if found is None:
        raise OutOfOrder(
            f"no registered data manifest of {desk.name_of(base)} holds a training slice for {label}",
            advice="Register the founder together with its data.manifest.",
        )
    receipt, compared = compare(desk, [found[1]])[found[1]]
    require_clean(compared, f"training slice {label}")
    cluster = FailureCluster(
        header=desk.header,
        label=label,
        champion=champion,
        evidence=card.digest,
        failed=failed,
        of=of,
        data=found[0],
        training_slice=found[1],
        suites=tuple(s.digest for s in judging),
        contamination=receipt,
        scope=tuple(sorted({label, *scope})) if scope else (),
    )
    return desk.workspace.commit(cluster), cluster


def check_cluster(desk: Desk, record: FailureCluster) -> None:
    """A cluster speaks of the champion of then, its development card, and a slice for its label that was compared.

    Args:
        desk: The lab as it was before the record.
        record: The cluster.

    Raises:
        DigestDiffers: naming the field; ``cluster.field``.
        OutOfOrder: if the champion fails at less than the policy calls a cluster; ``order.cluster``.
    """
    card, source = desk.scorecard(record.evidence), desk.workspace.get(record.data, SourceManifest).source
    receipt = desk.workspace.get(record.contamination, ContaminationReceipt)
    locked = {d: desk.workspace.get(d, SuiteManifest) for d in desk.suites_lock[1].suites}
    judges = {d for d, m in locked.items() if (m.cluster, m.dimension) == (record.label, "task")}
    slices = {f.sha256 for f in source.files if f.label == record.label} if isinstance(source, DataSource) else set()
    facts: dict[str, tuple[object, object]] = {
        "champion": (record.champion, desk.channels()["champion"].artifact),
        "evidence": ((card.artifact, card.role), (record.champion, "development")),
        "label": (record.label in card.tasks(), True),
        "suites": (sorted(record.suites), sorted(judges)),
        "scope": (record.scope, tuple(sorted(set(record.scope) & card.tasks().keys()))),
        "scope: label": (record.label in record.scope, bool(record.scope)),
        "training_slice": (record.training_slice in slices, True),
        "contamination": ((receipt.training, receipt.clean), (record.training_slice, True)),
        "contamination: suites": (locked.keys() - set(receipt.suites), set()),
    }
    require("failure-cluster", facts, "cluster.field")
    counts = _failures(desk, Card(record.evidence, card), record.label)
    require("failure-cluster", {"failed": ((record.failed, record.of), counts)}, "cluster.field")


def _failures(desk: Desk, card: Card, label: str) -> tuple[int, int]:
    """Failed items and all items of a label, if the policy calls that many failures a cluster."""
    result = card.card.tasks()[label]
    failed, of = len(result.correct) - result.right, len(result.correct)
    least = desk.policy[1].gates.cluster_error
    if of == 0 or failed / of < least:
        raise OutOfOrder(
            f"the champion fails {failed} of {of} items of {label}; the policy calls it a failure cluster from {least:.0%}",
            advice="Choose a label it fails at: studbook evaluate champion",
            reason="order.cluster",
        )
    return failed, of


def contender(desk: Desk, manifest: str, evaluator: str) -> Contender:
    """A candidate's manifest, template, receipt, what it was taught, and this evaluator's first smoke; no scorecards."""
    found = desk.workspace.get(manifest, CandidateManifest)
    artifact = found.artifact.sha256
    smokes = (s for _, s in desk.all(RuntimeSmoke) if s.evaluator == evaluator)
    slices = taught(desk, found.data)
    return Contender(
        manifest=found,
        smoke=next((s for s in smokes if s.artifact == artifact), None),
        receipt=desk.workspace.get(found.receipt, OperatorReceipt),
        template=desk.workspace.get(found.template, LineageTemplate),
        development=None,
        selection=None,
        drift=tuple(r for _, r in desk.all(DriftReport) if (r.artifact, r.evaluator) == (artifact, evaluator)),
        slices=slices,
        receipts=receipts_of(desk, slices),
    )


def with_cards(found: Contender, development: Scorecard | None, selection: Scorecard | None) -> Contender:
    """The same contender with its scorecards."""
    return replace(found, development=development, selection=selection)


def contenders(desk: Desk, manifests: Sequence[str]) -> list[Contender]:
    """Everything the decision knows of some candidates, with the scorecards that exist on the suites in force."""
    evaluator = evaluator_sha256()
    roles: tuple[Role, ...] = ("development", "selection")
    suites = {role: tuple(s.digest for s in of_role(desk, role)) for role in roles}
    found = (c for _, c in desk.all(Scorecard) if c.evaluator == evaluator)
    cards = {(c.artifact, c.role): c for c in found if tuple(r.suite for r in c.results) == suites.get(c.role)}
    field = [contender(desk, manifest, evaluator) for manifest in manifests]
    return [with_cards(c, cards.get((c.artifact, "development")), cards.get((c.artifact, "selection"))) for c in field]


def _score_missing(desk: Desk, missing: Sequence[str], role: Role, suites: Sequence[SuiteFile]) -> Iterator[Scorecard]:
    def work(artifact: str) -> Scorecard:
        folder = desk.workspace.work_folder(f"{role}-{artifact[:16]}")
        return score(desk.header, _subject(desk, artifact), role, suites, folder, desk.worker_limits())

    yield from in_order(work, missing)


def _subject(desk: Desk, artifact: str) -> Subject:
    return Subject(artifact, desk.workspace.blob_path(artifact), desk.model(artifact))
