"""Checkpoints as the lab keeps them: a list of files, and every file in the store under its own digest."""

from __future__ import annotations

from studbook.breeding.checkpoint_sources import Files
from studbook.breeding.checkpoint_template import recipe_of
from studbook.breeding.sources import SlmTensors
from studbook.errors import OutOfOrder, StudbookError
from studbook.files import hash_file
from studbook.lab.desk import Desk
from studbook.models.checkpoint import open_checkpoint, parse_listing
from studbook.records import CandidateManifest, CheckpointSource, LineageTemplate, LoraSource
from studbook.tensors.sources import TensorSource

__all__ = ["already_bred", "intact", "is_checkpoint", "stored", "tensors"]

# Larger files are looked at by their size only: `studbook verify` reads them whole.
_HASHED = 256 << 20


def already_bred(desk: Desk, manifest: str) -> str:
    """What is said when a child that the ledger holds is given back: the day it was accepted, and its name."""
    entry = desk.workspace.entry(manifest)
    day = entry.time[:10] if entry else "an unknown day"
    return f"already bred on {day}: {desk.workspace.get(manifest, CandidateManifest).name}"


def is_checkpoint(desk: Desk, artifact: str) -> bool:
    """Whether an artifact is a list of files, registered or bred, and not an SLM1 container."""
    registered = desk.registered().get(artifact)
    if registered is not None:
        return isinstance(registered[1].source, CheckpointSource | LoraSource)
    return any(
        c.artifact.sha256 == artifact and recipe_of(desk.workspace.get(c.template, LineageTemplate)) is not None
        for _, c in desk.candidates()
    )


def stored(desk: Desk, artifact: str) -> Files:
    """The files of a checkpoint or LoRA folder: relative path -> where it lies in the store.

    Raises:
        OutOfOrder: if their bytes are gone.
    """
    listing = parse_listing(desk.workspace.blob(artifact), f"files of {desk.name_of(artifact)}")
    found = {entry.path: desk.workspace.blob_path(entry.sha256) for entry in listing}
    for path in found.values():
        if not path.is_file():
            raise OutOfOrder(
                f"bytes of {desk.name_of(artifact)} are not in the lab",
                where=path,
                advice=f"If it was bred here: studbook reproduce {artifact[:12]} --restore",
            )
    return found


def intact(desk: Desk, artifact: str) -> bool:
    """Whether the list of files is what its digest says, and every file is there with its size.

    Files of at most 256 MiB are hashed too. That a larger one holds other bytes of the same number is for
    `studbook verify` to find.
    """
    try:
        listing = parse_listing(desk.workspace.blob(artifact), f"files of {artifact[:16]}")
        for entry in listing:
            path = desk.workspace.blob_path(entry.sha256)
            if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
                return False
            if entry.size <= _HASHED and hash_file(path)[0] != entry.sha256:
                return False
    except (StudbookError, OSError):
        return False
    return True


def tensors(desk: Desk, artifact: str) -> TensorSource:
    """The tensors of any model of the lab."""
    if is_checkpoint(desk, artifact):
        return open_checkpoint(stored(desk, artifact), artifact)
    return SlmTensors(desk.model(artifact))
