"""What went out, who let it, and how it comes back."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Digest, Name, Record, Rung, Text, Zone
from studbook.records.sources import Check

__all__ = [
    "AdmissionRecord",
    "ChampionPromotion",
    "Channel",
    "ChannelSnapshot",
    "Deployment",
    "Gate",
    "PromotionTemplate",
    "PublishedChannel",
    "ReadinessRecord",
    "ReleaseRecord",
    "RollbackRecord",
    "RollbackSet",
    "Stage",
    "StageApproval",
]

Channel = Literal["shadow", "canary", "champion"]
Stage = Literal["package", "shadow", "canary", "champion"]
"""What a candidate may be ready for; ``package`` is no channel."""
Moment = Annotated[
    str,
    Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z", description="a moment in UTC, ISO 8601"),
]
Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gate before a stage.

    Attributes:
        name: What it asks.
        status: passed, pending or failed; nothing is admitted while one is pending or failed.
        evidence: Digest of the record that settles it; null while it is pending.
        satisfied_by: Who may settle it: a key's zone, ``person``, or ``time``.
        detail: In words.
    """

    name: Name
    status: Literal["passed", "pending", "failed"]
    evidence: Digest | None
    satisfied_by: Name
    detail: Text


class StageApproval(Record, frozen=True, kw_only=True, tag="stage-approval/1"):
    """A person agrees that a candidate enters a stage; good for one decision and one place in its life only.

    Attributes:
        stage: The stage.
        artifact: Digest of the candidate.
        decision: Digest of the ViabilityDecision that chose it, which names policy, suites and champion.
        standing: Digest of the candidate's last move in any channel; null when it never moved. Once it moves again, an
            approval given before counts no longer.
        approved_by: The person.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    stage: Channel
    artifact: Digest
    decision: Digest
    standing: Digest | None
    approved_by: Name
    reason: Text

    def subjects(self) -> tuple[str, ...]:
        """The candidate."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """The decision, and the last move."""
        return tuple(d for d in (self.decision, self.standing) if d)


class PromotionTemplate(Record, frozen=True, kw_only=True, tag="promotion-template/1"):
    """Readiness of one candidate for one stage.

    Attributes:
        stage: What it is for: a channel, or ``package`` for a specialist.
        artifact: Digest of the candidate.
        manifest: Digest of its CandidateManifest.
        decision: Digest of the ViabilityDecision.
        gates: Every gate.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    stage: Stage
    artifact: Digest
    manifest: Digest
    decision: Digest
    gates: tuple[Gate, ...]

    def subjects(self) -> tuple[str, ...]:
        """The candidate."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """Manifest, decision and evidence of every gate."""
        return (self.manifest, self.decision, *(g.evidence for g in self.gates if g.evidence))

    @property
    def open_gates(self) -> tuple[Gate, ...]:
        """The gates that are not passed."""
        return tuple(g for g in self.gates if g.status != "passed")


class AdmissionRecord(Record, frozen=True, kw_only=True, tag="admission-record/1"):
    """A candidate whose every gate passed, admitted to the channels, or as a specialist to be packaged alone.

    Attributes:
        artifact: Digest of the candidate.
        template: Digest of the PromotionTemplate.
        claim: The rung of the gate ladder it may claim.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    artifact: Digest
    template: Digest
    claim: Rung

    def subjects(self) -> tuple[str, ...]:
        """The candidate."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """The template."""
        return (self.template,)


class Deployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What works together with a model in a channel; null where there is none.

    Attributes:
        package: Revision of the SkillPackage that the model is served as.
        router: Digest of the record of the router's state.
        thresholds: Digest of the record of the thresholds it is routed by.
        stack: Digests of the adapter packages on the model, in order.
        cache: Key of what may be cached for it; what lies under another key is not read.
    """

    package: Digest | None
    router: Digest | None
    thresholds: Digest | None
    stack: tuple[Digest, ...]
    cache: Digest | None

    @property
    def records(self) -> tuple[str, ...]:
        """Digests of the records that it names."""
        return tuple(d for d in (self.package, self.router, self.thresholds) if d)


class RollbackSet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be put back to undo a move.

    Attributes:
        artifact: Digest of what the channel pointed at before; null when it was empty.
        record: Digest of the record that had put it there.
        deployment: What worked together with it.
    """

    artifact: Digest | None
    record: Digest | None
    deployment: Deployment


class ReleaseRecord(Record, frozen=True, kw_only=True, tag="release-record/1"):
    """A channel below champion moves; may be signed by a running process.

    Attributes:
        channel: ``shadow`` or ``canary``.
        artifact: Digest of what it points at now.
        admission: Digest of the AdmissionRecord.
        deployment: What works together with it.
        rollback: The way back.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    channel: Literal["shadow", "canary"]
    artifact: Digest
    admission: Digest
    deployment: Deployment
    rollback: RollbackSet

    def subjects(self) -> tuple[str, ...]:
        """The artifact."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """Admission, what is deployed with it, and the record before."""
        return tuple(d for d in (self.admission, *self.deployment.records, self.rollback.record) if d)


class ChampionPromotion(Record, frozen=True, kw_only=True, tag="champion-promotion/1"):
    """The champion changes: an explicit act of a person's key.

    Attributes:
        basis: ``first`` installs an approved source where there was no champion; ``promotion`` follows the stage before.
        artifact: Digest of the new champion.
        evidence: Digest of the PromotionTemplate for champion, or of the ParentApproval for ``first``.
        promoted_by: The person.
        reason: Why.
        deployment: What works together with it.
        rollback: The way back.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    basis: Literal["first", "promotion"]
    artifact: Digest
    evidence: Digest
    promoted_by: Name
    reason: Text
    deployment: Deployment
    rollback: RollbackSet

    def subjects(self) -> tuple[str, ...]:
        """The new champion."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """Evidence, what is deployed with it, and the record before."""
        return tuple(d for d in (self.evidence, *self.deployment.records, self.rollback.record) if d)


class RollbackRecord(Record, frozen=True, kw_only=True, tag="rollback-record/1"):
    """A channel goes back to what it pointed at before.

    Attributes:
        channel: The channel.
        artifact: Digest of what it points at now.
        deployment: What works together with it; all of it is as it was.
        undone: Digest of the record that is undone.
        restored: Digest of the record whose state is restored; null when the channel is emptied.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    channel: Channel
    artifact: Digest | None
    deployment: Deployment
    undone: Digest
    restored: Digest | None
    reason: Text

    def subjects(self) -> tuple[str, ...]:
        """The restored artifact."""
        return (self.artifact,) if self.artifact else ()

    def references(self) -> tuple[str, ...]:
        """The record undone and the one restored."""
        return tuple(d for d in (self.undone, self.restored) if d)


class ReadinessRecord(Record, frozen=True, kw_only=True, tag="readiness-record/1"):
    """The five exit criteria run over the whole lab.

    Attributes:
        entries: Ledger entries it speaks about.
        head: Digest of the last of them.
        criteria: reproduce, reject, explain, verify, rollback: one row each.
        ready: All hold.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    entries: Annotated[int, Meta(ge=0)]
    head: Digest
    criteria: tuple[Check, ...]
    ready: bool


class PublishedChannel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one channel offers to those outside the lab.

    Attributes:
        channel: The channel.
        artifact: SHA-256 and bytes of its one file.
        record: Digest of the record that moved the channel there.
        lineage: Digests of one manifest of every model it descends from, itself not, sorted; empty for a source.
    """

    channel: Channel
    artifact: Blob
    record: Digest
    lineage: tuple[Digest, ...]


class ChannelSnapshot(Record, frozen=True, kw_only=True, tag="channel-snapshot/1"):
    """What the channels offer at one position of the ledger, for those who do not have the lab.

    It is a ledger entry itself, and the last one in the checkpoint that is published with it, so its version is counted
    by the ledger. Version, expiry and the list of what belongs together follow the snapshot and timestamp roles of The
    Update Framework 1.0, section 4.

    Attributes:
        lab: The lab's identity.
        snapshot_version: Counts up by one.
        expires: The moment from which on it counts no longer.
        root_version: Version of the root of keys in force.
        entries: Ledger entries before this one; also its own position.
        tree: Root of the Merkle tree over them.
        previous: Digest of the snapshot before; null for the first.
        channels: Every channel that offers something.
        revocations: Digests of every Revocation in force, in the order of the ledger.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    lab: Digest
    snapshot_version: Number
    expires: Moment
    root_version: Number
    entries: Number
    tree: Digest
    previous: Digest | None
    channels: tuple[PublishedChannel, ...]
    revocations: tuple[Digest, ...]

    def subjects(self) -> tuple[str, ...]:
        """The artifacts, each once."""
        return tuple(dict.fromkeys(c.artifact.sha256 for c in self.channels))

    def references(self) -> tuple[str, ...]:
        """The snapshot before, moves and lineage of the channels, and the revocations."""
        rests = (d for c in self.channels for d in (c.record, *c.lineage))
        return tuple(dict.fromkeys(d for d in (self.previous, *rests, *self.revocations) if d))
