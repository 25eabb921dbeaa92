"""What the policy says about an operator or a licence: small questions with typed answers. And the default policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.records import (
    Budget,
    Gates,
    Header,
    LicenceRule,
    OperatorGrant,
    Policy,
    Reserve,
    Utility,
)
from studbook.sandbox.levels import LEVELS

__all__ = ["check_operator", "check_policy", "default_policy", "inherited_licence", "operator_refusals"]

# Interpreter, numpy and compiled kernels take most of this before a model is opened.
_LEAST_WORKER_BYTES = 1 << 30
_PERMISSIVE = ("CC0-1.0", "MIT", "BSD-3-Clause", "Apache-2.0")


def operator_refusals(policy: Policy, operator: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the policy does not allow an operator record; empty when it does.

    Args:
        policy: The policy in force.
        operator: The operator record as plain JSON values, with its tag under ``operator``.
    """
    tag = operator.get("operator")
    grant = next((g for g in policy.operators if g.operator == tag), None)
    if grant is None:
        return (f"operator {tag!r} is not on the allowlist of policy {policy.name} v{policy.policy_version}",)
    refusals = []
    for field, (low, high) in sorted(grant.bounds.items()):
        for value in _numbers(operator.get(field)):
            if not low <= value <= high:
                refusals.append(f"{tag}: {field} = {value:g} is outside the allowed {low:g}..{high:g}")
    return (*refusals, *_inner_refusals(policy, operator))


def _inner_refusals(policy: Policy, operator: Mapping[str, Any]) -> tuple[str, ...]:
    """The same for the operator inside a scheduled one, with every value that a rule may give it."""
    inner = operator.get("inner")
    if not isinstance(inner, Mapping):
        return ()
    found = list(operator_refusals(policy, inner))
    for rule in operator.get("rules", ()):
        found += operator_refusals(policy, {**inner, rule["field"]: list(rule["values"])})
    return tuple(dict.fromkeys(found))


def check_operator(policy: Policy, operator: Mapping[str, Any]) -> None:
    """Refuse an operator record the policy does not allow.

    Raises:
        OutsideAllowlist: naming the operator or the first parameter out of bounds.
    """
    if refusals := operator_refusals(policy, operator):
        raise OutsideAllowlist(refusals[0], where="policy: operators")


def check_policy(policy: Policy) -> None:
    """Refuse a policy under which no round could ever run, or that contradicts itself.

    Raises:
        OutsideAllowlist: naming the field.
    """
    crossed = [
        f"{g.operator}.{field}" for g in policy.operators for field, (low, high) in g.bounds.items() if low > high
    ]
    rules = (
        (
            "stages",
            policy.stages == ("shadow", "champion"),
            "must be shadow, champion: canary is not built in this version",
        ),
        ("operators", bool(policy.operators), "allows no operator"),
        ("operators", not crossed, f"bounds of {', '.join(crossed)} are the wrong way round"),
        ("licences", bool(policy.licences), "accepts no licence"),
        ("utility.accuracy", policy.utility.accuracy > 0, "must be above 0"),
        ("budget.worker_bytes", policy.budget.worker_bytes >= _LEAST_WORKER_BYTES, "must be at least 1 GiB"),
        ("budget.output_bytes", policy.budget.output_bytes > 0, "must be above 0"),
        ("gates.maximum_bytes", policy.gates.maximum_bytes > 0, "must be above 0"),
    )
    for field, holds, what in rules:
        if not holds:
            raise OutsideAllowlist(
                what, where=f"policy: {field}", advice="Mend the field in the policy file.", reason="policy.field"
            )


def inherited_licence(policy: Policy, licences: Iterable[str]) -> str:
    """The strictest of the parents' licences, if the policy's table lets them be combined.

    Args:
        policy: The policy in force.
        licences: SPDX identifiers of all parents.

    Raises:
        ParentsDoNotFit: if one is not in the table, or two may not be combined.
    """
    table = {rule.spdx: rule for rule in policy.licences}
    names = sorted(set(licences))
    for name in names:
        if name not in table:
            raise ParentsDoNotFit(
                f"licence {name} is not in the policy's table",
                where=f"policy {policy.name}: licences",
                advice="Use parents under a listed licence, or have the policy's owner add this one.",
                reason="parents.licence",
            )
        if clash := [other for other in names if other != name and other not in table[name].combines_with]:
            raise ParentsDoNotFit(f"licences {name} and {clash[0]} may not be combined", reason="parents.licence")
    return max(names, key=lambda n: (table[n].strictness, n))


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
        "reserve": Reserve(capacity_bytes=256 << 20, minimum_bytes=64 << 20),
        "licences": _DEFAULT_LICENCES,
        "minimum_isolation": _DEFAULT_ISOLATION,
        "stages": ("shadow", "champion"),
        "protected": (),
        "notes": "Shadow, then champion by a person's key. There is no canary stage in this version.",
    }
    return Policy(header=header, **{**fields, **changes})


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, bool):
        return ()
    if isinstance(value, int | float):
        return (float(value),)
    return tuple(float(v) for v in value if isinstance(v, int | float)) if isinstance(value, list | tuple) else ()


def _grant(operator: str, **bounds: tuple[float, float]) -> OperatorGrant:
    return OperatorGrant(operator=operator, status="offline", bounds=bounds)


_DEFAULT_OPERATORS = (
    _grant("adapter-fuse/1"),
    _grant("blend/1", weights=(0.0, 1.0)),
    _grant("breadcrumbs/1", scale=(-1.0, 1.5)),
    _grant("crossover/1"),
    _grant("crossover-split/1"),
    _grant("dare/1", keep=(0.05, 1.0), scales=(-1.0, 1.0)),
    _grant("dare-norm-matched/1", keep=(0.05, 1.0), scales=(-1.0, 1.0)),
    _grant("dare-ties/1", scale=(-1.0, 1.5)),
    _grant("della/1", scale=(-1.0, 1.5)),
    _grant("dequantise/1"),
    _grant("federated-update/1", scale=(-1.0, 1.5)),
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
)
_DEFAULT_UTILITY = Utility(
    weights_version="accuracy-first/1",
    accuracy=1.0,
    memory=0.02,
    compute=0.02,
    risk=0.0025,
    switching_threshold=0.005,
)
# Landlock and seccomp. A lab on another system needs a policy that says "portable"; see docs/sandbox.md.
_DEFAULT_ISOLATION = LEVELS["kernel"]
_DEFAULT_LICENCES = tuple(
    LicenceRule(spdx=name, strictness=rank, combines_with=tuple(o for o in _PERMISSIVE if o != name))
    for rank, name in enumerate(_PERMISSIVE)
)
