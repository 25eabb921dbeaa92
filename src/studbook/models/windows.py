"""Parts of open files as they lie in the page cache, mapped for reading: elements that a kernel reads without a copy.

A thread holds one window of one file at a time, and threads that read the same place share it, so that little address
space is taken however large the files are. Whoever cannot get a window copies.

A file that is cut while it is mapped ends the process with SIGBUS, as does a disk that fails (mmap(2)). So only a worker
maps, whose process ends with its job; `studbook.sandbox.client` says what has happened.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.models.pages import Behind

__all__ = ["BEYOND", "STEP", "Windows"]

# Windows begin at multiples of this many bytes, a divisor of `pages.WINDOW`; they reach that far beyond the next one, so
# that every range up to this size lies in one.
STEP: Final = 8 << 20
BEYOND: Final = 1 << 20
# A new window costs as much as copying some hundred KiB: for less than this a file is not mapped.
_LEAST: Final = 128 << 10
# Windows of this process; more are not made.
_MOST: Final = 48
_FLAGS: Final = getattr(mmap, "MAP_SHARED", 0)
_all: weakref.WeakSet[_Window] = weakref.WeakSet()


class _Window:
    """Bytes of a file from ``start`` on; unmapped with the last array that shows any of them."""

    def __init__(self, handle: int, start: int, length: int) -> None:
        mapped = mmap.mmap(handle, length, flags=_FLAGS, prot=mmap.PROT_READ, offset=start)
        self.start, self.mapped = start, weakref.ref(mapped)
        self.bytes: NDArray[np.uint8] = np.frombuffer(mapped, np.uint8)


class _Held(NamedTuple):
    handle: int
    window: _Window


class _Mine(threading.local):
    """What a thread holds."""

    held: _Held | None = None


class Windows:
    """The windows of files that are read one at a time, such as the shards of one model. Safe to use from any thread."""

    def __init__(self) -> None:
        self._mine = _Mine()
        self._lock = threading.Lock()
        self._shared: weakref.WeakValueDictionary[tuple[int, int], _Window] = weakref.WeakValueDictionary()

    def show(self, handle: int, at: int, length: int, size: int, behind: Behind | None) -> NDArray[np.uint8] | None:
        """Bytes at..at+length-1 of an open file, read-only; None where copying them is better, or the system refuses.

        Args:
            handle: The descriptor; one number stands for one file as long as this is used.
            at: The first byte.
            length: How many, at least 1.
            size: Length of the file; the range lies within.
            behind: Told of every window that was let go, if pages are dropped.
        """
        start = at // STEP * STEP
        held = self._mine.held
        if held is None or held.handle != handle or held.window.start != start:
            if length < _LEAST or length > BEYOND:
                return None
            self._mine.held = held = None
            window = self._window(handle, start, size, behind)
            if window is None:
                return None
            self._mine.held = held = _Held(handle, window)
        first = at - start
        return held.window.bytes[first : first + length] if first + length <= held.window.bytes.size else None

    def _window(self, handle: int, start: int, size: int, behind: Behind | None) -> _Window | None:
        """The window from ``start`` on: another thread's, or a new one."""
        with self._lock:
            found = self._shared.get((handle, start))
            if found is not None or len(_all) >= _MOST:
                return found
            try:
                found = _Window(handle, start, min(STEP + BEYOND, size - start))
            except (OSError, ValueError):
                # No address space, no such call for this kind of file, or the file became shorter: reading will tell.
                return None
            self._shared[handle, start] = found
            _all.add(found)
        mapped = found.mapped()
        if behind is not None and mapped is not None:
            # Pages that are mapped are not dropped: they count as read once they are not.
            done = weakref.finalize(mapped, behind.passed, start, min(STEP, size - start))
            done.atexit = False
        return found
