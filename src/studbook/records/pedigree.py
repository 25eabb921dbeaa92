"""The pedigree's own records: the ledger entry, with clock and host, and what says that bytes were deleted."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from studbook.records.base import Blob, Digest, Name, Record, Text, Zone

__all__ = ["ClearingRecord", "LedgerEntry", "Tombstone"]


class LedgerEntry(Record, frozen=True, kw_only=True, tag="ledger-entry/1"):
    """One line of the ledger: that a record was accepted, when, where, and after which other.

    Attributes:
        sequence: Position, from 0.
        previous: SHA-256 of the line before, without its newline; 64 zeros for the first.
        time: UTC, ISO 8601 with microseconds.
        host: Name of the machine.
        record_zone: Zone of the record.
        record_kind: Kind of the record.
        record: Digest of the record.
        envelope: SHA-256 and size of the envelope file.
        blobs: Files of the store that entered with it.
    """

    zone: ClassVar[Zone] = Zone.AUDIT
    sequence: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    previous: Digest
    time: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")]
    host: Text
    record_zone: Zone
    record_kind: Name
    record: Digest
    envelope: Blob
    blobs: tuple[Blob, ...]


class Tombstone(Record, frozen=True, kw_only=True, tag="tombstone/1"):
    """A model or data were withdrawn: their bytes are deleted for good, and what the ledger says of them stays.

    Attributes:
        withdrawn: Digest of the SourceManifest or CandidateManifest that speaks for them.
        artifact: Digest of the artifact.
        blobs: Files of the store that are deleted; what something else needs too is not among them.
        withdrawn_by: The person whose key signs.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.POLICY
    withdrawn: Digest
    artifact: Digest
    blobs: tuple[Blob, ...]
    withdrawn_by: Name
    reason: Text

    def subjects(self) -> tuple[str, ...]:
        """The artifact."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """The manifest."""
        return (self.withdrawn,)


class ClearingRecord(Record, frozen=True, kw_only=True, tag="clearing-record/1"):
    """Bytes of candidates were deleted to make room; their receipts recompute them at any time.

    Attributes:
        receipts: Digests of the OperatorReceipts, one an artifact.
        blobs: Files of the store that were deleted.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    receipts: tuple[Digest, ...]
    blobs: tuple[Blob, ...]

    def references(self) -> tuple[str, ...]:
        """The receipts."""
        return self.receipts
