"""Which registered models may be parents: approved, for this cluster, today. Everyone else is named with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

from studbook.records import Excluded, ParentApproval, SourceManifest

__all__ = ["Selection", "select_approved_parents"]


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
) -> Selection:
    """Registered is not approved.

    Args:
        cluster: Label of the failure cluster.
        sources: Registered models: artifact digest -> (manifest digest, manifest).
        approvals: Every approval in the ledger, oldest first; the newest for a model counts.
        base: The shared base; it is what parents differ from, so it is not one of them.
        today: The day the approval must cover.
    """
    newest = {a.artifact: a for a in approvals}
    parents: list[str] = []
    excluded: list[Excluded] = []
    for artifact, (digest, manifest) in sources.items():
        reason = _reason(cluster, digest, newest.get(artifact), artifact == base, today)
        if reason:
            excluded.append(Excluded(artifact=artifact, name=manifest.name, reason=reason))
        else:
            parents.append(artifact)
    return Selection(tuple(parents), tuple(excluded))


def _reason(cluster: str, digest: str, approval: ParentApproval | None, is_base: bool, today: date) -> str:
    if is_base:
        return "is the shared base"
    if approval is None:
        return "is registered but nobody approved it as a parent"
    if approval.source != digest:
        return "was registered again since it was approved"
    if not {"*", cluster} & set(approval.clusters):
        return f"is approved for {', '.join(approval.clusters)} only, not for {cluster}"
    if date.fromisoformat(approval.until) < today:
        return f"its approval ended on {approval.until}"
    return ""
