"""The policy a new lab starts with."""

from __future__ import annotations

from typing import Any

from studbook.records import (
    Allowance,
    Budget,
    Gates,
    Header,
    Hysteresis,
    LicenceRule,
    OperatorGrant,
    Policy,
    PopulationRule,
    Reserve,
    StageRule,
    Utility,
)
from studbook.sandbox.levels import LEVELS

__all__ = ["default_policy"]

_PERMISSIVE = ("CC0-1.0", "MIT", "BSD-3-Clause", "Apache-2.0")


def default_policy(header: Header, **changes: Any) -> Policy:
    """The policy a new lab starts with: conservative gates, every operator of this version offline-bred, none routed.

    Args:
        header: The record header.
        changes: Fields to set otherwise, such as ``recipes`` or ``protected``.
    """
    fields: dict[str, Any] = {
        "name": "default",
        "policy_version": 1,
        "operators": _DEFAULT_OPERATORS,
        "recipes": _DEFAULT_RECIPES,
        "budget": _DEFAULT_BUDGET,
        "gates": _DEFAULT_GATES,
        "utility": _DEFAULT_UTILITY,
        "reserve": _DEFAULT_RESERVE,
        "hysteresis": _DEFAULT_HYSTERESIS,
        # A person who wants children of children says so: docs/population.md.
        "population": PopulationRule(descendants="none", epsilon=0.02, active=8, pool=32, diverse=64),
        "licences": _DEFAULT_LICENCES,
        "minimum_isolation": _DEFAULT_ISOLATION,
        "recompute": "full",
        "stages": _DEFAULT_STAGES,
        "protected": (),
        "notes": "Shadow, then champion by a person's key; where requests are served, list canary between them.",
    }
    return Policy(header=header, **{**fields, **changes})


def _grant(operator: str, **bounds: tuple[float, float]) -> OperatorGrant:
    return OperatorGrant(operator=operator, status="offline", admitted=(), bounds=bounds)


_DEFAULT_OPERATORS = (
    _grant("adapter-fuse/1"),
    _grant("adapter-train/1", steps=(1, 2000), rate=(1e-6, 0.02), batch=(1, 512), rank=(1, 64), reach=(0.0, 1.0)),
    _grant("blend/1", weights=(0.0, 1.0)),
    _grant("breadcrumbs/1", scale=(-1.0, 1.5)),
    _grant("crossover/1"),
    _grant("crossover-split/1"),
    _grant("dare/1", keep=(0.05, 1.0), scales=(-1.0, 1.0)),
    _grant("dare-norm-matched/1", keep=(0.05, 1.0), scales=(-1.0, 1.0)),
    _grant("dare-ties/1", scale=(-1.0, 1.5)),
    _grant("della/1", scale=(-1.0, 1.5)),
    _grant("dequantise/1"),
    _grant("distil/1", steps=(1, 2000), rate=(1e-6, 0.02), batch=(1, 512), temperature=(0.5, 10.0), reach=(0.0, 1.0)),
    _grant("federated-round/1", steps=(1, 2000), rate=(1e-6, 0.02), batch=(1, 512), reach=(0.0, 1.0), limit=(0.0, 1.0)),
    _grant("federated-update/1", scale=(-1.0, 1.5)),
    _grant("fine-tune/1", steps=(1, 2000), rate=(1e-6, 0.02), batch=(1, 512), reach=(0.0, 1.0)),
    _grant("linear-sum/1", weights=(-4.0, 4.0)),
    _grant("model-stock/1"),
    _grant("multislerp/1"),
    _grant("mutation/1", strength=(0.0, 0.1)),
    _grant("nearswap/1"),
    _grant("passthrough/1"),
    _grant("prune/1", fraction=(0.0, 0.5)),
    _grant("quantise/1"),
    _grant("scheduled/1"),
    _grant("sign-aware-merge/1", density=(0.05, 1.0), scale=(-1.0, 1.5)),
    _grant("slerp/1", t=(0.0, 1.0)),
    _grant("soup/1"),
    _grant("sparse-task-delta/1", scales=(-1.0, 1.0)),
    _grant("task-delta/1", scales=(-1.0, 1.0)),
    _grant("ties/1", scale=(-1.0, 1.5)),
    _grant("tokenizer-extend/1"),
    _grant("tokenizer-prune/1"),
)
# What a round tries when nobody says otherwise; one number stands for every parent.
_DEFAULT_RECIPES: tuple[dict[str, Any], ...] = (
    {"operator": "blend/1", "weights": "uniform"},
    {"operator": "task-delta/1", "scales": 0.3, "skip": []},
    {"operator": "sign-aware-merge/1", "density": 0.5, "weights": "uniform", "scale": 1.0, "skip": []},
    {"operator": "dare/1", "keep": 0.8, "scales": 0.3, "seed": 1, "skip": []},
)
_DEFAULT_BUDGET = Budget(
    candidates=16,
    evaluations=400_000,
    worker_seconds=600,
    worker_bytes=4 << 30,
    output_bytes=16 << 30,
    relative_delta=1.5,
    depth=64,
)
# Into shadow by the gates alone; to champion by one person, whenever they like.
_DEFAULT_STAGES = (
    StageRule(stage="shadow", approvals=0, hold_hours=0),
    StageRule(stage="champion", approvals=1, hold_hours=0),
)
_DEFAULT_GATES = Gates(
    alpha=0.05,
    margin=0.02,
    calibration_margin=0.05,
    practical_minimum=0.01,
    finalists=3,
    cluster_error=0.05,
    maximum_bytes=33_554_432,
    sealed_openings=20,
    robustness_margin=0.05,
    bias_margin=0.05,
    drift_nats=1.0,
    drift_alignment=0.5,
    # Off: what answering costs is shown, and stops nobody until the owners say how much is too much.
    cost_ratio=0.0,
)
# What a model takes decoded and what people have to do is the same in every lab. Multiply-adds are those of its own
# selection suites, so that whoever freezes them states how many there are; else the decision says that nobody did.
_DEFAULT_RESERVE = Reserve(
    capacity_bytes=256 << 20,
    minimum_bytes=64 << 20,
    accounts=(
        Allowance(account="memory", capacity=1 << 30, minimum=256 << 20),
        Allowance(account="attention", capacity=16, minimum=0),
    ),
)
_DEFAULT_UTILITY = Utility(
    weights_version="accuracy-first/1",
    accuracy=1.0,
    memory=0.02,
    compute=0.02,
    # Small: whether a gain is real is for the tests, and whether it is worth having for the practical minimum. With 0.0025
    # and 0.005 one real gain in four was turned away, and no fewer false ones came through (docs/proof/false_promotion.md).
    risk=0.0005,
    switching_threshold=0.0005,
)
# Every wait is off: how long a champion is observed is for its owners to say.
_DEFAULT_HYSTERESIS = Hysteresis(
    removal_threshold=0.0, window_days=0, window_decisions=0, cooldown_hours=0, smaller_by=0.0
)
# Landlock and seccomp. A lab on another system needs a policy that says "portable"; see docs/sandbox.md.
_DEFAULT_ISOLATION = LEVELS["kernel"]
_DEFAULT_LICENCES = tuple(
    LicenceRule(spdx=name, strictness=rank, combines_with=tuple(o for o in _PERMISSIVE if o != name))
    for rank, name in enumerate(_PERMISSIVE)
)
