"""The way out of the lab: a model's files in a folder, with the records of its making and the documents asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from studbook.errors import DigestDiffers, UsageError
from studbook.exchange.oms import SIGNATURE_FILE, load_key, sign_files
from studbook.files import copy_new, write_new
from studbook.lab.checkpoints import is_checkpoint, stored
from studbook.lab.desk import Desk
from studbook.lab.papers import RECORDS, Papers, free_name, write_papers
from studbook.records import AdapterSource, LineageTemplate, OperatorReceipt, canonical

__all__ = ["export", "model_files", "provenance"]


def export(desk: Desk, name: str, folder: Path, papers: Papers | None = None) -> dict[str, str]:
    """Write a checkpoint as a folder, or an SLM1 model as a file in one, with the records that speak of its making.

    Args:
        desk: The lab.
        name: Name, channel or digest of the model.
        folder: A new folder, or an empty one.
        papers: Which documents to write beside it; none by default.

    Returns:
        Relative path -> SHA-256 of everything that was written.

    Raises:
        UsageError: if the folder is not empty, or a document cannot be written of this model.
        ClaimRefused: if a document is asked for of a model that claims more than its evidence shows.
        NotAuthorised: if a key that signs a document is not at hand, or not fit for it.
        DigestDiffers: if bytes of the store are not what they should be; nothing is left in the folder then.
    """
    artifact, wanted = desk.find_model(name), papers or Papers()
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("is not empty", where=folder, advice="Name an empty or new folder.")
    files = model_files(desk, artifact)
    # Whatever refuses a document does so before the first byte is written.
    key = load_key(wanted.oms) if wanted.oms else None
    documents = {free_name(RECORDS, files): provenance(desk, artifact)} | write_papers(desk, artifact, files, wanted)
    written: dict[str, str] = {}
    try:
        _copy(desk, desk.name_of(artifact), files, folder, written)
        for relative, data in documents.items():
            _write(folder / relative, data, written, relative)
        if key is not None:
            relative = free_name(SIGNATURE_FILE, files)
            _write(
                folder / relative, sign_files(desk.name_of(artifact), dict(written), key, relative), written, relative
            )
    except BaseException:
        # Only what was written here: a file that was there before is somebody else's.
        for relative in written:
            (folder / relative).unlink(missing_ok=True)
        raise
    return written


def _copy(desk: Desk, name: str, files: Mapping[str, Path], folder: Path, written: dict[str, str]) -> None:
    """Copy the model's files, noting each in ``written`` as it arrives."""
    total = sum(path.stat().st_size for path in files.values())
    with desk.progress.measure(f"exporting {name}", total) as shown:
        for relative, path in sorted(files.items()):
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            written[relative] = copy_new(path, target, shown)[0]
            target.chmod(0o644)
            if written[relative] != path.name:
                raise DigestDiffers("is not the file that was stored", where=path)


def _write(target: Path, data: bytes, written: dict[str, str], relative: str) -> None:
    write_new(target, data, 0o644)
    written[relative] = hashlib.sha256(data).hexdigest()


def model_files(desk: Desk, artifact: str) -> Mapping[str, Path]:
    """What an artifact consists of: relative path -> where it lies in the store, under its SHA-256.

    Raises:
        DigestDiffers: if the bytes of an SLM1 model or an adapter package are gone.
        OutOfOrder: if those of a checkpoint are.
    """
    if is_checkpoint(desk, artifact):
        return stored(desk, artifact)
    stem, kind, blob = desk.name_of(artifact).replace("/", "-"), "slm", artifact
    registered = desk.registered().get(artifact)
    if registered is not None and isinstance(source := registered[1].source, AdapterSource):
        kind, blob = source.package.lower(), source.adapter_sha256
    path = desk.workspace.blob_path(blob)
    if not path.is_file():
        advice = f"Bred here: studbook reproduce {artifact[:12]} --restore. A source: register its file again."
        raise DigestDiffers("its bytes are gone", where=path, advice=advice, reason="digest.missing")
    return {f"{stem}.{kind}": path}


def provenance(desk: Desk, artifact: str) -> bytes:
    """The records of an artifact's making, as one JSON object."""
    for _, manifest in desk.candidates():
        if manifest.artifact.sha256 == artifact:
            template = desk.workspace.get(manifest.template, LineageTemplate)
            receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
            return canonical({"manifest": manifest, "receipt": receipt, "template": template})
    return canonical({"source": desk.registered()[artifact][1]})
