"""Who may be bred from: approvals by people, and what was revoked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Literal

from studbook.errors import OutOfOrder, UsageError, printable
from studbook.lab import clock
from studbook.lab.desk import Desk
from studbook.lab.words import plain_name, plain_text
from studbook.records import ParentApproval
from studbook.registry.approval import Selection, select_approved_parents
from studbook.registry.approval import require_approved as require_all_approved

__all__ = ["approve", "require_approved", "require_unrevoked", "select", "stage_of"]

_STAGES: tuple[Literal["shadow", "canary", "champion"], ...] = ("shadow", "canary", "champion")


def approve(desk: Desk, name: str, person: str, clusters: Sequence[str], until: str, reason: str) -> ParentApproval:
    """A person approves a registered model as a parent.

    Raises:
        UsageError: if there is no such registered model, a cluster's label is none, or the day has passed.
        NotAuthorised: if the person's key is not at hand.
    """
    artifact = desk.find_model(name)
    sources = desk.registered()
    until = until or (clock.today() + timedelta(days=365)).isoformat()
    try:
        passed = date.fromisoformat(until) < clock.today()
        passed = passed or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", until)
    except ValueError as error:
        raise UsageError(f"{printable(until)!r} is not a day such as 2027-01-31", where="--until") from error
    if passed:
        raise UsageError(f"{until} has passed already, or is not written as 2027-01-31", where="--until")
    approval = ParentApproval(
        header=desk.header,
        artifact=artifact,
        source=sources[artifact][0],
        approved_by=plain_name(person, "--as"),
        clusters=tuple(c if c == "*" else plain_name(c, "--for") for c in clusters) or ("*",),
        until=until,
        reason=plain_text(reason, "--reason"),
    )
    desk.workspace.commit(approval, owner=person)
    return approval


def stage_of(desk: Desk, name: str, words: Sequence[str], until: str) -> Literal["shadow", "canary", "champion"] | None:
    """The stage that an approval is for; None where a registered source is approved as a parent.

    What was bred here and registered too may get either, and the words say which.

    Args:
        desk: The lab.
        name: The model or candidate.
        words: What it is approved for: clusters of a source, one stage of a candidate.
        until: Last day that was asked for; an approval before a stage has none.

    Raises:
        UsageError: if a source is approved for a stage, or a candidate for anything else.
    """
    stages = [stage for stage in _STAGES if stage in words]
    artifact = desk.find_model(name)
    bred = any(c.artifact.sha256 == artifact for _, c in desk.candidates())
    if artifact in desk.registered() and not (bred and stages):
        if stages:
            advice = "A registered source is approved as a parent, for clusters; stages are for winners of a round."
            raise UsageError(f"{name!r} was registered, not bred here", where=f"--for {stages[0]}", advice=advice)
        return None
    if len(words) != 1 or not stages or until:
        advice = "Only registered sources are approved as parents. Before a stage: --for shadow, canary or champion."
        raise UsageError(f"{name!r} is a candidate, approved for one stage and no day", where="--for", advice=advice)
    return stages[0]


def select(desk: Desk, cluster: str, base: str, today: date) -> Selection:
    """The approved parents for a cluster, and everybody else with a reason."""
    approvals = [approval for _, approval in desk.unrevoked(ParentApproval)]
    revoked = {a: reason for a in desk.sources() if (reason := desk.revoked(a))}
    return select_approved_parents(cluster, desk.sources(), approvals, base, today, revoked)


def require_approved(desk: Desk, cluster: str, used: Sequence[str], today: date) -> None:
    """Refuse to breed from what no person approved; the rule is `studbook.registry.approval.unapproved`.

    Args:
        desk: The lab.
        cluster: Label of the failure cluster; a name of no cluster asks for an approval for all of them.
        used: Digests of what is used as base or parent, registered or bred here.
        today: The day approvals must cover.

    Raises:
        OutOfOrder: naming the first source that is not approved, or the first model that was revoked.
    """
    for artifact in used:
        require_unrevoked(desk, artifact)
    sources = {f for artifact in used for f in desk.founders_of(artifact)}
    registered = {
        a: found
        for a, found in desk.registered().items()
        if a in sources or getattr(found[1].source, "adapter_sha256", None) in sources
    }
    champion = desk.channels()["champion"].artifact
    deployed = desk.founders_of(champion) if champion else ()
    require_all_approved(cluster, registered, [a for _, a in desk.unrevoked(ParentApproval)], today, deployed)


def require_unrevoked(desk: Desk, artifact: str) -> None:
    """Refuse to go on with a model that was revoked, or that descends from one.

    Raises:
        OutOfOrder: saying which, and why.
    """
    if reason := desk.revoked(artifact):
        raise OutOfOrder(
            f"{desk.name_of(artifact)} {reason}",
            where=artifact[:12],
            advice="Go on with models that have nothing to do with it; a revocation is never undone.",
            reason="order.revoked",
        )
