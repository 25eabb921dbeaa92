"""Looking things up in a lab's folder: records by digest, files by SHA-256, each hashed as it is read."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, Self, TypeVar

from studbook.errors import DigestDiffers, NotAuthorised, UsageError
from studbook.files import make_folder, read_file, replace_file
from studbook.ledger import Ledger, Witness
from studbook.records import KINDS, Blob, LedgerEntry, Record, Root, Zone, canonical
from studbook.seal import AUTHORITY_KINDS, Authority, KeyRing, Sealed, unseal
from studbook.workspace.places import FORMAT, MARKER, marker_bytes

__all__ = ["Store"]

_ENVELOPE_LIMIT = 64 << 20
_BLOB_LIMIT = 134_217_728
R = TypeVar("R", bound=Record)


class Store:
    """A lab's folder seen through its ledger.

    Args:
        path: The folder.
        keys: The key ring.
        witness: Its witness; None for a lab that is being made.

    Attributes:
        ledger: The ledger; empty until it was loaded.
        format: Version of what the folder holds.
    """

    def __init__(self, path: Path, keys: KeyRing, witness: Witness | None) -> None:
        self.path = path
        self.keys = keys
        self.format = FORMAT
        self.ledger = Ledger(path / "audit", witness, path / "cache" / "staging")
        self._by_digest: dict[str, LedgerEntry] = {}
        self._blobs: dict[str, tuple[Zone, Blob]] = {}
        self._records: dict[str, Record] = {}
        self._folders: dict[tuple[str, str], Path] = {}
        self._paths: dict[tuple[str, str, str], Path] = {}
        self._seen: int | None = None

    def as_seen(self, position: int) -> Self:
        """The same lab for a reader to whom no revocation counts that entered at or after a position; only for reading."""
        earlier = copy(self)
        earlier._seen, earlier._records = position, {}
        return earlier

    @property
    def root(self) -> Root:
        """The root of keys in force."""
        return self.ledger.root

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
        if not isinstance(record, kind):
            raise DigestDiffers(f"is not a {kind.kind()}", where=self.record_path(entry))
        return record

    def all(self, kind: type[R]) -> Iterator[tuple[str, R]]:
        """Digest and record of every record of a kind, oldest first; what only a stolen key signed is left out."""
        wanted = kind.kind()
        for entry in self.ledger.entries:
            if entry.record_kind == wanted and not self.void(entry):
                yield entry.record, self.get(entry.record, kind)

    def void(self, entry: LedgerEntry) -> bool:
        """Whether a record counts no longer, because a key that signed it was revoked at or before its entry."""
        known = self._authority(entry)
        if entry.record in self._records or not known.revocations:
            return False
        try:
            self.get(entry.record, KINDS[entry.record_kind])
        except NotAuthorised as error:
            if error.reason != "authority.revoked":
                raise
            return True
        return False

    def entry(self, digest: str) -> LedgerEntry | None:
        """The ledger entry of a record, or None."""
        return self._by_digest.get(digest)

    def sealed(self, entry: LedgerEntry) -> Sealed:
        """Read and verify the envelope an entry names; `get` gives its record from then on without reading it again."""
        path = self.record_path(entry)
        data = read_file(path, _ENVELOPE_LIMIT)
        if hashlib.sha256(data).hexdigest() != entry.envelope.sha256:
            raise DigestDiffers("is not the envelope that was recorded", where=path)
        sealed = unseal(data, self._authority(entry), path)
        if sealed.digest != entry.record:
            raise DigestDiffers("holds another record than the ledger says", where=path)
        self._records[entry.record] = sealed.record
        return sealed

    def has_blob(self, digest: str) -> bool:
        """Whether the ledger knows this file; its bytes may still be missing."""
        return digest in self._blobs

    def blob_size(self, digest: str) -> int:
        """Bytes of a file of the store, as the ledger says.

        Raises:
            UsageError: if the ledger does not know it.
        """
        if digest not in self._blobs:
            raise UsageError(f"the lab holds no file {digest[:16]}...")
        return self._blobs[digest][1].size

    def blob_path(self, digest: str) -> Path:
        """Where a file of the store lies.

        Raises:
            UsageError: if the ledger does not know it.
        """
        if digest not in self._blobs:
            raise UsageError(f"the lab holds no file {digest[:16]}...")
        return self._folder(self._blobs[digest][0], "blobs") / digest

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
        named = (entry.record_zone, entry.record_kind, entry.record)
        if named not in self._paths:
            folder = self._folder(entry.record_zone, entry.record_kind.replace("/", "-"))
            self._paths[named] = folder / f"{entry.record}.json"
        return self._paths[named]

    def expected_files(self) -> dict[Path, str]:
        """Every file the ledger accounts for with the SHA-256 of its bytes, except the ledger and its checkpoint."""
        files = {self.record_path(e): e.envelope.sha256 for e in self.ledger.entries}
        files |= {self.blob_path(d): d for d in self._blobs}
        files[self.path / MARKER] = hashlib.sha256(marker_bytes(self.root.lab, self.format)).hexdigest()
        return files

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

    def _authority(self, entry: LedgerEntry) -> Authority:
        return self.ledger.authority(entry.sequence, entry.time[:10], entry.record_kind, self._seen)

    def _folder(self, zone: str, name: str) -> Path:
        """A folder of a zone; paths are slow to build and to compare, and those of every record are wanted often."""
        if (zone, name) not in self._folders:
            self._folders[zone, name] = self.path.joinpath(zone, name)
        return self._folders[zone, name]

    def _index(self, entry: LedgerEntry) -> None:
        self._by_digest.setdefault(entry.record, entry)
        if entry.record_kind in AUTHORITY_KINDS:
            # What was read under the authority before may be void now.
            self._records.clear()
        for blob in entry.blobs:
            self._blobs.setdefault(blob.sha256, (entry.record_zone, blob))

    def _authority_envelope(self, entry: LedgerEntry) -> tuple[bytes, Path]:
        path = self.record_path(entry)
        # A crash right after its line leaves it in staging.
        staged = self.path / "cache" / "staging" / entry.envelope.sha256
        data = read_file(staged if staged.is_file() and not path.exists() else path, _ENVELOPE_LIMIT)
        if hashlib.sha256(data).hexdigest() != entry.envelope.sha256:
            raise DigestDiffers("is not the envelope that was recorded", where=path)
        return data, path
