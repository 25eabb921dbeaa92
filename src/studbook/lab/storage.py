"""What a lab takes on disk, what of it can go, and how models and data are withdrawn.

Room is made only of bytes that a receipt makes again to the bit, and that nothing needs: no channel now or on any way
back, no candidate bred from them, no decision that is still open. A record says what went before it goes.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from studbook.errors import OutOfOrder, UsageError
from studbook.lab.absence import absent, check_clearing, check_undeployed, held_elsewhere, members, retained, withdrawn
from studbook.lab.desk import Desk
from studbook.lab.history import Descendant, descendants
from studbook.lab.package_host import host_files
from studbook.lab.pending import Signed, sign
from studbook.lab.words import plain_text
from studbook.records import (
    ArchiveRecord,
    Blob,
    CandidateManifest,
    ClearingRecord,
    LineageTemplate,
    OperatorReceipt,
    SourceManifest,
    Tombstone,
)

__all__ = ["Cleared", "Usage", "Withdrawal", "clear", "finish_withdrawals", "usage", "withdraw"]


class Usage(Struct, frozen=True):
    """What one kind of file takes.

    Attributes:
        zone: The zone, or ``cache``.
        kind: A kind of record; ``source``, ``candidate`` or ``other`` for files of the store; a folder of the cache.
        files: How many files.
        size: Their bytes.
        needed: Bytes that receipts need: what they were made from, and what only they can make and something uses.
        reclaimable: Bytes that `gc` would free.
    """

    zone: str
    kind: str
    files: int
    size: int
    needed: int
    reclaimable: int


class Cleared(Struct, frozen=True):
    """What `gc` freed, or would free.

    Attributes:
        candidates: Names of the candidates whose bytes went.
        folders: What was left over in the cache, relative to the lab.
        freed: Bytes.
        record: Digest of the ClearingRecord; None if no candidate's bytes went, or nothing was done.
    """

    candidates: tuple[str, ...]
    folders: tuple[str, ...]
    freed: int
    record: str | None


class Withdrawal(Struct, frozen=True):
    """What became of a withdrawal.

    Attributes:
        signed: The tombstone; bytes go only once it is committed.
        freed: Bytes deleted.
        descendants: Everything that was made from it, which stays.
    """

    signed: Signed
    freed: int
    descendants: tuple[Descendant, ...]


def usage(desk: Desk) -> tuple[Usage, ...]:
    """Bytes by zone and kind."""
    workspace = desk.workspace
    spare = {b.sha256 for _, _, blobs in _clearable(desk) for b in blobs}
    kinds = _blob_kinds(desk)
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def count(zone: str, kind: str, path: Path, needed: bool = False, reclaimable: bool = False) -> None:
        size = path.lstat().st_size
        for place, value in enumerate((1, size, size * needed, size * reclaimable)):
            found[(zone, kind)][place] += value

    for entry in workspace.ledger.entries:
        if (path := workspace.record_path(entry)).is_file():
            count(entry.record_zone.value, entry.record_kind, path, needed=True)
        for blob in entry.blobs:
            path, kind = workspace.blob_path(blob.sha256), kinds.pop(blob.sha256, None)
            if kind is not None and path.is_file():
                gone = blob.sha256 in spare
                count(entry.record_zone.value, kind, path, kind != "other" and not gone, gone)
    for path in (workspace.ledger.path, workspace.ledger.checkpoint_path):
        count("audit", "ledger", path, needed=True)
    for path in host_files(desk):
        count("host", "package", path, needed=True)
    left = {str(path) for path in _leftovers(desk)}
    cache = workspace.path / "cache"
    for path in (p for p in cache.rglob("*") if p.is_file() and not p.is_symlink()):
        inside = path.relative_to(cache).parts
        spare_folder = any(str(above) in left for above in path.parents)
        count("cache", inside[0], path, reclaimable=spare_folder)
    return tuple(Usage(zone, kind, *numbers) for (zone, kind), numbers in sorted(found.items()))


def clear(desk: Desk, *, dry_run: bool = False) -> Cleared:
    """Free what nothing needs and what can be made again; the record of it is committed before anything goes.

    Args:
        desk: The lab, opened for writing unless it is a dry run.
        dry_run: Only say what would go.

    Raises:
        NotAuthorised: if no key at hand may sign the record.
    """
    found = _clearable(desk)
    blobs = {b.sha256: b for _, _, some in found for b in some}
    left = tuple(_leftovers(desk))
    freed = sum(b.size for b in blobs.values()) + sum(_size(path) for path in left)
    names = tuple(manifest.name for manifest, _, _ in found)
    folders = tuple(str(path.relative_to(desk.workspace.path)) for path in left)
    if dry_run:
        return Cleared(names, folders, freed, None)
    record = None
    if blobs:
        receipts = tuple(dict.fromkeys(receipt for _, receipt, _ in found))
        cleared = ClearingRecord(header=desk.header, receipts=receipts, blobs=tuple(blobs.values()))
        check_clearing(desk, cleared)
        record = desk.workspace.commit(cleared)
    for digest in blobs:
        desk.workspace.discard(digest)
    for folder in left:
        shutil.rmtree(folder)
    return Cleared(names, folders, freed, record)


def withdraw(desk: Desk, name: str, person: str, reason: str) -> Withdrawal:
    """A person takes back a model or data: a tombstone is signed, then the bytes go; what was made from it is listed.

    Args:
        desk: The lab.
        name: Name or digest of a model, or of a data manifest.
        person: Who withdraws it; their policy key signs.
        reason: Why.

    Raises:
        UsageError: if nothing, or more than one thing, is called that.
        OutOfOrder: if a channel points at it.
        NotAuthorised: if the person's key may not sign a tombstone.
    """
    digest, manifest = _find(desk, name)
    artifact = manifest.artifact.sha256
    check_undeployed(desk, artifact)
    again = next((s for _, s in desk.all(Tombstone) if s.withdrawn == digest), None)
    if again is not None:
        raise OutOfOrder(f"was withdrawn by {again.withdrawn_by}", where=manifest.name, reason="lab.withdrawn")
    others = held_elsewhere(desk, artifact)
    stone = Tombstone(
        header=desk.header,
        withdrawn=digest,
        artifact=artifact,
        blobs=tuple(b for d, b in members(desk, manifest).items() if d not in others),
        withdrawn_by=person,
        reason=plain_text(reason, "--reason"),
    )
    below = descendants(desk, digest)
    signed = sign(desk, stone, person)
    return Withdrawal(signed, finish_withdrawals(desk), below)


def finish_withdrawals(desk: Desk) -> int:
    """Delete what was withdrawn and still lies here, as after a crash; bytes freed."""
    return sum(desk.workspace.discard(digest) for digest in withdrawn(desk))


def _find(desk: Desk, name: str) -> tuple[str, SourceManifest | CandidateManifest]:
    """The manifest that a name stands for, with its digest."""
    sources = {d: m for d, m in desk.all(SourceManifest) if name in (d, m.name, m.artifact.sha256)}
    if len({m.artifact.sha256 for m in sources.values()}) == 1:
        return list(sources.items())[-1]
    artifact = desk.find_model(name)
    if artifact in desk.registered():
        return desk.registered()[artifact]
    for digest, manifest in desk.candidates():
        if manifest.artifact.sha256 == artifact:
            return digest, manifest
    raise UsageError("is no model or data of this lab", where=name)


def _clearable(desk: Desk) -> list[tuple[CandidateManifest, str, tuple[Blob, ...]]]:
    """Candidates whose bytes may go: manifest, receipt, files."""
    kept, gone = retained(desk), absent(desk)
    last = {c.artifact: c.action for _, a in desk.all(ArchiveRecord) for c in a.candidates}
    # What was kept for diversity, or to compress the champion, stays until another decision closes it.
    closed = {artifact for artifact, action in last.items() if action in ("archive", "quarantine")}
    found = {}
    for _, manifest in desk.candidates():
        artifact = manifest.artifact.sha256
        receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
        recomputable = receipt.reproducibility == "exact" and _sources_here(desk, manifest, gone)
        if artifact in kept or artifact not in closed or not recomputable or artifact in found:
            continue
        others = held_elsewhere(desk, artifact) | kept
        blobs = members(desk, manifest)
        # The list of a checkpoint's files is small, and says what the rest was.
        listed = {artifact} if len(blobs) > 1 else set()
        spare = tuple(b for d, b in blobs.items() if d not in others | listed and desk.workspace.blob_path(d).is_file())
        if spare:
            found[artifact] = (manifest, manifest.receipt, spare)
    return list(found.values())


def _sources_here(desk: Desk, manifest: CandidateManifest, gone: Mapping[str, str]) -> bool:
    template = desk.workspace.get(manifest.template, LineageTemplate)
    above = (template.base, *template.parents)
    return all(a not in gone and desk.workspace.blob_path(a).is_file() for a in above)


def _leftovers(desk: Desk) -> Iterator[Path]:
    """Folders of the cache that belong to finished work: of workers, of staging, and of runs whose child is accepted."""
    cache = desk.workspace.path / "cache"
    done = {desk.workspace.get(m.template, LineageTemplate).recipe_sha256 for _, m in desk.candidates()}
    for name in ("work", "staging"):
        if (cache / name).is_dir() and not (cache / name).is_symlink():
            yield cache / name
    resume = cache / "resume"
    if resume.is_dir() and not resume.is_symlink():
        for folder in sorted(p for p in resume.iterdir() if p.is_dir() and not p.is_symlink()):
            if any(recipe.startswith(folder.name) for recipe in done if len(folder.name) >= 16):
                yield folder


def _blob_kinds(desk: Desk) -> dict[str, str]:
    """What every file of the store is: digest -> ``source``, ``candidate`` or ``other``."""
    found = {b.sha256: "other" for e in desk.workspace.ledger.entries for b in e.blobs}
    found |= dict.fromkeys((d for _, m in desk.candidates() for d in members(desk, m)), "candidate")
    return found | dict.fromkeys((d for _, m in desk.all(SourceManifest) for d in members(desk, m)), "source")


def _size(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
