"""The breeding worker that trains: parents and slices read-only in, one child out, and the adapter package if there is one.

It alone brings operators and torch together; it is told of no suite, no key, and no rows but the declared ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from studbook.adapters.make import low_rank
from studbook.adapters.reader import Adapter, parse_adapter
from studbook.adapters.source import AdapterSource, SlmSource
from studbook.breeding.operators import AdapterTrain, AnyOperator, Distil, FineTune, Inputs, Trained
from studbook.breeding.operators.bounds import norm
from studbook.breeding.sources import as_inputs
from studbook.breeding.worker import breed, prepare, warm
from studbook.errors import OutOfOrder
from studbook.files import read_file
from studbook.models.slm import Slm
from studbook.records import digest
from studbook.tensors.sources import ArraySource, TensorSource
from studbook.training.backend import require_torch
from studbook.training.learn import Plan, distil, factors, tune
from studbook.training.rows import Slices, read_slices

__all__ = ["PACKAGE", "prepare", "warm", "work"]

PACKAGE = "adapter.alr1"
_LARGEST_SLICE = 1 << 30


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one candidate into ``folder``.

    Args:
        job: As for `studbook.breeding.worker.work`, and ``slices``: digest -> path of every declared slice.
        folder: Where the child is written; a trained adapter lies beside it as ``adapter.alr1``.

    Returns:
        ``sha256`` and ``size`` of the child, for the lab to hold against the file.

    Raises:
        UsageError: if torch is not installed; ``usage.extra``.
        OutOfOrder: if a slice's bytes are not those of its digest; ``training.slice``.
        StudbookError: any of its kinds, as the plain worker, or if training diverged.
    """
    require_torch()
    files = {d: read_file(Path(path), _LARGEST_SLICE) for d, path in job["slices"].items()}
    return breed(job, folder, partial(_opened, files, folder))


def _opened(
    files: Mapping[str, bytes], folder: Path, operator: AnyOperator, base: Slm, parents: Sequence[Slm | Adapter]
) -> Inputs:
    inputs = as_inputs(base, parents)
    models = [parent for parent in parents if isinstance(parent, Slm)]
    if not isinstance(operator, Trained) or len(models) < len(parents):
        message = "is no operator that trains models"
        raise OutOfOrder(message, where=operator.tag(), reason="training.worker")
    operator.check(inputs)
    inputs.check_finite()
    start = base if operator.start(inputs) is inputs.base else models[0]
    slices = read_slices(files, operator.data, operator.rehearsed, start.tokenizer, start.shape.max_context)
    learned = _LEARN[type(operator)](operator, start, models, slices, folder)
    return replace(inputs, learned=learned)


def _plan(operator: Trained) -> Plan:
    return Plan(operator.steps, operator.rate, operator.batch, operator.rehearsal, operator.seed)


def _tuned(operator: FineTune, start: Slm, _parents: Sequence[Slm], slices: Slices, _folder: Path) -> TensorSource:
    return ArraySource(digest(operator), tune(start, _plan(operator), slices))


def _distilled(operator: Distil, start: Slm, parents: Sequence[Slm], slices: Slices, _folder: Path) -> TensorSource:
    tensors = distil(
        start, parents, _plan(operator), slices, imitation=operator.imitation, temperature=operator.temperature
    )
    return ArraySource(digest(operator), tensors)


def _adapted(operator: AdapterTrain, start: Slm, _parents: Sequence[Slm], slices: Slices, folder: Path) -> TensorSource:
    below = SlmSource(start)
    names = operator.chosen(Inputs(base=below, parents=(below,)))
    made = factors(
        start,
        _plan(operator),
        slices,
        rank=operator.rank,
        alpha=operator.alpha,
        names=names,
        most=operator.reach * norm(below, below.names),
    )
    data = low_rank(start, made, licence=operator.licence, kind="trained", digests={"operator": digest(operator)})
    (folder / PACKAGE).write_bytes(data)
    return AdapterSource(below, parse_adapter(data, PACKAGE))


_LEARN: dict[type[Trained], Callable[..., TensorSource]] = {
    FineTune: _tuned,
    Distil: _distilled,
    AdapterTrain: _adapted,
}
