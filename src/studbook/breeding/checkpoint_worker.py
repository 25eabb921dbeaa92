"""The worker that breeds checkpoints: parents' files in, shards and the child's other files out, in one folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from studbook.breeding.checkpoint_recipe import decode_recipe
from studbook.breeding.checkpoint_sources import Opened, open_recipe
from studbook.breeding.operators import Survey
from studbook.breeding.operators.run import stream, survey
from studbook.breeding.operators.warm import prepare
from studbook.errors import OutsideAllowlist, OverBudget
from studbook.files import replace_file
from studbook.models.checksum import warm
from studbook.models.pages import drop_pages_over
from studbook.models.safetensors_writer import Shard, index_bytes, plan_shards, write_shards
from studbook.tensors.contract import CONTRACT_SHA256
from studbook.tensors.sinks import Sink
from studbook.tensors.thresholds import CutStore

__all__ = ["CHILD", "CUTS", "INDEX", "MILLION", "PROGRESS", "RESUMED", "prepare", "shards_of", "warm", "work"]

CHILD = "child"
INDEX = "model.safetensors.index.json"
MILLION = 1_000_000
# Millionths of the child's elements done so far, in decimal, for whoever shows them.
PROGRESS = "progress"
# Magnitude cuts that were found and not known before, for the lab to take over.
CUTS = "thresholds"
# Where an earlier run is gone on with: shards finished from the first one on, shards finished in all, shards.
RESUMED = "resumed"
_STEP = 32 << 20
# A longer file would push everything else out of memory on its way through.
_LARGE = 1_000_000_000


def shards_of(opened: Opened, shard_bytes: int) -> tuple[Shard, ...]:
    """Where every tensor of the child goes; known before anything is computed."""
    return plan_shards(opened.specs, shard_bytes, opened.carried)


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Breed one checkpoint into ``folder``, going on where an earlier run stopped.

    Args:
        job: ``recipe``, ``recipe_sha256``, ``stored`` (digest -> relative path -> path), ``numeric_contract``,
            ``output_bytes``, ``threads``, ``chunk`` (elements), ``thresholds`` (folder of known magnitude cuts, or null).
        folder: Where the child's files are written, below `CHILD`, and new cuts, below `CUTS`.

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
    drop_pages_over(_LARGE)
    opened = open_recipe(recipe, {d: _paths(files) for d, files in job["stored"].items()}, mapped=True)
    if job["thresholds"] is not None:
        cuts = CutStore(Path(job["thresholds"]), folder / CUTS)
        opened = opened._replace(inputs=replace(opened.inputs, cuts=cuts))
    shards = shards_of(opened, recipe.shard_bytes)
    size = sum(s.size for s in shards)
    if size > job["output_bytes"]:
        raise OverBudget(f"the weights would have {size} bytes; {job['output_bytes']} are allowed")
    child = folder / CHILD
    child.mkdir(exist_ok=True)
    counter = _Counter(folder, sum(math.prod(spec.dims) for spec in opened.specs), shards)

    written = write_shards(
        shards, _computer(opened, job, counter), child, job["recipe_sha256"], shown=counter.keep, drop_over=_LARGE
    )
    counter.begin()
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
        counter.begin()
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
    """Counts elements and writes their share of all down now and then; says once which shards were there already."""

    def __init__(self, folder: Path, elements: int, shards: Sequence[Shard]) -> None:
        self._folder, self._all, self._shards = folder, max(elements, 1), shards
        self._done = self._told = 0
        self._kept: list[Shard] = []

    def keep(self, shard: Shard) -> None:
        """A shard that an earlier run finished; all of them are named before `begin`."""
        self._kept.append(shard)

    def begin(self) -> None:
        """Write down where an earlier run is gone on with, if there was one."""
        kept, self._kept = self._kept, []
        if kept:
            pairs = zip(self._shards, kept, strict=False)
            first = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
            _note(self._folder / RESUMED, f"{first} {len(kept)} {len(self._shards)}")
            self.add(sum(placed.elements for shard in kept for placed in shard.weights))

    def add(self, elements: int) -> None:
        """So many more elements are done."""
        self._done += elements
        if self._done - self._told >= _STEP:
            self._told = self._done
            _note(self._folder / PROGRESS, str(self._done * MILLION // self._all))


def _note(path: Path, text: str) -> None:
    """Swap a note's content in one step; it need not outlive a crash."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def _paths(files: Mapping[str, str]) -> dict[str, Path]:
    return {relative: Path(path) for relative, path in files.items()}
