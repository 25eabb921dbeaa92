"""Whom a decision has to speak of: every registered model is a parent it was held against, or left out with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from studbook.errors import OutOfOrder, ParentsDoNotFit, UsageError
from studbook.lab.approvals import require_approved, select
from studbook.lab.descendants import bred_parents, descendants
from studbook.lab.desk import Desk
from studbook.lab.sources import require_model, slice_of
from studbook.records import (
    FailureCluster,
    LineageTemplate,
    ModelSource,
    SourceManifest,
    ViabilityDecision,
)
from studbook.registry.approval import Selection

__all__ = ["check_offered", "named_models", "select_approved_parents", "shared_base"]


def select_approved_parents(desk: Desk, label: str, base: str, names: Sequence[str] | None, today: date) -> Selection:
    """The approved parents; all of them stand as baselines, whoever is named to breed from.

    Named may also be models bred here, where the policy lets them have children.

    Raises:
        UsageError: if a name is nobody's, an adapter's, or stands twice.
        OutOfOrder: if nobody is approved, or a named model is not; the reason is the first exclusion's.
    """
    selection = select(desk, label, base, today)
    if names is not None:
        bred = descendants(desk)
        for artifact in named_models(desk, names):
            if artifact in bred:
                require_approved(desk, label, (artifact,), today)
            elif artifact not in selection.parents:
                reason = next((e.reason for e in selection.excluded if e.artifact == artifact), "is not registered")
                raise OutOfOrder(
                    f"{desk.name_of(artifact)} {reason}",
                    advice=f"Unless it is the shared base: studbook approve {desk.name_of(artifact)} --as PERSON",
                    reason="order.approval",
                )
        return selection
    if not selection.parents:
        reasons = "; ".join(f"{e.name} {e.reason}" for e in selection.excluded) or "nothing is registered"
        raise OutOfOrder(
            f"no approved parent for {label}: {reasons}",
            advice="Register models and approve them: studbook approve NAME --as PERSON",
            reason="order.approval",
        )
    return selection


def named_models(desk: Desk, names: Sequence[str]) -> tuple[str, ...]:
    """The artifacts some names stand for, each a model and named once.

    Raises:
        UsageError: naming the one that is not.
    """
    found: dict[str, str] = {}
    for name in names:
        artifact = desk.find_model(name)
        require_model(desk, artifact)
        if artifact in found:
            same = "" if found[artifact] == name else f", as {found[artifact]}"
            raise UsageError(f"{name!r} is named twice{same}", advice="Name every model once.", reason="usage.twice")
        found[artifact] = name
    return tuple(found)


def shared_base(desk: Desk, parents: Sequence[str]) -> str:
    """The base that the first of some parents declares to be tuned from; the champion where none declares one.

    Args:
        desk: The lab.
        parents: Digests of the parents.

    Raises:
        ParentsDoNotFit: if the declared base is not registered.
        OutOfOrder: if none is declared, and there is no champion.
    """
    registered = desk.sources()
    for artifact in parents:
        base = _declared(desk, artifact)
        if base is not None and base not in registered:
            raise ParentsDoNotFit(
                f"{desk.name_of(artifact)} was tuned from {base[:12]}..., which is not registered",
                advice="Register its base model too.",
            )
        if base is not None:
            return base
    return desk.champion()


def check_offered(desk: Desk, record: ViabilityDecision, time: datetime) -> None:
    """Refuse a decision whose parents and left-out models are not the ones that approvals give.

    Naming parents for a round settles what is bred from, and which base they share; every approved parent stands as a
    baseline all the same. So both lists follow from the ledger, the cluster and a base that the cluster's slice fits.

    Args:
        desk: The lab as it is before the decision.
        record: The decision.
        time: When it enters, in UTC. Approvals are asked for when a round begins, so the day before will do as well.

    Raises:
        OutOfOrder: naming the first model that is not where it should be; ``decision.parents``.
    """
    cluster = desk.workspace.get(record.cluster, FailureCluster)
    unknown = _void_artifacts(desk)
    # Behind the approved parents stand those that were bred here: they follow from the candidates, not from approvals.
    bred = bred_parents(desk, (s.manifest for s in record.standings))
    approved = record.parents[: len(record.parents) - len(bred)] if record.parents[-len(bred) :] == bred else ()
    parents = approved if bred else record.parents
    stated = Selection(parents, tuple(e for e in record.excluded if e.artifact not in unknown))
    first: tuple[str, Selection] | None = None
    for day in (time.date(), time.date() - timedelta(days=1)):
        for base in _bases(desk):
            found = select(desk, cluster.label, base, day)
            declared = (_declared(desk, p) for p in found.parents)
            fits = slice_of(desk, cluster.label, base) == (cluster.data, cluster.training_slice)
            if not fits or (base != record.champion and base not in declared):
                continue
            if found == stated:
                return
            first = first or (day.isoformat(), found)
    what = _difference(desk, stated, *first) if first else "no approved parent was tuned from a base with its data"
    raise OutOfOrder(
        what,
        where="viability-decision: parents, excluded",
        advice="Run the round again; what was bred and scored already is not done twice.",
        reason="decision.parents",
    )


def _declared(desk: Desk, artifact: str) -> str | None:
    found = desk.sources().get(artifact)
    if found is None and (bred := next((c for _, c in desk.candidates() if c.artifact.sha256 == artifact), None)):
        return _declared_by(desk, desk.workspace.get(bred.template, LineageTemplate).base)
    source = found[1].source if found else None
    return source.base if isinstance(source, ModelSource) else None


def _declared_by(desk: Desk, base: str) -> str | None:
    """What a model bred here is the difference of: its template's base, or that one's, back to a registered model."""
    return base if base in desk.registered() else _declared(desk, base)


def _bases(desk: Desk) -> list[str]:
    """What the parents of a round can share, the champion last."""
    declared = (_declared(desk, artifact) for artifact in desk.sources())
    return list(dict.fromkeys((*(base for base in declared if base), desk.champion())))


def _void_artifacts(desk: Desk) -> set[str]:
    """What only a key that was revoked since registered: a decision before that had to name it, and cannot now."""
    kind = SourceManifest.kind()
    void = (e for e in desk.entries() if e.record_kind == kind and desk.workspace.void(e))
    return {blob.sha256 for entry in void for blob in entry.blobs} - desk.registered().keys()


def _difference(desk: Desk, stated: Selection, day: str, found: Selection) -> str:
    """The first model, in order of registration, that a decision does not speak of as the approvals of a day do."""
    said = {e.artifact: e.reason for e in stated.excluded} | dict.fromkeys(stated.parents, "was approved as a parent")
    due = {e.artifact: e.reason for e in found.excluded} | dict.fromkeys(found.parents, "was approved as a parent")
    for artifact in (*(a for a in desk.sources() if a in due), *said):
        if said.get(artifact) != due.get(artifact):
            told = f"it says: {said[artifact]}" if artifact in said else "it is not spoken of"
            return f"on {day}, {desk.name_of(artifact)} {due.get(artifact, 'was no registered model')}; {told}"
    return "its parents or the models left out do not stand in order of registration, each once"
