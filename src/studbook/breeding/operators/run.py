"""Running an operator over whole models: checks, surveys, then any number of ranges on any number of threads.

Chunks and threads decide when an element is computed, never what it is: the law tests compare the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.base import Operator, Survey, quiet
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.errors import UsageError
from studbook.tensors.contract import check_arithmetic, require_finite

__all__ = ["compute"]

T = TypeVar("T")
R = TypeVar("R")


def compute(
    operator: Operator, inputs: Inputs, *, chunk: int = 1 << 20, threads: int = 1
) -> dict[str, NDArray[np.float32]]:
    """The child's tensors.

    Args:
        operator: What to do.
        inputs: Base and parents.
        chunk: Elements computed at a time, at least 1; the bytes do not depend on it.
        threads: Threads, at least 1; the bytes do not depend on it.

    Returns:
        Name -> f32 array with the base's shape, read-only, in canonical order.

    Raises:
        UsageError: if chunk or threads is below 1.
        OutsideAllowlist: if a parameter is out of range.
        ParentsDoNotFit: if the inputs do not fit, are not finite, or the child would not be.
        StudbookError: if a thread's floating-point mode breaks the numeric contract.
    """
    if chunk < 1 or threads < 1:
        raise UsageError(f"chunk {chunk} and threads {threads} must be at least 1", reason="operator.run")
    operator.check(inputs)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        each = map if threads == 1 else pool.map
        return _compute(operator, inputs, chunk, each)


def _compute(operator: Operator, inputs: Inputs, chunk: int, each: Callable[..., Iterable[Any]]) -> dict[str, Rows]:
    def safely(function: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
        return each(lambda item: _guarded(function, item), items)

    inputs.check_finite()
    surveys = operator.survey_model(inputs, safely)
    child = {name: np.empty(inputs.size(name), np.float32) for name in inputs.names}

    def fill(job: tuple[str, int, int]) -> None:
        name, start, stop = job
        child[name][start:stop] = _finite_rows(operator, inputs, surveys, job)

    jobs = [(n, s, min(s + chunk, inputs.size(n))) for n in inputs.names for s in range(0, inputs.size(n), chunk)]
    # Results are taken in order, so the error that is raised does not depend on the threads either.
    for _ in safely(fill, jobs):
        pass
    return {name: _finished(flat, inputs.base.dims(name)) for name, flat in child.items()}


def _finite_rows(operator: Operator, inputs: Inputs, surveys: Mapping[str, Survey], job: tuple[str, int, int]) -> Rows:
    name, start, stop = job
    rows = operator.rows(name, start, stop, inputs, surveys[name])
    require_finite(rows, f"child of {operator.tag()}: {name} from element {start}")
    return rows


def _guarded(function: Callable[[T], R], item: T) -> R:
    check_arithmetic()
    with quiet():
        return function(item)


def _finished(flat: Rows, dims: tuple[int, ...]) -> Rows:
    shaped = flat.reshape(dims)
    shaped.flags.writeable = False
    return shaped
