"""The worker that breeds checkpoints: parents' files in, shards and the child's other files out, in one folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studbook.breeding.checkpoint_recipe import decode_recipe
from studbook.breeding.checkpoint_sources import Opened, open_recipe
from studbook.breeding.operators import Survey
from studbook.breeding.operators.run import stream, survey
from studbook.errors import OutsideAllowlist, OverBudget
from studbook.files import replace_file
from studbook.models.checksum import warm
from studbook.models.safetensors_writer import Shard, index_bytes, plan_shards, write_shards
from studbook.tensors.contract import CONTRACT_SHA256
from studbook.tensors.sinks import Sink

__all__ = ["INDEX", "PROGRESS", "shards_of", "warm", "work"]

INDEX = "model.safetensors.index.json"
# Millionths of the child's elements done so far, in decimal, for whoever shows them.
PROGRESS = "progress"
_STEP = 32 << 20


def shards_of(opened: Opened, shard_bytes: int) -> tuple[Shard, ...]:
    """Where every tensor of the child goes; known before anything is computed."""
    return plan_shards(opened.specs, shard_bytes, opened.carried)


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Breed one checkpoint into ``folder``, going on where an earlier run stopped.

    Args:
        job: ``recipe``, ``recipe_sha256``, ``stored`` (digest -> relative path -> path), ``numeric_contract``,
            ``output_bytes``, ``threads``, ``chunk`` (elements).
        folder: Where the child's files are written, below ``child``.

    Returns:
        ``files``: relative path -> [size, SHA-256] of the weight files; ``root``: the model root.

    Raises:
        OutsideAllowlist: if another numeric contract than this version's is asked for.
        OverBudget: if the child would be larger than allowed, or the disk is full.
        StudbookError: what operator, reader or writer raised.
    """
    if job["numeric_contract"] != CONTRACT_SHA256:
        raise OutsideAllowlist("asks for a numeric contract that this version does not have", reason="contract")
    recipe = decode_recipe(job["recipe"])
    opened = open_recipe(recipe, {d: _paths(files) for d, files in job["stored"].items()})
    shards = shards_of(opened, recipe.shard_bytes)
    size = sum(s.size for s in shards)
    if size > job["output_bytes"]:
        raise OverBudget(f"the weights would have {size} bytes; {job['output_bytes']} are allowed")
    child = folder / "child"
    child.mkdir(exist_ok=True)
    counter = _Counter(folder / PROGRESS, sum(math.prod(spec.dims) for spec in opened.specs))

    written = write_shards(shards, _computer(opened, job, counter), child, job["recipe_sha256"])
    for path, data in opened.files.items():
        target = child / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, data)
    if len(shards) > 1:
        replace_file(child / INDEX, index_bytes(shards))
    return {
        "files": {shard.name: [shard.size, shard.sha256] for shard in written.shards},
        "root": written.root,
    }


def _computer(opened: Opened, job: Mapping[str, Any], counter: _Counter) -> Callable[[Sink], None]:
    """Streams the tensors a sink wants; the child is surveyed once, when the first sink comes."""
    surveys: dict[str, Survey] = {}

    def compute(sink: Sink) -> None:
        if not surveys:
            surveys.update(survey(opened.operator, opened.inputs, threads=job["threads"]))
        stream(
            opened.operator,
            opened.inputs,
            sink,
            chunk=job["chunk"],
            threads=job["threads"],
            surveys=surveys,
            shown=counter.add,
        )

    return compute


class _Counter:
    """Counts elements and writes their share of all down now and then."""

    def __init__(self, path: Path, elements: int) -> None:
        self._path, self._all, self._done, self._told = path, max(elements, 1), 0, 0

    def add(self, elements: int) -> None:
        """So many more elements are done."""
        self._done += elements
        if self._done - self._told >= _STEP:
            self._told = self._done
            partial = self._path.with_name(f"{self._path.name}.partial")
            partial.write_text(str(self._done * 1_000_000 // self._all))
            partial.replace(self._path)


def _paths(files: Mapping[str, str]) -> dict[str, Path]:
    return {relative: Path(path) for relative, path in files.items()}
