"""A small file that one process replaces again and again, and others read meanwhile.

Making a file and deleting one costs some file systems more than putting its bytes on disk. So two files take turns: the
new bytes go into the one that was replaced last time, which has no place in the meantime, and a rename brings it back.
Whoever opened it two turns ago could see it change: `read_rewritten` notices and reads again.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from studbook import files
from studbook.errors import BytesLie
from studbook.files import READ_ONLY, disk_refused, make_folder, read_file, sync_folder

__all__ = ["Rewritten", "read_rewritten"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 100


def read_rewritten(path: Path, limit: int) -> bytes:
    """The whole of a file that another process may be replacing.

    Args:
        path: The file.
        limit: Most bytes it may hold.

    Raises:
        StudbookError: as `read_file`.
    """
    for _ in range(_TRIES):
        before = _state(path)
        with suppress(BytesLie):
            data = read_file(path, limit)
            if _state(path) == before:
                return data
    return read_file(path, limit)


class Rewritten:
    """A file, for the process that holds the lock of its folder.

    Args:
        path: The file.
        aside: The folder, on the same disk, where the other one waits for its turn under the same name with
            ``.partial`` behind it; that of the file by default.
    """

    def __init__(self, path: Path, aside: Path | None = None) -> None:
        self.path = path
        aside = aside or path.parent
        self._partial = aside / f"{path.name}.partial"
        self._previous = aside / f"{path.name}.previous.partial"
        # The file in its place and the one whose turn is next, as far as this process made them.
        self._live: int | None = None
        self._spare: int | None = None

    def replace(self, data: bytes) -> None:
        """Swap the whole content in one step; on disk before this returns.

        Raises:
            StudbookError: if the disk refuses; the old content stays unless the swap itself was done.
        """
        try:
            self._write(data)
            kept = self._keep()
            files.boundary(f"rename {self.path.name}")
            self._partial.rename(self.path)
            self._live, self._spare = self._spare, self._live
            if kept:
                files.boundary(f"set aside {self.path.name}")
                self._previous.rename(self._partial)
            else:
                self._drop_spare()
        except OSError as error:
            self.close()
            raise disk_refused(error, self.path) from error
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Let go of both files and remove the one that is not in its place; may be called again."""
        if self._spare is not None:
            with suppress(OSError):
                self._partial.unlink()
        _close(self._spare, self._live)
        self._spare = self._live = None

    def _write(self, data: bytes) -> None:
        """Put the bytes on disk in the file whose turn it is."""
        if self._spare is not None and not _is(self._spare, self._partial):
            self._drop_spare()
        if self._spare is None:
            self._partial.unlink(missing_ok=True)
            make_folder(self.path.parent)
            make_folder(self._partial.parent)
            files.boundary(f"create {self._partial.name}")
            self._spare = os.open(self._partial, _NEW, READ_ONLY)
        files.boundary(f"write {self._partial.name}")
        if os.pwrite(self._spare, data, 0) != len(data):
            raise OSError(errno.ENOSPC, "it was written only in part")
        os.ftruncate(self._spare, len(data))
        files.boundary(f"fsync {self._partial.name}")
        os.fsync(self._spare)

    def _drop_spare(self) -> None:
        _close(self._spare)
        self._spare = None

    def _keep(self) -> bool:
        """Give the file in its place a second name, so that it outlives the swap; False if it is not ours or cannot."""
        if self._live is None or not _is(self._live, self.path):
            return False
        try:
            files.boundary(f"link {self.path.name}")
            with suppress(FileExistsError):
                os.link(self.path, self._previous, follow_symlinks=False)
                return True
            self._previous.unlink()
            os.link(self.path, self._previous, follow_symlinks=False)
        except OSError:
            # Not every file system gives a file two names.
            return False
        return True


def _close(*handles: int | None) -> None:
    for handle in handles:
        if handle is not None:
            os.close(handle)


def _is(handle: int, path: Path) -> bool:
    """Whether a path leads to an opened file, and no other path does."""
    try:
        there = os.lstat(path)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(handle)) and stat.S_ISREG(there.st_mode) and there.st_nlink == 1


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
