"""The folder in which a checkpoint is bred: what an earlier run left is gone on with, or thrown away as a whole.

Everything in it was written by a run that did not end. Names, kinds and modes are held against what a run leaves; the
bytes are held against the journal by the worker. Who can write below ``cache`` can change both.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from studbook.breeding.checkpoint_worker import CHILD, CUTS, PROGRESS, RESUMED
from studbook.errors import StudbookError, printable
from studbook.lab.desk import Desk
from studbook.models.safetensors_writer import JOURNAL, JOURNAL_BYTES
from studbook.sandbox.server import NOISE, RESULT

__all__ = ["clear", "resumable"]

_NOTES = (PROGRESS, RESUMED)
_BESIDE = (*_NOTES, *(f"{name}.partial" for name in _NOTES), NOISE, RESULT)
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def resumable(desk: Desk, name: str, files: Collection[str]) -> Path:
    """The folder of this name below ``cache/resume``: as an earlier run of the same work left it, or empty.

    Args:
        desk: The lab.
        name: What the work is called there.
        files: Every file that a run of it may leave of the child, by relative path.

    Raises:
        StudbookError: if what must go cannot be removed.
    """
    folder = desk.workspace.path / "cache" / "resume" / name
    if folder.is_dir() and not folder.is_symlink():
        # Cuts that nobody took over yet are found again.
        clear(folder / CUTS)
    if strange := _strange(folder, files):
        desk.progress.say(f"the folder of an unfinished run holds {strange}: it is emptied, and the work begins anew")
        clear(folder)
    folder = desk.workspace.resume_folder(name)
    for note in _BESIDE:
        (folder / note).unlink(missing_ok=True)
    if not os.path.lexists(folder / CHILD / JOURNAL):
        # Without its first line nothing was finished.
        clear(folder / CHILD)
    return folder


def clear(folder: Path) -> None:
    """Remove whatever lies at a place, folders that may not be listed included; links are not followed.

    Raises:
        StudbookError: if it cannot be removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    folder.chmod(0o700)
    for parent, inner, _ in os.walk(folder):
        for path in (Path(parent, name) for name in inner):
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        raise StudbookError(
            "cannot be removed, and what it holds is not to be used",
            where=folder,
            advice="Remove it by hand, then run the same command again.",
            reason="file.disk",
        )


def _strange(folder: Path, files: Collection[str]) -> str:
    """The first thing that no run leaves there, in words; empty where all is as it should be, or nothing is there."""
    if not os.path.lexists(folder):
        return ""
    if folder.is_symlink() or not folder.is_dir():
        return "its place taken by something that is no folder"
    paths = [Path(CHILD, path) for path in files]
    known = {*_BESIDE, *map(str, paths)}
    folders = {str(parent) for path in paths for parent in path.parents} | {CHILD}
    found = _first(folder, "", known, folders)
    if found:
        return f"{printable(found)}, which no run leaves there like that"
    journal = folder / CHILD / JOURNAL
    if not os.path.lexists(journal):
        return "weights that no journal speaks of" if list(folder.glob(f"{CHILD}/*.safetensors")) else ""
    return f"a journal of more than {JOURNAL_BYTES} bytes" if journal.stat().st_size > JOURNAL_BYTES else ""


def _first(folder: Path, at: str, files: Collection[str], folders: Collection[str]) -> str:
    """Relative path of the first entry that is unknown, or of another kind or mode than a run leaves."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{at}{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and path in folders:
                if inner := _first(Path(entry.path), f"{path}/", files, folders):
                    return inner
            elif path not in files or not _plain(Path(entry.path), status):
                return path
    except OSError:
        return at or "a folder that cannot be listed"
    return ""


def _plain(path: Path, status: os.stat_result) -> bool:
    """Whether it is a file of its own that can be read, and the journal also written."""
    wanted = os.R_OK | os.W_OK if path.name == JOURNAL else os.R_OK
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_nlink == 1
        and not status.st_mode & _SPECIAL
        and os.access(path, wanted)
    )
