"""The search's worker: recipes in, per-item results out. Candidates live in memory and never become a file.

It opens base and parents once for a batch of recipes, computes every child's tensors with the same operators that breed
candidates, and scores them with the engine and the batch layout that score candidates, so that a winner that is bred
afterwards answers every item alike. It is told of no suite but those in its job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators import Inputs, decode_operator
from studbook.breeding.operators.bounds import gram, norm, wide_delta
from studbook.breeding.operators.run import compute
from studbook.breeding.operators.warm import prepare
from studbook.breeding.sources import as_inputs, open_inputs
from studbook.errors import DigestDiffers, OutsideAllowlist, OverBudget, ParentsDoNotFit
from studbook.evaluation.score_worker import BATCH
from studbook.evaluation.suites import items_sha256, known_items
from studbook.files import read_file
from studbook.models.checksum import warm
from studbook.models.forward import Forward, Pair, keep_freed_memory
from studbook.models.slm import Slm
from studbook.models.stored import Dtype, StoredTensor
from studbook.tensors.thresholds import CutStore
from studbook.tensors.views import layer_of

__all__ = ["block_of", "in_memory", "inner_products", "prepare", "warm", "work"]

_ITEMS_LIMIT = 64 << 20
_MICRO = 1_000_000


class _Questions(NamedTuple):
    path: str
    sha256: str
    pairs: list[Pair]


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Run some recipes.

    Args:
        job: ``base`` and ``parents`` as [path, digest], ``operators`` (records), ``suites`` ([path, digest of the items])
            and ``relative_delta`` (most the policy allows).

    Returns:
        ``outcomes``: for each recipe ``correct`` and ``loglik_micro`` by suite and ``detail``.

    Raises:
        DigestDiffers: if a parent or a suite is not the one that was named.
        StudbookError: any of its kinds, if base and parents do not fit.
    """
    files = [tuple(job["base"]), *(tuple(p) for p in job["parents"])]
    base, parents = open_inputs(files[0], files[1:])
    inputs = replace(as_inputs(base, parents), cuts=CutStore())
    keep_freed_memory()
    suites = [_read(base, path, digest) for path, digest in job["suites"]]
    size = max(norm(inputs.base, inputs.names), 1e-30)
    outcomes = [_outcome(record, base, inputs, suites, size * job["relative_delta"]) for record in job["operators"]]
    for suite in suites:
        _unchanged(suite.path, suite.sha256)
    return {"outcomes": outcomes}


def in_memory(base: Slm, tensors: dict[str, NDArray[np.float32]]) -> Slm:
    """A model with the base's shape and tokenizer and other f32 values, without a file; it has no digest of its own."""
    stored = {
        spec.name: StoredTensor(Dtype.F32, spec.dims, np.ascontiguousarray(tensors[spec.name]).data.cast("B"))
        for spec in base.shape.tensors()
    }
    return replace(base, tensors=MappingProxyType(stored), sha256="in memory", size=0)


def block_of(name: str, layers: int, filters: Sequence[str]) -> int:
    """The block of a space of scales that a tensor belongs to: its filter, and its layer within that.

    As in scheduled/1 a tensor outside the layers goes with the first one.
    """
    group = next((i for i, part in enumerate(filters) if part in name), len(filters))
    return group * layers + min(layer_of(name) or 0, layers - 1)


def inner_products(inputs: Inputs, layers: int, filters: Sequence[str]) -> list[list[list[float]]]:
    """Inner products <p_i - base, p_j - base> over every block's tensors, f64: one square table a block.

    Args:
        inputs: Base and parents.
        layers: Layers with scales of their own, 1 where the whole model shares its scales.
        filters: Substrings of tensor names with scales of their own.

    Raises:
        ParentsDoNotFit: if base and parents differ in names or shapes.
    """
    blocks: list[list[str]] = [[] for _ in range((len(filters) + 1) * layers)]
    inputs.check()
    for name in inputs.names:
        blocks[block_of(name, layers, filters)].append(name)
    count = len(inputs.parents)
    tables = [gram(inputs, names, lambda k, n, s, e: wide_delta(inputs, k, n, s, e), count) for names in blocks]
    return [[[float(value) for value in row] for row in table] for table in tables]


def _read(base: Slm, path: str, digest: str) -> _Questions:
    data = _unchanged(path, digest)
    encode = base.tokenizer.encode
    pairs: list[Pair] = [
        (encode(item.prompt, bos=True, eos=False), encode(item.expected, bos=False, eos=True))
        for item in known_items(data, path)
    ]
    return _Questions(path, digest, pairs)


def _unchanged(path: str, digest: str) -> bytes:
    data = read_file(Path(path), _ITEMS_LIMIT)
    if items_sha256(data) != digest:
        raise DigestDiffers("is not the suite that was to be searched on", where=path)
    return data


def _outcome(
    record: dict[str, Any], base: Slm, inputs: Inputs, suites: Sequence[_Questions], most: float
) -> dict[str, Any]:
    """One recipe's results; what a recipe does wrong is its own and ends no search."""
    try:
        operator = decode_operator(record)
        bound = operator.delta_bound(inputs)
        if not bound <= most:
            raise OverBudget(f"may move the weights by {bound:.4g}; the policy allows {most:.4g}")
        return _scores(in_memory(base, compute(operator, inputs)), suites)
    except (OutsideAllowlist, OverBudget, ParentsDoNotFit) as error:
        return {"correct": [], "loglik_micro": [], "detail": error.message}


def _scores(model: Slm, suites: Sequence[_Questions]) -> dict[str, Any]:
    forward = Forward(model)
    correct, loglik = [], []
    for suite in suites:
        scores = forward.score(suite.pairs, batch=BATCH)
        if not scores.finite.all():
            raise ParentsDoNotFit("the child's logits are not finite")
        correct.append("".join("1" if right else "0" for right in scores.exact))
        loglik.append(sum(round(float(value) * _MICRO) for value in scores.loglik))
    return {"correct": correct, "loglik_micro": loglik, "detail": ""}
