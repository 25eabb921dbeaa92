"""Declaring, breeding and recomputing a checkpoint: the same steps as for an SLM1 child, on folders of files."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from studbook.breeding.checkpoint_recipe import CheckpointRecipe, decode_recipe
from studbook.breeding.checkpoint_sources import Files, Opened, open_recipe
from studbook.breeding.checkpoint_worker import CHILD, CUTS, shards_of
from studbook.breeding.operators.bounds import norm
from studbook.breeding.produce import delta_norm
from studbook.errors import BytesLie, DigestDiffers, OverBudget
from studbook.files import hash_file, make_folder
from studbook.models.checkpoint import Checkpoint, FileEntry, label_of, list_files, open_checkpoint, tokenizer_sha256
from studbook.models.checkpoint_folder import listing_bytes
from studbook.models.digests import layout_sha256
from studbook.models.safetensors_writer import INDEX, JOURNAL, Shard, index_bytes
from studbook.records import (
    Blob,
    Check,
    Expected,
    Header,
    InputDigest,
    JsonObject,
    LineageTemplate,
    OperatorReceipt,
    Policy,
    WorkerLimits,
    digest,
)
from studbook.sandbox import Answer, Limits, run_worker
from studbook.tensors.contract import CONTRACT_SHA256
from studbook.tensors.storage import RAW
from studbook.tensors.thresholds import CutStore, cut_files, take_over

__all__ = [
    "CHECKPOINT_CHUNK",
    "Grown",
    "bytes_of",
    "check_checkpoint",
    "child_files",
    "draft_checkpoint",
    "produce_checkpoint",
    "recipe_digest",
    "recipe_of",
    "recompute_checkpoint",
    "run_checkpoint",
    "unchanged",
]

# Elements computed at a time; the bytes do not depend on it.
CHECKPOINT_CHUNK = 1 << 18
_LEAST_FILE = 1 << 20
_STEP = 4 << 20
# Unit roundoff, and half of the smallest number, of a storage.
_UNIT = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}
_TINY = {"f32": 0.0, "f16": 2.0**-25, "bf16": 2.0**-134}


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


def recipe_of(template: LineageTemplate) -> CheckpointRecipe | None:
    """The checkpoint recipe a template declares; None for a template of an SLM1 child."""
    return decode_recipe(template.operator) if "recipe" in template.operator else None


def recipe_digest(recipe: CheckpointRecipe) -> str:
    """The identity of the work, 64 hex digits: equal for recipes that give equal bytes, whoever declares them."""
    return digest(_fields(recipe))


def child_files(recipe: CheckpointRecipe, stored: Mapping[str, Files]) -> frozenset[str]:
    """Every file that a worker may leave of a child, by relative path: finished, unfinished, and the journal.

    Raises:
        StudbookError: as `open_recipe`.
    """
    opened = open_recipe(recipe, stored)
    names = {*opened.files, *(s.name for s in shards_of(opened, recipe.shard_bytes)), INDEX}
    return frozenset({JOURNAL, *names, *(f"{name}.partial" for name in names)})


def _fields(recipe: CheckpointRecipe) -> JsonObject:
    """A recipe as plain JSON values."""
    fields: JsonObject = msgspec.json.decode(msgspec.json.encode(recipe))
    return fields


def draft_checkpoint(
    header: Header, policy: Policy, policy_digest: str, recipe: CheckpointRecipe, stored: Mapping[str, Files]
) -> LineageTemplate:
    """Bind models, operator, budget and expected output before anything runs.

    Raises:
        ParentsDoNotFit: if the models do not fit each other or the operator.
        OverBudget: if the declared output would break the policy's budget.
    """
    opened, fields = open_recipe(recipe, stored), _fields(recipe)
    base, *others = recipe.sources()
    return LineageTemplate(
        header=header,
        purpose="candidate",
        cluster=None,
        policy=policy_digest,
        compatibility=None,
        base=base,
        parents=tuple(others) or (base,),
        operator=fields,
        recipe_sha256=recipe_digest(recipe),
        numeric_contract=CONTRACT_SHA256,
        limits=WorkerLimits(
            seconds=policy.budget.worker_seconds,
            memory_bytes=policy.budget.worker_bytes,
            output_bytes=policy.budget.output_bytes,
        ),
        expected=_expected(opened, recipe, policy),
    )


def _expected(opened: Opened, recipe: CheckpointRecipe, policy: Policy) -> Expected:
    shards = shards_of(opened, recipe.shard_bytes)
    size = sum(s.size for s in shards) + sum(map(len, opened.files.values())) + len(_index(shards))
    if size > policy.budget.output_bytes:
        raise OverBudget(
            f"the output would have {size} bytes; the policy allows {policy.budget.output_bytes}",
            where="policy: budget.output_bytes",
        )
    bound = opened.operator.delta_bound(opened.inputs)
    reference = opened.operator.reference(opened.inputs)
    size_of_reference = norm(reference, reference.names)
    relative = bound / max(size_of_reference, 1e-30)
    if not relative <= policy.budget.relative_delta:
        raise OverBudget(
            f"{opened.operator.family} may move the weights by {relative:.3f} of the base's norm; "
            f"the policy allows {policy.budget.relative_delta:g}",
            where="policy: budget.relative_delta",
            reason="budget.relative-delta",
        )
    # Rounding to the child's storage comes on top of what the operator declares.
    rounded = bound + _rounding(opened, bound, size_of_reference)
    return Expected(
        layout_sha256=layout_sha256({s.name: s.dims for s in opened.specs}),
        tokenizer_sha256=tokenizer_sha256(opened.files),
        label=label_of(s.storage for s in opened.specs),
        size_bytes=size,
        delta_norm=rounded,
        relative_delta=rounded / max(size_of_reference, 1e-30),
    )


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
    wanted = {*opened.files, *answer["files"], INDEX}
    if strange := sorted(list_files(folder / CHILD).keys() - wanted):
        raise DigestDiffers("is no file of this child", where=folder / CHILD / strange[0], reason="digest.extra")
    for path, data in opened.files.items():
        if hash_file(folder / CHILD / path)[0] != hashlib.sha256(data).hexdigest():
            raise DigestDiffers("is not what donors and operator make of it", where=folder / CHILD / path)
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


def _index(shards: tuple[Shard, ...]) -> bytes:
    return index_bytes(shards) if len(shards) > 1 else b""


def bytes_of(folder: Path) -> tuple[bytes, dict[str, Path]]:
    """List of files, and the files by their SHA-256, of what a worker left below a folder."""
    _, text, files = _collect(folder / CHILD, {})
    return text, files


def _rounding(opened: Opened, bound: float, size: float) -> float:
    """What rounding to the child's storage can add: half a unit in the last place of every element.

    Args:
        opened: The work.
        bound: How far the child may be from its reference before it is rounded.
        size: L2 norm of the reference.
    """
    unit = max(_UNIT[s.storage] for s in opened.specs)
    elements = sum(math.prod(s.dims) for s in opened.specs)
    return unit * (size + bound) * (1.0 + 2.0**-20) + math.sqrt(elements) * max(_TINY[s.storage] for s in opened.specs)


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
