"""A small world of records for the judge: a champion, parents, and contenders built from wins and losses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from studbook.policy import default_policy
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
    RuntimeSmoke,
    Scorecard,
    SuiteResult,
    SuitesLock,
    ViabilityDecision,
    WorkerLimits,
    digest,
    read_record,
    write_record,
)
from studbook.viability import Baseline, Contender, decide

HEADER = Header(source="studbook", version="0.1.0", environment="test", owner="ada")
Change = tuple[int, int]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def changed(bits: str, wins: int, losses: int) -> str:
    """The same results with the first ``losses`` right ones wrong and the last ``wins`` wrong ones right."""
    out = list(bits)
    for index in [i for i, bit in enumerate(bits) if bit == "1"][:losses]:
        out[index] = "0"
    for index in [i for i, bit in enumerate(bits) if bit == "0"][::-1][:wins]:
        out[index] = "1"
    return "".join(out)


@dataclass(frozen=True)
class World:
    """Champion at 60 % everywhere, two protected skills of which ``rot`` is the target, 1,000 items a suite."""

    protected: tuple[str, ...] = ("rot", "srt")
    items: int = 1000
    policy_changes: Mapping[str, Any] = field(default_factory=dict)

    champion = sha("champion")
    parent = sha("brk")
    evaluator = sha("evaluator")

    def having(self, **gates: Any) -> World:
        """The same world with some gates of the policy changed."""
        return World(self.protected, self.items, {**self.policy_changes, "gates": replace(self.policy.gates, **gates)})

    @property
    def policy(self) -> Policy:
        return default_policy(HEADER, **{"protected": self.protected, **self.policy_changes})

    @property
    def labels(self) -> tuple[str, ...]:
        return (*self.protected, "mixture")

    @property
    def suites(self) -> SuitesLock:
        every = tuple(
            sha(f"{role} {label}") for role in ("development", "selection", "sealed") for label in self.labels
        )
        return SuitesLock(header=HEADER, lock_version=1, suites=every)

    @property
    def cluster(self) -> FailureCluster:
        return FailureCluster(
            header=HEADER,
            label="rot",
            champion=self.champion,
            evidence=sha("evidence"),
            failed=400,
            of=1000,
            data=sha("data"),
            training_slice=sha("slice"),
            suites=(sha("selection rot"),),
            contamination=sha("contamination"),
            scope=(),
        )

    def result(self, role: str, label: str, change: Change = (0, 0), brier: int = 400_000, **more: Any) -> SuiteResult:
        n = self.items
        base = "1" * (n * 6 // 10) + "0" * (n - n * 6 // 10)
        fields: dict[str, Any] = {
            "suite": sha(f"{role} {label}"),
            "cluster": label,
            "dimension": "calibration" if label == "mixture" else "task",
            "items_before": sha(f"items {role} {label}"),
            "items_after": sha(f"items {role} {label}"),
            "expected_calls": n,
            "actual_calls": n,
            "correct": changed(base, *change),
            "loglik_micro": " ".join(["-1000000"] * n),
            "brier_micro": " ".join(str(brier + 1000 * (i % 7)) for i in range(n)),
            "written": "",
            "verdict": "pass",
            "detail": "",
        }
        return SuiteResult(**{**fields, **more})

    def card(
        self,
        artifact: str,
        role: str = "selection",
        changes: Mapping[str, Change] | None = None,
        results: Mapping[str, Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> Scorecard:
        changes, results = changes or {}, results or {}
        rows = tuple(self.result(role, k, changes.get(k, (0, 0)), **results.get(k, {})) for k in self.labels)
        fields: dict[str, Any] = {
            "header": HEADER,
            "artifact": artifact,
            "role": role,
            "evaluator": self.evaluator,
            "mode": "score",
            "agreement": Agreement(sampled=32, agreed=32),
            "results": rows,
            "cost": costs(),
            "isolation": self.policy.minimum_isolation,
        }
        return Scorecard(**{**fields, **more})

    def contender(
        self,
        name: str,
        changes: Mapping[str, Change] | None = None,
        development: Mapping[str, Change] | None = None,
        *,
        artifact: str | None = None,
        template: Mapping[str, Any] | None = None,
        receipt: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        smoke: Mapping[str, Any] | None = None,
        selection_card: Mapping[str, Any] | None = None,
        development_card: Mapping[str, Any] | None = None,
    ) -> Contender:
        """A contender that passes every gate unless told otherwise; ``changes`` are (wins, losses) on selection items."""
        file = Blob(sha256=artifact or sha(name), size=700_000)
        declared = self._template(**(template or {}))
        ran = self._receipt(declared, file, **(receipt or {}))
        fields: dict[str, Any] = {
            "header": HEADER,
            "name": name,
            "artifact": file,
            "family": "blend",
            "purpose": declared.purpose,
            "template": digest(declared),
            "receipt": digest(ran),
            "checks": (Check(name="layout", passed=True, detail="equal"),),
            "licence": "CC0-1.0",
            "data": (),
            "claim": "structural-validation",
            "unsupported": (),
            "trade_offs": (),
            "fallback": self.champion,
        }
        passed: dict[str, Any] = {
            "header": HEADER,
            "artifact": file.sha256,
            "evaluator": self.evaluator,
            "engine": sha("engine"),
            "prompts": sha("prompts"),
            "outputs_sha256": sha("outputs"),
            "tokens": 64,
            "logits": LogitDigest(positions=63, sha256=sha("logits")),
            "fuel": 1,
            "finite": True,
            "deterministic": True,
            "passed": True,
            "detail": "loads and runs",
        }
        early = changes if development is None else development
        return Contender(
            manifest=CandidateManifest(**{**fields, **(manifest or {})}),
            smoke=RuntimeSmoke(**{**passed, **(smoke or {})}),
            receipt=ran,
            template=declared,
            development=self.card(
                **{"artifact": file.sha256, "role": "development", "changes": early, **(development_card or {})}
            ),
            selection=self.card(
                **{"artifact": file.sha256, "role": "selection", "changes": changes, **(selection_card or {})}
            ),
        )

    def _template(self, **more: Any) -> LineageTemplate:
        fields: dict[str, Any] = {
            "header": HEADER,
            "purpose": "candidate",
            "cluster": digest(self.cluster),
            "policy": digest(self.policy),
            "compatibility": sha("compatibility"),
            "base": self.champion,
            "parents": (self.parent, sha("dup")),
            "operator": {"operator": "blend/1", "weights": [0.5, 0.5]},
            "recipe_sha256": sha("recipe"),
            "numeric_contract": sha("contract"),
            "limits": WorkerLimits(seconds=60, memory_bytes=1 << 30, output_bytes=1 << 20),
            "expected": Expected(
                layout_sha256=sha("layout"),
                tokenizer_sha256=sha("tokenizer"),
                label="f32",
                size_bytes=700_000,
                delta_norm=10.0,
                relative_delta=0.5,
            ),
        }
        return LineageTemplate(**{**fields, **more})

    def _receipt(self, declared: LineageTemplate, file: Blob, **more: Any) -> OperatorReceipt:
        inputs = [("base", declared.base), *(("parent", parent) for parent in declared.parents)]
        fields: dict[str, Any] = {
            "header": HEADER,
            "template": digest(declared),
            "operator": declared.operator,
            "inputs": tuple(InputDigest(role=role, before=sha256, after=sha256) for role, sha256 in inputs),
            "numeric_contract": declared.numeric_contract,
            "isolation": self.policy.minimum_isolation,
            "output": file,
            "delta_norm": 8.0,
            "reproducibility": "exact",
        }
        return OperatorReceipt(**{**fields, **more})

    def parents(self, changes: Mapping[str, Change] | None = None) -> tuple[Baseline, ...]:
        """The parents: ``brk`` as told, ``dup`` a little worse than the champion."""
        other = sha("dup")
        return (
            Baseline(self.parent, "brk", self.card(self.parent, changes=changes)),
            Baseline(other, "dup", self.card(other, changes={"rot": (5, 25), "srt": (5, 25)})),
        )

    def decide(self, contenders: Sequence[Contender], **more: Any) -> ViabilityDecision:
        """Decide, and demand that the record survives its own strict reader."""
        terms: dict[str, Any] = {
            "header": HEADER,
            "policy": self.policy,
            "cluster": self.cluster,
            "suites": self.suites,
            "contenders": contenders,
            "champion_development": self.card(self.champion, "development"),
            "champion_selection": self.card(self.champion),
            "parents": self.parents(),
            "excluded": (),
        }
        decision = decide(**{**terms, **more})
        assert read_record(write_record(decision)) == decision
        return decision


def costs(size: float = 700_000, decoded: float = 700_000, work: float = 9e9, method: str = "closed form") -> Any:
    units = {"bytes": size, "parameters": 175_000.0, "decoded-bytes": decoded, "multiply-adds": work}
    return tuple(Measure(value=v, unit=k, basis="observed", method=method) for k, v in units.items())


@pytest.fixture
def world() -> World:
    return World()


GOOD: Mapping[str, Change] = {"rot": (90, 20), "srt": (60, 20)}


@pytest.fixture
def good() -> Mapping[str, Change]:
    """Wins and losses that pass every rule: +7 pp on the target, +4 pp beside it."""
    return GOOD
