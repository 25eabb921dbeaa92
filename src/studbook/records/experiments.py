"""Experiments: what was promised before the run, and what came of it, arm by arm and baseline by baseline."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, JsonObject, Name, Record, Text, Zone
from studbook.records.evaluation import SuiteResult

__all__ = [
    "BASELINES",
    "Analysis",
    "Arm",
    "ArmOutcome",
    "ArmRun",
    "BaselineRun",
    "Contrast",
    "Effect",
    "ExperimentBudget",
    "ExperimentCharter",
    "ExperimentResult",
    "Factor",
]

BASELINES = ("champion", "no-op", "parents", "ensemble", "random-search")
"""What every experiment is held against."""

Arm = Annotated[str, Meta(pattern=r"\A[01]{0,4}\Z", description="one digit a factor: 0 as it is off, 1 as it is on")]
Seed = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Count = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class Factor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of the operator that is varied.

    Attributes:
        field: Its name.
        off: Its value in arms that have ``0`` at this place.
        on: Its value in arms that have ``1``.
    """

    field: Name
    off: Any
    on: Any


class Analysis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the answers become a verdict.

    Attributes:
        metric: ``joint-mean``: unweighted mean accuracy over the suites; ``target``: accuracy on the target cluster.
        test: ``paired-bounds``: one-sided bounds of the paired difference on shared items, suite by suite.
        alpha: Error rate of each bound; the factors share it (Bonferroni).
        margin: What a champion must be beaten by to be worth replacing, share of items; the no-op's price.
    """

    metric: Literal["joint-mean", "target"]
    test: Literal["paired-bounds"]
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)]
    margin: Annotated[float, Meta(ge=0.0, lt=1.0)]


class ExperimentBudget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the experiment costs at most.

    Attributes:
        candidates: Models that are bred for arms and seeds; every random search runs as many recipes.
        calls: Model calls on development items, baselines and searches included.
    """

    candidates: Count
    calls: Count


class ExperimentCharter(Record, frozen=True, kw_only=True, tag="experiment-charter/1"):
    """Everything an experiment will do, in the ledger before the first of its candidates is bred.

    Attributes:
        name: What people call it.
        hypothesis: What is expected, in words.
        cluster: Digest of the FailureCluster it breeds for.
        policy: Digest of the Policy in force.
        champion: Digest of the champion.
        base: Digest of the parents' shared base.
        parents: Digests of the parents, in order.
        compatibility: Digest of their CompatibilityReport.
        suites: Digests of the development suites that are analysed, in the order of the lock.
        operator: Tag of the one operator; a candidate has one mutation family.
        fixed: Its fields that are the same in every arm.
        factors: Its fields that are varied; every combination of their levels is an arm.
        primary: The arm the hypothesis is about. The others are ablation rows and never eligible.
        seeds: Seeds of every arm, where the operator draws, and of the random searches.
        baselines: `BASELINES`, all of them.
        stopping: Every arm runs every seed once; there is no look in between, and nothing is added.
        analysis: Metric, test and error rate.
        budget: What it costs.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    name: Name
    hypothesis: Text
    cluster: Digest
    policy: Digest
    champion: Digest
    base: Digest
    parents: tuple[Digest, ...]
    compatibility: Digest
    suites: tuple[Digest, ...]
    operator: Name
    fixed: JsonObject
    factors: Annotated[tuple[Factor, ...], Meta(max_length=4)]
    primary: Arm
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1, max_length=64)]
    baselines: tuple[Name, ...]
    stopping: Literal["every-arm-and-seed-once"]
    analysis: Analysis
    budget: ExperimentBudget

    def subjects(self) -> tuple[str, ...]:
        """Champion, base and parents."""
        return tuple(dict.fromkeys((self.champion, self.base, *self.parents)))

    def references(self) -> tuple[str, ...]:
        """Cluster, policy, compatibility report and suites."""
        return (self.cluster, self.policy, self.compatibility, *self.suites)


class ArmRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One candidate of an experiment.

    Attributes:
        arm: Its levels.
        seed: Its seed; null where the operator draws nothing.
        manifest: Digest of its CandidateManifest.
        artifact: Digest of the model.
        scorecard: Digest of its Scorecard on development suites.
        score: The metric, 0..1.
    """

    arm: Arm
    seed: Seed | None
    manifest: Digest
    artifact: Digest
    scorecard: Digest
    score: float


class ArmOutcome(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm over its seeds.

    Attributes:
        arm: Its levels.
        score: Mean of the metric, 0..1.
        lower: Its one-sided lower bound.
        upper: Its one-sided upper bound.
    """

    arm: Arm
    score: float
    lower: float
    upper: float


class BaselineRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the candidates are held against.

    Attributes:
        baseline: One of `BASELINES`.
        seed: Seed of a random search; null elsewhere.
        artifact: Digest of the model; null for the ensemble, which is no model.
        scorecard: Digest of its Scorecard; null for the ensemble, whose answers stand in the result.
        receipt: Digest of the SearchReceipt of a random search; null elsewhere.
        score: The metric, 0..1.
    """

    baseline: Name
    seed: Seed | None
    artifact: Digest | None
    scorecard: Digest | None
    receipt: Digest | None
    score: float


class Contrast(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The primary arm against one baseline.

    Attributes:
        baseline: One of `BASELINES`.
        artifact: Digest of a parent, where there are several; null elsewhere.
        difference: Primary arm minus baseline, share of items, mean over seeds.
        lower: Its one-sided lower bound.
        upper: Its one-sided upper bound.
        needed: What the lower bound has to exceed.
        beaten: Whether it does.
    """

    baseline: Name
    artifact: Digest | None
    difference: float
    lower: float
    upper: float
    needed: float
    beaten: bool


class Effect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The main effect of one factor: on minus off, everything else equal, averaged over the other factors and the seeds.

    Attributes:
        field: The factor.
        difference: The effect, share of items.
        lower: Its one-sided lower bound; the factors share the error rate.
        upper: Its one-sided upper bound.
        pairs: Pairs of runs that differ in this factor alone.
        ahead: Pairs in which on is ahead.
        shown: Whether the lower bound is above 0.
    """

    field: Name
    difference: float
    lower: float
    upper: float
    pairs: int
    ahead: int
    shown: bool


class ExperimentResult(Record, frozen=True, kw_only=True, tag="experiment-result/1"):
    """What came of a charter; every number follows from the records it cites.

    Attributes:
        charter: Digest of the ExperimentCharter.
        evaluator: Digest of the evaluator of every scorecard.
        runs: Every arm and seed of the charter, in its order.
        outcomes: Every arm.
        baselines: Every baseline: champion, no-op, each parent, the ensemble, each random search.
        ensemble: Answers of the parents' output ensemble, one result a suite; never a candidate.
        contrasts: The primary arm against each baseline.
        attribution: The main effect of each factor.
        supported: The primary arm beats every baseline.
        unsupported: What did not hold, in words.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    charter: Digest
    evaluator: Digest
    runs: tuple[ArmRun, ...]
    outcomes: tuple[ArmOutcome, ...]
    baselines: tuple[BaselineRun, ...]
    ensemble: tuple[SuiteResult, ...]
    contrasts: tuple[Contrast, ...]
    attribution: tuple[Effect, ...]
    supported: bool
    unsupported: tuple[Text, ...]

    def subjects(self) -> tuple[str, ...]:
        """The models of all arms and baselines."""
        named = (*(r.artifact for r in self.runs), *(b.artifact for b in self.baselines if b.artifact))
        return tuple(dict.fromkeys(named))

    def references(self) -> tuple[str, ...]:
        """Charter, manifests, scorecards, search receipts and the ensemble's suites."""
        runs = [digest for run in self.runs for digest in (run.manifest, run.scorecard)]
        held = [digest for row in self.baselines for digest in (row.scorecard, row.receipt) if digest]
        return tuple(dict.fromkeys((self.charter, *runs, *held, *(r.suite for r in self.ensemble))))
