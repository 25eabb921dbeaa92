"""One simulated round: papers without a flaw, answers drawn from a seed, judged by `studbook.viability.decide`.

Candidates differ in nothing but which items they get right, so what decides is statistics and the policy's thresholds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from studbook.records import (
    Agreement,
    Blob,
    CandidateManifest,
    Check,
    Expected,
    FailureCluster,
    Header,
    InputDigest,
    LineageTemplate,
    LogitDigest,
    Measure,
    OperatorReceipt,
    Policy,
    Rung,
    RuntimeSmoke,
    Scorecard,
    SuiteResult,
    SuitesLock,
    ViabilityDecision,
    WorkerLimits,
    digest,
    replace,
)
from studbook.records.evaluation import Role
from studbook.viability import Contender, decide

HEADER = Header(source="studbook", version="0.1.0", environment="simulation", owner="study")
ACCURACY, LABEL = 0.638, "target"


def sha(text: str) -> str:
    """A digest that stands for something the study does not need."""
    return hashlib.sha256(text.encode()).hexdigest()


CHAMPION, EVALUATOR = sha("champion"), sha("evaluator")
CLUSTER = FailureCluster(
    header=HEADER,
    label=LABEL,
    champion=CHAMPION,
    evidence=sha("evidence"),
    failed=1,
    of=3,
    data=sha("data"),
    training_slice=sha("slice"),
    suites=(),
    contamination=sha("contamination"),
    scope=(),
)
SUITES = SuitesLock(
    header=HEADER,
    lock_version=1,
    suites=tuple(sha(f"{role} {kind}") for role in ("development", "selection") for kind in (LABEL, "calibration")),
)
COST = tuple(
    Measure(value=1e6, unit=unit, basis="observed", method="simulated")
    for unit in ("bytes", "decoded-bytes", "multiply-adds")
)

SMOKE = RuntimeSmoke(
    header=HEADER,
    artifact=CHAMPION,
    evaluator=EVALUATOR,
    engine=sha("engine"),
    prompts=sha("prompts"),
    outputs_sha256=sha("outputs"),
    tokens=1,
    logits=LogitDigest(positions=1, sha256=sha("logits")),
    fuel=1,
    finite=True,
    deterministic=True,
    passed=True,
    detail="simulated",
)


def result(role: Role, kind: str, bits: str) -> SuiteResult:
    """One suite's results; the scores beside the bits carry nothing."""
    n = len(bits)
    return SuiteResult(
        suite=sha(f"{role} {kind}"),
        cluster=kind,
        dimension="task" if kind == LABEL else "calibration",
        items_before=sha(f"items {role} {kind}"),
        items_after=sha(f"items {role} {kind}"),
        expected_calls=n,
        actual_calls=n,
        correct=bits,
        loglik_micro=" ".join(["0"] * n),
        brier_micro=" ".join(["0"] * n),
        written="",
        verdict="pass",
        detail="",
    )


class Court:
    """A policy with the papers that refer to it.

    Args:
        policy: Its thresholds are the ones under study.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._template = _template(policy)
        self._receipt = _receipt(policy, self._template)
        self._manifest = _manifest(self._template, self._receipt)

    def decide(
        self, names: Sequence[str], champion: tuple[str, str], candidates: Sequence[tuple[str, str]]
    ) -> ViabilityDecision:
        """The decision of one round; every pair holds the results on development and on selection items."""
        return decide(
            header=HEADER,
            policy=self.policy,
            cluster=CLUSTER,
            suites=SUITES,
            contenders=[self._contender(name, *bits) for name, bits in zip(names, candidates, strict=True)],
            champion_development=self._card(CHAMPION, "development", champion[0]),
            champion_selection=self._card(CHAMPION, "selection", champion[1]),
            parents=(),
            excluded=(),
        )

    def _contender(self, name: str, development: str, selection: str) -> Contender:
        file = Blob(sha256=sha(name), size=1_000_000)
        receipt = replace(self._receipt, output=file)
        return Contender(
            manifest=replace(self._manifest, name=name, artifact=file, receipt=digest(receipt)),
            smoke=replace(SMOKE, artifact=file.sha256),
            receipt=receipt,
            template=self._template,
            development=self._card(file.sha256, "development", development),
            selection=self._card(file.sha256, "selection", selection),
        )

    def _card(self, artifact: str, role: Role, bits: str) -> Scorecard:
        # One task suite, and two items of calibration on which nobody differs.
        return Scorecard(
            header=HEADER,
            artifact=artifact,
            role=role,
            evaluator=EVALUATOR,
            mode="score",
            agreement=Agreement(sampled=1, agreed=1),
            results=(result(role, LABEL, bits), result(role, "calibration", "11")),
            cost=COST,
            isolation=self.policy.minimum_isolation,
        )


def _template(policy: Policy) -> LineageTemplate:
    return LineageTemplate(
        header=HEADER,
        purpose="candidate",
        cluster=digest(CLUSTER),
        policy=digest(policy),
        compatibility=None,
        base=CHAMPION,
        parents=(CHAMPION,),
        operator={"operator": "mutation/1", "strength": 0.01},
        recipe_sha256=sha("recipe"),
        numeric_contract=sha("contract"),
        limits=WorkerLimits(seconds=1, memory_bytes=1, output_bytes=1),
        expected=Expected(
            layout_sha256=sha("layout"),
            tokenizer_sha256=sha("tokenizer"),
            label="f32",
            size_bytes=1_000_000,
            delta_norm=1.0,
            relative_delta=0.1,
        ),
    )


def _receipt(policy: Policy, template: LineageTemplate) -> OperatorReceipt:
    return OperatorReceipt(
        header=HEADER,
        template=digest(template),
        operator=template.operator,
        inputs=tuple(InputDigest(role=role, before=CHAMPION, after=CHAMPION) for role in ("base", "parent")),
        numeric_contract=template.numeric_contract,
        isolation=policy.minimum_isolation,
        output=Blob(sha256=CHAMPION, size=1_000_000),
        delta_norm=1.0,
        reproducibility="exact",
    )


def _manifest(template: LineageTemplate, receipt: OperatorReceipt) -> CandidateManifest:
    return CandidateManifest(
        header=HEADER,
        name="candidate",
        artifact=receipt.output,
        family="mutation",
        purpose="candidate",
        template=digest(template),
        receipt=digest(receipt),
        checks=(Check(name="layout", passed=True, detail="equal"),),
        licence="CC0-1.0",
        data=(),
        claim=Rung.STRUCTURAL,
        unsupported=(),
        trade_offs=(),
        fallback=CHAMPION,
    )


def answers(
    random: np.random.Generator, items: int, gains: Sequence[float], disagreement: float
) -> tuple[str, list[str]]:
    """Results of the champion and of one candidate a gain on one suite.

    A candidate wins an item the champion misses, or loses one it has, so that its share of discordant items is
    ``disagreement`` and its true difference is its gain.
    """
    champion = random.random(items) < ACCURACY
    candidates = []
    for gain in gains:
        loses = (disagreement - gain) / 2 / ACCURACY
        wins = (disagreement + gain) / 2 / (1 - ACCURACY)
        flipped = random.random(items) < np.where(champion, loses, wins)
        candidates.append(text(champion ^ flipped))
    return text(champion), candidates


def text(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    """Results as a string of 0 and 1."""
    return (bits.astype(np.uint8) + np.uint8(ord("0"))).tobytes().decode("ascii")
