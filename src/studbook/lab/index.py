"""A derived index over the ledger, in ``cache/index.sqlite``: which records speak of what, so that questions are quick.

It is never trusted. It says for which ledger it was built, by number of entries and root of the Merkle tree; one that
differs is thrown away, one of a shorter ledger with the same beginning is continued. It only finds: what an answer says
is read from the ledger and its records. `verify` and `gc` do not use it, `withdraw` only for the list it prints.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from studbook.errors import StudbookError
from studbook.files import read_file, replace_file
from studbook.lab.descent import made_from
from studbook.lab.desk import Desk
from studbook.records import (
    KINDS,
    LedgerEntry,
    LineageTemplate,
    Record,
)
from studbook.seal import AUTHORITY_KINDS

__all__ = ["FORMAT", "Index", "births"]

FORMAT = 1
"""Version of the tables; an index of another version is built anew."""

_LIMIT = 1 << 30
# sqlite.org/fileformat.html, section 1.3.
_MAGIC = b"SQLite format 3\0"
_TABLES = """
CREATE TABLE built (format INTEGER, size INTEGER, root TEXT);
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, time TEXT, kind TEXT, zone TEXT, record TEXT, void INTEGER);
CREATE TABLE about (sequence INTEGER, digest TEXT);
CREATE TABLE births (sequence INTEGER, child TEXT, parent TEXT);
CREATE INDEX about_digest ON about (digest);
CREATE INDEX births_parent ON births (parent);
"""


class Index:
    """The index of an opened lab, up to date.

    Args:
        desk: The lab. Its cache takes the index, if it can be written to; otherwise the index lasts as long as this.

    Attributes:
        path: Where it lies.
        kept: How many entries were taken over from the file that was there.

    Raises:
        StudbookError: any of its kinds, if a record cannot be read.
    """

    def __init__(self, desk: Desk) -> None:
        self.path = desk.workspace.path / "cache" / "index.sqlite"
        self._desk = desk
        self._base, self.kept = self._open()
        entries = desk.workspace.ledger.entries
        if self.kept < len(entries) or not entries:
            self._add(entries[self.kept :])
            self._save()

    def log(self, kinds: Sequence[str], zone: str, digests: Sequence[str], since: str) -> list[LedgerEntry]:
        """Entries in order.

        Args:
            kinds: Kinds of record; every one if empty.
            zone: A zone; every one if empty.
            digests: Artifacts or records that an entry speaks about, one of them; anything if empty.
            since: First moment, as the ledger writes times; from the beginning if empty.
        """
        where, values = ["time >= ?"], [since]
        for column, wanted in (("kind", kinds), ("zone", [zone] if zone else [])):
            if wanted:
                where.append(f"{column} IN ({_marks(wanted)})")
                values += wanted
        if digests:
            where.append(f"sequence IN (SELECT sequence FROM about WHERE digest IN ({_marks(digests)}))")
            values += digests
        rows = self._base.execute(f"SELECT sequence FROM entries WHERE {' AND '.join(where)} ORDER BY sequence", values)
        entries = self._desk.workspace.ledger.entries
        return [entries[row[0]] for row in rows if row[0] in range(len(entries))]

    def void(self, sequence: int) -> bool:
        """Whether the record of an entry counts no longer, because a key that signed it was revoked."""
        found = self._base.execute("SELECT void FROM entries WHERE sequence = ?", (sequence,)).fetchone()
        return bool(found and found[0])

    def children(self, parent: str) -> Iterator[tuple[str, int]]:
        """Artifacts that a record says were made from an artifact or a data manifest, and that record's position."""
        workspace = self._desk.workspace
        query = "SELECT child, sequence FROM births WHERE parent = ? ORDER BY sequence, child"
        for child, sequence in self._base.execute(query, (parent,)).fetchall():
            if sequence not in range(len(workspace.ledger.entries)):
                continue
            entry = workspace.ledger.entries[sequence]
            record = workspace.get(entry.record, KINDS[entry.record_kind])
            if (child, parent) in births(self._desk, record):
                yield child, sequence

    def _open(self) -> tuple[sqlite3.Connection, int]:
        with suppress(StudbookError, sqlite3.Error, OSError, TypeError, ValueError):
            data = read_file(self.path, _LIMIT)
            if not data.startswith(_MAGIC):
                raise ValueError("not a database")
            base = _fresh()
            base.deserialize(data)
            built, size, root = base.execute("SELECT format, size, root FROM built").fetchone()
            sound = base.execute("PRAGMA quick_check").fetchone() == ("ok",)
            if sound and built == FORMAT and self._fits(size, root):
                return base, size
        with suppress(OSError):
            self.path.unlink()
        base = _fresh()
        base.executescript(_TABLES)
        return base, 0

    def _fits(self, size: int, root: str) -> bool:
        """Whether it was built for the beginning of this ledger, with the keys that still count."""
        ledger = self._desk.workspace.ledger
        if not 0 < size <= len(ledger.entries) or ledger.tree.root(size).hex() != root:
            return False
        # A revocation may make void what was read before it.
        return not any(e.record_kind in AUTHORITY_KINDS for e in ledger.entries[size:])

    def _add(self, entries: Sequence[LedgerEntry]) -> None:
        desk, base = self._desk, self._base
        for entry in desk.progress.track("indexing the ledger", list(entries)):
            void = desk.workspace.void(entry)
            row = (entry.sequence, entry.time, entry.record_kind, entry.record_zone.value, entry.record, int(void))
            base.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
            if void:
                continue
            record = desk.workspace.get(entry.record, KINDS[entry.record_kind])
            about = {entry.record, *record.subjects(), *record.references()}
            base.executemany("INSERT INTO about VALUES (?, ?)", [(entry.sequence, d) for d in sorted(about)])
            born = [(entry.sequence, child, parent) for child, parent in births(desk, record)]
            base.executemany("INSERT INTO births VALUES (?, ?, ?)", born)
        ledger = desk.workspace.ledger
        base.execute("DELETE FROM built")
        base.execute("INSERT INTO built VALUES (?, ?, ?)", (FORMAT, len(ledger.entries), ledger.tree.root().hex()))
        base.commit()

    def _save(self) -> None:
        """Put it into the cache, if that can be written to: a lab on a read-only disk is asked just as well."""
        with suppress(StudbookError, OSError):
            if not self.path.parent.is_symlink() and self.path.parent.is_dir():
                replace_file(self.path, self._base.serialize(), 0o644)


def births(desk: Desk, record: Record) -> list[tuple[str, str]]:
    """What a record says about descent: child and what it was made from, each a digest; see `studbook.lab.descent`.

    Args:
        desk: The lab.
        record: The record.
    """
    above = made_from(record, lambda digest: desk.workspace.get(digest, LineageTemplate))
    return [(record.subjects()[0], parent) for parent in above]


def _fresh() -> sqlite3.Connection:
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA trusted_schema = OFF")
    return base


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
