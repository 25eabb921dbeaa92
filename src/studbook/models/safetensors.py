"""Reading safetensors files: one descriptor, checked once, read in place.

What is parsed, what is hashed and what is read later comes from the same open file, so a file that is swapped by name in
between changes nothing. Elements go from the disk straight into the caller's array.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
import struct
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final

import numpy as np

from studbook.errors import BytesLie, StudbookError, UsageError
from studbook.models.pages import behind
from studbook.models.safetensors_header import HEADER_CAP, Entry, parse_header
from studbook.models.safetensors_rules import SafetensorsRule as Rule
from studbook.models.safetensors_rules import safetensors_refusal as refusal
from studbook.models.windows import Windows
from studbook.tensors.storage import RAW, Raw, Storage

__all__ = ["STORAGE", "SafetensorsFile", "open_safetensors"]

# The dtypes that hold weights; every other dtype is bytes that can be carried and not computed with.
STORAGE: Final[Mapping[str, Storage]] = MappingProxyType({"F32": "f32", "F16": "f16", "BF16": "bf16"})
_PREFIX = 8
_MENDED = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)
_STEP = 4 << 20


class SafetensorsFile:
    """An open file whose header has been checked. Make one with `open_safetensors`.

    Safe to read from several threads. The descriptor is closed by `close`, at the end of a ``with``, or with the object.

    Attributes:
        path: Where it was opened.
        size: Its length in bytes.
        entries: Tensors by name, in the order of their bytes.
        metadata: The texts of ``__metadata__``.
    """

    def __init__(
        self,
        path: Path,
        handle: int,
        size: int,
        data: int,
        found: dict[str, Entry],
        notes: dict[str, str],
        windows: Windows | None = None,
    ) -> None:
        self.path, self.size = path, size
        self.entries: Mapping[str, Entry] = MappingProxyType(found)
        self.metadata: Mapping[str, str] = MappingProxyType(notes)
        self._handle, self._data = handle, data
        self._behind, self._windows = behind(handle, data, size), windows
        self.close = weakref.finalize(self, os.close, handle)

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def storage(self, name: str) -> Storage:
        """How a tensor's elements are stored.

        Raises:
            UsageError: if it holds integers or numbers of another width, or there is no such tensor.
        """
        dtype = self._entry(name).dtype
        if dtype not in STORAGE:
            raise UsageError(
                f"is stored as {dtype}; only F32, F16 and BF16 are weights that can be computed with",
                where=f"{self.path}: {name}",
                advice="Use the unquantised checkpoint, or convert it to one of the three.",
                reason="safetensors.storage",
            )
        return STORAGE[dtype]

    def fill(self, name: str, start: int, out: Raw) -> None:
        """Write the elements start..start+len(out)-1 of a weight, as they are stored, into a flat contiguous array.

        Raises:
            UsageError: if the array is of another type, or the range lies outside the tensor.
            BytesLie: if the file became shorter.
            StudbookError: if the disk fails.
        """
        wanted = RAW[self.storage(name)]
        entry = self._entry(name)
        if out.dtype != wanted or not out.flags.c_contiguous or start < 0 or start + out.size > math.prod(entry.shape):
            raise UsageError(
                f"{out.size} elements of {out.dtype} from {start} are not in {list(entry.shape)} of {wanted}",
                where=f"{self.path}: {name}",
                reason="safetensors.fill",
            )
        if out.size:
            self._read(self._data + entry.start + start * wanted.itemsize, out.view(np.uint8).data, name)

    def span(self, name: str, start: int, size: int) -> Raw | None:
        """Elements of a weight in the page cache, see `TensorSource.span`; None in a file that was not opened for it.

        Raises:
            UsageError: if the range lies outside the tensor, or the file was closed.
        """
        if self._windows is None or not size:
            return None
        kind, entry = RAW[self.storage(name)], self._entry(name)
        at = self._data + entry.start + start * kind.itemsize
        if start < 0 or start + size > math.prod(entry.shape) or not self.close.alive:
            raise UsageError(
                f"{size} elements from {start} are not in {list(entry.shape)} of an open file",
                where=f"{self.path}: {name}",
                reason="safetensors.fill",
            )
        if at % kind.itemsize:
            return None
        found = self._windows.show(self._handle, at, size * kind.itemsize, self.size, self._behind)
        return None if found is None else found.view(kind)

    def read_bytes(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes start..stop-1 of a tensor of any dtype, as they lie in the file.

        Raises:
            UsageError: if there is no such tensor, or the range lies outside it.
            BytesLie: if the file became shorter.
            StudbookError: if the disk fails.
        """
        entry = self._entry(name)
        length = entry.stop - entry.start
        end = length if stop is None else stop
        if not 0 <= start <= end <= length:
            raise UsageError(
                f"bytes {start} to {end} of {length}", where=f"{self.path}: {name}", reason="safetensors.fill"
            )
        out = bytearray(end - start)
        self._read(self._data + entry.start + start, memoryview(out), name)
        return bytes(out)

    def header(self) -> bytes:
        """The file's first bytes: length, JSON and padding.

        Raises:
            BytesLie: if the file became shorter.
            StudbookError: if the disk fails.
        """
        out = bytearray(self._data)
        self._read(0, memoryview(out), "")
        return bytes(out)

    def sha256(self, shown: Callable[[int], None] = lambda _: None) -> str:
        """SHA-256 of the whole file, 64 hex digits, through the descriptor that is read from.

        Args:
            shown: Called with the number of bytes of every step.

        Raises:
            BytesLie: if the file became shorter.
            StudbookError: if the disk fails.
        """
        hasher, room = hashlib.sha256(), memoryview(bytearray(min(_STEP, self.size)))
        for at in range(0, self.size, _STEP):
            part = room[: min(_STEP, self.size - at)]
            self._read(at, part, "")
            hasher.update(part)
            shown(len(part))
        return hasher.hexdigest()

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError as error:
            raise UsageError("no such tensor", where=f"{self.path}: {name}", reason="safetensors.tensor") from error

    def _read(self, at: int, out: memoryview, name: str) -> None:
        if not self.close.alive:
            raise UsageError("was closed", where=self.path, reason="safetensors.closed")
        _pread(self._handle, at, out, self.path, name)
        if self._behind is not None:
            self._behind.passed(at, len(out))


def open_safetensors(path: Path | str, windows: Windows | None = None) -> SafetensorsFile:
    """Open a file and check its whole header against the file's length; no weight is read.

    Args:
        path: A regular file; links, fifos and devices are refused.
        windows: What `SafetensorsFile.span` maps the file with; a file that is cut then ends the process.

    Raises:
        UsageError: if there is no such file, or it may not be read.
        BytesLie: naming the rule of the format that is broken, and the tensor that breaks it.
        StudbookError: if the disk fails.
    """
    place = Path(path)
    if sys.byteorder != "little":
        raise refusal(Rule.ENDIANNESS, "this machine is big-endian; the format is not", place)
    handle = _open(place)
    try:
        size = os.fstat(handle).st_size
        data, found, notes = _header(handle, size, place)
        return SafetensorsFile(place, handle, size, data, found, notes, windows)
    except BaseException:
        os.close(handle)
        raise


def _open(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError("no such file", where=path, reason="file.missing") from error
    except PermissionError as error:
        raise UsageError("may not be read", where=path, advice="Mend its permissions.", reason="file.mode") from error
    except OSError as error:
        if error.errno in _MENDED:
            advice = "Mend the disk or raise the limit on open files (ulimit -n), then run the same command again."
            raise StudbookError(f"cannot be opened: {error.strerror}", where=path, advice=advice) from error
        raise BytesLie(
            f"cannot be opened as a regular file: {error.strerror}", where=path, reason="file.type"
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BytesLie("is not a regular file", where=path, reason="file.type")
    return handle


def _header(handle: int, size: int, path: Path) -> tuple[int, dict[str, Entry], dict[str, str]]:
    """Offset of the data, the tensors and the metadata."""
    if size < _PREFIX:
        raise refusal(Rule.SHORT, f"{size} bytes; the length of the header alone has {_PREFIX}", path)
    room = bytearray(_PREFIX)
    _pread(handle, 0, memoryview(room), path, "")
    (length,) = struct.unpack("<Q", room)
    if length == 0:
        raise refusal(Rule.HEADER_ZERO, "the header has no bytes", path)
    if length > size - _PREFIX:
        raise refusal(Rule.HEADER_RANGE, f"a header of {length} bytes in a file of {size}", path)
    if length > HEADER_CAP:
        raise refusal(Rule.HEADER_CAP, f"a header of {length} bytes; at most {HEADER_CAP} are read", path)
    text = bytearray(length)
    _pread(handle, _PREFIX, memoryview(text), path, "")
    found, notes = parse_header(bytes(text), size - _PREFIX - length, path)
    return _PREFIX + length, found, notes


def _pread(handle: int, at: int, out: memoryview, path: Path, name: str) -> None:
    """Fill the whole of ``out`` from a place in the file."""
    while len(out):
        try:
            count = os.preadv(handle, [out], at)
        except OSError as error:
            advice = "Check the disk, then run the same command again; nothing was lost."
            place = f"{path}: {name}" if name else path
            raise StudbookError(
                f"the disk refused: {error.strerror}", where=place, advice=advice, reason="file.disk"
            ) from error
        if count == 0:
            raise refusal(Rule.SHORT_READ, f"ends before byte {at + len(out)}; it became shorter", path, name)
        out, at = out[count:], at + count
