"""The pedigree: a hash-chained, append-only file of signed lines.

A line is the sealed `LedgerEntry` of one accepted record. A signed `Checkpoint` beside it says how much of the file
was acknowledged: behind that point a torn tail, or an entry whose files never reached the disk, is what a crash leaves
and is cut off; before it every byte must stand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from studbook.errors import BytesLie, DigestDiffers, RecordRefused, UsageError
from studbook.files import append_line, read_file, replace_file, truncate
from studbook.records import Checkpoint, Header, LedgerEntry, Root
from studbook.seal import SigningKey, open_root, peek, seal, unseal

__all__ = ["NOTHING", "Ledger"]

NOTHING = "0" * 64
_LIMIT = 1 << 30
_CHECKPOINT_LIMIT = 1 << 20


class Ledger:
    """An opened ledger whose every line was verified.

    Args:
        folder: The lab's ``audit`` folder.

    Attributes:
        entries: All entries in order.
        head: SHA-256 of the last line.
        length: Bytes of the verified lines.
        torn: Bytes behind them that are not a whole line.
        acknowledged: Entries the checkpoint covers.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.jsonl"
        self.checkpoint_path = folder / "checkpoint.json"
        self.entries: list[LedgerEntry] = []
        self.head = NOTHING
        self.length = 0
        self.torn = 0
        self.acknowledged = 0
        # Length of the file and head of the chain behind every entry.
        self._ends: list[tuple[int, str]] = []

    def load(self, find_root: Callable[[LedgerEntry], tuple[bytes, Path]]) -> Root:
        """Read and verify the whole file.

        Args:
            find_root: Gives the root's envelope, named by the first entry: its bytes and where they lie.

        Returns:
            The root of keys.

        Raises:
            BytesLie: if the ledger is empty or a line is not canonical.
            DigestDiffers: if the chain is broken, or is not what the checkpoint acknowledged.
            NotAuthorised: if a line or the checkpoint is not signed by the audit key.
        """
        # The checkpoint first: a writer beside this reader may add lines in between, never take acknowledged ones away.
        checkpoint = self._read_checkpoint()
        data = read_file(self.path, _LIMIT)
        whole, newline, rest = data.rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        if not lines:
            raise BytesLie("holds no entry", where=self.path, advice="Restore the ledger from a backup.")
        self.torn = len(rest)
        root = self._root(lines[0], find_root)
        for line in lines:
            self._accept(line, root)
        self._check_checkpoint(checkpoint, data, root)
        return root

    def append(self, entry: LedgerEntry, key: SigningKey) -> None:
        """Add one entry; on disk before this returns. Its sequence and previous digest must continue the chain."""
        line = seal(entry, key)
        self._follow(entry, f"{self.path}: entry {entry.sequence}")
        append_line(self.path, line)
        self._take(entry, line)

    def acknowledge(self, header: Header, lab: str, key: SigningKey) -> None:
        """Write the checkpoint: everything up to here must be there from now on."""
        checkpoint = Checkpoint(header=header, lab=lab, entries=len(self.entries), length=self.length, head=self.head)
        replace_file(self.checkpoint_path, seal(checkpoint, key))
        self.acknowledged = len(self.entries)

    def cut_torn_tail(self) -> None:
        """Drop the bytes of a line that a crash left unfinished; never anything that was acknowledged."""
        if self.torn:
            truncate(self.path, self.length)
            self.torn = 0

    def cut(self, count: int) -> None:
        """Keep the first ``count`` entries only; the rest was never acknowledged and never will be.

        Raises:
            DigestDiffers: if that would take acknowledged entries away.
        """
        if count < max(self.acknowledged, 1):
            raise DigestDiffers(f"entry {count} was acknowledged and cannot be cut off", where=self.path)
        length, head = self._ends[count - 1]
        truncate(self.path, length)
        self.length, self.head = length, head
        del self.entries[count:], self._ends[count:]

    def _root(self, line: bytes, find_root: Callable[[LedgerEntry], tuple[bytes, Path]]) -> Root:
        where = f"{self.path}: entry 0"
        first = peek(line, where)
        if not isinstance(first, LedgerEntry):
            raise RecordRefused("is not a ledger entry", where=where)
        data, place = find_root(first)
        root, root_digest = open_root(data, place)
        if root_digest != first.record:
            raise DigestDiffers("the root of keys is not the one the first entry names", where=where)
        return root

    def _accept(self, line: bytes, root: Root) -> None:
        where = f"{self.path}: entry {len(self.entries)}"
        entry = unseal(line, root, where).record
        if not isinstance(entry, LedgerEntry):
            raise RecordRefused("is not a ledger entry", where=where)
        self._follow(entry, where)
        self._take(entry, line)

    def _follow(self, entry: LedgerEntry, where: str) -> None:
        if entry.sequence != len(self.entries) or entry.previous != self.head:
            raise DigestDiffers("does not follow the line before it", where=where, reason="ledger.chain")

    def _take(self, entry: LedgerEntry, line: bytes) -> None:
        self.entries.append(entry)
        self.head = hashlib.sha256(line).hexdigest()
        self.length += len(line) + 1
        self._ends.append((self.length, self.head))

    def _read_checkpoint(self) -> bytes | UsageError:
        try:
            return read_file(self.checkpoint_path, _CHECKPOINT_LIMIT)
        except UsageError as missing:
            return missing

    def _check_checkpoint(self, found: bytes | UsageError, data: bytes, root: Root) -> None:
        where = self.checkpoint_path
        if isinstance(found, UsageError):
            # Only the very first entry can be on disk before any checkpoint is.
            if len(self.entries) == 1:
                return
            raise DigestDiffers(
                "is missing; without it nobody can say how many entries were acknowledged",
                where=where,
                advice="Restore it from a backup, or from the copy that is kept outside the lab; the entries are untouched.",
                reason="ledger.checkpoint",
            )
        checkpoint = unseal(found, root, where).record
        if not isinstance(checkpoint, Checkpoint) or checkpoint.lab != root.lab:
            raise RecordRefused("is not this lab's checkpoint", where=where)
        covered = data[: checkpoint.length]
        last = covered[:-1].rpartition(b"\n")[2]
        whole = len(covered) == checkpoint.length and covered.endswith(b"\n")
        if not whole or checkpoint.entries > len(self.entries) or hashlib.sha256(last).hexdigest() != checkpoint.head:
            raise DigestDiffers(
                f"does not hold the {checkpoint.entries} entries that were acknowledged",
                where=self.path,
                advice="Entries were removed or changed. Restore the audit folder from a backup.",
                reason="ledger.truncated",
            )
        self.acknowledged = checkpoint.entries
