"""Breeding and recomputing a checkpoint: the same steps as for an SLM1 child, on folders of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studbook.breeding.checkpoint_recipe import CheckpointRecipe, decode_recipe
from studbook.breeding.checkpoint_sources import Files, Opened, open_recipe
from studbook.breeding.checkpoint_worker import CHILD, CUTS
from studbook.breeding.produce import delta_norm
from studbook.errors import BytesLie, DigestDiffers
from studbook.files import hash_file, make_folder
from studbook.models.checkpoint import Checkpoint, FileEntry, list_files, open_checkpoint
from studbook.models.checkpoint_folder import listing_bytes
from studbook.models.safetensors_writer import INDEX
from studbook.records import (
    Blob,
    Check,
    Header,
    InputDigest,
    LineageTemplate,
    OperatorReceipt,
    digest,
)
from studbook.sandbox import Answer, Limits, run_worker
from studbook.tensors.storage import RAW
from studbook.tensors.thresholds import CutStore, cut_files, take_over

__all__ = [
    "CHECKPOINT_CHUNK",
    "Grown",
    "bytes_of",
    "check_checkpoint",
    "produce_checkpoint",
    "recompute_checkpoint",
    "run_checkpoint",
    "unchanged",
]

# Elements computed at a time; the bytes do not depend on it.
CHECKPOINT_CHUNK = 1 << 18
_LEAST_FILE = 1 << 20
_STEP = 4 << 20


class Grown(NamedTuple):
    """What the worker left.

    Attributes:
        receipt: The operator receipt.
        child: The child, opened.
        folder: The child's folder.
        listing: Canonical list of its files: the artifact's own bytes.
        files: SHA-256 -> file.
        notes: What the operator says of these inputs.
    """

    receipt: OperatorReceipt
    child: Checkpoint
    folder: Path
    listing: bytes
    files: dict[str, Path]
    notes: tuple[str, ...]


def run_checkpoint(
    template: LineageTemplate,
    stored: Mapping[str, Files],
    folder: Path,
    *,
    threads: int | None = None,
    chunk: int = CHECKPOINT_CHUNK,
    thresholds: Path | None = None,
    pairs: Sequence[tuple[str, str]] = (),
) -> Answer:
    """Run one worker on a template; a folder that holds finished shards of the same work is gone on with.

    Args:
        template: What to do.
        stored: Digest -> files of every model and adapter.
        folder: The worker's folder.
        threads: Threads of the worker, as many as there are processors by default.
        chunk: Elements computed at a time.
        thresholds: A folder of known magnitude cuts; none is used by default.
        pairs: Digests of every (parent, base) whose cuts may be read there.
    """
    limits = template.limits
    job = {
        "recipe": template.operator,
        # What finished shards follow from: another version of the arithmetic never goes on with them.
        "recipe_sha256": digest({"recipe": template.recipe_sha256, "contract": template.numeric_contract}),
        "stored": {d: {r: str(p.absolute()) for r, p in files.items()} for d, files in stored.items()},
        "numeric_contract": template.numeric_contract,
        "output_bytes": limits.output_bytes,
        "threads": threads or len(os.sched_getaffinity(0)),
        "chunk": chunk,
        "thresholds": None if thresholds is None else str(thresholds.absolute()),
    }
    allowed = Limits(
        seconds=limits.seconds, memory_bytes=limits.memory_bytes, file_bytes=max(limits.output_bytes, _LEAST_FILE)
    )
    reads = [path for files in stored.values() for path in files.values()]
    reads += [] if thresholds is None else cut_files(thresholds, pairs)
    return run_worker("studbook.breeding.checkpoint_worker", job, folder, allowed, reads)


def produce_checkpoint(
    header: Header,
    template: LineageTemplate,
    stored: Mapping[str, Files],
    folder: Path,
    *,
    threads: int | None = None,
    thresholds: Path | None = None,
) -> Grown:
    """Breed one checkpoint and write its receipt; every figure in it is the lab's own.

    Args:
        header: Record header.
        template: The lineage template, already in the ledger.
        stored: Digest -> files of every model and adapter.
        folder: The worker's folder.
        threads: Threads of the worker, as many as there are processors by default.
        thresholds: A folder in which magnitude cuts are kept for the next time; what it says is counted, never believed.

    Raises:
        DigestDiffers: if an input changed before or during the run, or an output is not what the worker says.
        StudbookError: any of its kinds, if the worker fails.
    """
    before = _digests(stored)
    # Finished shards outlive a run, so nothing is made of an input that is another one already.
    _require_same(before)
    identity = _identities(stored)
    recipe = decode_recipe(template.operator)
    opened = open_recipe(recipe, stored)
    answer, isolation = _run_with_cuts(template, stored, folder, threads, thresholds, opened)
    after = before if _identities(stored) == identity else _digests(stored)
    _require_same(after)
    child, text, files = _collect(folder / CHILD, answer["files"])
    _check_others(folder / CHILD, opened, answer["files"])
    inputs = [("base", template.base), *(("parent", d) for d in template.parents)]
    receipt = OperatorReceipt(
        header=header,
        template=digest(template),
        operator=template.operator,
        inputs=tuple(
            InputDigest(role=role, before=before[d], after=after[d])  # type: ignore[arg-type]
            for role, d in inputs
        ),
        numeric_contract=template.numeric_contract,
        isolation=isolation,
        output=Blob(sha256=child.sha256, size=len(text)),
        delta_norm=delta_norm(opened.operator.reference(opened.inputs), child),
        reproducibility="exact",
    )
    return Grown(receipt, child, folder / CHILD, text, files, opened.operator.notes(opened.inputs))


def _check_others(child: Path, opened: Opened, told: Mapping[str, object]) -> None:
    """Every file beside the weights must be what donors and operator make of it, and none may be there besides."""
    if strange := sorted(list_files(child).keys() - {*opened.files, *told, INDEX}):
        raise DigestDiffers("is no file of this child", where=child / strange[0], reason="digest.extra")
    for path, data in opened.files.items():
        if hash_file(child / path)[0] != hashlib.sha256(data).hexdigest():
            raise DigestDiffers("is not what donors and operator make of it", where=child / path)


def _run_with_cuts(
    template: LineageTemplate,
    stored: Mapping[str, Files],
    folder: Path,
    threads: int | None,
    thresholds: Path | None,
    opened: Opened,
) -> Answer:
    """Run the worker over a cache of cuts; one that lies is emptied, and the worker goes on without it."""
    if thresholds is None:
        return run_checkpoint(template, stored, folder, threads=threads)
    make_folder(thresholds)
    pairs = [(parent.sha256, opened.inputs.base.sha256) for parent in opened.inputs.parents]
    try:
        answer = run_checkpoint(template, stored, folder, threads=threads, thresholds=thresholds, pairs=pairs)
    except BytesLie as error:
        if error.reason != "cuts.count":
            raise
        for pair in pairs:
            CutStore(thresholds).forget(*pair)
        return run_checkpoint(template, stored, folder, threads=threads)
    take_over(folder / CUTS, thresholds, pairs)
    return answer


def check_checkpoint(template: LineageTemplate, grown: Grown) -> tuple[Check, ...]:
    """Declared against produced: one row each, positive."""
    expected, child = template.expected, grown.child
    size = sum(path.stat().st_size for path in grown.files.values())
    moved = grown.receipt.delta_norm
    rows = (
        ("layout", expected.layout_sha256, child.layout_sha256, expected.layout_sha256 == child.layout_sha256),
        (
            "tokenizer",
            expected.tokenizer_sha256,
            child.tokenizer_sha256,
            expected.tokenizer_sha256 == child.tokenizer_sha256,
        ),
        ("storage", expected.label, child.label, expected.label == child.label),
        ("size", expected.size_bytes, size, expected.size_bytes == size),
        (
            "delta-norm",
            f"at most {expected.delta_norm:.6g}",
            f"{moved:.6g}",
            0.0 <= moved <= expected.delta_norm,
        ),
    )
    return tuple(Check(name=n, passed=ok, detail=f"declared {want}, came out {got}") for n, want, got, ok in rows)


def unchanged(recipe: CheckpointRecipe, child: Checkpoint, stored: Mapping[str, Files]) -> str | None:
    """Digest of the base or parent whose weights a child has, byte for byte, whatever its other files are.

    Equal weights are equal model roots. Here they are compared from the first byte to the first difference, which takes
    no time for a child that was changed, and needs no digest of its parents.

    Args:
        recipe: What was done.
        child: What came out.
        stored: Digest -> files of every model and adapter.
    """
    for found in dict.fromkeys(m for view in (recipe.base, *recipe.parents) for m in view.models()):
        model = open_checkpoint(stored[found], found)
        try:
            if _same_weights(child, model):
                return found
        finally:
            model.close()
    return None


def recompute_checkpoint(
    template: LineageTemplate,
    receipt: OperatorReceipt,
    stored: Mapping[str, Files],
    folder: Path,
    *,
    threads: int | None = None,
    chunk: int = CHECKPOINT_CHUNK,
) -> str:
    """Breed the checkpoint again from its models and receipt alone.

    Returns:
        The digest, equal to the receipt's.

    Raises:
        DigestDiffers: if other bytes came out.
    """
    answer = run_checkpoint(template, stored, folder, threads=threads, chunk=chunk).value
    child, _, _ = _collect(folder / CHILD, answer["files"])
    if child.sha256 != receipt.output.sha256:
        raise DigestDiffers(
            f"recomputing gave {child.sha256[:16]}..., the receipt says {receipt.output.sha256[:16]}...",
            advice="The receipt does not describe this artifact. Do not release it.",
            reason="digest.recompute",
        )
    return child.sha256


def _same_weights(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether two checkpoints have the same weights: names, shapes, storages, bytes."""
    layouts = [{n: (m.dims(n), m.storage(n)) for n in m.names} for m in (first, second)]
    if layouts[0] != layouts[1]:
        return False
    for name in first.names:
        length = first.size(name) * RAW[first.storage(name)].itemsize
        for at in range(0, length, _STEP):
            stop = min(at + _STEP, length)
            if first.read_bytes(name, at, stop) != second.read_bytes(name, at, stop):
                return False
    return True


def bytes_of(folder: Path) -> tuple[bytes, dict[str, Path]]:
    """List of files, and the files by their SHA-256, of what a worker left below a folder."""
    _, text, files = _collect(folder / CHILD, {})
    return text, files


def _digests(stored: Mapping[str, Files]) -> dict[str, str]:
    """Digest of every model's list of files, from the files' bytes as they are now."""
    return {d: hashlib.sha256(listing_bytes(_hashed(files))).hexdigest() for d, files in stored.items()}


def _require_same(found: Mapping[str, str]) -> None:
    for expected, now in found.items():
        if now != expected:
            raise DigestDiffers("an input changed while it was used", where=expected[:16], reason="digest.input")


def _identities(stored: Mapping[str, Files]) -> list[tuple[int, ...]]:
    """Device, inode, size and both times of every file: while they stay, so do the bytes of a read-only store."""
    found = [p.stat() for files in stored.values() for p in files.values()]
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found]


def _hashed(files: Files) -> dict[str, FileEntry]:
    entries = {}
    for path, file in files.items():
        found, size = hash_file(file)
        entries[path] = FileEntry(path=path, sha256=found, size=size)
    return entries


def _collect(folder: Path, told: Mapping[str, list[Any]]) -> tuple[Checkpoint, bytes, dict[str, Path]]:
    """Hash what the worker left, and open it; its word about the weights must be what the bytes say."""
    files = list_files(folder)
    entries = _hashed(files)
    for entry in entries.values():
        if entry.path in told and [entry.size, entry.sha256] != told[entry.path]:
            raise DigestDiffers("is not the file the worker says it wrote", where=folder / entry.path)
    text = listing_bytes(entries)
    child = open_checkpoint(files, hashlib.sha256(text).hexdigest())
    return child, text, {e.sha256: files[path] for path, e in entries.items()}
