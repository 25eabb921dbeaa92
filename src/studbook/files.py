"""The durable file layer: the only place, beside `studbook.rewritten`, that renames, syncs, appends or locks.

Every step that can be cut short by a crash passes `boundary` first, so that tests can stop a process at each of them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

from studbook.errors import Busy, BytesLie, DigestDiffers, OverBudget, StudbookError, UsageError, printable

__all__ = [
    "READ_ONLY",
    "append_line",
    "boundary",
    "copy_new",
    "disk_refused",
    "hash_file",
    "lock_folder",
    "make_folder",
    "move",
    "place",
    "read_file",
    "replace_file",
    "sha256_file",
    "sync_folder",
    "take_file",
    "truncate",
    "write_new",
]

_STEP = 4 << 20
_NOTE_LIMIT = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = 0o444


def _no_fault(_: str) -> None: ...


# Replaced by crash tests; a plain call otherwise.
boundary: Callable[[str], None] = _no_fault


def read_file(path: Path, limit: int) -> bytes:
    """The whole of one regular file, through one descriptor.

    Args:
        path: The file; symbolic links, fifos and devices are refused.
        limit: Most bytes it may hold; checked before reading.

    Raises:
        UsageError: if it does not exist or cannot be opened.
        BytesLie: if it is not a regular file or changes while it is read.
        OverBudget: if it is longer than ``limit``.
    """
    handle, size = _handle(path)
    try:
        if size > limit:
            raise OverBudget(f"{size} bytes; at most {limit} are read", where=path, reason="file.size")
        # One byte more than expected shows growth; more than that would only reserve memory.
        data = os.read(handle, size + 1)
        while len(data) <= size and (more := os.read(handle, size + 1 - len(data))):
            data += more
    finally:
        os.close(handle)
    if len(data) != size:
        raise BytesLie("changed while it was read", where=path, reason="file.changed")
    return data


def sha256_file(path: Path) -> str:
    """SHA-256 of a regular file, 64 hex digits; raises as `hash_file` does."""
    return hash_file(path)[0]


def hash_file(path: Path, wanted: Callable[[], bool] = lambda: True) -> tuple[str, int]:
    """SHA-256 and size in bytes of a regular file of any length, through one descriptor.

    Args:
        path: The file.
        wanted: Asked before every step; once it says no, the digest is that of the bytes so far, for nobody.

    Raises:
        UsageError: if it does not exist or cannot be opened.
        BytesLie: if it is not a regular file.
    """
    hasher, size = hashlib.sha256(), 0
    with _regular(path) as file:
        # One buffer for all steps, and large ones: threads that hash side by side meet only between two steps.
        buffer = memoryview(bytearray(max(1, min(os.fstat(file.fileno()).st_size, _STEP))))
        while wanted() and (count := file.readinto(buffer)):
            hasher.update(buffer[:count])
            size += count
    return hasher.hexdigest(), size


def write_new(path: Path, data: bytes | Iterable[bytes], mode: int = READ_ONLY) -> None:
    """Create a file that did not exist, with its bytes, given whole or in pieces, on disk before this returns.

    Raises:
        StudbookError: if the disk refuses, and whatever giving the pieces raises; the half-written file is removed.
    """
    boundary(f"create {path.name}")
    try:
        with os.fdopen(_fresh(path, mode), "wb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            boundary(f"fsync {path.name}")
            os.fsync(file.fileno())
    except StudbookError:
        path.unlink(missing_ok=True)
        raise
    except OSError as error:
        if not isinstance(error, FileExistsError):
            path.unlink(missing_ok=True)
        raise disk_refused(error, path) from error


def copy_new(source: Path, target: Path, shown: Callable[[int], None] = lambda _: None) -> tuple[str, int]:
    """Copy a regular file into one that did not exist, in steps; what is hashed is what was written.

    Args:
        source: The file; symbolic links, fifos and devices are refused.
        target: Must not exist; read-only afterwards, its bytes on disk.
        shown: Called with the number of bytes of every step.

    Returns:
        SHA-256 (64 hex digits) and size in bytes of the copy.

    Raises:
        BytesLie: if the source is not a regular file or changes while it is read.
        StudbookError: if the disk refuses; the half-written copy is removed.
    """
    boundary(f"create {target.name}")
    hasher, size = hashlib.sha256(), 0
    try:
        with _regular(source) as reader, os.fdopen(_fresh(target), "wb") as writer:
            expected = os.fstat(reader.fileno()).st_size
            while chunk := reader.read(_STEP):
                writer.write(chunk)
                hasher.update(chunk)
                size += len(chunk)
                shown(len(chunk))
            writer.flush()
            boundary(f"fsync {target.name}")
            os.fsync(writer.fileno())
    except OSError as error:
        if not isinstance(error, FileExistsError):
            target.unlink(missing_ok=True)
        raise disk_refused(error, target) from error
    if size != expected:
        target.unlink(missing_ok=True)
        raise BytesLie("changed while it was read", where=source, reason="file.changed")
    return hasher.hexdigest(), size


def take_file(source: Path, target: Path, sha256: str, *, move: bool) -> int:
    """Take over a finished file whose bytes must be those of a digest; it is moved if it is ours, copied otherwise.

    Returns:
        Its size in bytes.

    Raises:
        DigestDiffers: if the bytes are others; nothing is left at the target.
    """
    found, size = hash_file(source) if move else copy_new(source, target)
    if found != sha256:
        if not move:
            target.unlink()
        raise DigestDiffers("the bytes are not those of their digest", where=source)
    if move:
        source.chmod(READ_ONLY)
        # A worker in a process of its own wrote it, and nobody knows whether it reached the disk.
        boundary(f"fsync {source.name}")
        try:
            _sync(source, os.O_NOFOLLOW)
        except OSError as error:
            raise disk_refused(error, source) from error
        place(source, target)
    return size


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and what is missing above it; every new name is on disk before this returns.

    Args:
        path: The folder; one that is there already stays as it is.
        mode: Its permissions, and those of the new ones above it.

    Raises:
        StudbookError: if the disk refuses.
    """
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    try:
        boundary(f"make folder {path.name}")
        path.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise disk_refused(error, path) from error
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on disk; without this a new file's bytes may be safe and its name lost.

    Raises:
        StudbookError: if the disk refuses.
    """
    try:
        boundary(f"sync folder {path.name}")
        _sync(path, os.O_DIRECTORY)
    except OSError as error:
        raise disk_refused(error, path) from error


def move(source: Path, target: Path) -> None:
    """Move a file whose bytes are on disk to its place, atomically; its name is safe once the folder was synced.

    Raises:
        StudbookError: if the disk refuses; the source stays where it is.
    """
    make_folder(target.parent)
    try:
        boundary(f"rename {target.name}")
        source.rename(target)
    except OSError as error:
        raise disk_refused(error, target) from error


def place(source: Path, target: Path) -> None:
    """Move a file as `move` does, and sync the folder."""
    move(source, target)
    sync_folder(target.parent)


def replace_file(path: Path, data: bytes, mode: int = READ_ONLY) -> None:
    """Swap a file's whole content in one step: readers see the old bytes or the new, never a mixture."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    make_folder(path.parent)
    write_new(partial, data, mode)
    place(partial, path)


def append_line(path: Path, line: bytes) -> None:
    """Append one line and its newline; on disk before this returns.

    Raises:
        StudbookError: if the disk refuses; what was written of the line is cut off again.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise disk_refused(error, path) from error
    try:
        before = os.fstat(handle).st_size
        boundary("append")
        data = line + b"\n"
        try:
            if os.write(handle, data) != len(data):
                raise OSError(errno.ENOSPC, "the line was written only in part")
            boundary("fsync append")
            os.fsync(handle)
            if before == 0:
                # The file itself may be new.
                _sync(path.parent, os.O_DIRECTORY)
        except OSError as error:
            os.ftruncate(handle, before)
            raise disk_refused(error, path) from error
    finally:
        os.close(handle)


def truncate(path: Path, length: int) -> None:
    """Cut a file to ``length`` bytes, on disk before this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        boundary("truncate")
        os.ftruncate(handle, length)
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_refused(error: OSError, path: Path) -> StudbookError:
    """What to tell a person when a disk refuses a path: no room, or something that has to be mended."""
    if error.errno in _FULL:
        return OverBudget(
            f"there is no room for it: {error.strerror}",
            where=path,
            advice="Free some space or raise the limit on file sizes, then run the same command again; nothing was lost.",
            reason="disk.full",
        )
    advice = "Mend the disk or the permissions, then run the same command again; nothing was lost."
    return StudbookError(f"the disk refused: {error.strerror}", where=path, advice=advice, reason="file.disk")


def lock_folder(folder: Path, note: Path | None, *, exclusive: bool) -> int:
    """Lock a folder until the descriptor is closed or its process ends.

    The lock is on the folder itself, so that clearing what lies in it never lets a second writer in.

    Args:
        folder: What to lock.
        note: Where a writer leaves its name for those it keeps out, if anywhere; holds no lock itself.
        exclusive: Shut everybody out; otherwise only those who want it exclusively.

    Returns:
        The descriptor.

    Raises:
        Busy: if another process holds it, with its name.
        StudbookError: if this disk refuses locks or the note.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if exclusive and note is not None:
            note.parent.mkdir(exist_ok=True)
            _write_note(note)
    except BlockingIOError as error:
        holder = _holder(handle, note)
        os.close(handle)
        raise Busy(f"held by {holder}", where=folder) from error
    except OSError as error:
        os.close(handle)
        if error.errno in _FULL:
            raise disk_refused(error, folder) from error
        advice = "Mend the permissions, or move the lab to a disk of this machine."
        raise StudbookError(f"cannot be locked: {error.strerror}", where=folder, advice=advice) from error
    return handle


def _regular(path: Path) -> BufferedReader:
    """A regular file opened for reading."""
    return os.fdopen(_handle(path)[0], "rb")


def _handle(path: Path) -> tuple[int, int]:
    """A descriptor of a regular file and its size in bytes; never of a link, a fifo or a device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError("no such file", where=path, advice="Check the path.", reason="file.missing") from error
    except OSError as error:
        raise BytesLie(f"cannot be opened as a regular file: {error.strerror}", where=path) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise BytesLie("is not a regular file", where=path, reason="file.type")
    return handle, status.st_size


def _fresh(path: Path, mode: int = READ_ONLY) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def _write_note(note: Path) -> None:
    """Who holds a lock, for people; the lock itself is the system's, and ends with its process."""
    handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    program, *words = sys.argv[:9] or [""]
    command = " ".join(("studbook" if program.endswith("__main__.py") else Path(program).name, *words))
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    told = {"owner": os.environ.get("USER", "somebody"), "process": os.getpid(), "host": os.uname().nodename}
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps({**told, "command": command[:500], "since": since}) + "\n")


def _holder(handle: int, note: Path | None) -> str:
    try:
        # Readers would let another reader in.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(StudbookError, ValueError, KeyError, TypeError):
            told = json.loads(read_file(note, _NOTE_LIMIT)) if note else {}
            where = f"process {told['process']} on {told['host']}"
            return printable(f"{told['owner']}, {where}, running `{told['command']}` since {told['since']}")
        return "an unknown process"
    return "a process that reads all of it, such as `studbook verify`"


def _sync(path: Path, flag: int) -> None:
    handle = os.open(path, os.O_RDONLY | flag | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
