"""What was measured: frozen suites, floor reports and scorecards; smokes have a file of their own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Digest, Measure, Name, Record, Text, Zone

__all__ = [
    "Agreement",
    "BaselineReceipt",
    "BaselineRow",
    "ContaminationReceipt",
    "Dimension",
    "DriftReport",
    "FloorReport",
    "FloorRow",
    "ReportedResult",
    "Role",
    "Scorecard",
    "SuiteManifest",
    "SuiteResult",
    "Verdict",
]

Role = Literal["development", "descriptor", "selection", "sealed", "canary"]
Dimension = Literal["task", "calibration", "robustness", "safety", "bias", "drift", "cost", "honesty"]
Verdict = Literal["pass", "fail", "error", "no-data"]
# One text instead of thousands of JSON numbers: canonical JSON of those took most of the time a record was checked in.
Numbers = Annotated[str, Meta(pattern=r"\A(-?(0|[1-9][0-9]{0,14})( -?(0|[1-9][0-9]{0,14}))*)?\Z")]


class FloorRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worthless answerer, or the oracle, got.

    Attributes:
        answerer: no-op, constant, random, echo, nan, empty, oversize, early-exit or oracle.
        score: Its score as the scorer counts it (share right, or mean Brier), or -1 when it could not be scored.
        verdict: The suite's verdict on it.
    """

    answerer: Name
    score: float
    verdict: Verdict


class FloorReport(Record, frozen=True, kw_only=True, tag="floor-report/1"):
    """Every worthless answerer fails the suite and an oracle passes it; without this no suite is frozen.

    Attributes:
        suite_files: Digest over the suite's item bytes and settings.
        rows: One row an answerer.
        minimum_detectable: Smallest paired effect this many items can show (share of items).
        disagreement: The share of discordant items assumed for that.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    suite_files: Digest
    rows: tuple[FloorRow, ...]
    minimum_detectable: float
    disagreement: float


class SuiteManifest(Record, frozen=True, kw_only=True, tag="suite-manifest/1"):
    """A frozen suite: content-addressed items plus everything that decides how they are scored.

    Attributes:
        name: What people call it.
        role: development (free), descriptor (public, for behaviour and parent pools), selection (gates), sealed
            (confirmation, by opening) or canary (request path).
        dimension: What it measures (docs/suites.md); items of robustness and bias suites are pairs of neighbours.
        cluster: The label its items share; ``mixture`` when they do not.
        items: The items file (JSON lines).
        count: Number of items.
        scorer: Kind of its scorer, such as ``exact-match``.
        scorer_sha256: Digest of that kind's source.
        max_new_tokens: Longest answer in tokens.
        pass_mark: Share right to pass, or the highest score where lower is better (Brier, bits per byte).
        licence: SPDX identifier of the items.
        floor: Digest of the FloorReport.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    name: Name
    role: Role
    dimension: Dimension
    cluster: Name
    items: Blob
    count: Annotated[int, Meta(ge=1)]
    scorer: Name
    scorer_sha256: Digest
    max_new_tokens: Annotated[int, Meta(ge=1, le=4096)]
    pass_mark: float
    licence: Name
    floor: Digest

    def subjects(self) -> tuple[str, ...]:
        """The items file."""
        return (self.items.sha256,)

    def references(self) -> tuple[str, ...]:
        """The floor report."""
        return (self.floor,)


class ContaminationReceipt(Record, frozen=True, kw_only=True, tag="contamination-receipt/1"):
    """Training rows against suite items; anything but zero refuses the cluster, and every child that learnt from them.

    Attributes:
        training: Digest of the training slice.
        training_rows: Its rows.
        suites: Digests of the SuiteManifests compared with.
        items: Items compared with.
        shared_prompts: Prompts, case and white space folded, that stand in both.
        shared_items: Prompt and answer pairs that stand in both.
        shared_runs: Items that share a run of 13 words with a row, or of 8 where the item has 8 to 12 words.
        clean: All three counts are zero.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    training: Digest
    training_rows: int
    suites: tuple[Digest, ...]
    items: int
    shared_prompts: int
    shared_items: int
    shared_runs: int
    clean: bool

    @property
    def shared(self) -> str:
        """What is shared, in words."""
        pairs = f"{self.shared_prompts} prompts ({self.shared_items} with their answer)"
        return f"{pairs} and runs of words of {self.shared_runs} items"

    def references(self) -> tuple[str, ...]:
        """The suites."""
        return self.suites


class SuiteResult(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One suite's per-item results, in the order of its items file.

    Attributes:
        suite: Digest of the SuiteManifest.
        cluster: Its label.
        dimension: Its dimension.
        items_before: Digest of the items file before the run.
        items_after: The same after; a difference voids the scorecard.
        expected_calls: Sequences that had to be scored.
        actual_calls: Sequences that were scored by this artifact in this run.
        correct: One character an item: ``1`` right, ``0`` wrong.
        loglik_micro: Log-likelihood of each expected answer in millionths of a nat, whole numbers with a space between.
        brier_micro: Multi-class Brier score of each, mean over the answer's tokens (0..2), in millionths, likewise.
        written: Tokens it wrote to each prompt of a suite of cost, end marker included, likewise; empty elsewhere.
        verdict: pass, fail, error or no-data; only pass promotes.
        detail: Why, where it is not pass.
    """

    suite: Digest
    cluster: Name
    dimension: Dimension
    items_before: Digest
    items_after: Digest
    expected_calls: int
    actual_calls: int
    correct: Annotated[str, Meta(pattern=r"\A[01]*\Z")]
    loglik_micro: Numbers
    brier_micro: Numbers
    written: Numbers
    verdict: Verdict
    detail: Text

    @property
    def logliks(self) -> tuple[int, ...]:
        """Log-likelihoods in millionths of a nat, one an item."""
        return tuple(map(int, self.loglik_micro.split()))

    @property
    def briers(self) -> tuple[int, ...]:
        """Brier scores in millionths, one an item."""
        return tuple(map(int, self.brier_micro.split()))

    @property
    def right(self) -> int:
        """Number of items answered exactly."""
        return self.correct.count("1")

    @property
    def mean(self) -> float:
        """Share of items answered exactly, 0..1; 0 when there are none."""
        return self.right / len(self.correct) if self.correct else 0.0


class Agreement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether generating and scoring say the same on a sample of items.

    Attributes:
        sampled: Items answered in generate mode.
        agreed: Items on which both modes give the same verdict.
    """

    sampled: int
    agreed: int


class Scorecard(Record, frozen=True, kw_only=True, tag="scorecard/1"):
    """The evaluation sidecar: per-item results of one artifact on one role's suites.

    Attributes:
        artifact: Digest of the model.
        role: Role of every suite in it.
        evaluator: Digest of the evaluator; cards of different evaluators are never compared.
        mode: ``score``: log-likelihood and teacher-forced exact match with the lab's own engine.
        agreement: The sample on which ``generate`` was run beside it.
        results: One a suite, in the order of the suites lock.
        cost: Bytes, parameters, decoded bytes, KV bytes, multiply-adds of scoring, fuel of generating on the sample; of a
            suite of cost what answering took.
        isolation: The measures the worker had in force.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    artifact: Digest
    role: Role
    evaluator: Digest
    mode: Literal["score"]
    agreement: Agreement
    results: tuple[SuiteResult, ...]
    cost: tuple[Measure, ...]
    isolation: tuple[Name, ...]

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """The suites."""
        return tuple(result.suite for result in self.results)

    def tasks(self) -> dict[str, SuiteResult]:
        """Task results by cluster label."""
        return {r.cluster: r for r in self.results if r.dimension == "task"}

    def labels(self) -> tuple[str, ...]:
        """Cluster labels of the task suites, each once, in order."""
        return tuple(dict.fromkeys(r.cluster for r in self.results if r.dimension == "task"))

    @property
    def joint_mean(self) -> float:
        """Unweighted mean over the task suites' accuracies, 0..1."""
        tasks = self.tasks().values()
        return sum(r.mean for r in tasks) / len(tasks) if tasks else 0.0


class DriftReport(Record, frozen=True, kw_only=True, tag="drift-report/1"):
    """How far a model's next-token distribution and inner states lie from the champion's on fixed anchors.

    Attributes:
        artifact: Digest of the model.
        champion: Digest of the champion.
        suite: Digest of the SuiteManifest whose items are the anchors.
        evaluator: Digest of the evaluator.
        items_before: Digest of the items file before the run.
        items_after: The same after; a difference voids the report.
        kl_micro: Mean over an anchor's positions of KL(champion || model), millionths of a nat, one an anchor.
        cka: Linear centred kernel alignment of each layer's output, 0..1; empty where the layers differ in number.
        verdict: pass when it was measured, else error.
        detail: Why, where it is not pass.
        isolation: The measures the worker had in force.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    artifact: Digest
    champion: Digest
    suite: Digest
    evaluator: Digest
    items_before: Digest
    items_after: Digest
    kl_micro: Numbers
    cka: tuple[float, ...]
    verdict: Literal["pass", "error"]
    detail: Text
    isolation: tuple[Name, ...]

    @property
    def kl(self) -> float:
        """Mean over the anchors, nats a position."""
        values = [int(v) for v in self.kl_micro.split()]
        return sum(values) / len(values) / 1e6

    def subjects(self) -> tuple[str, ...]:
        """The model and the champion."""
        return (self.artifact, self.champion)

    def references(self) -> tuple[str, ...]:
        """The suite."""
        return (self.suite,)


class ReportedResult(Record, frozen=True, kw_only=True, tag="reported-result/1"):
    """What somebody else reports of a model: shown where the model is shown, and read by no gate.

    Attributes:
        artifact: Digest of the model.
        benchmark: What was measured, such as ``arc-easy``.
        measure: The number; its basis is ``reported``, its method says who measured it how.
        citation: Where it can be read.
        attached_by: Who attached it.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    artifact: Digest
    benchmark: Name
    measure: Measure
    citation: Text
    attached_by: Name

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.artifact,)


class BaselineRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of comparison that is shown and never promoted.

    Attributes:
        label: What it is, such as ``ceiling: joint training`` or ``without brk``.
        artifact: Digest of the model.
        scorecard: Digest of its scorecard.
        joint_mean: Its joint mean, 0..1.
    """

    label: Text
    artifact: Digest
    scorecard: Digest
    joint_mean: float


class BaselineReceipt(Record, frozen=True, kw_only=True, tag="baseline-receipt/1"):
    """The rows a reader needs beside a candidate: the joint-training ceiling and each parent left out.

    Attributes:
        candidate: Digest of the candidate they explain.
        role: Role of the suites.
        rows: The rows.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    candidate: Digest
    role: Role
    rows: tuple[BaselineRow, ...]

    def subjects(self) -> tuple[str, ...]:
        """The candidate."""
        return (self.candidate,)

    def references(self) -> tuple[str, ...]:
        """The scorecards."""
        return tuple(row.scorecard for row in self.rows)
