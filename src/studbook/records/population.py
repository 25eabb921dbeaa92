"""Searches for a recipe: the space that was searched, everything that was tried, and what came out best."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, JsonObject, Name, Record, Text, Zone
from studbook.records.evaluation import Numbers

__all__ = ["Evaluated", "Gene", "GenomeSpace", "Origin", "Repeat", "SearchReceipt"]

Origin = Literal["soup", "founder", "proposal"]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Steps = Annotated[int, Meta(ge=-(10**9), le=10**9)]
Filter = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,120}\Z")]


class Gene(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number of a genome.

    Attributes:
        name: What it sets, such as ``scales/layer-1/parent-0``.
        block: Which block of tensors it acts on; -1 when it acts on the whole model.
        layer: The layer of that block; -1 when it acts on the whole model.
        low: Lowest value, in steps of the space's grid.
        high: Highest value, likewise.
    """

    name: Name
    block: Annotated[int, Meta(ge=-1)]
    layer: Annotated[int, Meta(ge=-1)]
    low: Steps
    high: Steps


class GenomeSpace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a search may set, and in which steps; a genome is one whole number a gene.

    Attributes:
        kind: ``scales`` (task deltas), ``ties`` (sign-aware merge) or ``split`` (crossover at points).
        parents: Number of parents.
        depth: Layers of the model.
        layers: Layers with scales of their own: all of them, or 1 when the whole model shares its scales.
        filters: Substrings of tensor names with scales of their own; the first that matches counts.
        decimals: A step of the grid is 10^-decimals.
        genes: The genes, in the order of a genome's numbers.
    """

    kind: Literal["scales", "ties", "split"]
    parents: Annotated[int, Meta(ge=2, le=16)]
    depth: Annotated[int, Meta(ge=1, le=4096)]
    layers: Annotated[int, Meta(ge=1, le=4096)]
    filters: tuple[Filter, ...]
    decimals: Annotated[int, Meta(ge=1, le=6)]
    genes: tuple[Gene, ...]


class Evaluated(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recipe that was run, in the order of the search.

    Attributes:
        recipe: Digest of base, parents and operator.
        origin: The uniform soup, a parent by itself, or a proposal of the method.
        genome: Its numbers in grid steps, with a space between; empty for the soup, which is a blend.
        correct: One character an item over all suites, in the receipt's order: ``1`` right, ``0`` wrong.
        right: Right items a suite, with a space between.
        loglik_micro: Sum of the log-likelihoods a suite, in millionths of a nat, likewise.
        objective_ppm: The objective, in millionths; -1 where the recipe could not be run.
        tie_micro: Mean log-likelihood of the items that count, in millionths of a nat; it settles ties.
        detail: Why it could not be run, or empty.
    """

    recipe: Digest
    origin: Origin
    genome: Numbers
    correct: Annotated[str, Meta(pattern=r"\A[01]*\Z")]
    right: Numbers
    loglik_micro: Numbers
    objective_ppm: Annotated[int, Meta(ge=-1, le=1_000_000)]
    tie_micro: Annotated[int, Meta(ge=-(2**53 - 1), le=0)]
    detail: Text


class Repeat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A proposal whose recipe had been run before; it cost nothing.

    Attributes:
        after: Recipes that had been run when it was made.
        of: Place of the earlier one among the evaluated, from 0.
    """

    after: Count
    of: Count


class SearchReceipt(Record, frozen=True, kw_only=True, tag="search-receipt/1"):
    """One search over development items: how it went and what it found. It promotes nothing.

    A recipe whose declared bound lies above the policy's is not run: it scores -1, says so, and cannot win. The bound is
    that of the operator, computed for every recipe before it is run.

    Attributes:
        cluster: Digest of the FailureCluster it was made for.
        policy: Digest of the policy whose bounds it kept.
        base: Digest of the parents' shared base.
        parents: Digests of the parents, in order.
        method: ``cma``, ``m2n2`` or ``random``.
        settings: Everything else that decides what the method proposes.
        seed: Its seed.
        budget: Evaluations asked for.
        space: What was searched.
        objective: ``worst``: lowest accuracy over the labels; ``mean``: their unweighted mean.
        labels: The clusters that count.
        evaluator: Digest of the evaluator.
        suites: Digests of the development suites, in order.
        items: Items of each suite, with a space between.
        evaluated: Every recipe that was run, in order.
        repeats: Proposals that were made twice.
        ended: ``budget`` when it was spent, ``exhausted`` when nothing new was proposed any more.
        best: Place of the winner among the evaluated, from 0.
        recipe: The winner's operator record.
        winner: Digest of the winner's CandidateManifest.
        artifact: Digest of the winner's file.
        scorecard: Digest of its Scorecard on the same suites; the file answers every item as the search saw it.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    cluster: Digest
    policy: Digest
    base: Digest
    parents: tuple[Digest, ...]
    method: Literal["cma", "m2n2", "random"]
    settings: JsonObject
    seed: Count
    budget: Annotated[int, Meta(ge=1, le=10_000)]
    space: GenomeSpace
    objective: Literal["worst", "mean"]
    labels: tuple[Name, ...]
    evaluator: Digest
    suites: tuple[Digest, ...]
    items: Numbers
    evaluated: tuple[Evaluated, ...]
    repeats: tuple[Repeat, ...]
    ended: Literal["budget", "exhausted"]
    best: Count
    recipe: JsonObject
    winner: Digest
    artifact: Digest
    scorecard: Digest

    def subjects(self) -> tuple[str, ...]:
        """The winner's file, the base and the parents."""
        return tuple(dict.fromkeys((self.artifact, self.base, *self.parents)))

    def references(self) -> tuple[str, ...]:
        """Cluster, policy, suites, the winner's manifest and its scorecard."""
        return (self.cluster, self.policy, *self.suites, self.winner, self.scorecard)
