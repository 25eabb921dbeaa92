"""A federated client's worker: the round's base and its own slices in, one package of deltas out.

Rows never leave it: what the coordinator gets is a dense package (``ADP1``) that names the base it was made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studbook.adapters.make import dense_delta
from studbook.breeding.federation import UPDATE
from studbook.breeding.trained_worker import prepare, warm
from studbook.breeding.trained_worker import work as train
from studbook.breeding.worker import OUTPUT
from studbook.models.slm import read_slm

__all__ = ["prepare", "warm", "work"]


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train on this client's rows and leave what changed.

    Args:
        job: As for `studbook.breeding.trained_worker.work`, with one parent; and ``licence``, an SPDX identifier.
        folder: Where the package is written.

    Returns:
        ``sha256`` and ``size`` of the tuned model, which stays in the client's folder.

    Raises:
        StudbookError: any of its kinds, as the training worker.
    """
    answer = train(job, folder)
    started = read_slm(Path(job["parents"][0][0]))
    package = dense_delta(started, read_slm(folder / OUTPUT), licence=job["licence"])
    (folder / UPDATE).write_bytes(package)
    return answer
