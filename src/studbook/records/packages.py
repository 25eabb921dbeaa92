"""Small models as packages: what each needs and may do, what a host allows, and which of them answers for what."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Digest, JsonObject, Measure, Name, Record, Text, Zone
from studbook.records.decisions import Comparison
from studbook.records.sources import Check

__all__ = [
    "Compatibility",
    "Envelope",
    "Expert",
    "ExpertPartition",
    "Overlap",
    "PackageEvent",
    "PackageEvidence",
    "PackageId",
    "PackageState",
    "RuntimeContract",
    "SemanticVersion",
    "SkillPackage",
]

PackageId = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}\Z", description="lowercase letters, digits, dots and hyphens")
]
SemanticVersion = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})"
        r"(-[0-9A-Za-z-]{1,16}(\.[0-9A-Za-z-]{1,16}){0,3})?\Z",
        description="MAJOR.MINOR.PATCH, with a pre-release or without (Semantic Versioning 2.0.0)",
    ),
]
PackageState = Literal["installed", "verified", "resident", "active", "suspended", "retired", "quarantined"]
"""Where a package stands in its life."""
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Compatibility(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to run a package.

    Attributes:
        slm: Version of the SLM container.
        engine: Digest of the engine it was smoked with.
        abi: Version of that engine's interface.
    """

    slm: Count
    engine: Digest
    abi: Count


class Envelope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package takes, in bytes; every number says how it was obtained.

    Attributes:
        file_bytes: Of its file, and of the files of its stack.
        decoded_bytes: Of its weights, decoded and fused.
        kv_bytes_per_position: Of the cache of one session, a position.
        scratch_bytes: Of what the engine works in, beside weights and caches.
    """

    file_bytes: Measure
    decoded_bytes: Measure
    kv_bytes_per_position: Measure
    scratch_bytes: Measure


class PackageEvidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package was made on.

    Attributes:
        basis: ``admission`` of a candidate bred here, or a person's ``approval`` of a source.
        record: Digest of the AdmissionRecord or ParentApproval.
        smoke: Digest of its RuntimeSmoke.
        scorecards: Digests of its Scorecards, the selection one first.
    """

    basis: Literal["admission", "approval"]
    record: Digest
    smoke: Digest
    scorecards: tuple[Digest, ...]


class SkillPackage(Record, frozen=True, kw_only=True, tag="skill-package/1"):
    """A model that may answer for some clusters, with what it needs; the digest of the record is its revision.

    Attributes:
        id: Its stable name.
        package_version: Its semantic version; a later revision of an id has a higher one.
        artifact: The model's file.
        base: Digest of the model it descends from and shares the layout with; null where there is none.
        tokenizer: Digest of its tokenizer section.
        stack: Digests of the adapter packages on the artifact, in order; usually none.
        clusters: What it may answer for, sorted.
        requires: Ids of the packages it does not answer without.
        input: JSON Schema of the text that goes in.
        output: JSON Schema of the text that comes out.
        permissions: What it asks to be allowed, sorted.
        licence: SPDX identifier.
        envelope: What it takes.
        evidence: What it was made on.
        unsupported: What it does not do.
        trade_offs: What was given up.
        fallback: Id of the package to ask instead; null where that is the champion.
        rollback: Revision of the same id before this one; null for the first.
        compatibility: What has to run it.
    """

    zone: ClassVar[Zone] = Zone.HOST
    id: PackageId
    package_version: SemanticVersion
    artifact: Blob
    base: Digest | None
    tokenizer: Digest
    stack: tuple[Digest, ...]
    clusters: tuple[Name, ...]
    requires: tuple[PackageId, ...]
    input: JsonObject
    output: JsonObject
    permissions: tuple[Name, ...]
    licence: Name
    envelope: Envelope
    evidence: PackageEvidence
    unsupported: tuple[Text, ...]
    trade_offs: tuple[Text, ...]
    fallback: PackageId | None
    rollback: Digest | None
    compatibility: Compatibility

    def subjects(self) -> tuple[str, ...]:
        """The model, and the adapter packages on it."""
        return (self.artifact.sha256, *self.stack)

    def references(self) -> tuple[str, ...]:
        """The evidence, and the revision before."""
        found = (self.evidence.record, self.evidence.smoke, *self.evidence.scorecards, self.rollback)
        return tuple(d for d in found if d)


class PackageEvent(Record, frozen=True, kw_only=True, tag="package-event/1"):
    """One step in the life of a package.

    Attributes:
        package: Its revision.
        before: Where it stood; null where it was not installed.
        after: Where it stands now.
        previous: Digest of its event before; null for the first.
        contract: Digest of the RuntimeContract it was held against.
        checks: What was looked at on the way; none where a person's word is enough.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.HOST
    package: Digest
    before: PackageState | None
    after: PackageState
    previous: Digest | None
    contract: Digest
    checks: tuple[Check, ...]
    reason: Text

    def references(self) -> tuple[str, ...]:
        """The package, its event before, and the contract."""
        return tuple(d for d in (self.package, self.previous, self.contract) if d)


class RuntimeContract(Record, frozen=True, kw_only=True, tag="runtime-contract/1"):
    """The most that any package may do or take on a host; a person's word.

    Attributes:
        contract_version: Counts up by one at every change.
        permissions: What may be allowed at all, sorted.
        licences: SPDX identifiers that are accepted, sorted.
        maximum_packages: Most packages that are installed.
        maximum_bytes: Most bytes of one package's files.
        maximum_decoded_bytes: Most bytes of one package's weights, decoded.
        agreed_by: The person.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.HOST
    contract_version: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    permissions: tuple[Name, ...]
    licences: tuple[Name, ...]
    maximum_packages: Count
    maximum_bytes: Count
    maximum_decoded_bytes: Count
    agreed_by: Name
    reason: Text


class Expert(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One specialist of a partition.

    Attributes:
        id: Id of its package.
        package: The package's revision.
        artifact: Digest of its model.
        clusters: What it answers for in the partition, sorted; within what its package may answer for.
        scorecard: Digest of its selection scorecard.
    """

    id: PackageId
    package: Digest
    artifact: Digest
    clusters: tuple[Name, ...]
    scorecard: Digest


class Overlap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What two specialists answer to the same items, as their scorecards say.

    Attributes:
        first: Id of one package.
        second: Id of the other.
        items: Items both were scored on.
        both_right: Items both got right.
        neither: Items both got wrong.
        first_only: Items only the first got right.
        second_only: Items only the second got right.
        agreement: Share of the items on which both were right or both were wrong.
        both_right_share: Share of the items both got right.
    """

    first: PackageId
    second: PackageId
    items: Count
    both_right: Count
    neither: Count
    first_only: Count
    second_only: Count
    agreement: Share
    both_right_share: Share


class ExpertPartition(Record, frozen=True, kw_only=True, tag="expert-partition/1"):
    """Disjoint clusters and the specialists that answer for them.

    Attributes:
        made_by: ``declare`` for what people put together; ``split`` and ``merge`` change the partition before.
        previous: Digest of the partition before; null where it was declared anew.
        suites: Digest of the SuitesLock whose task clusters it divides.
        labels: Every task cluster of that lock, sorted.
        experts: The specialists, sorted by id.
        uncovered: Task clusters that none of them answers for, sorted.
        coverage: Share of the task clusters that one of them answers for.
        overlaps: One a pair of specialists, in their order.
        comparisons: What a merge had to show: no worse than either specialist on that one's clusters; none otherwise.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.HOST
    made_by: Literal["declare", "split", "merge"]
    previous: Digest | None
    suites: Digest
    labels: tuple[Name, ...]
    experts: tuple[Expert, ...]
    uncovered: tuple[Name, ...]
    coverage: Share
    overlaps: tuple[Overlap, ...]
    comparisons: tuple[Comparison, ...]
    reason: Text

    def subjects(self) -> tuple[str, ...]:
        """The specialists' models, each once."""
        return tuple(dict.fromkeys(e.artifact for e in self.experts))

    def references(self) -> tuple[str, ...]:
        """The partition before, the lock, packages and scorecards."""
        cited = (d for e in self.experts for d in (e.package, e.scorecard))
        against = (d for c in self.comparisons for d in c.scorecards)
        return tuple(dict.fromkeys(d for d in (self.previous, self.suites, *cited, *against) if d))
