"""Which registered models may be parents: approved, for this cluster, today. Everyone else is named with a reason.

One rule for everything that is bred from, `unapproved`: whatever is registered and used as base or parent was approved by
a person, and so was every registered source that something bred here descends from. What the champion is, or descends
from, may have its approval in its history, an ended one or one for other clusters: it is deployed already, and a round
that works on it brings in nothing that no person let in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

from studbook.errors import OutOfOrder
from studbook.records import Excluded, ParentApproval, SourceManifest

__all__ = ["Selection", "require_approved", "select_approved_parents", "unapproved"]


class Selection(NamedTuple):
    """The parents of a round.

    Attributes:
        parents: Artifact digests in order of registration.
        excluded: Every other registered model, with the reason.
    """

    parents: tuple[str, ...]
    excluded: tuple[Excluded, ...]


def select_approved_parents(
    cluster: str,
    sources: Mapping[str, tuple[str, SourceManifest]],
    approvals: Iterable[ParentApproval],
    base: str,
    today: date,
    revoked: Mapping[str, str] = MappingProxyType({}),
) -> Selection:
    """Registered is not approved.

    Args:
        cluster: Label of the failure cluster.
        sources: Registered models: artifact digest -> (manifest digest, manifest).
        approvals: Every approval in the ledger, oldest first; the newest for a model counts.
        base: The shared base; it is what parents differ from, so it is not one of them.
        today: The day the approval must cover.
        revoked: Artifact digest -> why it counts no longer.
    """
    newest = {a.artifact: a for a in approvals}
    parents: list[str] = []
    excluded: list[Excluded] = []
    for artifact, (digest, manifest) in sources.items():
        reason = revoked.get(artifact) or _reason(cluster, digest, newest.get(artifact), artifact == base, today)
        if reason:
            excluded.append(Excluded(artifact=artifact, name=manifest.name, reason=reason))
        else:
            parents.append(artifact)
    return Selection(tuple(parents), tuple(excluded))


def unapproved(
    cluster: str,
    used: Mapping[str, tuple[str, SourceManifest]],
    approvals: Iterable[ParentApproval],
    today: date = date.max,
    deployed: Collection[str] = (),
) -> tuple[Excluded, ...]:
    """What is used as base or parent although no person approved it; empty where breeding may begin.

    Args:
        cluster: Label of the failure cluster; a name of no cluster asks for an approval for all of them.
        used: Registered sources that are used: artifact digest -> (manifest digest, manifest).
        approvals: Every approval in the ledger, oldest first.
        today: The day the newest approval must cover; only of interest to what is not ``deployed``.
        deployed: Sources that the champion is or descends from: any approval they ever had counts.
    """
    given = list(approvals)
    newest, ever = {a.artifact: a for a in given}, {a.artifact for a in given}
    found: list[Excluded] = []
    for artifact, (digest, manifest) in used.items():
        if artifact in deployed and artifact in ever:
            continue
        if reason := _reason(cluster, digest, newest.get(artifact), False, today):
            found.append(Excluded(artifact=artifact, name=manifest.name, reason=reason))
    return tuple(found)


def require_approved(
    cluster: str,
    used: Mapping[str, tuple[str, SourceManifest]],
    approvals: Iterable[ParentApproval],
    today: date = date.max,
    deployed: Collection[str] = (),
) -> None:
    """Refuse to breed from what no person approved; arguments as for `unapproved`.

    Raises:
        OutOfOrder: naming the first source, why it does not count as approved, and who can change that.
    """
    for excluded in unapproved(cluster, used, approvals, today, deployed):
        raise OutOfOrder(
            f"{excluded.name} {excluded.reason}",
            where=f"source {excluded.artifact[:16]}",
            advice=f"A person approves it: studbook approve {excluded.name} --as PERSON",
            reason="order.approval",
        )


def _reason(cluster: str, digest: str, approval: ParentApproval | None, is_base: bool, today: date) -> str:
    if is_base:
        return "is the shared base"
    if approval is None:
        return "is registered but nobody approved it as a parent"
    if approval.source != digest:
        return "was registered again since it was approved"
    if not {"*", cluster} & set(approval.clusters):
        return f"is approved for {', '.join(approval.clusters)} only, not for {cluster}"
    # Days in this form sort as texts do, the 31st of February included.
    if approval.until < today.isoformat():
        return f"its approval ended on {approval.until}"
    return ""
