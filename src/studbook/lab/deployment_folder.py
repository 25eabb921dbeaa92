"""A folder that a model is run from: whole releases side by side, and a link to the one in force, moved in one step.

    releases/0123456789abcdef/   the files of a release, and deployment.json, which says what it is
    current                      a link to one of them
    .studbook/                   what is being written, and who writes

Nothing half ever lies in ``releases``: a release is written aside and renamed, and renamed aside before it is removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from studbook.errors import DigestDiffers, StudbookError, UsageError
from studbook.files import (
    READ_ONLY,
    copy_new,
    disk_refused,
    hash_file,
    lock_folder,
    make_folder,
    place,
    read_file,
    sync_folder,
    write_new,
)
from studbook.lab.progress import Progress
from studbook.records import Deployment, Digest, canonical, read_struct

__all__ = ["LABEL", "DeploymentFolder", "Head", "Label", "Placed", "opened"]

LABEL = "deployment.json"
"""The file of a release that says what it is."""
_LABEL_LIMIT = 64 << 20
_NAME = re.compile(r"[0-9a-f]{16}")
_LINK = re.compile(r"releases/([0-9a-f]{16})")
_ADVICE = "Name a new or empty folder outside the lab, or one that this channel was deployed to."


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a ledger stood.

    Attributes:
        entries: How many entries it had.
        root: Root hash of the tree over them, 64 hex digits.
    """

    entries: int
    root: Digest


class Placed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a release.

    Attributes:
        path: Where it lies in it.
        sha256: Its digest.
        size: Its bytes.
    """

    path: str
    sha256: Digest
    size: int


class Label(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="deployment/1"):
    """What a release is. It is a note for those who run it, and no evidence: the ledger has the record it names.

    Attributes:
        lab: The lab.
        channel: The channel.
        model: SHA-256 of the artifact.
        name: What people call it.
        licence: Its SPDX identifier; null where none is on record.
        deployment: What works together with it.
        gguf: Whether the model lies there as GGUF too.
        record: Digest of the move that the channel stood at when this was written.
        ledger: Where the ledger stood then.
        files: Every file but this one, sorted by path.
    """

    lab: str
    channel: str
    model: Digest
    name: str
    licence: str | None
    deployment: Deployment
    gguf: bool
    record: Digest
    ledger: Head
    files: tuple[Placed, ...]

    @property
    def release(self) -> str:
        """16 digits of the SHA-256 of 'studbook/deployment/1' NUL and canonical JSON: channel, deployment, gguf, model."""
        told = canonical({n: getattr(self, n) for n in ("channel", "deployment", "gguf", "model")})
        return hashlib.sha256(b"studbook/deployment/1\0" + told).hexdigest()[:16]


@contextmanager
def opened(path: Path, lab: Path) -> Iterator[DeploymentFolder]:
    """A deployment folder that nobody else writes to meanwhile; made where there is none.

    Args:
        path: The folder.
        lab: The lab's folder, in which it may not lie.

    Raises:
        UsageError: if something else lies there; ``usage.folder``.
        Busy: if another process deploys to it.
    """
    own, inside = Path(os.path.realpath(path)), Path(os.path.realpath(lab))
    if own.is_relative_to(inside) or inside.is_relative_to(own):
        raise _in_the_way("lies in the lab, or holds it", path)
    found = DeploymentFolder(own)
    if not found.begun():
        # Before anything is made in a folder that is somebody else's.
        found.check()
    make_folder(own / "releases")
    make_folder(own / ".studbook")
    lock = lock_folder(own / ".studbook", own / ".studbook" / "lock", exclusive=True)
    try:
        found.check()
        found.clear()
        yield found
        found.clear()
    finally:
        os.close(lock)


class DeploymentFolder:
    """The folder; `opened` gives it.

    Args:
        path: Where it is, without links on the way.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._aside = path / ".studbook" / "work"

    def begun(self) -> bool:
        """Whether something was deployed to it before, or is being; only who has its lock may look closer then.

        Raises:
            UsageError: if a link or file lies where a folder has to; ``usage.folder``.
        """
        for folder in (self.path, self.path / "releases", self.path / ".studbook"):
            if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
                raise _in_the_way("is not a folder", folder)
        return (self.path / ".studbook").is_dir()

    def check(self) -> None:
        """Refuse a folder in which anything else lies than what a deployment leaves.

        Raises:
            UsageError: naming what is in the way; ``usage.folder``.
        """
        parts = {self.path: {"releases", "current", ".studbook"}, self.path / ".studbook": {"lock", "work"}}
        for folder, known in parts.items():
            if folder.is_dir() and (strange := sorted(p.name for p in folder.iterdir() if p.name not in known)):
                raise _in_the_way("holds something else", folder / strange[0])
        for release in sorted((self.path / "releases").glob("*")):
            if release.is_symlink() or not release.is_dir() or not _NAME.fullmatch(release.name):
                raise _in_the_way("is no release", release)
        current = self.path / "current"
        if os.path.lexists(current) and not (current.is_symlink() and _LINK.fullmatch(str(current.readlink()))):
            raise _in_the_way("is no link to a release", current)

    def clear(self) -> None:
        """Remove what a deployment that was cut short left aside."""
        if self._aside.is_symlink():
            self._aside.unlink()
        elif self._aside.exists():
            shutil.rmtree(self._aside)

    def current(self) -> str | None:
        """Name of the release in force; None where there is none."""
        link = self.path / "current"
        found = _LINK.fullmatch(str(link.readlink())) if link.is_symlink() else None
        return found[1] if found and (self.path / "releases" / found[1]).is_dir() else None

    def releases(self) -> dict[str, Label | None]:
        """Every release by name, the newest first: its label, or None where that cannot be read."""
        names = (path.name for path in (self.path / "releases").iterdir())
        found = {name: self.label(name) for name in names}
        return dict(sorted(found.items(), key=lambda one: (-one[1].ledger.entries if one[1] else 1, one[0])))

    def label(self, name: str) -> Label | None:
        """The label of a release; None where there is none, or it is another's."""
        path = self.folder(name) / LABEL
        with suppress(StudbookError):
            found = read_struct(read_file(path, _LABEL_LIMIT), Label, path)
            return found if found.release == name else None
        return None

    def folder(self, name: str) -> Path:
        """Where a release lies."""
        return self.path / "releases" / name

    def whole(self, name: str) -> bool:
        """Whether a release holds the files of its label and nothing else; all of them are read."""
        label = self.label(name)
        if label is None:
            return False
        wanted = {Path(p.path): (p.sha256, p.size) for p in label.files}
        folder = self.folder(name)
        there = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        if {path.relative_to(folder) for path in there} != {*wanted, Path(LABEL)}:
            return False
        try:
            return all(hash_file(folder / path) == found for path, found in wanted.items())
        except StudbookError:
            return False

    def write(self, label: Label, files: Mapping[str, Path | bytes], progress: Progress) -> None:
        """Write a release aside and put it among the others; one of its name that is not whole goes first.

        Args:
            label: What it is.
            files: Path in it -> its bytes, or a file of the store; those that the label names.
            progress: Where the copying is shown.

        Raises:
            DigestDiffers: if a file of the store is not what its name says.
            StudbookError: if the disk refuses.
        """
        new = self._aside / "new"
        make_folder(new)
        total = sum(placed.size for placed in label.files)
        with progress.measure(f"deploying {label.name}", total) as shown:
            for placed in label.files:
                target, content = new / placed.path, files[placed.path]
                make_folder(target.parent)
                if isinstance(content, bytes):
                    write_new(target, content, READ_ONLY)
                elif copy_new(content, target, shown) != (placed.sha256, placed.size):
                    raise DigestDiffers("is not the file that was stored", where=content)
        write_new(new / LABEL, canonical(label), READ_ONLY)
        for folder in {(new / placed.path).parent for placed in label.files} | {new}:
            sync_folder(folder)
        if self.folder(label.release).exists():
            self.remove(label.release)
        place(new, self.folder(label.release))

    def point(self, name: str) -> None:
        """Put a release in force, in one step.

        Raises:
            StudbookError: if the disk refuses.
        """
        make_folder(self._aside)
        link = self._aside / "current"
        try:
            link.symlink_to(f"releases/{name}")
        except OSError as error:
            raise disk_refused(error, link) from error
        place(link, self.path / "current")

    def prune(self, keep: int) -> tuple[str, ...]:
        """Remove all but the newest releases, and never the one in force; the names of what went.

        Args:
            keep: How many stay, the one in force among them.
        """
        current = self.current()
        rest = [name for name in self.releases() if name != current]
        gone = rest[keep - (current is not None) :]
        for name in gone:
            self.remove(name)
        return tuple(gone)

    def remove(self, name: str) -> None:
        """Take a release out and delete it."""
        gone = self._aside / "gone"
        place(self.folder(name), gone)
        shutil.rmtree(gone)


def _in_the_way(what: str, where: Path) -> UsageError:
    return UsageError(what, where=where, advice=_ADVICE, reason="usage.folder")
