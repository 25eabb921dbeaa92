"""A witness: a copy of the checkpoint in a folder outside the lab, which only ever moves forward.

Inside the lab, an old copy of everything is as good as the original. What was seen outside is compared with it: a lab
that holds less than its witness saw, or something else, is not the lab that the witness knew. The witness needs neither
keys nor the ledger to refuse: an old checkpoint, a new one, and the proof that leads from one to the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from studbook.errors import BytesLie, DigestDiffers, UsageError
from studbook.files import lock_folder, make_folder
from studbook.ledger.merkle import verify_consistency
from studbook.ledger.note import NOTE_LIMIT, Checkpoint, read_checkpoint
from studbook.rewritten import Rewritten, read_rewritten

__all__ = ["Witness", "default_witness"]

_BACKUP = (
    "The lab was restored from an old copy, or changed. Put the newest copy of the lab back. Only if the newer one is lost "
    "for good: move the witness's folder away, and appoint a new witness."
)
_DAMAGED = (
    "The witness's copy was edited or damaged. Put its folder back as it was. If that is lost and the lab is known to be "
    "whole: move the folder away, and appoint a new witness with studbook witness."
)


def default_witness(lab: Path) -> Path:
    """Where a lab's witness lies unless said otherwise: a folder beside it, never inside."""
    lab = Path(os.path.realpath(lab))
    return lab.with_name(lab.name + ".witness")


class Witness:
    """The folder of a witness.

    Args:
        folder: Where the copy lies; need not exist.

    Attributes:
        path: The copy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "checkpoint"
        self._copy = Rewritten(self.path)

    def read(self) -> bytes | None:
        """The newest checkpoint it saw, or None if it never saw one.

        Raises:
            StudbookError: if something is there that cannot be read as a file, or the folder is a link.
        """
        self._check_folder()
        try:
            return read_rewritten(self.path, NOTE_LIMIT)
        except UsageError:
            if self.path.is_symlink() or self.path.exists():
                raise
            return None

    def begin(self, checkpoint: bytes) -> None:
        """Take the first checkpoint.

        Args:
            checkpoint: A signed checkpoint that its lab has verified.

        Raises:
            UsageError: if it has seen one before; ``ledger.witness-exists``.
            Busy: if another process is writing here.
        """
        make_folder(self.folder)
        lock = self._lock()
        try:
            if self.read() is not None:
                advice = "Move the folder away if its lab is gone, or name another folder."
                text = "holds what a witness saw already"
                raise UsageError(text, where=self.path, advice=advice, reason="ledger.witness-exists")
            self._copy.replace(checkpoint)
        finally:
            os.close(lock)

    def advance(self, checkpoint: bytes, prove: Callable[[int, int], Sequence[bytes]]) -> None:
        """Replace what it saw by a checkpoint that continues it: compared and set under a lock, in one step.

        Args:
            checkpoint: A signed checkpoint that its lab has verified.
            prove: Gives the proof of consistency between two sizes.

        Raises:
            BytesLie: if the old copy or the new checkpoint are malformed.
            UsageError: if it never saw one; ``ledger.witness-missing``.
            DigestDiffers: if the checkpoint is of another origin, older, or continues something else; the copy stays.
            Busy: if another process is writing here.
        """
        if not self.folder.is_dir():
            raise self._missing()
        lock = self._lock()
        try:
            seen = self.read()
            if seen is None:
                raise self._missing()
            if seen == checkpoint:
                return
            self.compare(seen, read_checkpoint(checkpoint)[0], prove)
            self._copy.replace(checkpoint)
        finally:
            os.close(lock)

    def close(self) -> None:
        """Leave nothing beside the copy that only a next write would need."""
        self._copy.close()

    def compare(self, copy: bytes, new: Checkpoint, prove: Callable[[int, int], Sequence[bytes]]) -> Checkpoint:
        """Refuse a checkpoint that does not continue the one it saw.

        Args:
            copy: What it saw.
            new: The checkpoint that shall follow.
            prove: Gives the proof of consistency between two sizes.

        Returns:
            What it saw, read.

        Raises:
            BytesLie: if its copy is malformed; ``ledger.note``.
            DigestDiffers: ``ledger.origin``, ``ledger.older-than-witness`` or ``ledger.fork``.
        """
        try:
            seen = read_checkpoint(copy, self.path)[0]
        except BytesLie as error:
            raise BytesLie(error.message, where=self.path, advice=_DAMAGED, reason=error.reason) from error
        if seen.origin != new.origin:
            advice = "Name this lab's own witness, or move the folder away if its lab is gone."
            text = f"is the witness of {seen.origin!r}, and this lab is {new.origin!r}"
            raise DigestDiffers(text, where=self.path, advice=advice, reason="ledger.origin")
        if seen.size > new.size:
            text = f"the witness saw {seen.size} entries, and the lab has {new.size}"
            raise DigestDiffers(text, where=self.path, advice=_BACKUP, reason="ledger.older-than-witness")
        try:
            verify_consistency(seen.size, seen.root, new.size, new.root, prove(seen.size, new.size), self.path)
        except DigestDiffers as error:
            text = f"the lab's first {seen.size} entries are not those that the witness saw"
            raise DigestDiffers(text, where=self.path, advice=_BACKUP, reason="ledger.fork") from error
        return seen

    def _check_folder(self) -> None:
        if self.folder.is_symlink():
            raise BytesLie("is a link, not a folder", where=self.folder, advice="Name the folder itself.")

    def _lock(self) -> int:
        self._check_folder()
        # Held for a moment in every commit: a note of who holds it would cost more than the step it guards.
        return lock_folder(self.folder, None, exclusive=True)

    def _missing(self) -> UsageError:
        advice = "Restore its folder, or appoint a witness again."
        return UsageError("there is no witness here", where=self.path, advice=advice, reason="ledger.witness-missing")
