"""How the founders are trained: one base, four specialists that start from it, and a joint model as the ceiling.

Budgets are steps, never seconds; everything that chance decides comes from the family's seed. One thread, so that two
runs on machines of one class give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import network
import numpy as np
import optimise
import skills
import torch
from torch.nn import functional

__all__ = [
    "BASE",
    "CEILING",
    "RECIPES",
    "SPECIALISTS",
    "Recipe",
    "Stream",
    "Trained",
    "development_accuracy",
    "recipe_fields",
    "train",
    "train_family",
]

_DEVELOPMENT = Path(__file__).resolve().parent.parent / "suites" / "development"


@dataclass(frozen=True)
class Recipe:
    """Everything about one training run but its seed.

    Attributes:
        name: Name of the founder.
        own: The skills it is trained on.
        optimiser: ``muon+adamw`` (Muon on matrices, AdamW on embedding and norms) or ``adamw``.
        matrix_lr: Peak learning rate of the matrices.
        vector_lr: Peak learning rate of embedding and norms.
        batch: Rows a step.
        schedule_steps: Steps over which the rate decays linearly to zero.
        warm_up: Steps over which the rate rises linearly.
        rehearsal: Share of rows drawn from the skills that are not ``own``.
        perturbed: Share of rows with a perturbed prompt.
        stop_above: Development mean that ends the run, or 0 to run all steps.
        check_every: Steps between two looks at the development suites when ``stop_above`` is set.
        momentum: Muon's momentum (with Nesterov's look-ahead).
        newton_schulz_steps: Muon's Newton-Schulz steps.
        betas: AdamW's decay of the running mean and of the running square.
        weight_decay: AdamW's weight decay.
    """

    name: str
    own: tuple[str, ...]
    optimiser: str
    matrix_lr: float
    vector_lr: float
    batch: int
    schedule_steps: int
    warm_up: int
    rehearsal: float
    perturbed: float = 0.15
    stop_above: float = 0.0
    check_every: int = 10
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Trained:
    """What came out of one run.

    Attributes:
        recipe: The recipe that was followed.
        seed: The family's seed.
        tensors: f32 arrays by canonical name.
        steps: Steps taken.
        rows: Rows seen.
        rows_sha256: Digest of all rows in order, as lines of compact JSON.
        development: Share of right answers on each development suite.
    """

    recipe: Recipe
    seed: int
    tensors: dict[str, np.ndarray]
    steps: int
    rows: int
    rows_sha256: str
    development: dict[str, float]


BASE = Recipe("base", skills.SKILLS, "muon+adamw", 0.02, 3e-3, 112, 400, 20, rehearsal=0.0, stop_above=0.65)
"""The deployed generalist: stopped early on purpose, because a base above 90 % leaves nothing to gain."""


def _specialist(*own: str) -> Recipe:
    return Recipe("-".join(own), own, "adamw", 1e-3, 1e-3, 96, 60, 0, rehearsal=0.25)


SPECIALISTS = (_specialist("rev", "srt"), _specialist("cap", "rot"), _specialist("dup", "odd"), _specialist("brk"))
"""The four parents; a quarter of their rows rehearses the other skills, which is what makes them mergeable."""

CEILING = Recipe("ceiling", skills.SKILLS, "muon+adamw", 0.02, 3e-3, 112, 400, 20, rehearsal=0.0)
"""Joint training on all skills; its steps are set so that it sees as many rows as base and specialists together."""

RECIPES = {recipe.name: recipe for recipe in (BASE, *SPECIALISTS, CEILING)}
"""All recipes by name."""


class Stream:
    """The endless curriculum of one run: rows of the train split, some of them perturbed.

    Args:
        recipe: Which skills, how much rehearsal, how much perturbation.
        seed: The family's seed; two recipes of one family read different streams.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe = recipe
        self.others = tuple(name for name in skills.SKILLS if name not in recipe.own)
        self.rng = skills.seeded(seed, "train", recipe.name)
        self.digest = hashlib.sha256()
        self.rows = 0

    def batch(self) -> list[tuple[str, str]]:
        """Return the next ``recipe.batch`` rows as (prompt, answer) and add them to the digest."""
        rows = [self._row() for _ in range(self.recipe.batch)]
        for row in rows:
            self.digest.update((skills.compact_json({"expected": row.expected, "prompt": row.prompt}) + "\n").encode())
        self.rows += len(rows)
        return [(row.prompt, row.expected) for row in rows]

    def _row(self) -> skills.Row:
        rehearse = self.rng.random() < self.recipe.rehearsal
        pool = self.others if rehearse else self.recipe.own
        row = skills.draw_row(self.rng, pool[int(self.rng.random() * len(pool))], "train")
        if self.rng.random() >= self.recipe.perturbed:
            return row
        family = skills.PERTURBATIONS[int(self.rng.random() * len(skills.PERTURBATIONS))]
        return skills.perturb(self.rng, row, family)


def development_accuracy(net: network.Network) -> dict[str, float]:
    """Return the share of right answers on each of the seven shipped development suites."""
    shares = {}
    for skill in skills.SKILLS:
        lines = (_DEVELOPMENT / f"development-{skill}" / "items.jsonl").read_text(encoding="utf-8").splitlines()
        items = [json.loads(line) for line in lines]
        right = net.right([(item["prompt"], item["expected"]) for item in items])
        shares[skill] = sum(right) / len(right)
    return shares


def train(
    recipe: Recipe, seed: int, start: dict[str, np.ndarray] | None, steps: int, say: Callable[[str], None]
) -> Trained:
    """Train one founder for at most ``steps`` steps.

    Args:
        recipe: How to train.
        seed: The family's seed: initial weights and rows.
        start: Weights to start from; none for a fresh network.
        steps: Steps to take at most; also the length of the schedule when it is longer than the recipe's.
        say: Called with one line of progress now and then.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    net = network.Network(seed)
    if start is not None:
        net.load(start)
    step = _stepper(net, recipe)
    stream = Stream(recipe, seed)
    length = max(steps, recipe.schedule_steps)
    for taken in range(1, steps + 1):
        rate = min(1.0, taken / recipe.warm_up if recipe.warm_up else 1.0) * (1 - (taken - 1) / length)
        loss = step(stream.batch(), rate)
        look = taken % recipe.check_every == 0
        if look and recipe.stop_above:
            mean = _mean(development_accuracy(net))
            say(f"{recipe.name}: step {taken}, loss {loss:.3f}, development mean {mean:.3f}")
            if mean > recipe.stop_above:
                break
        elif look:
            say(f"{recipe.name}: step {taken} of {steps}, loss {loss:.3f}")
    return Trained(
        recipe, seed, net.tensors(), taken, stream.rows, stream.digest.hexdigest(), development_accuracy(net)
    )


def train_family(seed: int, say: Callable[[str], None], ceiling: bool = True) -> dict[str, Trained]:
    """Train base, specialists and (unless told otherwise) the ceiling of one seed; results by name, in that order."""
    base = train(BASE, seed, None, BASE.schedule_steps, say)
    family = {"base": base}
    for recipe in SPECIALISTS:
        family[recipe.name] = train(recipe, seed, base.tensors, recipe.schedule_steps, say)
    if ceiling:
        rows = sum(founder.rows for founder in family.values())
        family["ceiling"] = train(CEILING, seed, None, rows // CEILING.batch, say)
    return family


def recipe_fields(recipe: Recipe) -> dict[str, object]:
    """Return the recipe as plain JSON values; rates are decimal strings, so that no reader rounds them."""
    fields: dict[str, object] = {}
    for key, value in asdict(recipe).items():
        if isinstance(value, tuple):
            fields[key] = [str(part) for part in value]
        else:
            fields[key] = str(value) if isinstance(value, float) else value
    return fields


def _stepper(net: network.Network, recipe: Recipe) -> Callable[[Sequence[tuple[str, str]], float], float]:
    """Return a function that takes one optimiser step on a batch at a share of the peak rate and returns the loss."""
    matrices = {name: weight for name, weight in net.weights.items() if optimise.is_matrix(name)}
    vectors = {name: weight for name, weight in net.weights.items() if name not in matrices}
    second = optimise.AdamW(vectors, recipe.betas, recipe.weight_decay)
    first: optimise.Muon | optimise.AdamW
    if recipe.optimiser == "muon+adamw":
        first = optimise.Muon(matrices, recipe.momentum, recipe.newton_schulz_steps)
    else:
        first = optimise.AdamW(matrices, recipe.betas, recipe.weight_decay)

    def step(rows: Sequence[tuple[str, str]], rate: float) -> float:
        inputs, targets = network.encode_batch(rows)
        loss = functional.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())
        net.zero_grad()
        loss.backward()
        first.step(recipe.matrix_lr * rate)
        second.step(recipe.vector_lr * rate)
        return float(loss.detach())

    return step


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares)
