"""Where a lab and its witness may lie."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from studbook.errors import DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.files import read_file
from studbook.ledger import Witness, default_witness
from studbook.records import canonical, read_plain_json

__all__ = ["FORMAT", "MARKER", "check_free", "check_lab", "marker_bytes", "read_format", "witness_folder"]

MARKER = "studbook.json"
_MARKER_LIMIT = 1 << 16


FORMAT = 2
"""Version of what a lab's folder holds: 1 is the first, 2 may hold tombstones and clearing records."""


def marker_bytes(lab: str, version: int = FORMAT) -> bytes:
    """Content of the file that marks a folder as a lab: format version and the lab's identity."""
    return canonical({"format": version, "lab": lab})


def read_format(path: Path) -> int:
    """Format of the lab in a folder; that of this program where its marker does not say, which `verify` reports.

    Raises:
        UsageError: if it is newer than this program; ``lab.newer-format``.
    """
    found: object = None
    with suppress(StudbookError):
        fields = read_plain_json(read_file(path / MARKER, _MARKER_LIMIT), path / MARKER)
        found = fields.get("format") if isinstance(fields, dict) else None
    if type(found) is not int or found < 1:
        return FORMAT
    if found > FORMAT:
        text = f"is a lab of format {found}, and this program knows formats up to {FORMAT}"
        advice = "Install the version of studbook that it was written with, or a later one."
        raise UsageError(text, where=path / MARKER, advice=advice, reason="lab.newer-format")
    return found


def check_lab(path: Path, *, change: bool) -> int:
    """Whether a folder is a lab that this program may open; its format.

    Args:
        path: The folder.
        change: Whether it shall be written to as it is.

    Raises:
        UsageError: if it is no lab, or one of a newer format.
        DigestDiffers: if it is one, but its ledger is gone.
        OutOfOrder: if it shall be written to, and is of an older format; ``lab.older-format``.
    """
    ledger = path / "audit" / "ledger.jsonl"
    if not ledger.is_file():
        if (path / MARKER).exists():
            advice = "Restore the audit folder from a backup; without it nothing here can be verified."
            raise DigestDiffers("is missing, or not a regular file", where=ledger, advice=advice)
        raise UsageError("is not a lab", where=path, advice=f"Make one: studbook init {path}")
    found = read_format(path)
    if change and found < FORMAT:
        text = f"is a lab of format {found}: it can be read, and not written to by this program"
        advice = f"Make a backup, then bring it to format {FORMAT}: studbook upgrade"
        raise OutOfOrder(text, where=path, advice=advice, reason="lab.older-format")
    return found


def check_free(path: Path, witness: Path | None = None) -> Path:
    """Whether a new lab can be laid out at a path; to be asked before anything is made for it.

    Args:
        path: Where the lab shall be.
        witness: Where its witness shall be; beside the lab by default.

    Returns:
        The same place, absolute and without links.

    Raises:
        UsageError: if something is there that is not an empty folder, or it is the current folder; or if a witness of
            an earlier lab is where this one's would be.
    """
    target = Path(os.path.realpath(path))
    if target == Path.cwd():
        advice = "Step out of it, or name a new folder in it: studbook init LAB"
        raise UsageError("is the current folder, which cannot be swapped for a lab", where=target, advice=advice)
    advice = "Choose a new folder for the lab."
    if path.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError("exists and is not a folder", where=path, advice=advice)
    if target.exists() and any(target.iterdir()):
        raise UsageError("exists and is not empty", where=path, advice=advice)
    folder = witness_folder(target, witness)
    if Witness(folder).read() is not None:
        advice = "Move it away if that lab is gone, or choose another place."
        raise UsageError(
            "is the witness of an earlier lab", where=folder, advice=advice, reason="ledger.witness-exists"
        )
    return target


def witness_folder(lab: Path, folder: Path | None = None) -> Path:
    """Where the witness of a lab lies: never where whoever puts back an old lab puts it back too.

    Args:
        lab: The lab.
        folder: The folder somebody named; one beside the lab by default.

    Raises:
        UsageError: if it lies inside the lab.
    """
    folder = Path(os.path.realpath(folder)) if folder else default_witness(lab)
    if folder.is_relative_to(Path(os.path.realpath(lab))):
        advice = "Name a folder outside the lab, on another disk if there is one."
        raise UsageError("a witness must not lie inside the lab", where=folder, advice=advice)
    return folder
