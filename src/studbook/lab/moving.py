"""A lab on the move: copies that are labs themselves, how they come back, and how an older format becomes this one.

A lab holds no path of the machine it lies on, so a plain copy of its folder is a lab, and one moved with ``mv`` opens.
Copied is what the ledger accounts for and what stands beside it; never ``cache``, never private keys, never the witness,
which must not be put back together with what it watches.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msgspec import Struct

from studbook.errors import DigestDiffers, UsageError
from studbook.files import copy_new, make_folder, place, read_file, replace_file, sync_folder
from studbook.lab.absence import absent, withdrawn
from studbook.lab.audit import verify
from studbook.lab.desk import Desk
from studbook.lab.founding import ROLES
from studbook.lab.package_host import host_files
from studbook.lab.pending import waiting
from studbook.records import Zone
from studbook.workspace import FORMAT, MARKER

__all__ = ["Copied", "Upgraded", "backup", "restore", "upgrade"]

_LEDGER_LIMIT = 1 << 30


class Copied(Struct, frozen=True):
    """What was copied.

    Attributes:
        folder: The copy.
        entries: Ledger entries it holds.
        files: Files copied now; those that lay there already are not counted.
        size: Their bytes.
        removed: Files taken away from it, because they were withdrawn or wait no longer.
        warning: What its witness says against it; empty if nothing.
    """

    folder: str
    entries: int
    files: int
    size: int
    removed: int
    warning: str


class Upgraded(Struct, frozen=True):
    """What an upgrade did.

    Attributes:
        before: Format the lab had.
        after: Format it has.
        ungranted: Kinds of record that this program makes and no key of this lab may sign yet.
    """

    before: int
    after: int
    ungranted: tuple[str, ...]


def backup(desk: Desk, folder: Path) -> Copied:
    """Copy a lab to a folder, or bring an earlier copy of it up to date; the copy opens and verifies as the lab does.

    What lies there under its digest already, in the same size, is not copied again. The ledger is copied after the files
    it speaks of; a copy that was cut short is finished by the same command.

    Args:
        desk: The lab, opened as a still reader.
        folder: A new or empty folder outside the lab, or an earlier backup of the same lab.

    Raises:
        UsageError: if the folder lies in the lab, or holds anything else.
        DigestDiffers: if it is a copy of another lab, or of a later or other state; or a file of the lab was changed.
    """
    _check_target(desk, folder)
    workspace = desk.workspace
    for zone in Zone:
        make_folder(folder / zone)
    count, size = _copy_files(desk, folder)
    small = [workspace.alias_path(n) for n, state in desk.channels().items() if state.record]
    small += list(waiting(desk).values())
    for path in (*small, workspace.path / MARKER, workspace.ledger.path, workspace.ledger.checkpoint_path):
        data = read_file(path, _LEDGER_LIMIT)
        if path == workspace.ledger.path:
            data = data[: workspace.ledger.length]
        target = folder / path.relative_to(workspace.path)
        if not target.is_file() or read_file(target, _LEDGER_LIMIT) != data:
            replace_file(target, data)
            count, size = count + 1, size + len(data)
    removed = _remove(desk, folder)
    return Copied(str(folder), len(workspace.ledger.entries), count, size, removed, "")


def restore(desk: Desk, folder: Path, witness: Path | None, keys: Path | None) -> Copied:
    """Make a lab anew from a copy that was opened; the copy is verified whole first.

    Args:
        desk: The copy, opened as a still reader.
        folder: Where the lab shall be; must not exist, or be empty.
        witness: Folder of the lab's witness, for a warning; beside the lab by default.
        keys: Folder of its keys; beside the lab by default.

    Raises:
        UsageError: if something is in the way.
        DigestDiffers: if the copy does not verify.
    """
    target = Path(os.path.realpath(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        advice = "Name a new folder with --lab; move what is there away first."
        raise UsageError("is not a new or empty folder", where=folder, advice=advice, reason="usage.folder")
    found = verify(desk)
    if not found.ok:
        problem = found.problems[0]
        advice = "Take another copy; `studbook --lab COPY verify` lists everything that is wrong with this one."
        raise DigestDiffers(problem.what, where=problem.where, advice=advice, reason="digest.backup")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copied = backup(desk, partial)
    if target.exists():
        target.rmdir()
    place(partial, target)
    again = Desk(target, keys, writer=False, witness=witness)
    problem_ = again.workspace.ledger.witness_problem
    again.close()
    warning = f"{problem_.message}. {problem_.advice}" if problem_ else ""
    return Copied(str(folder), copied.entries, copied.files, copied.size, 0, warning)


def upgrade(desk: Desk) -> Upgraded:
    """Bring a lab of an older format to this one, after all of it was verified.

    Args:
        desk: The lab, opened by a writer that may open an older one.

    Raises:
        DigestDiffers: if it does not verify; nothing is changed.
    """
    found = verify(desk)
    if not found.ok:
        problem = found.problems[0]
        advice = "Mend it first, or restore a backup; `studbook verify` lists everything that is wrong."
        raise DigestDiffers(problem.what, where=problem.where, advice=advice, reason="digest.upgrade")
    before = desk.workspace.format
    if before < FORMAT:
        desk.workspace.upgrade()
    granted = {kind for grant in desk.workspace.root.keys for kind in grant.kinds}
    wanted = dict.fromkeys(kind for role in ROLES for kind in role.kinds)
    return Upgraded(before, FORMAT, tuple(kind for kind in wanted if kind not in granted))


def _check_target(desk: Desk, folder: Path) -> None:
    lab, target = Path(os.path.realpath(desk.workspace.path)), Path(os.path.realpath(folder))
    advice = "Name a new or empty folder outside the lab, or an earlier backup of it."
    if target.is_relative_to(lab) or lab.is_relative_to(target):
        raise UsageError("lies in the lab, or holds it", where=folder, advice=advice, reason="usage.folder")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    ledger = folder / "audit" / "ledger.jsonl"
    if not ledger.exists() and not folder.is_symlink() and {p.name for p in folder.iterdir()} <= set(Zone):
        # A first copy that was cut short: the ledger comes last.
        return
    if not ledger.is_file():
        raise UsageError("is neither empty nor a backup", where=folder, advice=advice, reason="usage.folder")
    there = read_file(ledger, _LEDGER_LIMIT)
    if not read_file(desk.workspace.ledger.path, _LEDGER_LIMIT).startswith(there):
        text = "is a copy of another lab, or of one that went on differently from this one"
        raise DigestDiffers(text, where=ledger, advice="Name another folder; this one may be the newer copy.")


def _copy_files(desk: Desk, folder: Path) -> tuple[int, int]:
    """Copy every file that the ledger accounts for and that is not there yet: how many, and their bytes."""
    workspace, count, size = desk.workspace, 0, 0
    gone = {workspace.blob_path(digest) for digest in absent(desk)}
    held = {**workspace.expected_files(), **host_files(desk)}
    expected = {p: d for p, d in held.items() if p not in gone and p.name != MARKER}
    touched = set()
    for path in desk.progress.track("copying files", sorted(expected)):
        target = folder / path.relative_to(workspace.path)
        if target.is_file() and not target.is_symlink() and target.stat().st_size == path.stat().st_size:
            continue
        make_folder(target.parent)
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        digest, length = copy_new(path, partial)
        if digest != expected[path]:
            partial.unlink()
            raise DigestDiffers("is not the file that was recorded: its digest differs", where=path)
        partial.rename(target)
        touched.add(target.parent)
        count, size = count + 1, size + length
    for parent in touched:
        sync_folder(parent)
    return count, size


def _remove(desk: Desk, folder: Path) -> int:
    """Take away from a copy what was withdrawn, retired or waits no longer, and what a copy cut short left."""
    workspace, removed = desk.workspace, 0
    stale = [folder / workspace.blob_path(d).relative_to(workspace.path) for d in withdrawn(desk)]
    pending = workspace.pending.relative_to(workspace.path)
    here = {path.name for path in waiting(desk).values()}
    stale += [p for p in (folder / pending).glob("*.json") if p.name not in here]
    packages = (p for p in (folder / Zone.HOST / "packages").glob("*/*") if not p.name.endswith(".partial"))
    installed = {path.relative_to(workspace.path) for path in host_files(desk)}
    stale += [p for p in packages if p.relative_to(folder) not in installed]
    stale += [p for zone in Zone for p in (folder / zone).rglob("*.partial")]
    for path in stale:
        if path.is_symlink() or path.exists():
            path.unlink()
            sync_folder(path.parent)
            removed += 1
    return removed
