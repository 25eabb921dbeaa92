"""Large files on their way through memory: what was read of one leaves the page cache, so that other files stay in it.

The system is only advised (posix_fadvise(2), POSIX_FADV_DONTNEED); where it has no such call nothing happens. No byte
that is read or written depends on it. Pages that are not on disk yet are never dropped.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["WINDOW", "Behind", "behind", "drop_pages", "drop_pages_over"]

# Bytes of a file that leave together; a multiple of every page size.
WINDOW: Final = 64 << 20
# The size above which files are dropped in this process; empty where none is.
_over: list[int] = []


class Behind:
    """Drops the windows of one open file as soon as all of their bytes have been read.

    A tensor is read in pieces, by several threads and in any order; what was read twice is counted twice, so a window may
    leave early and is then read from the disk again. A window of which some bytes are never read stays.

    Args:
        handle: The descriptor, open for as long as this is used.
        first: The first byte that will be read; what lies before it is counted as read.
        size: Length of the file in bytes.
    """

    def __init__(self, handle: int, first: int, size: int) -> None:
        self._handle, self._size = handle, size
        self._read: dict[int, int] = {}
        # A window of memory may be let go in the middle of a call, which calls again.
        self._lock = threading.RLock()
        self.passed(0, first)

    def passed(self, at: int, length: int) -> None:
        """Bytes at..at+length-1 have been read; from any thread."""
        stop = at + length
        while at < stop:
            window = at // WINDOW
            end = min((window + 1) * WINDOW, self._size, stop)
            if end <= at:
                return
            if self._whole(window, end - at):
                _advise(self._handle, window * WINDOW, WINDOW)
            at = end

    def _whole(self, window: int, length: int) -> bool:
        """Count; whether the window has been read to its end, which begins its count anew."""
        with self._lock:
            read = self._read.get(window, 0) + length
            done = read >= min(WINDOW, self._size - window * WINDOW)
            self._read[window] = 0 if done else read
        return done


def drop_pages_over(size: int) -> None:
    """From now on every file of more bytes that this process opens for reading tensors leaves the page cache behind.

    For a worker, whose process ends with its job.
    """
    _over[:] = [size]


def behind(handle: int, first: int, size: int) -> Behind | None:
    """What drops the pages of a file that was opened; None for one that is small enough to stay."""
    return Behind(handle, first, size) if _over and size > _over[0] else None


def drop_pages(path: Path) -> None:
    """Let a whole file leave the page cache; one that cannot be opened stays."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _advise(handle, 0, 0)
        finally:
            os.close(handle)


def _advise(handle: int, start: int, length: int) -> None:
    """Advise that bytes start..start+length-1 are not needed; 0 bytes stand for all that follow."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(handle, start, length, os.POSIX_FADV_DONTNEED)
