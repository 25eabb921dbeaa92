"""A folder's files, each read once: what was parsed is what is stored, and what a signature is held against."""

from __future__ import annotations

import hashlib
from pathlib import Path

from studbook.files import read_file

__all__ = ["Shelf"]


class Shelf:
    """Files by the name they were asked for.

    Args:
        folder: The folder whose files are told of; files elsewhere are read once too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, bytes] = {}

    def read(self, path: Path, limit: int) -> bytes:
        """The whole of a regular file of at most ``limit`` bytes; from memory, if it was read before.

        Raises:
            StudbookError: as `read_file`.
        """
        if path not in self._read:
            self._read[path] = read_file(path, limit)
        return self._read[path]

    def digests(self) -> dict[str, str]:
        """Relative path -> SHA-256, 64 hex digits, of every file of the folder that was read, sorted."""
        inside = {p: data for p, data in self._read.items() if p.is_relative_to(self._folder)}
        return {
            p.relative_to(self._folder).as_posix(): hashlib.sha256(data).hexdigest()
            for p, data in sorted(inside.items())
        }
