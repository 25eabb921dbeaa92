"""The pedigree's own record: the ledger entry. Here, and only here, are clock and host."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from studbook.records.base import Blob, Digest, Name, Record, Text, Zone

__all__ = ["LedgerEntry"]


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
    sequence: Annotated[int, Meta(ge=0)]
    previous: Digest
    time: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")]
    host: Text
    record_zone: Zone
    record_kind: Name
    record: Digest
    envelope: Blob
    blobs: tuple[Blob, ...]
