"""Where a publication is read from: a folder, or an address. Nothing that comes from there is believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import studbook
from studbook.errors import BytesLie, DigestDiffers, OverBudget, UsageError

__all__ = ["FolderMirror", "Mirror", "Reader", "open_mirror"]

_CHUNK = 1 << 20
# All of a publication but the artifacts: roots, revocations, records, tiles.
_TOTAL = 256 << 20
_ADVICE = "Do not use this copy. Fetch the publication again from whoever runs the lab."


class Mirror(Protocol):
    """A place that claims to hold a publication."""

    def open(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of one file in pieces; what is beyond ``limit`` need not come."""


class FolderMirror:
    """A publication in a folder: plain files in plain folders, and no link anywhere below it.

    Args:
        folder: The folder; a link to it is followed, for the reader named it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str, _limit: int) -> Iterator[bytes]:
        """The bytes of one file in steps of 1 MiB.

        Raises:
            UsageError: if there is no such file; ``fetch.missing``.
            BytesLie: if it, or a folder on the way, is a link, a device or something else; ``file.type``.
        """
        *folders, last = name.split("/")
        where = self._folder / name
        with ExitStack() as stack:
            try:
                held = _descriptor(stack, self._folder, os.O_DIRECTORY)
                for part in folders:
                    held = _descriptor(stack, part, os.O_DIRECTORY | os.O_NOFOLLOW, held)
                held = _descriptor(stack, last, os.O_NOFOLLOW | os.O_NONBLOCK, held)
            except FileNotFoundError as error:
                advice = "Name the folder that `studbook publish` wrote; if it is the right one, it is not whole."
                raise UsageError("no such file", where=where, advice=advice, reason="fetch.missing") from error
            except OSError as error:
                text = f"is not a plain file in plain folders: {error.strerror}"
                raise BytesLie(text, where=where, advice=_ADVICE, reason="file.type") from error
            if not stat.S_ISREG(os.fstat(held).st_mode):
                raise BytesLie("is not a regular file", where=where, advice=_ADVICE, reason="file.type")
            while chunk := os.read(held, _CHUNK):
                yield chunk


class Reader:
    """Reads a mirror within limits.

    Args:
        mirror: Where from.
        name: What to call it in errors.

    Attributes:
        name: The same.
    """

    def __init__(self, mirror: Mirror, name: str) -> None:
        self.name = name
        self._mirror = mirror
        self._left = _TOTAL

    def read(self, name: str, limit: int, size: int | None = None) -> bytes:
        """One small file.

        Args:
            name: Its path in the publication.
            limit: Most bytes it may have.
            size: The bytes it must have, where that is known.

        Raises:
            OverBudget: if it, or all that was read so far, is too long; ``pull.size``.
            DigestDiffers: if it has another length than it must have; ``pull.length``.
            StudbookError: as `Mirror.open`.
        """
        data = b"".join(self.stream(name, min(limit, self._left, limit if size is None else size)))
        self._left -= len(data)
        if size is not None and len(data) != size:
            raise self.short(name, len(data), size)
        return data

    def stream(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of one file in pieces, cut where they are too many.

        Raises:
            OverBudget: if there are more than ``limit``; ``pull.size``.
            StudbookError: as `Mirror.open`.
        """
        total = 0
        with closing(self._mirror.open(name, limit)) as pieces:  # type: ignore[type-var]
            for piece in pieces:
                total += len(piece)
                if total > limit:
                    text = f"is longer than the {limit} bytes that it may have"
                    raise OverBudget(text, where=self.where(name), advice=_ADVICE, reason="pull.size")
                yield piece

    def short(self, name: str, found: int, size: int) -> DigestDiffers:
        """The refusal of a file that has another length than it must have."""
        text = f"has {found} bytes, and must have {size}"
        return DigestDiffers(text, where=self.where(name), advice=_ADVICE, reason="pull.length")

    def where(self, name: str) -> str:
        """A file of the publication, for errors."""
        return f"{self.name.rstrip('/')}/{name}"


def open_mirror(place: str, *, allow_remote: bool = False) -> Reader:
    """A folder, or an address that begins with ``http://`` or ``https://``.

    Raises:
        UsageError: if there is no such folder, or it is not such an address.
        OutsideAllowlist: if the address is another machine's, and no leave was given.
    """
    if place.lower().startswith(("http:", "https:")):
        # Loaded by this first use: nothing else in the program can reach a network.
        return Reader(studbook.HttpMirror(place, allow_remote=allow_remote), place)
    if not Path(place).is_dir():
        advice = "Name the folder that `studbook publish` wrote, or its address."
        raise UsageError("is not a folder", where=place, advice=advice, reason="usage.folder")
    return Reader(FolderMirror(Path(place)), place)


def _descriptor(stack: ExitStack, name: str | Path, flags: int, above: int | None = None) -> int:
    found = os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=above)
    stack.callback(os.close, found)
    return found
