"""One shard in the making: pieces are written wherever they belong, hashed while they are warm, and appear all at once.

Until `ShardSink.finish` only ``<name>.partial`` exists; the file's whole room is asked for before anything is computed,
so a full disk is found first and not after an hour.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from studbook.errors import OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.files import READ_ONLY, boundary, place
from studbook.models.digests import LEAF_ELEMENTS, TensorRoot, leaf_digest, tensor_root
from studbook.models.safetensors_layout import Placed, Shard
from studbook.tensors.sinks import Sink
from studbook.tensors.storage import RAW, Raw, Storage

__all__ = ["ShardDigest", "ShardSink", "refused"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_CALL = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class ShardDigest(NamedTuple):
    """A finished shard.

    Attributes:
        name: File name.
        size: Length in bytes.
        sha256: SHA-256 of the file; empty where no digests were asked for.
        roots: Its tensors by name, with their roots; empty where no digests were asked for.
    """

    name: str
    size: int
    sha256: str
    roots: Mapping[str, TensorRoot]


class ShardSink(Sink):
    """Writes one shard.

    Used as a context: leaving it without `finish` removes what was written.

    Args:
        shard: What to write.
        folder: Where; must exist.
        digests: Hash leaves and file while writing.
        slot: A file to write into instead, such as that of a candidate which was thrown away. It is overwritten in place,
            cut only where it is longer, and stays where it is, not synced: for what is likely to be thrown away too.

    Raises:
        OverBudget: if the disk, a quota or a limit has no room for the whole shard.
        StudbookError: if the disk refuses.
    """

    def __init__(self, shard: Shard, folder: Path, *, digests: bool = True, slot: Path | None = None) -> None:
        self.names = tuple(p.name for p in shard.weights)
        self.piece = LEAF_ELEMENTS
        self.target = folder / shard.name
        self.written = slot or folder / f"{shard.name}.partial"
        self._shard, self._slot, self._digests = shard, slot is not None, digests
        self._placed = {p.name: p for p in shard.placed}
        self._leaves = {p.name: [b""] * _leaf_count(p) for p in shard.placed}
        self._ahead = list(reversed(shard.placed))
        self._taken = 0
        self._file = hashlib.sha256()
        self._handle = -1
        try:
            self._open()
        except BaseException:
            self.abandon()
            raise

    def __enter__(self) -> ShardSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def storage(self, name: str) -> Storage:
        """How a tensor is to be stored."""
        return self._placed[name].storage  # type: ignore[return-value]

    def put(self, name: str, start: int, raw: Raw) -> None:
        """Write one leaf: elements start..start+len(raw)-1 of a tensor; from any thread, in any order.

        Raises:
            UsageError: if it is not exactly one leaf of that tensor as it is to be stored.
            OverBudget: if the disk is full.
            StudbookError: if the disk refuses.
        """
        placed = self._placed[name]
        wanted = min(LEAF_ELEMENTS, placed.elements - start)
        if raw.dtype != RAW[placed.storage] or start % LEAF_ELEMENTS or start < 0 or raw.size != wanted:
            raise UsageError(
                f"{raw.size} elements of {raw.dtype} at {start} are no leaf", where=name, reason="safetensors.put"
            )
        data = _bytes(raw)
        self._write(placed.start + start * raw.itemsize, data)
        self._leaves[name][start // LEAF_ELEMENTS] = leaf_digest(data) if self._digests else b"written"

    def passed(self, name: str, start: int, raw: Raw) -> None:
        """Take the same leaf in the order of the file, for the file's digest.

        Raises:
            OutOfOrder: if it is not the next one.
        """
        if start == 0:
            self._carry(until=name)
        placed = self._ahead[-1] if self._ahead else None
        if placed is None or placed.name != name or start * raw.itemsize != self._taken:
            raise OutOfOrder("is not the next piece of the file", where=f"{name} from element {start}")
        if self._digests:
            self._file.update(_bytes(raw))
        self._taken += raw.nbytes
        if self._taken == placed.stop - placed.start:
            self._ahead.pop()
            self._taken = 0

    def finish(self) -> ShardDigest:
        """Put the file on disk under its name, and say what it is.

        Raises:
            OutOfOrder: if a piece is missing.
            StudbookError: if the disk refuses; nothing is visible then.
        """
        self._carry(until=None)
        missing = [n for n, leaves in self._leaves.items() if b"" in leaves]
        if self._ahead or missing:
            raise OutOfOrder("was not written in full", where=(missing or [self._ahead[-1].name])[0])
        if not self._slot:
            try:
                boundary(f"fsync {self._shard.name}")
                os.fsync(self._handle)
            except OSError as error:
                raise refused(error, self.written) from error
            place(self.written, self.target)
        self._close()
        if not self._digests:
            return ShardDigest(self._shard.name, self._shard.size, "", {})
        return ShardDigest(self._shard.name, self._shard.size, self._file.hexdigest(), self._roots())

    def abandon(self) -> None:
        """Close the file and, if it was not finished and is no slot, remove it; does nothing after `finish`."""
        if self._handle >= 0:
            self._close()
            if not self._slot:
                self.written.unlink(missing_ok=True)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if not self._slot:
                self.written.unlink(missing_ok=True)
                flags |= os.O_EXCL
            boundary(f"create {self.written.name}")
            self._handle = os.open(self.written, flags, 0o600 if self._slot else READ_ONLY)
            self._reserve()
        except OSError as error:
            raise refused(error, self.written) from error
        self._write(0, memoryview(self._shard.header))
        self._file.update(self._shard.header)

    def _reserve(self) -> None:
        """Take the whole room the shard will need."""
        if os.fstat(self._handle).st_size > self._shard.size:
            os.ftruncate(self._handle, self._shard.size)
        try:
            os.posix_fallocate(self._handle, 0, self._shard.size)
        except OSError as error:
            if error.errno not in _NO_ROOM_CALL:
                raise
            # A disk that cannot reserve room: being full will show when it is.
            os.ftruncate(self._handle, self._shard.size)

    def _carry(self, until: str | None) -> None:
        """Copy the tensors that are not computed and come next in the file."""
        while self._ahead and self._ahead[-1].name != until and self._ahead[-1].name in self._shard.carried:
            placed = self._ahead.pop()
            step = LEAF_ELEMENTS * placed.item_bytes
            length = placed.stop - placed.start
            for leaf, at in enumerate(range(0, length, step)):
                data = self._shard.carried[placed.name].read_bytes(placed.name, at, min(at + step, length))
                self._write(placed.start + at, memoryview(data))
                self._leaves[placed.name][leaf] = leaf_digest(data)
                self._file.update(data)

    def _roots(self) -> dict[str, TensorRoot]:
        return {
            p.name: TensorRoot(p.name, p.storage, p.dims, tensor_root(p.stop - p.start, self._leaves[p.name]))
            for p in self._shard.placed
        }

    def _write(self, at: int, data: memoryview) -> None:
        while len(data):
            try:
                count = os.pwrite(self._handle, data, at)
            except OSError as error:
                raise refused(error, self.written) from error
            data, at = data[count:], at + count

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        with suppress(OSError):
            os.close(handle)


def refused(error: OSError, path: Path) -> StudbookError:
    """What a disk's refusal to write means: no room, or something that has to be mended."""
    if error.errno in _FULL:
        return OverBudget(
            f"there is no room for it: {error.strerror}",
            where=path,
            advice="Free some space or raise the limit on file sizes, then run the same command again; nothing was lost.",
            reason="disk.full",
        )
    advice = "Mend the disk or the permissions, then run the same command again; nothing was lost."
    return StudbookError(f"the disk refused: {error.strerror}", where=path, advice=advice, reason="file.disk")


def _leaf_count(placed: Placed) -> int:
    return -(-placed.elements // LEAF_ELEMENTS)


def _bytes(raw: Raw) -> memoryview:
    return np.ascontiguousarray(raw).view(np.uint8).data
