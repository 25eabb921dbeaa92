"""Genomes: whole numbers on a declared grid, and the one operator record each of them means.

A genome is quantised, so two proposals that differ by less than a step are the same recipe with the same digest and are
run once. Every kind of space has its own way from numbers to a record:

* ``scales``: base + sum_k s_k (p_k - base), one s_k a parent and block of tensors (task-delta/1, and scheduled/1 where
  there are several blocks). A block is one layer, of the tensors one filter names. Source: arXiv 2212.04089.
* ``ties``: one density, one weight a parent, one scale (sign-aware-merge/1). Source: arXiv 2306.01708.
* ``split``: ascending points between which the parents supply the weights (crossover-split/1).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from studbook.errors import OutsideAllowlist, UsageError
from studbook.records.population import Gene, GenomeSpace

__all__ = [
    "DECIMALS",
    "OPERATORS",
    "Draws",
    "Genome",
    "Kind",
    "centre",
    "founders",
    "make_space",
    "random_genome",
    "recipe",
    "snap",
    "soup",
    "unit_values",
]

Genome = tuple[int, ...]
Kind = Literal["scales", "ties", "split"]
Bounds = Mapping[str, tuple[float, float]]

DECIMALS = 3
"""Steps of .001: far finer than the noise of a few hundred items."""
OPERATORS = {"scales": "task-delta/1", "ties": "sign-aware-merge/1", "split": "crossover-split/1"}
"""The operator whose bounds in the policy a space keeps."""

# What is searched where the policy allows more: beyond it every merge of several specialists we know of collapses.
_USUAL = {
    "scales": (0.0, 1.0),
    "density": (0.1, 1.0),
    "weights": (0.05, 1.0),
    "scale": (0.0, 1.5),
    "points": (0.0, 1.0),
}


class Draws:
    """A seeded stream of draws; it uses the one method whose sequence Python promises to keep.

    Args:
        seed: Any whole number.
        path: Names the stream; streams of different names share nothing.
    """

    def __init__(self, seed: int, path: str) -> None:
        name = hashlib.sha256(f"{path}/{seed}".encode()).digest()
        self._random = random.Random(int.from_bytes(name[:8], "big"))

    def share(self) -> float:
        """Uniform in 0 <= x < 1."""
        return self._random.random()

    def below(self, bound: int) -> int:
        """Uniform in 0..bound-1; ``bound`` is at least 1 and far below 2^53."""
        return int(self._random.random() * bound)

    def weighted(self, weights: Sequence[float]) -> int:
        """An index drawn in proportion to the weights, none negative; uniform where all are zero."""
        total = sum(weights)
        if not total > 0.0:
            return self.below(len(weights))
        mark = self.share() * total
        for index, weight in enumerate(weights):
            mark -= weight
            if mark < 0.0:
                return index
        return max(index for index, weight in enumerate(weights) if weight > 0.0)


def make_space(
    kind: Kind,
    parents: int,
    bounds: Bounds,
    depth: int = 1,
    layered: bool = False,
    filters: Sequence[str] = (),
    decimals: int = DECIMALS,
) -> GenomeSpace:
    """The space of a search.

    Args:
        kind: What the genes set.
        parents: Number of parents.
        bounds: Lowest and highest value the policy allows, by field of the kind's operator.
        depth: Layers of the model.
        layered: Give every layer scales of its own.
        filters: Substrings of tensor names with scales of their own.
        decimals: A step is 10^-decimals.

    Raises:
        UsageError: if layers or filters are asked of a kind that has none, or two parents are too many to ask for.
        OutsideAllowlist: if the policy leaves nothing of a range to search.
    """
    if parents < 2:
        raise UsageError(f"{parents} parent: there is nothing to search", advice="Name two parents or more.")
    if kind != "scales" and (layered or filters):
        raise UsageError(f"a space of kind {kind} has no layers and no filters", where="--space")
    layers = depth if layered else 1
    genes = []
    for name, field, block, layer in _names(kind, parents, layers, len(filters) + 1):
        low, high = _range(kind, field, bounds, decimals)
        genes.append(Gene(name=name, block=block, layer=layer, low=low, high=high))
    return GenomeSpace(
        kind=kind,
        parents=parents,
        depth=depth,
        layers=layers,
        filters=tuple(filters),
        decimals=decimals,
        genes=tuple(genes),
    )


def recipe(space: GenomeSpace, genome: Genome) -> dict[str, Any]:
    """The operator record of a genome, as plain JSON values."""
    values = [number / 10**space.decimals for number in genome]
    if space.kind == "ties":
        density, scale, *weights = values
        return {"operator": OPERATORS["ties"], "density": density, "weights": weights, "scale": scale, "skip": []}
    if space.kind == "split":
        return {"operator": OPERATORS["split"], "points": sorted(values)}
    if space.layers == 1 and not space.filters:
        return _task_delta(values)
    return _scheduled(space, values)


def soup(parents: int) -> dict[str, Any]:
    """The uniform soup: the plain mean of the parents, which every search has to beat."""
    return {"operator": "blend/1", "weights": [1.0 / parents] * parents}


def centre(space: GenomeSpace) -> Genome:
    """The genome nearest to the uniform soup; of the kinds that have none, the usual starting point."""
    share = 1.0 / space.parents
    if space.kind == "ties":
        return snap(space, [0.7, 1.0, *[0.5] * space.parents])
    if space.kind == "split":
        return snap(space, [share * point for point in range(1, space.parents)])
    return snap(space, [share] * len(space.genes))


def founders(space: GenomeSpace) -> tuple[Genome, ...]:
    """The parents themselves, as far as the bounds let them be: scale 1 for one of them, 0 for the others.

    Raises:
        UsageError: if the space's kind cannot express a parent.
    """
    if space.kind != "scales":
        advice = "Search scales, or use another method."
        raise UsageError(f"a parent by itself is no point of a space of kind {space.kind}", advice=advice)
    count = len(space.genes)
    return tuple(
        snap(space, [1.0 if place % space.parents == parent else 0.0 for place in range(count)])
        for parent in range(space.parents)
    )


def random_genome(space: GenomeSpace, draws: Draws) -> Genome:
    """Every gene uniform over its range."""
    return tuple(gene.low + draws.below(gene.high - gene.low + 1) for gene in space.genes)


def snap(space: GenomeSpace, values: Sequence[float]) -> Genome:
    """The genome nearest to some finite values, inside the bounds."""
    numbers = [round(value * 10**space.decimals) for value in values]
    return tuple(min(max(n, gene.low), gene.high) for n, gene in zip(numbers, space.genes, strict=True))


def unit_values(space: GenomeSpace, genome: Genome) -> list[float]:
    """The genome with every gene's range brought to 0..1; a gene that cannot move stands at 0."""
    return [(n - g.low) / (g.high - g.low) if g.high > g.low else 0.0 for n, g in zip(genome, space.genes, strict=True)]


def _names(kind: Kind, parents: int, layers: int, groups: int) -> Iterator[tuple[str, str, int, int]]:
    """Name, field, block and layer of every gene, in order."""
    if kind == "scales":
        for block in range(groups * layers):
            group, layer = divmod(block, layers)
            for parent in range(parents):
                yield f"scales/filter-{group}/layer-{layer}/parent-{parent}", "scales", block, layer
    elif kind == "ties":
        yield from (("density", "density", -1, -1), ("scale", "scale", -1, -1))
        yield from ((f"weights/parent-{parent}", "weights", -1, -1) for parent in range(parents))
    else:
        yield from ((f"points/{point}", "points", -1, -1) for point in range(1, parents))


def _range(kind: Kind, field: str, bounds: Bounds, decimals: int) -> tuple[int, int]:
    usual, allowed = _USUAL[field], bounds.get(field, _USUAL[field])
    low, high = max(usual[0], allowed[0]), min(usual[1], allowed[1])
    # Rounded inwards: a step outside what the policy allows would be refused later.
    scale = 10**decimals
    bottom, top = -int(-low * scale // 1), int(high * scale // 1)
    if bottom > top:
        raise OutsideAllowlist(
            f"the policy allows {allowed[0]:g}..{allowed[1]:g}, of which {usual[0]:g}..{usual[1]:g} is searched",
            where=f"policy: operators: {OPERATORS[kind]}: {field}",
            advice="Search another space, or have the policy's owner widen these bounds.",
        )
    return bottom, top


def _task_delta(scales: Sequence[float]) -> dict[str, Any]:
    return {"operator": OPERATORS["scales"], "scales": list(scales), "skip": []}


def _scheduled(space: GenomeSpace, values: Sequence[float]) -> dict[str, Any]:
    """One rule a filter and parent, its values the scales of the layers in order; other tensors go with the first."""
    per_filter = space.layers * space.parents
    rules = [
        {
            "field": "scales",
            "parent": parent,
            "filter": pattern,
            "values": list(values[group * per_filter + parent : (group + 1) * per_filter : space.parents]),
        }
        for group, pattern in enumerate((*space.filters, "*"))
        for parent in range(space.parents)
    ]
    inner = _task_delta([0.0] * space.parents)
    return {"operator": "scheduled/1", "inner": inner, "layers": space.depth, "rules": rules}
