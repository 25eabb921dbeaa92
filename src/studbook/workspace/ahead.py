"""Stored files hashed in threads, begun before the ledger has said which of them count."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

from studbook.executor import available_cores
from studbook.files import hash_file
from studbook.records import Zone

__all__ = ["Ahead"]

Identity = tuple[int, int, int, int, int]


class Ahead:
    """The SHA-256 of every blob of a lab, computed while somebody else does something else.

    Hashing needs no interpreter and opening a ledger needs nothing else, so on two processors one costs little beside
    the other. A file that is another one by the time its digest is asked for is hashed again.

    Args:
        lab: The lab's folder.
    """

    def __init__(self, lab: Path) -> None:
        # One processor is for whoever opens the ledger: that takes as long as hashing, and cannot be shared out.
        self._pool = ThreadPoolExecutor(max(1, available_cores() - 1))
        self._closed = Event()
        found = [blob for zone in Zone for blob in _blobs(lab / zone / "blobs")]
        # The largest first, as threads share them best.
        self._hashed: dict[str, Future[tuple[Identity, str, int]]] = {
            path: self._pool.submit(self._hash, path) for _, path in sorted(found, reverse=True)
        }

    def take(self, path: Path) -> tuple[str, int]:
        """SHA-256 and size in bytes of a file as it is now.

        Raises:
            UsageError: if it does not exist or cannot be opened.
            BytesLie: if it is not a regular file.
        """
        begun = self._hashed.pop(str(path), None)
        # One whose turn has not come is hashed here: strangers' files of any length may be in its way.
        if begun is not None and not begun.cancel():
            before, sha256, size = begun.result()
            if _identity(str(path)) == before:
                return sha256, size
        return hash_file(path)

    def close(self) -> None:
        """Begin no other file, and leave those that are read now where they are."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)

    def _hash(self, path: str) -> tuple[Identity, str, int]:
        before = _identity(path)
        return before, *hash_file(Path(path), lambda: not self._closed.is_set())


def _blobs(folder: Path) -> list[tuple[int, str]]:
    """Size and path of every regular file of a folder; none if there is no such folder."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    with os.scandir(folder) as inside:
        return [(e.stat().st_size, e.path) for e in inside if e.is_file(follow_symlinks=False)]


def _identity(path: str) -> Identity:
    """Device, inode, size and both times of a file: while they stay, so do the bytes of a read-only store."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0, 0, 0, 0
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
