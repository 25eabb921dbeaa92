"""What a package may be made on: a candidate that was admitted, or a source that a person approved; both still in force."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal, NamedTuple

from studbook.breeding.operators.quantise import Quantise
from studbook.errors import OutOfOrder, OutsideAllowlist, ParentsDoNotFit, UsageError
from studbook.lab.absence import check_not_withdrawn
from studbook.lab.approvals import require_approved, require_unrevoked
from studbook.lab.desk import Desk
from studbook.lab.evaluators import in_force, stale
from studbook.lab.routing import kept_inside
from studbook.records import (
    AdapterSource,
    AdmissionRecord,
    ConfirmationRecord,
    FailureCluster,
    LineageTemplate,
    ModelSource,
    ParentApproval,
    Policy,
    PromotionTemplate,
    RuntimeSmoke,
    SuiteManifest,
    ViabilityDecision,
    digest,
)
from studbook.release import decided_against

__all__ = ["Basis", "base_of", "basis", "quantised_from", "smoke_of", "stack_of", "task_labels"]

_JUDGES = ("budget", "gates", "utility", "reserve", "licences", "minimum_isolation", "recompute", "protected")
"""What of a policy decides who wins."""


class Basis(NamedTuple):
    """What a package is made on.

    Attributes:
        kind: ``admission`` or ``approval``.
        record: Digest of the AdmissionRecord or ParentApproval.
        scorecards: Digests of the scorecards that the admission rests on; none for a source.
    """

    kind: Literal["admission", "approval"]
    record: str
    scorecards: tuple[str, ...]


def task_labels(desk: Desk) -> tuple[str, ...]:
    """Every cluster that a frozen task suite judges, sorted.

    Raises:
        OutOfOrder: if no suite is frozen.
    """
    suites = (desk.workspace.get(d, SuiteManifest) for d in desk.suites_lock[1].suites)
    return tuple(sorted({s.cluster for s in suites if s.dimension == "task"}))


def basis(desk: Desk, artifact: str, clusters: Sequence[str], day: date) -> Basis:
    """What carries an artifact as a package for some clusters.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        clusters: What it shall answer for.
        day: The UTC day an approval has to cover.

    Raises:
        OutOfOrder: if it was revoked or withdrawn, or nothing in force carries it for all of them; ``package.basis``.
        OutsideAllowlist: if an offline operator made it; ``package.offline``.
        UsageError: if a cluster is none that a frozen suite judges.
    """
    require_unrevoked(desk, artifact)
    check_not_withdrawn(desk, artifact)
    known = task_labels(desk)
    if strange := sorted(set(clusters) - set(known)):
        advice = f"Known labels: {', '.join(known)}."
        raise UsageError(f"no frozen task suite has the label {strange[0]!r}", advice=advice, reason="usage.cluster")
    if why := kept_inside(desk, artifact):
        raise OutsideAllowlist(why, where=desk.name_of(artifact), reason="package.offline")
    registered = artifact in desk.sources()
    return _approved(desk, artifact, clusters, day) if registered else _admitted(desk, artifact, clusters)


def base_of(desk: Desk, artifact: str) -> str | None:
    """Digest of the model that an artifact descends from and shares the layout with, as its manifest says; None for none."""
    if held := desk.sources().get(artifact):
        source = held[1].source
        return source.base if isinstance(source, ModelSource) else None
    template = _template(desk, artifact)
    return template.base if template else None


def quantised_from(desk: Desk, artifact: str) -> str | None:
    """Digest of the f32 model that a build bred here was quantised from, as its receipt says; None for what is none."""
    template = _template(desk, artifact)
    quantised = template is not None and template.operator.get("operator") == Quantise.tag()
    return template.parents[0] if template and quantised else None


def smoke_of(desk: Desk, artifact: str) -> tuple[str, RuntimeSmoke]:
    """Digest and record of the newest smoke of a model by the evaluator in force that counts.

    Raises:
        OutOfOrder: if there is none, or it did not pass; ``order.smoke``.
    """
    judge = in_force(desk)
    found = [(d, s) for d, s in desk.unrevoked(RuntimeSmoke) if (s.artifact, s.evaluator) == (artifact, judge)]
    if not found or not found[-1][1].passed:
        name = desk.name_of(artifact)
        advice = f"Have it measured: studbook evaluate {artifact[:12]}"
        text = f"{name} did not pass its runtime smoke under the evaluator in force"
        raise OutOfOrder(text, where=name, advice=advice, reason="order.smoke")
    return found[-1]


def stack_of(desk: Desk, artifact: str, stack: Sequence[str], clusters: Sequence[str], day: date) -> list[bytes]:
    """The bytes of registered, approved adapter packages that fit a model, in order.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        stack: Digests of the adapters' files.
        clusters: What they have to be approved for.
        day: The UTC day that approvals have to cover.

    Raises:
        UsageError: if one is no registered package.
        ParentsDoNotFit: if one was made for another model.
        OutOfOrder: if one is not approved for all of them.
    """
    base, found = quantised_from(desk, artifact) or artifact, []
    held = {s.adapter_sha256: m for _, m in desk.registered().values() if isinstance(s := m.source, AdapterSource)}
    for adapter in stack:
        manifest = held.get(adapter)
        if manifest is None or not isinstance(source := manifest.source, AdapterSource):
            advice = "Register its source.manifest first."
            raise UsageError("is no registered package", where=adapter[:16], advice=advice, reason="usage.adapter")
        if source.base != base:
            text = f"was made for {desk.name_of(source.base)}, and not for {desk.name_of(base)}"
            raise ParentsDoNotFit(text, where=manifest.name, reason="package.adapter-base")
        for cluster in clusters:
            require_approved(desk, cluster, (manifest.artifact.sha256,), day)
        found.append(desk.workspace.blob(adapter))
    return found


def _template(desk: Desk, artifact: str) -> LineageTemplate | None:
    made = next((c for _, c in reversed(desk.candidates()) if c.artifact.sha256 == artifact), None)
    return desk.workspace.get(made.template, LineageTemplate) if made else None


def _approved(desk: Desk, artifact: str, clusters: Sequence[str], day: date) -> Basis:
    """A source's newest approval, if it covers the day and exactly these clusters lie within it."""
    given = [(d, a) for d, a in desk.unrevoked(ParentApproval) if a.artifact == artifact]
    source = desk.sources()[artifact][0]
    if not given or given[-1][1].until < day.isoformat() or given[-1][1].source != source:
        raise _refused(desk, artifact, "has no approval in force", f"studbook approve {artifact[:12]} --as PERSON")
    name, approval = given[-1]
    if "*" not in approval.clusters and (beyond := sorted(set(clusters) - set(approval.clusters))):
        text = f"is approved for {', '.join(approval.clusters)}, and not for {', '.join(beyond)}"
        raise _refused(desk, artifact, text, f"studbook approve {artifact[:12]} --for {beyond[0]} --as PERSON")
    return Basis("approval", name, ())


def _admitted(desk: Desk, artifact: str, clusters: Sequence[str]) -> Basis:
    """A candidate's newest admission that is in force and carries these clusters."""
    why = "was never admitted"
    for name, admission in reversed(desk.unrevoked(AdmissionRecord)):
        if admission.artifact != artifact:
            continue
        template = desk.workspace.get(admission.template, PromotionTemplate)
        decision = desk.workspace.get(template.decision, ViabilityDecision)
        scope = desk.workspace.get(decision.cluster, FailureCluster).scope or task_labels(desk)
        if beyond := sorted(set(clusters) - set(scope)):
            why = f"was admitted for {', '.join(scope)}, and not for {', '.join(beyond)}"
        elif fallen := _fallen(desk, artifact, decision):
            why = fallen
        else:
            own = next(s for s in decision.standings if s.artifact == artifact)
            return Basis("admission", name, tuple(d for d in (own.selection, own.development) if d))
    raise _refused(desk, artifact, why, "studbook round CLUSTER --specialist")


def _fallen(desk: Desk, artifact: str, decision: ViabilityDecision) -> str:
    """Why an admission's decision does not count any longer; empty where it does.

    A policy that only names other operators, recipes or ways of living judges as the one before; and what a channel points
    at needs to beat nobody else.
    """
    name = digest(decision)
    looks = {d for d, look in desk.all(ConfirmationRecord) if look.decision == name}
    if desk.taken_back() & {name, *decision.references(), *looks}:
        return "rests on a record that was revoked since; hold the round again"
    if stale(desk, decision):
        return "was decided by another evaluator than the one in force; hold the round again"
    if any(state.artifact == artifact for state in desk.channels().values()):
        return ""
    policy, now = desk.policy
    before = desk.workspace.get(decision.policy, Policy)
    alike = all(getattr(before, part) == getattr(now, part) for part in _JUDGES)
    champion = desk.channels()["champion"].artifact
    holds, why = decided_against(decision, champion, decision.policy if alike else policy, desk.suites_lock[0])
    return "" if holds else why


def _refused(desk: Desk, artifact: str, why: str, how: str) -> OutOfOrder:
    name = desk.name_of(artifact)
    return OutOfOrder(
        f"{name} {why}", where="package", advice=f"Only what counts is packaged: {how}", reason="package.basis"
    )
