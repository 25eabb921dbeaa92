"""The lab's folder: a content-addressed store by zone, written only together with its ledger entry.

Order of one commit: bytes and envelope are staged and synced, names included, the ledger line is appended and synced
(this is the commit), the files are renamed into place, the channel aliases follow, the checkpoint acknowledges. A crash
before the line leaves nothing but staging; after it, the next writer rolls the rest forward from staging.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from studbook.errors import BytesLie, DigestDiffers, OutOfOrder, UsageError
from studbook.files import (
    lock_folder,
    make_folder,
    place,
    read_file,
    replace_file,
    sha256_file,
    sync_folder,
    take_file,
    write_new,
)
from studbook.ledger import Ledger
from studbook.records import Blob, LedgerEntry, Record, Root, Zone, canonical
from studbook.seal import KeyRing, Sealed, seal, unseal

__all__ = ["MARKER", "Workspace", "check_free", "marker_bytes"]

MARKER = "studbook.json"
_ENVELOPE_LIMIT = 64 << 20
_BLOB_LIMIT = 134_217_728
R = TypeVar("R", bound=Record)


def marker_bytes(lab: str) -> bytes:
    """Content of the file that marks a folder as a lab: format version and the lab's identity."""
    return canonical({"format": 1, "lab": lab})


def check_free(path: Path) -> Path:
    """Whether a new lab can be laid out at a path; to be asked before anything is made for it.

    Args:
        path: Where the lab shall be.

    Returns:
        The same place, absolute and without links.

    Raises:
        UsageError: if something is there that is not an empty folder, or it is the current folder.
    """
    target = Path(os.path.realpath(path))
    if target == Path.cwd():
        advice = "Step out of it, or name a new folder in it: studbook init LAB"
        raise UsageError("is the current folder, which cannot be swapped for a lab", where=target, advice=advice)
    advice = "Choose a new folder for the lab."
    if path.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError("exists and is not a folder", where=path, advice=advice)
    if target.exists() and any(target.iterdir()):
        raise UsageError("exists and is not empty", where=path, advice=advice)
    return target


class Workspace:
    """An opened lab folder.

    Args:
        path: The folder.
        keys: The key ring; only writing needs keys.
        writer: Take the lock and repair what a crash left; readers do neither.
        still: Hold a shared lock, so that nothing moves while a reader looks at everything.

    Raises:
        UsageError: if the folder is not a lab.
        DigestDiffers: if it is one, but its ledger is gone.
        Busy: if another process is writing, or a writer is refused because another one reads.
        StudbookError: any of its kinds, if ledger or root do not verify.
    """

    def __init__(self, path: Path, keys: KeyRing, *, writer: bool, still: bool = False) -> None:
        ledger = path / "audit" / "ledger.jsonl"
        if not ledger.is_file():
            if (path / MARKER).exists():
                advice = "Restore the audit folder from a backup; without it nothing here can be verified."
                raise DigestDiffers("is missing, or not a regular file", where=ledger, advice=advice)
            raise UsageError("is not a lab", where=path, advice=f"Make one: studbook init {path}")
        self.path = path
        self.keys = keys
        self.ledger = Ledger(path / "audit")
        self._by_digest: dict[str, LedgerEntry] = {}
        self._blobs: dict[str, tuple[Zone, Blob]] = {}
        self._records: dict[str, Record] = {}
        cache = path / "cache"
        if cache.is_symlink() or (cache.exists() and not cache.is_dir()):
            advice = "Remove it; the lab makes a folder of its own there."
            raise BytesLie("is not a folder", where=cache, advice=advice, reason="file.type")
        self._lock = lock_folder(path, path / "cache" / "lock", exclusive=writer) if writer or still else None
        try:
            self.root: Root = self.ledger.load(self._root_envelope)
            for entry in self.ledger.entries:
                self._index(entry)
            if writer:
                self._recover()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, keys: KeyRing, root: Root, *more: Record) -> None:
        """Lay out a new lab whose first ledger entry is its root; the folder must not exist, or be empty.

        It is made beside its place and moved there when it is whole, so a crash leaves no half lab.

        Args:
            path: The folder.
            keys: The key ring.
            root: The root of keys.
            more: What is committed after it.

        Raises:
            UsageError: if the folder exists and is not empty, or is the current one.
        """
        path = check_free(path)
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for zone in Zone:
            make_folder(partial / zone)
        write_new(partial / MARKER, marker_bytes(root.lab))
        sync_folder(partial)
        self = cls.__new__(cls)
        self.path, self.keys, self.root, self._lock = partial, keys, root, None
        self.ledger, self._by_digest, self._blobs, self._records = Ledger(partial / "audit"), {}, {}, {}
        for record in (root, *more):
            self.commit(record)
        with suppress(FileNotFoundError):
            path.rmdir()
        place(partial, path)

    def __contains__(self, digest: str) -> bool:
        return digest in self._by_digest

    def get(self, digest: str, kind: type[R]) -> R:
        """The record of this digest, verified from its envelope the first time it is asked for.

        Raises:
            UsageError: if the lab holds no such record of this kind.
            StudbookError: any of its kinds, if the file no longer verifies.
        """
        entry = self._by_digest.get(digest)
        if entry is None or entry.record_kind != kind.kind():
            raise UsageError(f"the lab holds no {kind.kind()} {digest[:16]}...")
        record = self._records.get(digest) or self.sealed(entry).record
        self._records[digest] = record
        if not isinstance(record, kind):
            raise DigestDiffers(f"is not a {kind.kind()}", where=self.record_path(entry))
        return record

    def all(self, kind: type[R]) -> Iterator[tuple[str, R]]:
        """Digest and record of every record of a kind, oldest first."""
        for entry in self.ledger.entries:
            if entry.record_kind == kind.kind():
                yield entry.record, self.get(entry.record, kind)

    def entry(self, digest: str) -> LedgerEntry | None:
        """The ledger entry of a record, or None."""
        return self._by_digest.get(digest)

    def sealed(self, entry: LedgerEntry) -> Sealed:
        """Read and verify the envelope an entry names."""
        path = self.record_path(entry)
        data = read_file(path, _ENVELOPE_LIMIT)
        if hashlib.sha256(data).hexdigest() != entry.envelope.sha256:
            raise DigestDiffers("is not the envelope that was recorded", where=path)
        sealed = unseal(data, self.root, path)
        if sealed.digest != entry.record:
            raise DigestDiffers("holds another record than the ledger says", where=path)
        return sealed

    def has_blob(self, digest: str) -> bool:
        """Whether the ledger knows this file; its bytes may still be missing."""
        return digest in self._blobs

    def blob_path(self, digest: str) -> Path:
        """Where a file of the store lies.

        Raises:
            UsageError: if the ledger does not know it.
        """
        if digest not in self._blobs:
            raise UsageError(f"the lab holds no file {digest[:16]}...")
        return self.path / self._blobs[digest][0] / "blobs" / digest

    def blob(self, digest: str) -> bytes:
        """The bytes of a file of the store, hashed as they are read.

        Raises:
            DigestDiffers: if they are not the ones that were stored.
        """
        path = self.blob_path(digest)
        data = read_file(path, _BLOB_LIMIT)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DigestDiffers("is not the file that was stored", where=path)
        return data

    def record_path(self, entry: LedgerEntry) -> Path:
        """Where the envelope of an entry lies: zone / kind / digest."""
        return self.path / entry.record_zone / entry.record_kind.replace("/", "-") / f"{entry.record}.json"

    def expected_files(self) -> dict[Path, str]:
        """Every file the ledger accounts for with the SHA-256 of its bytes, except the ledger and its checkpoint."""
        files = {self.record_path(e): e.envelope.sha256 for e in self.ledger.entries}
        files |= {self.blob_path(d): d for d in self._blobs}
        files[self.path / MARKER] = hashlib.sha256(marker_bytes(self.root.lab)).hexdigest()
        return files

    def commit(self, record: Record, blobs: Mapping[str, bytes | Path] | None = None, owner: str | None = None) -> str:
        """Accept a record and the files that enter with it; both are on disk before this returns.

        Args:
            record: What to accept. One that the ledger holds already is not written twice.
            blobs: SHA-256 -> bytes, or the path of a finished file on the same disk, which is moved.
            owner: Sign with a key of this person.

        Returns:
            The record's digest.

        Raises:
            NotAuthorised: if no key at hand may sign it.
            OutOfOrder: if it cites a record the ledger does not hold.
            DigestDiffers: if a file's bytes are not those of its digest.
        """
        key = self.keys.find(self.root, record.zone, record.kind(), owner)
        audit = self.keys.find(self.root, Zone.AUDIT, LedgerEntry.kind())
        envelope = seal(record, key)
        sealed = unseal(envelope, self.root, record.kind())
        if sealed.digest in self._by_digest:
            return sealed.digest
        for cited in record.references():
            if cited not in self._by_digest:
                raise OutOfOrder(f"{record.kind()} cites {cited[:16]}..., which the ledger does not hold")
        new = {d: content for d, content in (blobs or {}).items() if d not in self._blobs}
        sizes = tuple(self._stage(digest, content) for digest, content in sorted(new.items()))
        envelope_blob = self._stage(hashlib.sha256(envelope).hexdigest(), envelope)
        entry = self._entry(record, sealed.digest, envelope_blob, sizes)
        sync_folder(self._staging())
        self.ledger.append(entry, audit)
        self._index(entry)
        self._roll_forward([entry])
        self.ledger.acknowledge(record.header, self.root.lab, audit)
        return sealed.digest

    def mend_blob(self, digest: str, content: bytes | Path) -> bool:
        """Put back a known file whose bytes were deleted or changed; the new bytes are hashed first.

        Returns:
            Whether anything had to be mended; files the ledger does not know are left alone.

        Raises:
            DigestDiffers: if the bytes are not the ones that were stored.
        """
        if digest not in self._blobs:
            return False
        target = self.blob_path(digest)
        if target.is_file() and not target.is_symlink() and sha256_file(target) == digest:
            return False
        place(self._staging() / self._stage(digest, content).sha256, target)
        return True

    def write_alias(self, name: str, content: Mapping[str, Any]) -> None:
        """Switch a channel alias in one step. What it must say follows from the ledger; this is its readable copy."""
        replace_file(self.alias_path(name), self.alias_bytes(content))

    @staticmethod
    def alias_bytes(content: Mapping[str, Any]) -> bytes:
        """The bytes of an alias file."""
        return canonical(dict(content))

    def alias_path(self, name: str) -> Path:
        """Where a channel's alias lies."""
        return self.path / Zone.RELEASE / "channels" / f"{name}.json"

    def work_folder(self, name: str) -> Path:
        """A fresh, empty folder below ``cache`` for a worker."""
        folder = self.path / "cache" / "work" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def resume_folder(self, name: str) -> Path:
        """A folder below ``cache`` as an earlier run left it, for long work that goes on where it stopped."""
        make_folder(folder := self.path / "cache" / "resume" / name)
        return folder

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _index(self, entry: LedgerEntry) -> None:
        self._by_digest.setdefault(entry.record, entry)
        for blob in entry.blobs:
            self._blobs.setdefault(blob.sha256, (entry.record_zone, blob))

    def _entry(self, record: Record, digest: str, envelope: Blob, blobs: Sequence[Blob]) -> LedgerEntry:
        return LedgerEntry(
            header=record.header,
            sequence=len(self.ledger.entries),
            previous=self.ledger.head,
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            host="".join(c for c in platform.node() if c.isprintable())[:255],
            record_zone=record.zone,
            record_kind=record.kind(),
            record=digest,
            envelope=envelope,
            blobs=tuple(blobs),
        )

    def _staging(self) -> Path:
        folder = self.path / "cache" / "staging"
        make_folder(folder)
        return folder

    def _stage(self, digest: str, content: bytes | Path) -> Blob:
        target = self._staging() / digest
        target.unlink(missing_ok=True)
        if isinstance(content, Path):
            mine = content.absolute().is_relative_to((self.path / "cache").absolute())
            return Blob(sha256=digest, size=take_file(content, target, digest, move=mine))
        if hashlib.sha256(content).hexdigest() != digest:
            raise DigestDiffers("the bytes are not those of their digest")
        write_new(target, content)
        return Blob(sha256=digest, size=len(content))

    def _files_of(self, entry: LedgerEntry) -> dict[Path, str]:
        """Where the files that entered with an entry belong, with the SHA-256 of their bytes; the envelope last."""
        blobs = {self.path / entry.record_zone / "blobs" / blob.sha256: blob.sha256 for blob in entry.blobs}
        return {**blobs, self.record_path(entry): entry.envelope.sha256}

    def _roll_forward(self, entries: Sequence[LedgerEntry]) -> None:
        for entry in entries:
            for target, digest in self._files_of(entry).items():
                staged = self._staging() / digest
                if staged.exists() and not target.exists():
                    place(staged, target)

    def _recover(self) -> None:
        """Finish or undo what a crash left: torn tail, files of committed entries, checkpoint, staging."""
        self.ledger.cut_torn_tail()
        self._cut_lost_entries()
        if pending := self.ledger.entries[self.ledger.acknowledged :]:
            self._roll_forward(pending)
            audit = self.keys.find(self.root, Zone.AUDIT, LedgerEntry.kind())
            self.ledger.acknowledge(pending[-1].header, self.root.lab, audit)
        shutil.rmtree(self.path / "cache" / "staging", ignore_errors=True)
        shutil.rmtree(self.path / "cache" / "work", ignore_errors=True)
        for partial in self.path.glob("*/**/*.partial"):
            if partial.parent.name in {"audit", "channels"}:
                partial.unlink()

    def _cut_lost_entries(self) -> None:
        """Take back unacknowledged entries from the first whose files are neither in place nor staged."""
        first = self.ledger.acknowledged
        pending = self.ledger.entries[first:]
        whole = [all(self._arrived(*file) for file in self._files_of(entry).items()) for entry in pending]
        if all(whole):
            return
        lost = pending[whole.index(False) :]
        self.ledger.cut(first + whole.index(False))
        self._by_digest.clear()
        self._blobs.clear()
        for entry in self.ledger.entries:
            self._index(entry)
        # What did arrive of them belongs to nothing any more.
        for target in {path for entry in lost for path in self._files_of(entry)} - self.expected_files().keys():
            target.unlink(missing_ok=True)

    def _arrived(self, target: Path, digest: str) -> bool:
        """Whether a file is in place or staged; what a crash garbled is removed where it lies."""
        for path in (target, self._staging() / digest):
            if path.is_file() and not path.is_symlink() and sha256_file(path) == digest:
                return True
            path.unlink(missing_ok=True)
        return False

    def _root_envelope(self, first: LedgerEntry) -> tuple[bytes, Path]:
        path = self.record_path(first)
        data = read_file(path, _ENVELOPE_LIMIT)
        if hashlib.sha256(data).hexdigest() != first.envelope.sha256:
            raise DigestDiffers("is not the root that was recorded", where=path)
        return data, path
