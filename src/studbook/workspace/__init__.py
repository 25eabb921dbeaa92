"""The lab's folder: a content-addressed store by zone, written only together with its ledger entry.

Order of one commit: bytes and envelope are staged and synced, names included, the ledger line is appended and synced
(this is the commit), the files are renamed into place, the checkpoint acknowledges, the witness takes the checkpoint;
channel aliases follow. A crash before the line leaves nothing but staging; after it, the next writer rolls the rest
forward from staging. A group of records shares the sync of the ledger, the checkpoint and the witness.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from studbook.errors import BytesLie, DigestDiffers, OutOfOrder
from studbook.files import lock_folder, make_folder, place, replace_file, sha256_file, sync_folder, write_new
from studbook.ledger import Draft, Ledger, Staging, Witness, audit_keys
from studbook.records import LedgerEntry, Record, Root, Zone
from studbook.seal import AUTHORITY_KINDS, Authority, KeyRing, SigningKey, seal, unseal
from studbook.workspace.ahead import Ahead
from studbook.workspace.lines import check_references, entry_time, new_entry
from studbook.workspace.places import FORMAT, MARKER, check_free, check_lab, marker_bytes, witness_folder
from studbook.workspace.store import Store

__all__ = ["FORMAT", "MARKER", "Accession", "Ahead", "Workspace", "check_free", "check_references", "marker_bytes"]

# Lies in the cache of a new lab until its witness has begun.
_UNWITNESSED = "unwitnessed"
_LINE = LedgerEntry.kind()


class Accession(NamedTuple):
    """A record that shall enter, and what enters with it.

    Attributes:
        record: The record; one that the ledger holds already is not written twice.
        blobs: SHA-256 -> bytes, or the path of a finished file on the same disk, which is moved.
        owner: Sign with a key of this person.
        envelope: Its envelope, if it was signed elsewhere.
    """

    record: Record
    blobs: Mapping[str, bytes | Path] = {}
    owner: str | None = None
    envelope: bytes | None = None


class Workspace(Store):
    """An opened lab folder.

    Args:
        path: The folder.
        keys: The key ring; only writing needs keys.
        writer: Take the lock and repair what a crash left; readers do neither.
        still: Hold a shared lock, so that nothing moves while a reader looks at everything.
        witness: Folder of the witness; beside the lab by default, never inside.
        older: Let a writer open a lab of an older format, to upgrade it.

    Attributes:
        ledger: The verified ledger; its ``witness_problem`` is what a reader should be told of.
        ahead: The digests of stored files that a still reader began to compute; None for others.

    Raises:
        UsageError: if the folder is not a lab, or one of a newer format, or the witness would lie inside it.
        OutOfOrder: if a writer opens a lab of an older format; ``lab.older-format``.
        DigestDiffers: if it is one, but its ledger is gone; or for a writer, if the witness saw more than this, or
            something else.
        Busy: if another process is writing, or a writer is refused because another one reads.
        StudbookError: any of its kinds, if ledger or root do not verify.
    """

    ahead: Ahead | None = None

    def __init__(
        self,
        path: Path,
        keys: KeyRing,
        *,
        writer: bool,
        still: bool = False,
        witness: Path | None = None,
        older: bool = False,
    ) -> None:
        version = check_lab(path, change=writer and not older)
        self._begin(path, keys, Witness(witness_folder(path, witness)))
        self.format = version
        cache = path / "cache"
        if cache.is_symlink() or (cache.exists() and not cache.is_dir()):
            advice = "Remove it; the lab makes a folder of its own there."
            raise BytesLie("is not a folder", where=cache, advice=advice, reason="file.type")
        self._take_lock(writer, still)
        try:
            # A still reader looks at everything, so hashing need not wait for the ledger.
            if still and not writer:
                self.ahead = Ahead(path)
            self.ledger.load(self._authority_envelope)
            if writer and self.ledger.witness_problem:
                raise self.ledger.witness_problem
            for entry in self.ledger.entries:
                self._index(entry)
            if writer:
                self._recover()
        except BaseException:
            self.close()
            raise

    def _begin(self, path: Path, keys: KeyRing, witness: Witness | None) -> None:
        super().__init__(path, keys, witness)
        self._witness = witness
        self._staging = Staging(path / "cache")
        self._lock: int | None = None
        self._stopped = False
        self._audit: tuple[KeyRing, SigningKey] | None = None

    @classmethod
    def create(cls, path: Path, keys: KeyRing, root: Root, *more: Record, witness: Path | None = None) -> None:
        """Lay out a new lab whose first ledger entry is its root; the folder must not exist, or be empty.

        It is made beside its place and moved there when it is whole, so a crash leaves no half lab. Then its witness
        takes the first checkpoint; if a crash comes in between, the first writer makes up for it.

        Args:
            path: The folder.
            keys: The key ring.
            root: The root of keys.
            more: What is committed after it.
            witness: Folder of the witness; beside the lab by default, never inside.

        Raises:
            UsageError: if the folder exists and is not empty, or is the current one, or a witness of an earlier lab is
                in the way.
        """
        path = check_free(path, witness)
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for zone in Zone:
            make_folder(partial / zone)
        write_new(partial / MARKER, marker_bytes(root.lab))
        make_folder(partial / "cache")
        write_new(partial / "cache" / _UNWITNESSED, b"")
        sync_folder(partial)
        self = cls.__new__(cls)
        self._begin(partial, keys, None)
        for record in (root, *more):
            self.commit(record)
        with suppress(FileNotFoundError):
            path.rmdir()
        self.ledger.close()
        place(partial, path)
        self.ledger = Ledger(path / "audit")
        self.ledger.appoint(Witness(witness_folder(path, witness)))
        self.ledger.close()
        (path / "cache" / _UNWITNESSED).unlink()

    def _take_lock(self, writer: bool, still: bool) -> None:
        if writer or still:
            self._lock = lock_folder(self.path, self.path / "cache" / "lock", exclusive=writer)

    @property
    def pending(self) -> Path:
        """Folder of the envelopes that wait for more signatures; no part of the ledger."""
        return self.path / Zone.POLICY / "pending"

    def authority(self, kind: str = "") -> Authority:
        """Who may sign a kind of record if it entered now."""
        return self.ledger.authority(None, _day(datetime.now(UTC)), kind)

    def commit(
        self,
        record: Record,
        blobs: Mapping[str, bytes | Path] | None = None,
        owner: str | None = None,
        envelope: bytes | None = None,
    ) -> str:
        """Accept a record and the files that enter with it; all are on disk before this returns.

        Args:
            record: What to accept. One that the ledger holds already is not written twice.
            blobs: SHA-256 -> bytes, or the path of a finished file on the same disk, which is moved.
            owner: Sign with a key of this person.
            envelope: Its envelope, if it was signed elsewhere.

        Returns:
            The record's digest.

        Raises:
            NotAuthorised: if no key at hand may sign it, or the envelope does not count.
            OutOfOrder: if it cites a record the ledger does not hold (``order.reference``), an earlier commit failed
                half-way, or the clock was set back (``ledger.clock``).
            DigestDiffers: if a file's bytes are not those of its digest, or the envelope holds another record.
        """
        return self.commit_all([Accession(record, blobs or {}, owner, envelope)])[0]

    def commit_all(self, accessions: Sequence[Accession]) -> list[str]:
        """Accept several records in their order with one sync of the ledger and one checkpoint.

        If one is refused, none of them is written; only what stands before a root or a revocation, which ends a group,
        is then in the ledger already. A crash may leave the first few of a group, in their order.

        Returns:
            Their digests.

        Raises:
            StudbookError: as `commit`.
        """
        if self._stopped:
            advice = "Open the lab again; what was written is finished or taken back then."
            raise OutOfOrder(
                "an earlier write failed half-way", where=self.path, advice=advice, reason="ledger.stopped"
            )
        draft, new, digests = self.ledger.draft(), _New(), []
        for accession in accessions:
            digests.append(self._draft(accession, draft, new))
            if draft.succession is not None:
                self._write(draft)
                draft = self.ledger.draft()
        self._write(draft)
        return digests

    def _draft(self, accession: Accession, draft: Draft, new: _New) -> str:
        """Seal and stage one record of a group, and draft its line."""
        record, now = accession.record, entry_time(datetime.now(UTC), draft.entries or self.ledger.entries)
        kind, position, day = record.kind(), draft.sequence, _day(now)
        if isinstance(record, Root) and not self.ledger.entries:
            authority = Authority(record)
        else:
            authority = self.ledger.authority(position, day, kind)
        envelope = accession.envelope
        if envelope is None:
            envelope = seal(record, self.keys.find(authority, record.zone, kind, accession.owner))
        sealed = unseal(envelope, authority, kind)
        if sealed.record != record:
            raise DigestDiffers("the envelope holds another record", where=kind)
        held = self.entry(sealed.digest)
        if held is not None and self.void(held):
            text = f"{kind} {sealed.digest[:16]}... entered under a key that was revoked, and counts no longer"
            advice = "Make it anew; the same record never enters twice."
            raise OutOfOrder(text, advice=advice, where=self.record_path(held), reason="ledger.void")
        if held is not None or sealed.digest in new.records:
            return sealed.digest
        check_references(record, lambda cited: cited in self._by_digest or cited in new.records, kind)
        unknown = sorted((d, c) for d, c in accession.blobs.items() if d not in self._blobs and d not in new.blobs)
        blobs = [self._staging.stage(digest, content) for digest, content in unknown]
        whole = self._staging.stage(hashlib.sha256(envelope).hexdigest(), envelope)
        entry = new_entry(record, sealed.digest, draft, now, whole, blobs)
        draft.add(entry, self._line_key(entry, envelope, draft, day))
        new.records.add(sealed.digest)
        new.blobs.update(d for d, _ in unknown)
        return sealed.digest

    def _line_key(self, entry: LedgerEntry, envelope: bytes, draft: Draft, day: str) -> SigningKey:
        """The audit key for a line: one that is in force with what the line brings."""
        if entry.record_kind not in AUTHORITY_KINDS:
            return self._audit_key(self.ledger.authority(entry.sequence, day))
        draft.succession = self.ledger.entered(entry, envelope, self.record_path(entry))
        return self._audit_key(draft.succession.at(entry.sequence, day, _LINE))

    def _audit_key(self, authority: Authority) -> SigningKey:
        """A key for lines and checkpoints. Every commit needs it, so a writer that has opened it keeps it."""
        ring, key = self._audit or (None, None)
        if key is None or ring is not self.keys or key.public not in audit_keys(authority):
            key = self.keys.find(authority, Zone.AUDIT, _LINE)
            self._audit = (self.keys, key)
        return key

    def _write(self, draft: Draft) -> None:
        if draft.key is None:
            return
        self._staging.sync()
        try:
            self.ledger.write(draft)
            for entry in draft.entries:
                self._index(entry)
            self._staging.settle(self._files_of(*draft.entries))
            self.ledger.acknowledge(draft.key)
        except BaseException:
            # What is on disk now is known for certain only after it was read again.
            self._stopped = True
            raise

    def appoint_witness(self) -> None:
        """Let a new witness take the checkpoint, where there is none; for a writer whose owner knows this lab is whole.

        Raises:
            UsageError: if there is one; ``ledger.witness-exists``.
        """
        if self._witness is not None:
            self.ledger.appoint(self._witness)

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
        self._staging.mend(digest, content, target)
        return True

    def upgrade(self) -> int:
        """Say that the lab is of this program's format from now on; for a writer, in one step. Returns the format before."""
        before, self.format = self.format, FORMAT
        replace_file(self.path / MARKER, marker_bytes(self.root.lab))
        return before

    def discard(self, digest: str) -> int:
        """Delete the bytes of a known file, after a record that says so is in the ledger; for writers.

        Returns:
            Bytes that were freed; 0 if they were gone already.

        Raises:
            UsageError: if the ledger does not know it.
        """
        path = self.blob_path(digest)
        if not path.is_symlink() and not path.exists():
            return 0
        size = path.lstat().st_size
        path.unlink()
        sync_folder(path.parent)
        return size

    def close(self) -> None:
        """Release the lock."""
        self.ledger.close()
        if self.ahead is not None:
            self.ahead.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _files_of(self, *entries: LedgerEntry) -> dict[Path, str]:
        """Where the files that entered with entries belong, with the SHA-256 of their bytes; envelopes after blobs."""
        files: dict[Path, str] = {}
        for entry in entries:
            files |= {self.path / entry.record_zone / "blobs" / blob.sha256: blob.sha256 for blob in entry.blobs}
            files[self.record_path(entry)] = entry.envelope.sha256
        return files

    def _recover(self) -> None:
        """Finish or undo what a crash left: torn tail, files of committed entries, checkpoint, witness, staging."""
        self.ledger.cut_torn_tail()
        self._cut_lost_entries()
        if pending := self.ledger.entries[self.ledger.acknowledged :]:
            self._staging.settle(self._files_of(*pending))
            authority = self.ledger.authority(len(self.ledger.entries) - 1)
            self.ledger.acknowledge(self._audit_key(authority))
        self.ledger.show_witness()
        unwitnessed = self.path / "cache" / _UNWITNESSED
        if unwitnessed.exists():
            if self.ledger.witnessed is None:
                self.appoint_witness()
            unwitnessed.unlink()
        self._staging.clear()
        shutil.rmtree(self.path / "cache" / "work", ignore_errors=True)
        for partial in self.path.glob("*/**/*.partial"):
            if partial.parent.name in {"audit", "channels", "pending"}:
                partial.unlink()

    def _cut_lost_entries(self) -> None:
        """Take back unacknowledged entries from the first whose files are neither in place nor staged."""
        first = self.ledger.acknowledged
        pending = self.ledger.entries[first:]
        whole = [all(self._staging.arrived(*file) for file in self._files_of(entry).items()) for entry in pending]
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


class _New:
    """What a group brings that the ledger does not hold yet: digests of records and of files."""

    def __init__(self) -> None:
        self.records: set[str] = set()
        self.blobs: set[str] = set()


def _day(time: datetime) -> str:
    return time.date().isoformat()
