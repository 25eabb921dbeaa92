"""The ledger's file, its checkpoint and its witness: how they are read, and in which order they are written.

Written is the line first, then the checkpoint, then the witness; read is in the other order, so that a reader beside a
writer never sees one of them ahead of what it speaks of. Behind the checkpoint a torn tail, or an entry whose files
never reached the disk, is what a crash leaves and is cut off; before it every byte must stand.
"""

from __future__ import annotations

from pathlib import Path

from studbook.errors import BytesLie, DigestDiffers, StudbookError, UsageError
from studbook.files import append_line, read_file, truncate
from studbook.ledger.chain import Chain, Draft, FindEnvelope
from studbook.ledger.merkle import Tree
from studbook.ledger.note import NOTE_LIMIT, Checkpoint, write_checkpoint
from studbook.ledger.proofs import write_consistency, write_inclusion
from studbook.ledger.witness import Witness
from studbook.records import LedgerEntry, Root
from studbook.rewritten import Rewritten, read_rewritten
from studbook.seal import Authority, SigningKey, Succession

__all__ = ["Ledger"]

_LIMIT = 1 << 30


class Ledger:
    """A ledger; empty until `load` has verified it or its first entry is appended.

    Args:
        folder: The lab's ``audit`` folder.
        witness: Its witness; None for a ledger that is being made.
        aside: Folder on the same disk for what a checkpoint is written into; the audit folder by default.

    Attributes:
        path: The file of lines.
        checkpoint_path: The signed checkpoint beside it.
        torn: Bytes behind the last whole line.
        acknowledged: Entries that the checkpoint covers.
        witnessed: Entries that the witness saw; None where there is no witness.
        witness_problem: Why this ledger may not be written to, if its witness saw another one; None if all is well.
    """

    def __init__(self, folder: Path, witness: Witness | None = None, aside: Path | None = None) -> None:
        self.path = folder / "ledger.jsonl"
        self.checkpoint_path = folder / "checkpoint"
        self.torn = 0
        self.acknowledged = 0
        self.witnessed: int | None = None
        self.witness_problem: StudbookError | None = None
        self._witness = witness
        self._checkpoint = Rewritten(self.checkpoint_path, aside)
        self._chain = Chain(self.path, _no_envelope)

    @property
    def entries(self) -> list[LedgerEntry]:
        """All entries in order."""
        return self._chain.entries

    @property
    def head(self) -> str:
        """SHA-256 of the last line, 64 hex digits; `NOTHING` for an empty ledger."""
        return self._chain.head

    @property
    def length(self) -> int:
        """Bytes of the verified lines, newlines included."""
        return self._chain.length

    @property
    def tree(self) -> Tree:
        """The Merkle tree over the lines."""
        return self._chain.tree

    @property
    def root(self) -> Root:
        """The root of keys in force now."""
        return self._chain.root

    def load(self, find: FindEnvelope) -> Root:
        """Read and verify the whole file, the checkpoint, and what the witness saw.

        Args:
            find: Gives the envelope of an entry that brings a root or a revocation, and where it lies.

        Returns:
            The root of keys in force.

        Raises:
            BytesLie: if the ledger is empty, or a line or the checkpoint is malformed.
            DigestDiffers: if the chain is broken, or is not what the checkpoint acknowledged.
            NotAuthorised: if a line or the checkpoint is not signed by an audit key in force there.
        """
        seen, checkpoint = self._read_witness(), self._read_checkpoint()
        data = read_file(self.path, _LIMIT)
        # A power cut may leave zeros where a line was never synced, even with its end standing; no line holds one.
        whole, newline, _ = data.partition(b"\0")[0].rpartition(b"\n")
        if not newline:
            raise BytesLie("holds no entry", where=self.path, advice="Restore the ledger from a backup.")
        self.torn = len(data) - len(whole) - 1
        chain = Chain(self.path, find)
        for line in whole.split(b"\n"):
            chain.accept(line)
        self._chain = chain
        if isinstance(checkpoint, bytes):
            self.acknowledged = chain.open_checkpoint(checkpoint, self.checkpoint_path).size
        elif len(chain.entries) > 1:
            # Only the very first entry can be on disk before any checkpoint is.
            raise checkpoint
        self._hold_against_witness(seen)
        return chain.root

    def authority(
        self, position: int | None = None, day: str = "", kind: str = LedgerEntry.kind(), seen: int | None = None
    ) -> Authority:
        """The authority at a position, that of the next entry by default; see `studbook.seal.Succession.at`."""
        return self._chain.authority(position, day, kind, seen)

    def entered(self, entry: LedgerEntry, data: bytes, where: object) -> Succession:
        """What an entry that brings a root or a revocation would make of the authority, if it is accepted."""
        return self._chain.entered(entry, data, where)

    def draft(self) -> Draft:
        """Lines to come; nothing of them is in the ledger until they are written."""
        return Draft(len(self.entries), self.head)

    def write(self, draft: Draft) -> None:
        """Add the lines of a draft with one sync; all are on disk before this returns.

        Raises:
            DigestDiffers: if the draft was begun before something else was added; ``ledger.chain``.
            StudbookError: if the disk refuses; what was written is cut off again.
        """
        if draft.entries[0].sequence != len(self.entries) or draft.entries[0].previous != self.head:
            raise DigestDiffers("does not follow the last line", where=self.path, reason="ledger.chain")
        append_line(self.path, b"\n".join(draft.lines))
        for entry, line in zip(draft.entries, draft.lines, strict=True):
            # Only the last entry of a draft changes the authority.
            last = entry is draft.entries[-1]
            self._chain.take(entry, line, draft.succession if last else None)

    def append(self, entry: LedgerEntry, key: SigningKey) -> None:
        """Add one entry that changes no authority; on disk before this returns.

        Raises:
            DigestDiffers: if its sequence and previous digest do not continue the chain; ``ledger.chain``.
        """
        draft = self.draft()
        draft.add(entry, key, f"{self.path}: entry {entry.sequence}")
        self.write(draft)

    def acknowledge(self, key: SigningKey) -> None:
        """Write the checkpoint, and hand it to the witness: everything up to here must be there from now on.

        Raises:
            StudbookError: if the disk or the witness refuses.
        """
        note = write_checkpoint(self._chain.origin, self.tree.size, self.tree.root(), key)
        self._checkpoint.replace(note)
        self.acknowledged = self.tree.size
        self.show_witness(note)

    def show_witness(self, note: bytes | None = None) -> None:
        """Bring the witness, where there is one, up to the checkpoint.

        Args:
            note: The checkpoint, if it was written just now; read again otherwise.

        Raises:
            StudbookError: if the witness refuses.
        """
        if self._witness is None or self.witnessed is None or self.witnessed == self.acknowledged:
            return
        if note is None:
            note = read_rewritten(self.checkpoint_path, NOTE_LIMIT)
        self._witness.advance(note, self.tree.consistency)
        self.witnessed = self.acknowledged

    def appoint(self, witness: Witness) -> None:
        """Let a witness that saw nothing yet take the checkpoint.

        Raises:
            UsageError: if it has seen something before; ``ledger.witness-exists``.
        """
        witness.begin(read_rewritten(self.checkpoint_path, NOTE_LIMIT))
        self._witness, self.witnessed, self.witness_problem = witness, self.acknowledged, None

    def prove(self, index: int) -> bytes:
        """The file that proves that an entry is in the checkpoint's tree (`studbook.ledger.proofs`).

        Raises:
            UsageError: if the checkpoint covers no such entry; ``ledger.index``.
        """
        note = read_rewritten(self.checkpoint_path, NOTE_LIMIT)
        size = self._chain.open_checkpoint(note, self.checkpoint_path).size
        return write_inclusion(index, self.tree.inclusion(index, size), note)

    def prove_since(self, older: bytes, where: object = "") -> bytes:
        """The file that proves that the checkpoint continues an older one of this ledger.

        Args:
            older: The older signed checkpoint.
            where: Its file, for errors.

        Raises:
            StudbookError: as `Chain.open_checkpoint`, if it is not one of this ledger's.
        """
        note = read_rewritten(self.checkpoint_path, NOTE_LIMIT)
        new, old = self._chain.open_checkpoint(note, self.checkpoint_path), self._chain.open_checkpoint(older, where)
        return write_consistency(old.size, self.tree.consistency(old.size, new.size), note)

    def close(self) -> None:
        """Leave nothing beside the checkpoint and the witness's copy that only a next write would need."""
        self._checkpoint.close()
        if self._witness is not None:
            self._witness.close()

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
        self._chain.cut(count)
        truncate(self.path, self.length)

    def _read_checkpoint(self) -> bytes | UsageError:
        try:
            return read_rewritten(self.checkpoint_path, NOTE_LIMIT)
        except UsageError as missing:
            return missing

    def _read_witness(self) -> bytes | StudbookError | None:
        try:
            return self._witness.read() if self._witness else None
        except StudbookError as error:
            return error

    def _hold_against_witness(self, seen: bytes | StudbookError | None) -> None:
        if self._witness is None or seen is None:
            return
        try:
            if isinstance(seen, StudbookError):
                raise seen
            self.witnessed = self._compare(self._witness, seen)
        except StudbookError as problem:
            self.witness_problem = problem

    def _compare(self, witness: Witness, seen: bytes) -> int:
        """How many entries the witness saw, if all of them are here."""
        here = Checkpoint(self._chain.origin, self.tree.size, self.tree.root())
        size = witness.compare(seen, here, self.tree.consistency).size
        self._chain.open_checkpoint(seen, witness.path)
        if size > self.acknowledged:
            advice = "An old checkpoint was put back. Restore the audit folder from a backup."
            text = f"acknowledges {self.acknowledged} entries, and the witness saw {size}"
            raise DigestDiffers(text, where=self.checkpoint_path, advice=advice, reason="ledger.checkpoint-replayed")
        return size


def _no_envelope(entry: LedgerEntry) -> tuple[bytes, Path]:
    raise UsageError(f"a ledger that was not loaded knows no envelope of entry {entry.sequence}")
