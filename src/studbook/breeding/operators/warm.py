"""Compile every kernel once, by running every operator on a few numbers; what is compiled is kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from studbook.breeding.operators import Inputs, Operator, operator_types
from studbook.breeding.operators.run import stream
from studbook.errors import StudbookError
from studbook.tensors.compiling import COMPILED
from studbook.tensors.philox import stream_for
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import Storage, narrow

__all__ = ["prepare", "warm_kernels"]

SHAPES = {
    "tok_embeddings.weight": (8, 4),
    "layers.0.wq.weight": (4, 4),
    "layers.1.wq.weight": (4, 4),
    "norm.weight": (4,),
}
STORAGES: tuple[Storage, ...] = ("f32", "bf16", "f16")
# Operators whose kernels are in memory already.
_prepared: set[str] = set()


def warm_kernels(shown: Callable[[str], None] = lambda _: None) -> int:
    """Run every operator that has a kernel on every storage.

    Args:
        shown: Called with the tag of every operator before it runs.

    Returns:
        How many operators have a kernel.
    """
    found: set[str] = set()
    told: set[str] = set()
    for operator, parents in _examples():
        if operator.tag() not in told:
            told.add(operator.tag())
            shown(operator.tag())
        if _run_all(operator, parents):
            found.add(operator.tag())
    return len(found)


def prepare(job: Mapping[str, Any]) -> None:
    """Load or compile the kernels of every operator that a worker's job names, before the worker is locked down.

    A locked worker may not write to the cache; what is missing here it compiles again every time.

    Args:
        job: Plain JSON values; an operator is an object with its tag under ``operator``.
    """
    wanted = set(_tags(job)) - _prepared if COMPILED else set()
    for operator, parents in _examples():
        if operator.tag() in wanted:
            _run_all(operator, parents)
    _prepared.update(wanted)


def _tags(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(tag := value.get("operator"), str):
            yield tag
        yield from (tag for part in value.values() for tag in _tags(part))
    elif isinstance(value, list):
        yield from (tag for part in value for tag in _tags(part))


def _examples() -> Iterator[tuple[Operator, int]]:
    for kind in operator_types():
        fewest, most = kind.parents_needed
        parents = max(fewest, min(most, 2))
        yield from ((example, parents) for example in kind.examples(parents))


def _run_all(operator: Operator, parents: int) -> bool:
    """Whether the operator used a kernel on any storage."""
    used = False
    for storage in STORAGES:
        inputs = Inputs(base=_model(0, storage), parents=tuple(_model(k + 1, storage) for k in range(parents)))
        used |= _run(operator, inputs, storage)
    return used


def _run(operator: Operator, inputs: Inputs, storage: Storage) -> bool:
    """Whether the operator used a kernel; examples that need a larger model than this are passed over."""
    try:
        operator.check(inputs)
        reference = operator.reference(inputs)
        surveys = operator.survey_model(inputs, map)
        used = any(operator.kernel(name, inputs, surveys[name]) for name in reference.names)
        if used:
            stream(operator, inputs, MemorySink({n: reference.dims(n) for n in reference.names}, storage))
    except StudbookError:
        return False
    return used


def _model(place: int, storage: Storage) -> ArraySource:
    digest = hashlib.sha256(b"warm %d" % place).digest()
    tensors = {}
    for name, dims in SHAPES.items():
        noise = stream_for(place, digest, name).noise(0, int(np.prod(dims)))
        tensors[name] = narrow(noise * np.float32(0.125), storage).reshape(dims)
    return ArraySource(digest.hex(), tensors)
