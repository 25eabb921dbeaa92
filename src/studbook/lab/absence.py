"""Bytes that are gone by a record's leave: withdrawn by a person, or cleared because a receipt makes them again.

A file that is missing without such a record is a problem; with one it is explained, and whoever needs it is told so.
"""

from __future__ import annotations

from studbook.errors import DigestDiffers, OutOfOrder, StudbookError
from studbook.lab.desk import Desk
from studbook.lab.package_host import HELD, lives_of
from studbook.records import (
    KINDS,
    ArchiveRecord,
    Blob,
    CandidateManifest,
    ClearingRecord,
    LineageTemplate,
    OperatorReceipt,
    SkillPackage,
    SourceManifest,
    SuiteManifest,
    Tombstone,
    ViabilityDecision,
)

__all__ = [
    "absent",
    "check_clearing",
    "check_not_withdrawn",
    "check_tombstone",
    "check_undeployed",
    "held_elsewhere",
    "members",
    "retained",
    "withdrawn",
]


def absent(desk: Desk) -> dict[str, str]:
    """Files that are gone with leave: digest -> by which record, in words."""
    leave: dict[str, str] = {}
    for digest, cleared in desk.workspace.all(ClearingRecord):
        leave |= dict.fromkeys((b.sha256 for b in cleared.blobs), f"cleared by {digest[:12]}; a receipt makes it again")
    for digest, stone in desk.workspace.all(Tombstone):
        told = f"withdrawn by {stone.withdrawn_by} in {digest[:12]}"
        leave |= dict.fromkeys((b.sha256 for b in stone.blobs), f"{told}: {stone.reason}" if stone.reason else told)
    return {d: why for d, why in leave.items() if not _there(desk, d)}


def withdrawn(desk: Desk) -> dict[str, Tombstone]:
    """Every file that was withdrawn and belongs to nothing else, there or not: digest -> the newest tombstone.

    A tombstone that a stolen key signed, or that the lab it entered did not carry, withdraws nothing; and a file that
    something registered since has too stays.
    """
    found: dict[str, Tombstone] = {}
    for digest, stone in desk.all(Tombstone):
        if _carried(desk, digest, stone):
            others = held_elsewhere(desk, stone.artifact)
            found |= {b.sha256: stone for b in stone.blobs if b.sha256 not in others}
    return found


def _carried(desk: Desk, digest: str, stone: Tombstone) -> bool:
    entry = desk.workspace.entry(digest)
    assert entry is not None
    try:
        check_tombstone(desk.at(entry.sequence), stone)
    except StudbookError:
        return False
    return True


def check_not_withdrawn(desk: Desk, artifact: str) -> None:
    """Refuse to let bytes in again that a person withdrew.

    Raises:
        OutOfOrder: naming who did, and why; ``lab.withdrawn``.
    """
    for _, stone in desk.all(Tombstone):
        if artifact == stone.artifact:
            reason = f": {stone.reason}" if stone.reason else ""
            advice = "It never comes back into this lab; use another model, or other data."
            text = f"was withdrawn by {stone.withdrawn_by}{reason}"
            raise OutOfOrder(text, where=artifact[:16], advice=advice, reason="lab.withdrawn")


def members(desk: Desk, manifest: SourceManifest | CandidateManifest) -> dict[str, Blob]:
    """The files of the store that a manifest speaks for: its artifact, and what a list in its place names."""
    own = {manifest.artifact.sha256: manifest.artifact}
    if isinstance(manifest, SourceManifest):
        return own | {b.sha256: b for b in manifest.files}
    receipt = desk.workspace.entry(manifest.receipt)
    return own | {b.sha256: b for b in (receipt.blobs if receipt else ())}


def held_elsewhere(desk: Desk, artifact: str) -> set[str]:
    """Files that belong to another artifact as well, or to a suite: what goes with an artifact is never one of them."""
    found = {s.items.sha256 for _, s in desk.all(SuiteManifest)}
    for kind in (SourceManifest, CandidateManifest):
        for _, manifest in desk.all(kind):
            assert isinstance(manifest, SourceManifest | CandidateManifest)
            if manifest.artifact.sha256 != artifact:
                found.update(members(desk, manifest))
    return found


def check_undeployed(desk: Desk, artifact: str) -> None:
    """Refuse to withdraw what a channel points at or an installed package runs.

    Raises:
        OutOfOrder: naming the channel or package; ``lab.deployed``.
    """
    for channel, state in desk.channels().items():
        if state.artifact == artifact:
            advice = f"Move the channel first: studbook rollback {channel}, or release another model."
            where = desk.name_of(artifact)
            raise OutOfOrder(f"{channel} points at it", where=where, advice=advice, reason="lab.deployed")
    for revision, life in lives_of(desk).items():
        package = desk.workspace.get(revision, SkillPackage)
        if life.state in HELD and artifact in package.subjects():
            advice = f"Retire it first: studbook package retire {package.id}"
            where = desk.name_of(artifact)
            raise OutOfOrder(f"package {package.id} runs it", where=where, advice=advice, reason="lab.deployed")


def check_tombstone(desk: Desk, record: Tombstone) -> None:
    """A tombstone speaks of the manifest it cites, and lets nothing go that a channel points at or anything else has.

    Args:
        desk: The lab as it is before the record.
        record: The tombstone.

    Raises:
        OutOfOrder: if a channel points at what it withdraws; ``lab.deployed``.
        DigestDiffers: if it speaks of something else.
    """
    check_undeployed(desk, record.artifact)
    entry = desk.workspace.entry(record.withdrawn)
    manifest = desk.workspace.get(record.withdrawn, KINDS[entry.record_kind]) if entry else None
    if not isinstance(manifest, SourceManifest | CandidateManifest) or manifest.artifact.sha256 != record.artifact:
        raise DigestDiffers("withdraws an artifact that the record it cites does not speak for", where="tombstone")
    own = members(desk, manifest)
    if any(own.get(b.sha256) != b for b in record.blobs) or held_elsewhere(desk, record.artifact) & {
        b.sha256 for b in record.blobs
    }:
        raise DigestDiffers("lets files go that are not the withdrawn artifact's alone", where="tombstone: blobs")


def retained(desk: Desk) -> set[str]:
    """Artifacts that must stay: of channels and every way back, winners, packages, and what anything was bred from."""
    found = {s.artifact for channel in desk.channels() for s in desk.history(channel) if s.artifact}
    found |= {d.chosen for _, d in desk.all(ViabilityDecision) if d.chosen}
    found |= {d for _, t in desk.all(LineageTemplate) for d in (t.base, *t.parents)}
    return found | {d for _, p in desk.all(SkillPackage) for d in p.subjects()}


def check_clearing(desk: Desk, record: ClearingRecord) -> None:
    """A clearing lets go only what the receipts it cites make again, to the bit, on any machine, and what nothing needs.

    Args:
        desk: The lab as it is before the record.
        record: The clearing.

    Raises:
        DigestDiffers: if it does not.
    """
    made: set[str] = set()
    for digest in record.receipts:
        receipt = desk.workspace.get(digest, OperatorReceipt)
        entry = desk.workspace.entry(digest)
        if receipt.reproducibility != "exact" or entry is None:
            raise DigestDiffers("lets go what its receipt does not make again anywhere", where="clearing: receipts")
        made |= {b.sha256 for b in entry.blobs} | {receipt.output.sha256}
    sources = {d for _, m in desk.all(SourceManifest) for d in members(desk, m)}
    used = {d for _, t in desk.all(LineageTemplate) for d in (t.base, *t.parents)}
    if any(b.sha256 not in made or b.sha256 in sources or b.sha256 in used for b in record.blobs):
        raise DigestDiffers("lets files go that its receipts do not make", where="clearing: blobs")
    kept, closed = retained(desk), {c.artifact for _, a in desk.all(ArchiveRecord) for c in a.candidates}
    needed = [m for _, m in desk.candidates() if m.artifact.sha256 in kept or m.artifact.sha256 not in closed]
    held = {digest for manifest in needed for digest in members(desk, manifest)}
    if any(b.sha256 in held for b in record.blobs):
        text = "lets files go of what was in a channel, won a decision, was bred from, or waits for a decision"
        raise DigestDiffers(text, where="clearing: blobs")


def _there(desk: Desk, digest: str) -> bool:
    path = desk.workspace.blob_path(digest)
    return path.is_symlink() or path.exists()
