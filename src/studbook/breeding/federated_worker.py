"""The coordinator of a federated round: base and packages in, one child out. It is told of no rows at all.

Packages come from clients that nobody has to trust, so they are averaged here, shut in like everything foreign.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studbook.adapters.reader import Adapter
from studbook.breeding.federation import Left, Update, average_round
from studbook.breeding.operators import AnyOperator, FederatedRound, Inputs
from studbook.breeding.sources import as_inputs
from studbook.breeding.worker import breed, prepare, warm
from studbook.errors import OutOfOrder
from studbook.models.slm import Slm

__all__ = ["prepare", "warm", "work"]


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Average what the clients sent.

    Args:
        job: As for `studbook.breeding.worker.work`, with one parent; and ``clients``: for each ``client`` (its name),
            ``package`` (path) and ``rows``, or ``client``, ``reason`` and ``words`` where it sent nothing.
        folder: Where the child is written.

    Returns:
        ``sha256`` and ``size`` of the child, for the lab to hold against the file.

    Raises:
        ParentsDoNotFit: if no client is left; ``parents.all-excluded``.
        StudbookError: any of its kinds, as the plain worker.
    """
    return breed(job, folder, partial(_opened, [_update(fields) for fields in job["clients"]]))


def _opened(
    updates: Sequence[Update | Left], operator: AnyOperator, base: Slm, parents: Sequence[Slm | Adapter]
) -> Inputs:
    start, inputs = parents[0], as_inputs(base, parents)
    if not isinstance(operator, FederatedRound) or not isinstance(start, Slm):
        raise OutOfOrder("is no federated round of a model", where=operator.tag(), reason="training.worker")
    operator.check(inputs)
    return average_round(operator, inputs, start, updates)[0]


def _update(fields: dict[str, Any]) -> Update | Left:
    return Update(**{**fields, "package": Path(fields["package"])}) if "package" in fields else Left(**fields)
