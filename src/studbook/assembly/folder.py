"""A bundle as it lies in a folder that somebody else filled: plain files only, and none that the plan does not know."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from studbook.assembly.rules import BUNDLE_JS, Refusal
from studbook.errors import BytesLie, UsageError, printable
from studbook.records import ModulePlan

__all__ = ["Folder"]

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_FILES = 4096
_STEP = 1 << 20


class Folder:
    """The files of a bundle's folder; links are never followed, and nothing is read beyond what is asked for.

    Args:
        path: The folder.

    Raises:
        UsageError: if there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            advice = "Name the folder that `studbook assemble` wrote."
            raise UsageError("is no folder", where=path, advice=advice, reason="usage.folder")
        self.path = path

    def read(self, name: str, limit: int) -> bytes | None:
        """A file's bytes, at most one more than ``limit``; None if there is none, or a folder in its place.

        Args:
            name: Path below the folder, with slashes.
            limit: Most bytes it should have.

        Raises:
            BytesLie: if it, or a folder above it, is a link, a fifo or a device; ``file.type``.
        """
        *above, last = name.split("/")
        with ExitStack() as opened:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, folder)
            try:
                for part in above:
                    folder = os.open(part, _OPEN | os.O_DIRECTORY, dir_fd=folder)
                    opened.callback(os.close, folder)
                handle = os.open(last, _OPEN, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise _not_plain(self.path / name, error) from error
            opened.callback(os.close, handle)
            mode = os.fstat(handle).st_mode
            if stat.S_ISDIR(mode):
                return None
            if not stat.S_ISREG(mode):
                raise BytesLie("is not a regular file", where=self.path / name, reason="file.type")
            return _counted(handle, limit)

    def strange(self) -> Refusal | None:
        """What in it is neither a plain file nor a folder, or more files than any bundle has."""
        for count, (name, mode) in enumerate(self._walk(), 1):
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return Refusal("folder", "folder.type", f"{printable(name)} is neither a plain file nor a folder")
            if stat.S_ISDIR(mode) and "/" in name:
                return Refusal(
                    "folder", "folder.stray", f"{printable(name)} is a folder in a folder, of which a bundle has none"
                )
            if count > _MOST_FILES:
                return Refusal("folder", "folder.stray", f"holds more than {_MOST_FILES} files and folders")
        return None

    def unplanned(self, plan: ModulePlan) -> Refusal | None:
        """The first file of the page that is not the one in the plan, or file that the plan does not know.

        Args:
            plan: The verified plan.
        """
        for own in plan.page.files:
            data = self.read(own.path, own.size)
            if data is None or len(data) != own.size or hashlib.sha256(data).hexdigest() != own.sha256:
                return Refusal("folder", "folder.page", f"{own.path} is not the page's file that is planned")
        known = {BUNDLE_JS, "plan.json", *(f.path for f in plan.page.files), *(m.path for m in plan.modules)}
        known |= {path.rpartition("/")[0] for path in known}
        for name, _ in self._walk():
            if name not in known:
                return Refusal("folder", "folder.stray", f"{printable(name)} is planned by nobody")
        return None

    def _walk(self) -> Iterator[tuple[str, int]]:
        """Path and mode of everything below, in no order; links are not followed."""
        pending = [""]
        while pending:
            above = pending.pop()
            with os.scandir(self.path / above) as inside:
                for entry in inside:
                    name = f"{above}/{entry.name}" if above else entry.name
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        pending.append(name)
                    yield name, mode


def _counted(handle: int, limit: int) -> bytes:
    parts, left = [], limit + 1
    while left > 0 and (part := os.read(handle, min(left, _STEP))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _not_plain(path: Path, error: OSError) -> BytesLie:
    if error.errno == errno.ELOOP:
        return BytesLie("lies behind a link, or is one", where=path, reason="file.type")
    return BytesLie(f"cannot be opened as a regular file: {error.strerror}", where=path)
