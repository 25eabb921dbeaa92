"""Who has children with whom, what was searched, how a generation ended, and who lives in which population."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, JsonObject, Name, Record, Text, Zone
from studbook.records.evaluation import Numbers

__all__ = [
    "Descriptor",
    "Duplicate",
    "Evaluated",
    "Gene",
    "GenerationRecord",
    "GenomeSpace",
    "Neighbour",
    "NoveltyRecord",
    "Origin",
    "ParentPool",
    "PoolMember",
    "PopulationReview",
    "Repeat",
    "Resident",
    "SearchReceipt",
]

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


class PoolMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model that could have been a parent.

    Attributes:
        artifact: Its digest.
        scorecard: Digest of the scorecard whose items it is weighed by.
        children: Candidates that were bred from it before.
        weight_ppm: Its weight in the draw of the first parent, of a million shared by all.
    """

    artifact: Digest
    scorecard: Digest
    children: Count
    weight_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]


class ParentPool(Record, frozen=True, kw_only=True, tag="parent-pool/1"):
    """Who was chosen to have children, out of whom, and by which rule; the draw is made again by `verify`.

    Attributes:
        label: The failure cluster they are bred for.
        base: Digest of the base they share.
        policy: Digest of the policy in force.
        method: ``all``; ``niches``: resource sharing and attraction; ``front``: best on some item.
        size: Parents asked for; fewer where the pool holds fewer.
        seed: Seed of the draws.
        evaluator: Digest of the evaluator of the scorecards.
        suites: Digests of the suites whose items count.
        compatibility: Digest of the CompatibilityReport of the whole pool: mates in conflict are drawn less often.
        members: Everybody in the pool, in order.
        chosen: Digests of the parents, in the order they were drawn.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    label: Name
    base: Digest
    policy: Digest
    method: Literal["all", "niches", "front"]
    size: Annotated[int, Meta(ge=2, le=16)]
    seed: Count
    evaluator: Digest
    suites: tuple[Digest, ...]
    compatibility: Digest
    members: tuple[PoolMember, ...]
    chosen: tuple[Digest, ...]

    def subjects(self) -> tuple[str, ...]:
        """The parents."""
        return self.chosen

    def references(self) -> tuple[str, ...]:
        """Policy, suites, report and scorecards."""
        return (self.policy, *self.suites, self.compatibility, *(member.scorecard for member in self.members))


class Duplicate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A candidate that was not evaluated, because something like it had been.

    Attributes:
        manifest: Digest of its manifest.
        of: Digest of the artifact it repeats.
        cosine_ppm: Cosine of the two task vectors in millionths; a million where the bytes are equal.
    """

    manifest: Digest
    of: Digest
    cosine_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]


class GenerationRecord(Record, frozen=True, kw_only=True, tag="generation/1"):
    """One generation of `evolve`: from a champion and its failures to a decision. It promotes nothing.

    Attributes:
        number: From 1 in every line of generations.
        previous: Digest of the generation before it; None for the first.
        settings: What was asked for: sources of recipes, evaluations, way to choose parents, seed.
        champion: Digest of the champion it set out from.
        evidence: Digest of the champion's development scorecard.
        label: The failure cluster it was bred for: of those it may still try, the one the champion fails most.
        tried: Clusters that earlier generations tried in vain against the same champion.
        pool: Digest of the ParentPool.
        searches: Digests of the SearchReceipts.
        duplicates: Candidates that were not evaluated.
        decision: Digest of the ViabilityDecision; None where nothing was left to judge.
        chosen: Digest of the winner, or None.
        held: Why a winner was not released to shadow, or why there was nothing to judge; empty otherwise.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    number: Annotated[int, Meta(ge=1, le=10_000)]
    previous: Digest | None
    settings: JsonObject
    champion: Digest
    evidence: Digest
    label: Name
    tried: tuple[Name, ...]
    pool: Digest
    searches: tuple[Digest, ...]
    duplicates: tuple[Duplicate, ...]
    decision: Digest | None
    chosen: Digest | None
    held: Text

    def subjects(self) -> tuple[str, ...]:
        """The champion, and the winner."""
        return (self.champion, *((self.chosen,) if self.chosen and self.chosen != self.champion else ()))

    def references(self) -> tuple[str, ...]:
        """Everything it rests on."""
        made = (d.manifest for d in self.duplicates)
        rest = (d for d in (self.previous, self.decision) if d is not None)
        return (self.evidence, self.pool, *self.searches, *made, *rest)


class Neighbour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that answers alike.

    Attributes:
        artifact: Its digest.
        distance_ppm: Share of items the two answer differently, in millionths.
    """

    artifact: Digest
    distance_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]


class Descriptor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one model behaves on the descriptor suites.

    Attributes:
        artifact: Its digest.
        scorecard: Digest of the scorecard it was read from: the evidence.
        correct: One character an item, ``1`` right and ``0`` wrong, over the task suites in order.
        errors: Wrong items of each class, with a space between: near, unsure, lost.
        nearest: The nearest models, nearest first.
        novelty_ppm: Their mean distance, in millionths; a million where there is no other model.
    """

    artifact: Digest
    scorecard: Digest
    correct: Annotated[str, Meta(pattern=r"\A[01]*\Z")]
    errors: Numbers
    nearest: tuple[Neighbour, ...]
    novelty_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]


class NoveltyRecord(Record, frozen=True, kw_only=True, tag="novelty-record/1"):
    """How unlike the others every model is; computed again by `verify` from the scorecards.

    Attributes:
        evaluator: Digest of the evaluator of the scorecards.
        role: Role of the suites: ``descriptor``, or ``development`` where no descriptor suite is frozen.
        suites: Digests of the descriptor suites.
        rows: One a model, in order of the scorecards.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    evaluator: Digest
    role: Literal["descriptor", "development"]
    suites: tuple[Digest, ...]
    rows: tuple[Descriptor, ...]

    def subjects(self) -> tuple[str, ...]:
        """The models."""
        return tuple(row.artifact for row in self.rows)

    def references(self) -> tuple[str, ...]:
        """Suites and scorecards."""
        return (*self.suites, *(row.scorecard for row in self.rows))


class Resident(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model in one population.

    Attributes:
        artifact: Its digest.
        population: ``active``, ``pool``, ``diverse`` or ``cold``.
        rank: Front it stands in, 1 for those nobody dominates; 0 where a constraint is broken.
        crowding_ppm: How alone it stands in its front, in millionths; -1 for the ends, which always stay.
        cell: Its cell of the archive: the skill it leads in most, and the one it is worst at.
        mean_ppm: Joint mean in millionths.
        worst_ppm: Worst skill in millionths.
        retire: Why it stands for retirement, or empty.
    """

    artifact: Digest
    population: Literal["active", "pool", "diverse", "cold"]
    rank: Count
    crowding_ppm: Annotated[int, Meta(ge=-1, le=2**53 - 1)]
    cell: Text
    mean_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]
    worst_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]
    retire: Text


class PopulationReview(Record, frozen=True, kw_only=True, tag="population-review/1"):
    """Who lives in which population, who dominates whom, and who stands for retirement; nothing is moved by it.

    Attributes:
        policy: Digest of the policy whose capacities and epsilon apply.
        novelty: Digest of the NoveltyRecord.
        residents: Every model, best first.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    policy: Digest
    novelty: Digest
    residents: tuple[Resident, ...]

    def subjects(self) -> tuple[str, ...]:
        """The models."""
        return tuple(resident.artifact for resident in self.residents)

    def references(self) -> tuple[str, ...]:
        """Policy and novelty."""
        return (self.policy, self.novelty)
