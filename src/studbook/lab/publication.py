"""The form of a publication: which files it has, and which records carry an artifact to its channel. No file is touched.

Everything but ``snapshot.json`` has a name that says what it must hold, so a newer publication adds files and changes
none:

* ``roots/N.json``, ``roots/N.line``: every root of keys, sealed, and its ledger line; ``roots/1.json`` is what is pinned.
* ``records/DIGEST.json``, ``records/DIGEST.line``: sealed records and their lines.
* ``tile/0/...``: leaf hashes of the Merkle tree, 256 a file, named as in c2sp.org/tlog-tiles.
* ``artifacts/SHA256``: the files of the channels.
* ``snapshot.json``: the newest snapshot, its line and the checkpoint that ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TypeVar

from msgspec import Struct

from studbook.errors import BytesLie, DigestDiffers, OutOfOrder
from studbook.records import (
    AdmissionRecord,
    CandidateManifest,
    ChampionPromotion,
    ChannelSnapshot,
    LineageTemplate,
    ParentApproval,
    PromotionTemplate,
    PublishedChannel,
    Record,
    ReleaseRecord,
    RollbackRecord,
    SourceManifest,
    ViabilityDecision,
    digest,
)
from studbook.release import check_carried

__all__ = [
    "MOST_DAYS",
    "PARTS",
    "POINTER",
    "POINTER_LIMIT",
    "Pointer",
    "artifact_name",
    "carried",
    "ends_in_time",
    "line_name",
    "manifest_of",
    "record_name",
    "rests_on",
    "root_name",
    "tile_names",
]

MOST_DAYS = 366
"""Days that a snapshot counts at the most: whoever stole its keys holds nobody back for longer with one."""

POINTER = "snapshot.json"
POINTER_LIMIT = 8 << 20
PARTS = frozenset(("artifacts", "records", "roots", "tile"))
_TILE = 256
_ADVICE = "Do not use this publication; tell whoever runs the lab."
R = TypeVar("R", bound=Record)


class Pointer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``snapshot.json`` holds, in canonical JSON: three texts that were signed, each by itself.

    Attributes:
        checkpoint: The signed checkpoint whose last entry is the snapshot.
        envelope: The sealed ChannelSnapshot.
        line: Its ledger line.
    """

    checkpoint: str
    envelope: str
    line: str


def root_name(version: int) -> str:
    """The file of a sealed root of keys."""
    return f"roots/{version}.json"


def record_name(digest: str) -> str:
    """The file of a sealed record."""
    return f"records/{digest}.json"


def line_name(name: str) -> str:
    """The file of the ledger line of a sealed root or record."""
    return name.removesuffix(".json") + ".line"


def artifact_name(digest: str) -> str:
    """The file of an artifact."""
    return f"artifacts/{digest}"


def ends_in_time(record: ChannelSnapshot, entered: str, latest: datetime) -> bool:
    """Whether a snapshot ends no more than `MOST_DAYS` after it entered; False also for a day that no calendar has.

    Args:
        record: The snapshot.
        entered: Time of its ledger entry, UTC. Who dates entries may have stolen the key, so one beyond ``latest``
            counts as that.
        latest: When it can have entered at the latest, UTC.
    """
    try:
        start = min(datetime.fromisoformat(entered), latest)
        return datetime.fromisoformat(record.expires) - start <= timedelta(days=MOST_DAYS)
    except ValueError:
        return False


def tile_names(size: int) -> Iterator[tuple[str, int]]:
    """The files of the leaf hashes of a tree of ``size`` entries, each with the number of hashes it holds.

    Full tiles are ``tile/0/NNN``, the last one ``tile/0/NNN.p/W``; numbers beyond 999 are written in groups of three
    digits, all but the last with an ``x`` (c2sp.org/tlog-tiles).
    """
    for first in range(0, size, _TILE):
        number, width = f"{first // _TILE:03d}", min(_TILE, size - first)
        number = number.zfill(-len(number) // 3 * -3)
        *above, last = (number[i : i + 3] for i in range(0, len(number), 3))
        name = "/".join(("tile/0", *(f"x{group}" for group in above), last))
        yield (name if width == _TILE else f"{name}.p/{width}"), width


def carried(held: PublishedChannel, get: Callable[[str], Record]) -> tuple[str, ...]:
    """The records that carry an artifact to its channel, each held against the one that cites it.

    Args:
        held: What the channel offers.
        get: Gives a verified record by its digest.

    Returns:
        Digests, each once, the move first and the lineage last.

    Raises:
        BytesLie: if one is of another kind than its place wants; ``pull.kind``.
        DigestDiffers: if one speaks of another artifact or channel; ``pull.evidence``.
        OutOfOrder: if a gate is open, or the decision chose another candidate.
        StudbookError: whatever ``get`` raises.
    """
    walk = _Walk(held, get)
    walk.descend(_manifest(walk, held))
    return tuple(dict.fromkeys(walk.found))


def manifest_of(held: PublishedChannel, get: Callable[[str], Record]) -> CandidateManifest | SourceManifest:
    """The manifest of what a channel offers, whatever lineage it names.

    Args:
        held: What the channel offers.
        get: Gives a verified record by its digest.

    Raises:
        StudbookError: as `carried`.
    """
    return _manifest(_Walk(held, get), held)


def rests_on(records: Iterable[Record]) -> frozenset[str]:
    """What a revocation of an artifact, of data or of a record may name to end what some records carry.

    Args:
        records: What `carried` found.

    Returns:
        Digests of the records, and of the artifacts, licences and data of every manifest among them.
    """
    found: set[str] = set()
    for record in records:
        found.add(digest(record))
        if isinstance(record, CandidateManifest | SourceManifest):
            found.update(record.subjects(), record.references())
    return frozenset(found)


def _manifest(walk: _Walk, held: PublishedChannel) -> CandidateManifest | SourceManifest:
    """The manifest of what a channel offers, at the end of the way from the move."""
    artifact = held.artifact.sha256
    move: Record = walk.cite(held.record, ReleaseRecord, ChampionPromotion, RollbackRecord)
    while isinstance(move, RollbackRecord):
        walk.require((move.channel, move.artifact, bool(move.restored)) == (held.channel, artifact, True), "a rollback")
        move = walk.cite(move.restored or "", ReleaseRecord, ChampionPromotion, RollbackRecord)
    if isinstance(move, ReleaseRecord):
        walk.require((move.channel, move.artifact) == (held.channel, artifact), "the release")
        admission = walk.cite(move.admission, AdmissionRecord)
        walk.require(admission.artifact == artifact, "the admission")
        return walk.through_gates(admission.template)
    assert isinstance(move, ChampionPromotion)
    walk.require((held.channel, move.artifact) == ("champion", artifact), "the promotion")
    if move.basis == "promotion":
        return walk.through_gates(move.evidence)
    approval = walk.cite(move.evidence, ParentApproval)
    walk.require(approval.artifact == artifact, "the approval")
    manifest = walk.cite(approval.source, SourceManifest)
    walk.require(manifest.artifact == held.artifact, "the manifest")
    return manifest


class _Walk:
    """The walk from a move to what it rests on; notes what it passes."""

    def __init__(self, held: PublishedChannel, get: Callable[[str], Record]) -> None:
        self.found: list[str] = []
        self._held, self._get = held, get

    def cite(self, digest: str, *kinds: type[R]) -> R:
        """The next record, which must be of one of some kinds."""
        record = self._get(digest)
        self.found.append(digest)
        if not isinstance(record, kinds):
            text = f"is a {record.kind()}, and {' or '.join(k.kind() for k in kinds)} belongs here"
            raise BytesLie(text, where=record_name(digest), advice=_ADVICE, reason="pull.kind")
        return record

    def require(self, holds: bool, what: str) -> None:
        """Refuse the record that was cited last."""
        if not holds:
            text = f"{what} of {self._held.channel} speaks of something else than {self._held.artifact.sha256[:16]}..."
            raise DigestDiffers(text, where=record_name(self.found[-1]), advice=_ADVICE, reason="pull.evidence")

    def through_gates(self, named: str) -> CandidateManifest:
        """Template, decision and manifest of a candidate."""
        template = self.cite(named, PromotionTemplate)
        decision = self.cite(template.decision, ViabilityDecision)
        try:
            check_carried(self._held.artifact.sha256, self._held.channel, template, decision)
        except OutOfOrder as error:
            where = record_name(named)
            raise OutOfOrder(error.message, where=where, advice=_ADVICE, reason=error.reason) from error
        manifest = self.cite(template.manifest, CandidateManifest)
        self.require(manifest.artifact == self._held.artifact, "the manifest")
        return manifest

    def descend(self, own: CandidateManifest | SourceManifest) -> None:
        """Everything it descends from: the lineage holds one manifest of each, and nothing else."""
        above: dict[str, CandidateManifest | SourceManifest] = {}
        for named in self._held.lineage:
            manifest = self.cite(named, CandidateManifest, SourceManifest)
            assert isinstance(manifest, CandidateManifest | SourceManifest)
            self.require(manifest.artifact.sha256 not in above, "the lineage")
            above[manifest.artifact.sha256] = manifest
        pending, met = [own], set[str]()
        while pending:
            current = pending.pop()
            if isinstance(current, SourceManifest):
                continue
            for artifact in self.cite(current.template, LineageTemplate).subjects():
                self.require(artifact in above, "the lineage")
                if artifact not in met:
                    met.add(artifact)
                    pending.append(above[artifact])
        self.require(met == above.keys(), "the lineage")
