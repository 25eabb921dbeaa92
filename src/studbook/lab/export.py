"""The way out of the lab: a model's files in a folder, with the records of its making."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from studbook.errors import DigestDiffers, UsageError
from studbook.files import copy_new, write_new
from studbook.lab.checkpoints import is_checkpoint, stored
from studbook.lab.desk import Desk
from studbook.records import AdapterSource, LineageTemplate, OperatorReceipt, canonical

__all__ = ["export"]


def export(desk: Desk, name: str, folder: Path) -> dict[str, str]:
    """Write a checkpoint as a folder, or an SLM1 model as a file in one, with the records that speak of its making.

    Returns:
        Relative path -> SHA-256 of everything that was written.

    Raises:
        UsageError: if the folder is not empty.
        DigestDiffers: if bytes of the store are not what they should be; nothing is left in the folder then.
    """
    artifact = desk.find_model(name)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("is not empty", where=folder, advice="Name an empty or new folder.")
    files = _files(desk, artifact)
    written: dict[str, str] = {}
    total = sum(p.stat().st_size for p in files.values())
    try:
        with desk.progress.measure(f"exporting {desk.name_of(artifact)}", total) as shown:
            for relative, path in sorted(files.items()):
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                written[relative] = copy_new(path, target, shown)[0]
                target.chmod(0o644)
                if written[relative] != path.name:
                    raise DigestDiffers("is not the file that was stored", where=path)
        card = _provenance(desk, artifact)
        write_new(folder / "studbook.json", card, 0o644)
    except BaseException:
        # Only what was written here: a file that was there before is somebody else's.
        for relative in written:
            (folder / relative).unlink(missing_ok=True)
        raise
    return written


def _files(desk: Desk, artifact: str) -> Mapping[str, Path]:
    """What an artifact consists of: relative path -> where it lies."""
    if is_checkpoint(desk, artifact):
        return stored(desk, artifact)
    stem, kind, blob = desk.name_of(artifact).replace("/", "-"), "slm", artifact
    registered = desk.registered().get(artifact)
    if registered is not None and isinstance(source := registered[1].source, AdapterSource):
        kind, blob = source.package.lower(), source.adapter_sha256
    return {f"{stem}.{kind}": desk.workspace.blob_path(blob)}


def _provenance(desk: Desk, artifact: str) -> bytes:
    """The records of an artifact's making, as one JSON object."""
    for _, manifest in desk.candidates():
        if manifest.artifact.sha256 == artifact:
            template = desk.workspace.get(manifest.template, LineageTemplate)
            receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
            return canonical({"manifest": manifest, "receipt": receipt, "template": template})
    return canonical({"source": desk.registered()[artifact][1]})
