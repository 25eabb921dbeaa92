"""How parents' task vectors lie to each other: cosine, sign conflict, interpolation barrier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studbook.models.checksum import warm
from studbook.models.forward import Forward
from studbook.models.slm import Slm, parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.tensors.reductions import dot, sum_of_squares

__all__ = ["task_vectors", "warm", "work"]

Delta = Mapping[str, NDArray[np.float32]]


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Measure every pair of parents.

    Args:
        job: ``base`` and ``parents`` (paths), ``rows``: [prompt, answer] pairs.

    Returns:
        ``pairs``: ``first`` and ``second`` (places in ``parents``), ``cosine``, ``conflict`` (share of elements that
        moved in opposite directions among those where both moved), ``barrier`` (loss at the midpoint minus the mean of
        the ends, nats per answer token; 0 without rows).
    """
    base = read_slm(Path(job["base"]))
    parents = [read_slm(Path(path)) for path in job["parents"]]
    rows = job["rows"]
    ends = [_loss(p, rows) for p in parents]
    pairs = task_vectors(base, parents)
    for pair in pairs:
        i, j = pair["first"], pair["second"]
        pair["barrier"] = _loss(_midpoint(parents[i], parents[j]), rows) - (ends[i] + ends[j]) / 2 if rows else 0.0
    return {"pairs": pairs}


def task_vectors(base: Slm, parents: Sequence[Slm]) -> list[dict[str, Any]]:
    """Directions of every pair of task vectors (parent - base); the same numbers on any machine.

    Args:
        base: The shared base.
        parents: Models of its shape, in order.

    Returns:
        ``first`` and ``second`` (places in ``parents``), ``cosine`` and ``conflict``, as `work` gives them.
    """
    names = [spec.name for spec in base.shape.tensors()]
    deltas = [{n: (p.dense(n) - base.dense(n)).reshape(-1) for n in names} for p in parents]
    norms = [math.sqrt(math.fsum(sum_of_squares(d[n]) for n in names)) for d in deltas]
    pairs: list[dict[str, Any]] = []
    for i, j in combinations(range(len(parents)), 2):
        product = math.fsum(dot(deltas[i][n], deltas[j][n]) for n in names)
        cosine = product / (norms[i] * norms[j]) if norms[i] * norms[j] > 0 else 0.0
        pairs.append({"first": i, "second": j, "cosine": cosine, "conflict": _conflict(deltas[i], deltas[j])})
    return pairs


def _conflict(first: Delta, second: Delta) -> float:
    both = opposite = 0
    for name, a in first.items():
        b = second[name]
        both += int(np.count_nonzero((a != 0) & (b != 0)))
        opposite += int(np.count_nonzero(((a > 0) & (b < 0)) | ((a < 0) & (b > 0))))
    return opposite / both if both else 0.0


def _midpoint(first: Slm, second: Slm) -> Slm:
    half = np.float32(0.5)
    tensors = {s.name: half * first.dense(s.name) + half * second.dense(s.name) for s in first.shape.tensors()}
    return parse_slm(write_slm(first.shape, first.tokenizer, tensors), "midpoint")


def _loss(model: Slm, rows: Sequence[Sequence[str]]) -> float:
    """Mean negative log-likelihood of the answers, nats per answer token; 0 without rows."""
    encode = model.tokenizer.encode
    pairs = [(encode(p, bos=True, eos=False), encode(a, bos=False, eos=True)) for p, a in rows]
    if not pairs:
        return 0.0
    scores = Forward(model).score(pairs)
    return -math.fsum(float(v) for v in scores.loglik) / sum(len(a) for _, a in pairs)
