"""Where files wait until the line that speaks of them is on disk; then they are moved to their places."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from studbook.errors import DigestDiffers
from studbook.files import make_folder, move, place, sha256_file, sync_folder, take_file, write_new
from studbook.records import Blob

__all__ = ["Staging"]


class Staging:
    """The staging folder of a lab.

    Args:
        cache: The lab's ``cache`` folder; finished files that lie in it are moved, all others copied.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._folder = cache / "staging"

    def stage(self, digest: str, content: bytes | Path) -> Blob:
        """Put a file here under its digest, its bytes on disk; its name only after `sync`.

        Args:
            digest: SHA-256, 64 hex digits.
            content: Bytes, or the path of a finished file.

        Raises:
            DigestDiffers: if the bytes are not those of the digest.
        """
        make_folder(self._folder)
        target = self._folder / digest
        target.unlink(missing_ok=True)
        if isinstance(content, Path):
            mine = content.absolute().is_relative_to(self._cache.absolute())
            return Blob(sha256=digest, size=take_file(content, target, digest, move=mine))
        if hashlib.sha256(content).hexdigest() != digest:
            raise DigestDiffers("the bytes are not those of their digest")
        write_new(target, content)
        return Blob(sha256=digest, size=len(content))

    def sync(self) -> None:
        """Put the names of what was staged on disk."""
        make_folder(self._folder)
        sync_folder(self._folder)

    def settle(self, files: Mapping[Path, str]) -> None:
        """Move what is staged to its places; what is there already stays.

        Args:
            files: Place -> SHA-256.
        """
        folders: dict[Path, None] = {}
        for target, digest in files.items():
            staged = self._folder / digest
            if staged.exists() and not target.exists():
                move(staged, target)
                folders[target.parent] = None
        for folder in folders:
            sync_folder(folder)

    def mend(self, digest: str, content: bytes | Path, target: Path) -> None:
        """Put bytes in the place of a file that was damaged, after they were hashed.

        Raises:
            DigestDiffers: if they are not those of the digest.
        """
        self.stage(digest, content)
        place(self._folder / digest, target)

    def arrived(self, target: Path, digest: str) -> bool:
        """Whether a file is in place or staged; what a crash garbled is removed where it lies."""
        for path in (target, self._folder / digest):
            if path.is_file() and not path.is_symlink() and sha256_file(path) == digest:
                return True
            path.unlink(missing_ok=True)
        return False

    def clear(self) -> None:
        """Remove everything here; it belongs to no line."""
        shutil.rmtree(self._folder, ignore_errors=True)
