"""The lines of a ledger, verified one by one without any file: each signed, naming the one before it, a leaf of the tree.

Every line is held against the authority at its own position; this is the one place where lines are unsealed.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from studbook.errors import BytesLie, DigestDiffers, NotAuthorised, RecordRefused
from studbook.ledger.merkle import Tree
from studbook.ledger.note import Checkpoint, audit_keys, open_checkpoint, origin_of, read_checkpoint
from studbook.records import LedgerEntry, Root
from studbook.seal import AUTHORITY_KINDS, Authority, SigningKey, Succession, peek, seal, unseal

__all__ = ["NOTHING", "Chain", "Draft", "FindEnvelope", "OpenLine", "open_line"]

# Gives the envelope that an entry names, and where it lies; asked for the entries that change who may sign.
FindEnvelope = Callable[[LedgerEntry], tuple[bytes, Path]]
# Verifies one line; a parameter, so that a line seen before need not be verified again.
OpenLine = Callable[[bytes, Authority, str], LedgerEntry]
# What the first line names as the one before it.
NOTHING = "0" * 64
_LINE = LedgerEntry.kind()


def open_line(line: bytes, authority: Authority, where: str) -> LedgerEntry:
    """Verify one line, without its newline, under the authority at its position.

    Raises:
        RecordRefused: if it is malformed, or holds something else than a ledger entry.
        NotAuthorised: if no audit key in force there signed it.
        DigestDiffers: if it speaks of something other than its record.
    """
    return _as_entry(unseal(line, authority, where).record, where)


class _End(NamedTuple):
    length: int
    head: str
    succession: Succession | None


class Draft:
    """Lines that continue a ledger and are not part of it yet.

    Args:
        sequence: Position of the first.
        head: SHA-256 of the line before it.

    Attributes:
        entries: Their entries.
        lines: The sealed lines, without newlines.
        sequence: Position of the next.
        head: SHA-256 of the last line.
        key: The key that signed the last line; None if there is none yet.
        succession: What an entry made of the authority; None if none changed it. Such an entry is the last one.
    """

    def __init__(self, sequence: int, head: str) -> None:
        self.entries: list[LedgerEntry] = []
        self.lines: list[bytes] = []
        self.sequence = sequence
        self.head = head
        self.key: SigningKey | None = None
        self.succession: Succession | None = None

    def add(self, entry: LedgerEntry, key: SigningKey, where: str = "") -> None:
        """Seal an entry as the next line.

        Raises:
            DigestDiffers: if it does not follow the line before it; ``ledger.chain``.
        """
        _check_follows(entry, self.sequence, self.head, where or f"entry {entry.sequence}")
        line = seal(entry, key)
        self.entries.append(entry)
        self.lines.append(line)
        self.sequence += 1
        self.head = sha256(line).hexdigest()
        self.key = key


class Chain:
    """Verified lines in memory.

    Args:
        where: The ledger's file, for errors.
        find: Gives envelopes of roots and revocations.
        opener: Verifies a line.

    Attributes:
        entries: All entries in order.
        head: SHA-256 of the last line, 64 hex digits.
        length: Bytes of all lines with their newlines.
        tree: The Merkle tree whose leaves are the lines without their newlines.
        succession: Roots and revocations so far; None before the first entry.
    """

    def __init__(self, where: object, find: FindEnvelope, opener: OpenLine = open_line) -> None:
        self._where = where
        self._find = find
        self._opener = opener
        self.entries: list[LedgerEntry] = []
        self.tree = Tree()
        self.head = NOTHING
        self.length = 0
        self.succession: Succession | None = None
        self._ends: list[_End] = []
        self._known: set[str] = set()

    @property
    def root(self) -> Root:
        """The root of keys in force at the end.

        Raises:
            BytesLie: if there is no entry yet.
        """
        return self._reign.root

    @property
    def origin(self) -> str:
        """The origin of this ledger's checkpoints."""
        return origin_of(self.root.lab)

    def authority(
        self, position: int | None = None, day: str = "", kind: str = _LINE, seen: int | None = None
    ) -> Authority:
        """The authority at a position (`Succession.at`), that of the next entry by default."""
        return self._reign.at(len(self.entries) if position is None else position, day, kind, seen)

    def accept(self, line: bytes) -> None:
        """Verify the next line and take it in; nothing changes if it is refused.

        Args:
            line: Without its newline.

        Raises:
            StudbookError: as `open_line`; and if the root or revocation that it brings is refused.
            DigestDiffers: if it does not follow the line before it (``ledger.chain``), brings a record that entered
                before (``ledger.replay``), or is dated before the line before it or on no day (``ledger.clock``).
        """
        where = f"{self._where}: entry {len(self.entries)}"
        entry, succession = self._open(line, where)
        _check_follows(entry, len(self.entries), self.head, where)
        if entry.record in self._known:
            # Else whoever holds an audit key could put an older policy back in force under its own old signature.
            advice = "Restore the audit folder from a backup, and replace the audit key: studbook key rotate."
            text = "brings a record that entered before"
            raise DigestDiffers(text, where=where, advice=advice, reason="ledger.replay")
        _check_moment(entry.time, where)
        if self.entries and entry.time < self.entries[-1].time:
            advice = "Whoever wrote it had another clock, or lied. Restore the audit folder from a backup."
            text = f"is dated {entry.time}, before the line before it"
            raise DigestDiffers(text, where=where, advice=advice, reason="ledger.clock")
        self.take(entry, line, succession)

    def take(self, entry: LedgerEntry, line: bytes, succession: Succession | None = None) -> None:
        """Take in a line that was verified, or was just sealed here.

        Args:
            entry: Its entry.
            line: Without its newline.
            succession: What the entry made of the authority, if it changed it.
        """
        self.entries.append(entry)
        self._known.add(entry.record)
        self.head = sha256(line).hexdigest()
        self.length += len(line) + 1
        self.tree.append(line)
        self.succession = succession or self.succession
        self._ends.append(_End(self.length, self.head, self.succession))

    def entered(self, entry: LedgerEntry, data: bytes, where: object) -> Succession:
        """What an entry that brings a root or a revocation would make of the authority; nothing changes here.

        Args:
            entry: The entry.
            data: The envelope it names.
            where: The envelope's file, for errors.

        Raises:
            StudbookError: as `Succession.enter`.
        """
        if self.succession is None:
            return Succession(entry, data, where)
        succession = deepcopy(self.succession)
        succession.enter(entry, data, where)
        return succession

    def cut(self, count: int) -> None:
        """Keep the first ``count`` entries, one or more."""
        self.length, self.head, self.succession = self._ends[count - 1]
        self.tree.cut(count)
        del self.entries[count:], self._ends[count:]
        self._known = {entry.record for entry in self.entries}

    def open_checkpoint(self, data: bytes, where: object) -> Checkpoint:
        """Verify a checkpoint and hold it against the lines.

        Args:
            data: The note.
            where: Its file, for errors.

        Raises:
            BytesLie: if it is malformed; ``ledger.note``.
            DigestDiffers: if it is another lab's (``ledger.origin``), says more entries than there are
                (``ledger.truncated``), or another root (``ledger.root``).
            NotAuthorised: if no audit key in force at its size signed it; ``ledger.unsigned`` or ``ledger.signature``.
        """
        size = read_checkpoint(data, where)[0].size
        keys = audit_keys(self.authority(max(min(size, len(self.entries)) - 1, 0)))
        checkpoint = open_checkpoint(data, self.origin, keys, where)
        if size > len(self.entries):
            text, reason = f"does not hold the {size} entries that were acknowledged", "ledger.truncated"
        elif self.tree.root(size) != checkpoint.root:
            text, reason = f"its first {size} entries are not those that were acknowledged", "ledger.root"
        else:
            return checkpoint
        advice = "Entries were removed or changed. Restore the audit folder from a backup."
        raise DigestDiffers(text, where=self._where, advice=advice, reason=reason)

    @property
    def _reign(self) -> Succession:
        if self.succession is None:
            raise BytesLie("holds no entry", where=self._where, advice="Restore the ledger from a backup.")
        return self.succession

    def _open(self, line: bytes, where: str) -> tuple[LedgerEntry, Succession | None]:
        """The entry of the next line and, where it brings one, the new succession: in force from this line on."""
        try:
            entry = self._opener(line, self.authority(), where) if self.entries else _as_entry(peek(line, where), where)
        except NotAuthorised:
            # The line that brings a new root may be signed by an audit key that only the new root names.
            entry = _as_entry(peek(line, where), where)
            if entry.record_kind != Root.kind():
                raise
        if self.entries and entry.record_kind not in AUTHORITY_KINDS:
            return entry, None
        succession = self.entered(entry, *self._find(entry))
        return self._opener(line, succession.at(len(self.entries), "", _LINE), where), succession


def _as_entry(record: object, where: str) -> LedgerEntry:
    if not isinstance(record, LedgerEntry):
        raise RecordRefused("is not a ledger entry", where=where)
    return record


def _check_moment(time: str, where: str) -> None:
    try:
        datetime.fromisoformat(time)
    except ValueError as error:
        advice = "Whoever wrote it had no clock, or lied. Restore the audit folder from a backup."
        raise DigestDiffers(f"is dated {time}", where=where, advice=advice, reason="ledger.clock") from error


def _check_follows(entry: LedgerEntry, sequence: int, head: str, where: str) -> None:
    if entry.sequence != sequence or entry.previous != head:
        raise DigestDiffers("does not follow the line before it", where=where, reason="ledger.chain")
