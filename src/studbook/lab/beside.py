"""The file of records beside a pulled artifact: what carried it there, and what it rests on, for a later look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from studbook.errors import StudbookError
from studbook.files import hash_file, read_file
from studbook.lab.consumer import Publication
from studbook.lab.publication import rests_on
from studbook.records import (
    Blob,
    ChannelSnapshot,
    Digest,
    JsonObject,
    PublishedChannel,
    canonical,
    decode_json,
    digest,
    read_struct,
)
from studbook.seal import peek

__all__ = ["Here", "look", "write_beside"]

_LIMIT = 256 << 20


class _Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One record: its sealed envelope, its ledger line, the proof that the ledger holds it, and its digest."""

    envelope: JsonObject
    line: str
    proof: str
    record: Digest


class _Beside(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="channel-records/1"):
    """``CHANNEL.records.json``: what another person needs to check an artifact against the root of keys.

    Attributes:
        artifact: SHA-256 and bytes of the artifact.
        channel: The channel it was pulled from.
        records: What carries it there, and the snapshot, which stands last.
    """

    artifact: Blob
    channel: str
    records: tuple[_Row, ...]


class Here(NamedTuple):
    """What lies where an artifact was pulled to.

    Attributes:
        rests: Digests whose revocation ends it; empty where no artifact lies there.
        known: Digests of the revocations that its snapshot listed.
    """

    rests: frozenset[str]
    known: frozenset[str]


def write_beside(found: Publication, held: PublishedChannel, evidence: Sequence[str]) -> bytes:
    """The bytes of the file.

    Args:
        found: The publication.
        held: What its channel offers.
        evidence: Digests of the records that carry it there.
    """
    rows = tuple(
        _Row(
            envelope=decode_json(shown.envelope),
            line=shown.line.decode(),
            proof=found.prove(shown.entry).decode(),
            record=named,
        )
        for named, shown in ((named, found.show(named)) for named in (*evidence, digest(found.snapshot)))
    )
    return canonical(_Beside(artifact=held.artifact, channel=held.channel, records=rows))


def look(artifact: Path, records: Path) -> Here:
    """What lies here, as it was when it was pulled.

    A file of records that is gone, is another artifact's, or cannot be read tells nothing: then only the artifact itself
    is known, and no revocation.

    Args:
        artifact: File of the artifact.
        records: File of its records.
    """
    if not artifact.is_file() or artifact.is_symlink():
        return Here(frozenset(), frozenset())
    here = hash_file(artifact)[0]
    try:
        held = read_struct(read_file(records, _LIMIT), _Beside, records)
        found = [peek(canonical(row.envelope), records) for row in held.records]
    except (StudbookError, OSError):
        return Here(frozenset((here,)), frozenset())
    if held.artifact.sha256 != here:
        return Here(frozenset((here,)), frozenset())
    known = {d for record in found if isinstance(record, ChannelSnapshot) for d in record.revocations}
    return Here(rests_on(found) | {here}, frozenset(known))
