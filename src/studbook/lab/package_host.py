"""The folder of what is installed: `host/packages/<revision>/`, made beside its place and moved there whole.

What lies there follows from the ledger: the signed manifest, the signed contract, and the bytes. A folder that no event
speaks of is what a crash left between its rename and its event; the next writer takes it away.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from studbook.errors import DigestDiffers
from studbook.files import copy_new, make_folder, place, read_file, sha256_file, sync_folder, write_new
from studbook.lab.desk import Desk
from studbook.records import PackageEvent, RuntimeContract, SkillPackage, Zone
from studbook.records.packages import PackageState
from studbook.runtime.packages import Life, lives

__all__ = [
    "HELD",
    "Contents",
    "contents",
    "finish_packages",
    "folder_of",
    "host_files",
    "lives_of",
    "put_away",
    "stage",
]

HELD: tuple[PackageState, ...] = ("installed", "verified", "resident", "active", "suspended", "quarantined")
"""States in which the bytes lie in the host's folder."""
_ENVELOPE_LIMIT, _FILE_LIMIT = 64 << 20, 128 << 20
_REVISION = re.compile(r"[0-9a-f]{64}")


class Contents(NamedTuple):
    """What lies in the folder of a package.

    Attributes:
        model: The container.
        stack: The adapter packages on it, in order.
    """

    model: bytes
    stack: tuple[bytes, ...]


def lives_of(desk: Desk) -> dict[str, Life]:
    """Where every package that was ever installed stands: revision -> life."""
    return lives(desk.unrevoked(PackageEvent))


def folder_of(desk: Desk, revision: str) -> Path:
    """Where a package lies once it is installed."""
    return desk.workspace.path / Zone.HOST / "packages" / revision


def host_files(desk: Desk) -> dict[Path, str]:
    """Every file of installed packages with the SHA-256 of its bytes, as the ledger says."""
    found: dict[Path, str] = {}
    for revision, life in lives_of(desk).items():
        if life.state in HELD:
            folder = folder_of(desk, revision)
            found |= {folder / name: sha256 for name, sha256 in _names(desk, revision).items()}
    return found


def stage(desk: Desk, revision: str) -> Path:
    """Copy a package into a folder of the cache, every byte hashed and on disk; nothing is in its place yet.

    Args:
        desk: The lab, opened for writing.
        revision: The package.

    Raises:
        DigestDiffers: if a file is not the one that was recorded.
    """
    folder = desk.workspace.work_folder(f"install-{revision[:16]}")
    for name, sha256 in _names(desk, revision).items():
        source, target = _source(desk, name, sha256, revision), folder / name
        if isinstance(source, bytes):
            write_new(target, source)
            copied = sha256_file(target)
        else:
            copied, _ = copy_new(source, target)
        if copied != sha256:
            raise DigestDiffers("is not the file that was recorded", where=target, reason="package.bytes")
    sync_folder(folder)
    return folder


def put_away(desk: Desk, folder: Path, revision: str) -> None:
    """Move a staged folder to its place in one step."""
    target = folder_of(desk, revision)
    # Left of an installation that a crash cut short, in this very process: no event speaks of it.
    _remove(target)
    make_folder(target.parent)
    place(folder, target)


def contents(desk: Desk, revision: str, folder: Path | None = None) -> Contents:
    """The bytes of an installed package, each hashed as it is read.

    Args:
        desk: The lab.
        revision: The package.
        folder: Where they lie, if not in their place yet.

    Raises:
        DigestDiffers: if one is not what was installed; ``package.bytes``.
    """
    held = folder or folder_of(desk, revision)
    package = desk.workspace.get(revision, SkillPackage)
    read: dict[str, bytes] = {}
    for name, sha256 in _names(desk, revision).items():
        # What is hashed is what is handed on: a file swapped in between changes nothing.
        read[name] = read_file(held / name, _FILE_LIMIT)
        if hashlib.sha256(read[name]).hexdigest() != sha256:
            advice = f"Take it out of service: studbook package quarantine {package.id}"
            raise DigestDiffers("is not what was installed", where=held / name, advice=advice, reason="package.bytes")
    model, *stack = _parts(package)
    return Contents(read[model], tuple(read[name] for name in stack))


def finish_packages(desk: Desk) -> None:
    """Take away what a crash left: folders of packages that no event speaks of, or that are retired."""
    above = desk.workspace.path / Zone.HOST / "packages"
    if not above.is_dir() or above.is_symlink():
        return
    known, held = {d for d, _ in desk.workspace.all(SkillPackage)}, lives_of(desk)
    for folder in list(above.iterdir()):
        # A stranger's folder stays, and `verify` names it.
        if _REVISION.fullmatch(folder.name) and folder.name in known:
            life = held.get(folder.name)
            if life is None or life.state not in HELD:
                _remove(folder)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
        sync_folder(folder.parent)


def _parts(package: SkillPackage) -> list[str]:
    return ["model.slm", *(f"adapter-{order}.bin" for order in range(1, 1 + len(package.stack)))]


def _names(desk: Desk, revision: str) -> dict[str, str]:
    """File name -> digest of everything in the folder of a package."""
    package = desk.workspace.get(revision, SkillPackage)
    parts = zip(_parts(package), (package.artifact.sha256, *package.stack), strict=True)
    signed = {"package.json": revision, "contract.json": _contract(desk, revision)}
    return {**{name: _envelope(desk, record) for name, record in signed.items()}, **dict(parts)}


def _contract(desk: Desk, revision: str) -> str:
    """Digest of the contract that a package was, or would be, installed under."""
    first = next((e for _, e in desk.unrevoked(PackageEvent) if e.package == revision), None)
    return first.contract if first else desk.unrevoked(RuntimeContract)[-1][0]


def _envelope(desk: Desk, record: str) -> str:
    entry = desk.workspace.entry(record)
    assert entry is not None
    return entry.envelope.sha256


def _source(desk: Desk, name: str, sha256: str, revision: str) -> Path | bytes:
    """Where a file comes from: the store, or for what is signed its envelope."""
    if name.endswith(".json"):
        record = revision if name == "package.json" else _contract(desk, revision)
        entry = desk.workspace.entry(record)
        assert entry is not None
        return read_file(desk.workspace.record_path(entry), _ENVELOPE_LIMIT)
    return desk.workspace.blob_path(sha256)
