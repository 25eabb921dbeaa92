"""What a worker left, looked at before anybody takes it over: plain files and folders, so many, so large, plainly named."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from studbook.errors import BytesLie, OverBudget, printable
from studbook.sandbox.limits import Limits

__all__ = ["Contents", "check_output", "contents"]

_DEEPEST = 32
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_NAME_BYTES = 200


class Contents(NamedTuple):
    """How much lies in a folder.

    Attributes:
        files: Files and folders, counted up to one more than allowed.
        disk_bytes: What they take on disk, in bytes.
    """

    files: int
    disk_bytes: int


def check_output(folder: Path, limits: Limits) -> None:
    """Refuse what a worker may not leave. Call it when the worker has ended: nothing changes any more then.

    Args:
        folder: The worker's folder.
        limits: What it was allowed.

    Raises:
        BytesLie: for a link of either kind, a device, a fifo, a socket, a set-user bit or a name that is not plain.
        OverBudget: for more files, or more bytes in all of them, than allowed. A file with holes counts in full.
    """
    size = 0
    for count, (entry, depth) in enumerate(_walk(folder, 0), 1):
        status = entry.stat(follow_symlinks=False)
        _check_one(Path(entry.path), status, depth)
        size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if count > limits.files:
            raise OverBudget(
                f"holds more than {limits.files} files; the worker may leave so many",
                where=folder,
                reason="budget.files",
            )
    if size > limits.total_bytes:
        raise OverBudget(
            f"holds {size} bytes; the worker may leave {limits.total_bytes}", where=folder, reason="budget.total-bytes"
        )


def contents(folder: Path, most: int) -> Contents:
    """How much lies in a folder while somebody still writes there; looks at no more than ``most`` + 1 entries."""
    count = size = 0
    with suppress(OSError):
        for entry, _ in _walk(folder, 0):
            count += 1
            with suppress(OSError):
                size += entry.stat(follow_symlinks=False).st_blocks * 512
            if count > most:
                break
    return Contents(count, size)


def _walk(folder: Path, depth: int) -> Iterator[tuple[os.DirEntry[str], int]]:
    """Everything below a folder with its depth; links are not followed, and nothing is read below the deepest level."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry, depth
            if depth < _DEEPEST and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), depth + 1)


def _check_one(path: Path, status: os.stat_result, depth: int) -> None:
    mode, name = status.st_mode, path.name
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no file and no folder"
        raise _refused(path, f"is {kind}; a worker leaves plain files", "sandbox.output-type")
    if stat.S_ISREG(mode) and status.st_nlink != 1:
        raise _refused(path, f"has {status.st_nlink} names; it is linked from elsewhere", "sandbox.output-link")
    # A folder may inherit its group's bit from the one above.
    if stat.S_ISREG(mode) and mode & _SPECIAL:
        raise _refused(path, "carries a set-user, set-group or sticky bit", "sandbox.output-mode")
    if printable(name) != name or "\\" in name or len(os.fsencode(name)) > _NAME_BYTES:
        raise _refused(path, "is not a plain name", "sandbox.output-name")
    if depth == _DEEPEST:
        raise _refused(path, "lies too deep", "sandbox.output-depth")


def _refused(path: Path, message: str, reason: str) -> BytesLie:
    return BytesLie(
        message,
        where=printable(path),
        advice="Nothing of this worker's output was taken over. Remove its folder, and look at the model it was given.",
        reason=reason,
    )
