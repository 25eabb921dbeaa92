"""Three ways of training: all weights on rows, all weights on rows and teachers, or low-rank factors on rows.

The loss is the mean cross-entropy over answer ids and the end; prompts carry none. The optimiser is AdamW (Loshchilov &
Hutter, arXiv 1711.05101), the rate falls linearly from ``rate`` to 0 over the declared steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.changes import LowRank
from studbook.errors import ParentsDoNotFit
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm
from studbook.training.backend import require_torch, torch
from studbook.training.network import logits
from studbook.training.optimise import AdamW
from studbook.training.rows import Batch, Slices, batches

__all__ = ["Plan", "distil", "factors", "tune"]

Tensor = Any
F32 = NDArray[np.float32]
_BETAS, _DECAY = (0.9, 0.98), 0.01
_NO_TARGET = -100
# Room below the declared norm, so that rounding the fused values stays inside it.
_INSIDE = 1.0 - 2.0**-16


class Plan(NamedTuple):
    """What one run may do.

    Attributes:
        steps: Optimiser steps: the budget.
        rate: Peak learning rate.
        batch: Rows a step.
        rehearsal: Share of the rows that come from rehearsed slices, where there are any.
        seed: Seed of rows and of fresh factors.
    """

    steps: int
    rate: float
    batch: int
    rehearsal: float
    seed: int


def tune(model: Slm, plan: Plan, slices: Slices) -> dict[str, F32]:
    """Train all weights of a model on rows: f32 arrays by canonical name.

    Raises:
        UsageError: if torch is not installed.
        ParentsDoNotFit: if a weight is no number afterwards; ``training.diverged``.
    """
    require_torch()
    weights = _weights(model, learns=True)
    _run(plan, slices, list(weights.values()), lambda batch: _loss(model.shape, weights, batch))
    return _arrays(weights)


def distil(
    student: Slm, teachers: Sequence[Slm], plan: Plan, slices: Slices, *, imitation: float, temperature: float
) -> dict[str, F32]:
    """Train all weights of a student on rows and on what the best teacher of every row says: f32 arrays by name.

    loss = (1 - imitation) * CE + imitation * T^2 * KL(softmax(t / T) || softmax(s / T)), mean over answer ids; t are the
    logits of the teacher with the smallest cross-entropy on the row, the first one on a tie. Source: Hinton et al.,
    Distilling the knowledge in a neural network, arXiv 1503.02531; one teacher a row instead of their mean, because
    specialists know different rows.

    Args:
        student: Where the student starts.
        teachers: Models with the student's vocabulary, at least one.
        plan: Budget and rates.
        slices: The rows.
        imitation: Weight of the teachers, 0..1.
        temperature: T, above 0.

    Raises:
        UsageError: if torch is not installed.
        ParentsDoNotFit: if a weight is no number afterwards; ``training.diverged``.
    """
    require_torch()
    weights = _weights(student, learns=True)
    known = [(teacher.shape, _weights(teacher, learns=False)) for teacher in teachers]

    def loss(batch: Batch) -> Tensor:
        ids, targets = _padded(batch)
        said = logits(student.shape, weights, ids)
        told = _best(known, ids, targets)
        here = targets != _NO_TARGET
        plain = _cross_entropy(said, targets)
        goal = torch.log_softmax(told[here] / temperature, -1)
        mine = torch.log_softmax(said[here] / temperature, -1)
        far = torch.nn.functional.kl_div(mine, goal, reduction="batchmean", log_target=True)
        return (1.0 - imitation) * plain + imitation * temperature**2 * far

    _run(plan, slices, list(weights.values()), loss)
    return _arrays(weights)


def factors(
    model: Slm, plan: Plan, slices: Slices, *, rank: int, alpha: float, names: Sequence[str], most: float
) -> dict[str, LowRank]:
    """Train low-rank factors of some matrices, the model itself left alone: change = (alpha / rank) * B @ A.

    A starts N(0, 1 / columns) from the seed, B at zero. Where the trained change is larger than ``most``, alpha is
    made smaller for all of them alike. Source: Hu et al., LoRA, arXiv 2106.09685.

    Args:
        model: The model.
        plan: Budget and rates.
        slices: The rows.
        rank: Rank of the factors; held to the smaller side of a matrix.
        alpha: Scale.
        names: Matrices by canonical name, at least one.
        most: Largest L2 norm of the whole change.

    Raises:
        UsageError: if torch is not installed.
        ParentsDoNotFit: if a factor is no number afterwards; ``training.diverged``.
    """
    require_torch()
    weights = _weights(model, learns=False)
    chance = torch.Generator().manual_seed(plan.seed)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in names:
        rows, columns = weights[name].shape
        held = min(rank, rows, columns)
        first = torch.randn(held, columns, generator=chance) * columns**-0.5
        pairs[name] = (first.requires_grad_(), torch.zeros(rows, held).requires_grad_())

    def loss(batch: Batch) -> Tensor:
        tuned = {n: weights[n] + (alpha / a.shape[0]) * (b @ a) for n, (a, b) in pairs.items()}
        return _loss(model.shape, weights | tuned, batch)

    _run(plan, slices, [part for pair in pairs.values() for part in pair], loss)
    arrays = _arrays({f"{n}:{k}": part for n, pair in pairs.items() for k, part in enumerate(pair)})
    wide = [
        (alpha / arrays[f"{n}:0"].shape[0]) * (arrays[f"{n}:1"].astype(np.float64) @ arrays[f"{n}:0"]) for n in pairs
    ]
    size = math.sqrt(math.fsum(float(np.square(change).sum()) for change in wide))
    scale = alpha * min(1.0, _INSIDE * most / size if size > 0.0 else 1.0)
    kept = float(np.float32(scale))
    return {n: LowRank(arrays[f"{n}:0"], arrays[f"{n}:1"], kept) for n in pairs}


def _run(plan: Plan, slices: Slices, leaves: list[Tensor], loss: Callable[[Batch], Tensor]) -> None:
    """Take every step of a plan; the leaves change in place."""
    optimiser = AdamW(leaves, _BETAS, _DECAY)
    drawn = batches(slices, steps=plan.steps, batch=plan.batch, rehearsal=plan.rehearsal, seed=plan.seed)
    for taken, batch in enumerate(drawn):
        gradients = torch.autograd.grad(loss(batch), leaves)
        optimiser.step(gradients, plan.rate * (1.0 - taken / plan.steps))


def _weights(model: Slm, *, learns: bool) -> dict[str, Tensor]:
    found = {spec.name: torch.from_numpy(np.array(model.dense(spec.name))) for spec in model.shape.tensors()}
    return {name: weight.view(model.tensors[name].dims).requires_grad_(learns) for name, weight in found.items()}


def _arrays(weights: Mapping[str, Tensor]) -> dict[str, F32]:
    found = {name: weight.detach().numpy().copy() for name, weight in weights.items()}
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise ParentsDoNotFit(
                "is no number after training",
                where=name,
                advice="Use a smaller learning rate or fewer steps.",
                reason="training.diverged",
            )
    return found


def _padded(batch: Batch) -> tuple[Tensor, Tensor]:
    """Inputs and targets, int64 (rows, tokens); a target that carries no loss is -100, what is padded is 0."""
    width = max(len(row.ids) for row in batch) - 1
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    targets = torch.full((len(batch), width), _NO_TARGET)
    for place, row in enumerate(batch):
        ids[place, : len(row.ids) - 1] = torch.tensor(row.ids[:-1])
        targets[place, row.start - 1 : len(row.ids) - 1] = torch.tensor(row.ids[row.start :])
    return ids, targets


def _loss(shape: SlmShape, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
    ids, targets = _padded(batch)
    return _cross_entropy(logits(shape, weights, ids), targets)


def _cross_entropy(said: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(said.flatten(0, 1), targets.flatten(), ignore_index=_NO_TARGET)


def _best(known: Sequence[tuple[SlmShape, Mapping[str, Tensor]]], ids: Tensor, targets: Tensor) -> Tensor:
    """Logits (rows, tokens, vocabulary) of each row's teacher: the one with the smallest cross-entropy on it."""
    with torch.no_grad():
        told = torch.stack([logits(shape, weights, ids) for shape, weights in known])
        costs = [
            torch.nn.functional.cross_entropy(t.transpose(1, 2), targets, ignore_index=_NO_TARGET, reduction="none")
            for t in told
        ]
        chosen = torch.stack([cost.sum(-1) for cost in costs]).argmin(0)
        return told[chosen, torch.arange(ids.shape[0])]
