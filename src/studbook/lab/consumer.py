"""A publication verified from a pinned root of keys alone, without the lab: nothing in it is taken at its word.

The order, after the client workflow of The Update Framework 1.0 (section 5), with the ledger in place of its timestamp:

1. roots, each signed by enough owners of the one before; the pin among them, the newest not ended;
2. the snapshot's signature, kind, zone, root and expiry;
3. the checkpoint, signed, with the snapshot as its last entry; the leaf hashes give its tree;
4. revocations, and every line again under them;
5. what was seen before: no older version, no other past, no version that the ledger has no room for;
6. records, when they are asked for: line in the tree, signature of a key allowed at that position.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from studbook.errors import DigestDiffers, NotAuthorised, RecordRefused
from studbook.lab.mirror import Reader
from studbook.lab.publication import (
    MOST_DAYS,
    POINTER,
    POINTER_LIMIT,
    Pointer,
    ends_in_time,
    line_name,
    record_name,
    root_name,
    tile_names,
)
from studbook.lab.rootwalk import LINE_LIMIT, entry_of, follow_roots
from studbook.lab.seen import Seen, hold_against
from studbook.ledger.chain import open_line
from studbook.ledger.merkle import HASH_BYTES, Tree, leaf_hash
from studbook.ledger.note import Checkpoint, audit_keys, open_checkpoint, origin_of, read_note, verify_note
from studbook.ledger.proofs import write_inclusion
from studbook.records import ChannelSnapshot, LedgerEntry, Record, Revocation, read_struct
from studbook.records.doors import MAX_RECORD_BYTES
from studbook.seal import Authority, Sealed, keys_in_force, peek, unseal

__all__ = ["Publication", "Shown"]

_LINE = LedgerEntry.kind()
# How far the clocks of the lab and of this machine may be apart.
_SKEW = timedelta(days=1)
_ADVICE = "Do not use this publication. Fetch it again from its source; if it stays so, tell whoever runs the lab."


class Shown(NamedTuple):
    """A record with what shows that the lab's ledger holds it.

    Attributes:
        entry: Its ledger entry.
        sealed: The record, and who signed it.
        envelope: As it was signed.
        line: The ledger line.
    """

    entry: LedgerEntry
    sealed: Sealed
    envelope: bytes
    line: bytes


class Publication:
    """A verified publication.

    Args:
        reader: Where it is read from.
        pin: The sealed root of keys that somebody handed over.
        pin_name: Its file, for errors.
        now: The moment, UTC.
        seen: What was seen of this lab before, if anything was.

    Attributes:
        snapshot: The snapshot.
        succession: Roots and revocations.
        notes: What a person should know, in sentences.

    Raises:
        StudbookError: any of its kinds; nothing of a publication that is refused may be used.
    """

    def __init__(self, reader: Reader, pin: bytes, pin_name: object, now: datetime, seen: Seen | None) -> None:
        self.reader = reader
        self._where = reader.where(POINTER)
        self._records: dict[str, Shown] = {}
        pointer = read_struct(reader.read(POINTER, POINTER_LIMIT), Pointer, self._where)
        self._pointer = pointer
        claimed = peek(pointer.envelope.encode(), self._where)
        if not isinstance(claimed, ChannelSnapshot):
            text = f"holds a {claimed.kind()}, not a snapshot of channels"
            raise RecordRefused(text, where=self._where, advice=_ADVICE, reason="pull.kind")
        today = now.date().isoformat()
        self._roots = follow_roots(reader, claimed.root_version, pin, pin_name, seen, today)
        self.succession = self._roots.succession
        self._entry = entry_of(pointer.line.encode(), self._where)
        self.snapshot = self._open_snapshot(now)[0]
        self.checkpoint, self._audit_key = self._open_checkpoint()
        self.tree = self._grow_tree()
        self._enter_revocations()
        # Once more, now that it is known which keys were revoked.
        _, sealed = self._open_snapshot(now)
        self._open_checkpoint()
        for version, line in enumerate(self._roots.lines, 1):
            self._accept(line, self._roots.digests[version - 1], root_name(version))
        entry = self._accept(pointer.line.encode(), sealed.digest, POINTER)
        self._shown = Shown(entry, sealed, pointer.envelope.encode(), pointer.line.encode())
        self._records[sealed.digest] = self._shown
        revocations = [r for r in map(self.get, self.snapshot.revocations) if isinstance(r, Revocation)]
        self._revoked = [r for r in revocations if r.subject.type != "key"]
        keys = {g.key for g in keys_in_force(self.succession.root, revocations, self.snapshot.entries)}
        self.notes = hold_against(seen, self.snapshot, self.tree, keys, self._where)

    def get(self, named: str) -> Record:
        """A record by its digest, verified the first time it is asked for.

        Raises:
            StudbookError: any of its kinds, if it is not in the ledger before the snapshot, or its signature does not
                count at its position.
        """
        return self.show(named).sealed.record

    def show(self, named: str) -> Shown:
        """The same with its envelope and its line."""
        if named not in self._records:
            self._records[named] = self._show(record_name(named), named)
        return self._records[named]

    def prove(self, entry: LedgerEntry) -> bytes:
        """The proof that an entry is in the checkpoint's tree, as a file (`studbook.ledger.check_inclusion`)."""
        return write_inclusion(entry.sequence, self.tree.inclusion(entry.sequence), self._pointer.checkpoint.encode())

    def revoked(self, digests: Collection[str]) -> str:
        """Why one of some artifacts or records counts no longer; empty where none was revoked."""
        for record in self._revoked:
            if record.subject.digest in digests:
                return f"{record.subject.type} {record.subject.digest[:16]}... was revoked: {record.reason}"
        return ""

    def seen(self, source: str) -> Seen:
        """What to remember of it."""
        return Seen(
            lab=self.snapshot.lab,
            root_version=self.snapshot.root_version,
            root=self._roots.digests[-1],
            snapshot_version=self.snapshot.snapshot_version,
            snapshot=self._shown.sealed.digest,
            position=self.snapshot.entries,
            signers=tuple(signer.key for signer in self._shown.sealed.signers),
            checkpoint=self._pointer.checkpoint,
            audit_key=self._audit_key,
            revocations=self.snapshot.revocations,
            source=source,
        )

    # -- the steps -----------------------------------------------------------------------------------------------

    def _open_snapshot(self, now: datetime) -> tuple[ChannelSnapshot, Sealed]:
        """The snapshot, and what was verified of it."""
        data, root = self._pointer.envelope.encode(), self.succession.root
        sealed = unseal(data, self._authority(self._entry, ChannelSnapshot.kind()), self._where)
        record = sealed.record
        assert isinstance(record, ChannelSnapshot)
        named = (self._entry.record, self._entry.sequence, self._entry.envelope.sha256)
        if named != (sealed.digest, record.entries, sha256(data).hexdigest()):
            raise self._mixed("its ledger line speaks of another snapshot")
        if record.lab != root.lab:
            raise self._mixed("it is the snapshot of another lab")
        if self.succession.at(record.entries).root.root_version != record.root_version:
            raise self._mixed("it was made under another root of keys than it says")
        if record.expires <= now.strftime("%Y-%m-%dT%H:%M:%SZ"):
            raise NotAuthorised(
                f"snapshot {record.snapshot_version} ended at {record.expires}",
                where=self._where,
                advice="Ask whoever runs the lab to publish again. If they did, this copy is being held back.",
                reason="pull.expired",
            )
        if not ends_in_time(record, self._entry.time, now + _SKEW):
            ends = f"ends at {record.expires}, more than {MOST_DAYS} days after it entered"
            text = f"snapshot {record.snapshot_version} {ends}"
            raise NotAuthorised(text, where=self._where, advice=_ADVICE, reason="pull.expires")
        return record, sealed

    def _open_checkpoint(self) -> tuple[Checkpoint, str]:
        """What the checkpoint says, and the key that signed it."""
        data, origin = self._pointer.checkpoint.encode(), origin_of(self.succession.root.lab)
        keys = audit_keys(self.succession.at(self.snapshot.entries, "", _LINE))
        checkpoint = open_checkpoint(data, origin, keys, self._where)
        if checkpoint.size != self.snapshot.entries + 1:
            raise self._mixed("its checkpoint does not end with it")
        return checkpoint, verify_note(read_note(data, self._where), origin, keys, self._where)

    def _grow_tree(self) -> Tree:
        tree = Tree()
        for name, width in tile_names(self.checkpoint.size):
            data = self.reader.read(name, width * HASH_BYTES, width * HASH_BYTES)
            tree.extend_hashes(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))
        if tree.root() != self.checkpoint.root or tree.root(self.snapshot.entries).hex() != self.snapshot.tree:
            text = "the leaf hashes are not those of the signed checkpoint"
            raise DigestDiffers(text, where=self.reader.where("tile"), advice=_ADVICE, reason="pull.tree")
        return tree

    def _enter_revocations(self) -> None:
        last = -1
        for named in self.snapshot.revocations:
            name = record_name(named)
            line = self.reader.read(line_name(name), LINE_LIMIT)
            entry = self._in_tree(line, named, name)
            if entry.sequence <= last:
                raise self._mixed("its revocations are not in the order of the ledger")
            last = entry.sequence
            if entry.record_kind != Revocation.kind():
                raise self._mixed("it lists as revocations what are none")
            self.succession.enter(entry, self._envelope(name, entry), self.reader.where(name))

    # -- one line, one record ------------------------------------------------------------------------------------

    def _show(self, name: str, named: str) -> Shown:
        line = self.reader.read(line_name(name), LINE_LIMIT)
        entry = self._accept(line, named, name)
        envelope = self._envelope(name, entry)
        where = self.reader.where(name)
        sealed = unseal(envelope, self._authority(entry, entry.record_kind), where)
        if (sealed.digest, sealed.record.kind()) != (named, entry.record_kind):
            text = "holds another record than its ledger line says"
            raise DigestDiffers(text, where=where, advice=_ADVICE, reason="pull.evidence")
        return Shown(entry, sealed, envelope, line)

    def _accept(self, line: bytes, named: str, name: str) -> LedgerEntry:
        entry = self._in_tree(line, named, name)
        authority = self.succession.at(entry.sequence, "", _LINE)
        return open_line(line, authority, self.reader.where(line_name(name)))

    def _in_tree(self, line: bytes, named: str, name: str) -> LedgerEntry:
        where = self.reader.where(line_name(name))
        entry = entry_of(line, where)
        inside = entry.sequence < self.tree.size and self.tree.leaf(entry.sequence) == leaf_hash(line)
        if not inside or entry.record != named:
            text = "is not the line of this record in the ledger of the checkpoint"
            raise DigestDiffers(text, where=where, advice=_ADVICE, reason="ledger.inclusion")
        return entry

    def _envelope(self, name: str, entry: LedgerEntry) -> bytes:
        data = self.reader.read(name, MAX_RECORD_BYTES, entry.envelope.size)
        if sha256(data).hexdigest() != entry.envelope.sha256:
            text = "is not the envelope that its ledger line names"
            raise DigestDiffers(text, where=self.reader.where(name), advice=_ADVICE, reason="pull.envelope")
        return data

    def _authority(self, entry: LedgerEntry, kind: str) -> Authority:
        return self.succession.at(entry.sequence, entry.time[:10], kind)

    def _mixed(self, text: str) -> DigestDiffers:
        return DigestDiffers(text, where=self._where, advice=_ADVICE, reason="pull.mixed")
