"""What the policy says about an operator, a licence, a stage or a generation: small questions with typed answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from studbook.errors import OutOfOrder, OutsideAllowlist, OverBudget, ParentsDoNotFit
from studbook.records import Policy, StageRule
from studbook.sandbox.levels import MEASURES

__all__ = [
    "LEAST_ALPHA",
    "check_generation",
    "check_operator",
    "check_policy",
    "check_version",
    "inherited_licence",
    "operator_refusals",
    "stage_rule",
]

# Interpreter, numpy and compiled kernels take most of this before a model is opened.
_LEAST_WORKER_BYTES = 1 << 30
_WAYS = (("shadow", "champion"), ("shadow", "canary", "champion"))
LEAST_ALPHA = 1e-9
"""Smallest error rate of a bound: soon below, 1 - alpha is 1 to the machine, and there is no quantile."""


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
    found, rules = list(operator_refusals(policy, inner)), operator.get("rules", ())
    for rule in rules if isinstance(rules, list | tuple) else (None,):
        # A record that somebody wrote by hand is asked too, and may be no operator at all.
        if isinstance(rule, Mapping) and isinstance(rule.get("values"), list | tuple):
            found += operator_refusals(policy, {**inner, str(rule.get("field")): rule["values"]})
        else:
            found.append(f"{operator.get('operator')!r}: a rule without field and values")
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
    # A second entry of one name would be what people are shown, and the first one what is enforced.
    again = _twice(g.operator for g in policy.operators), _twice(rule.spdx for rule in policy.licences)
    unbacked = ", ".join(g.operator for g in policy.operators if (g.status == "routed") != bool(g.admitted))
    rules = (
        (
            "stages",
            tuple(rule.stage for rule in policy.stages) in _WAYS,
            "must be shadow, champion or shadow, canary, champion",
        ),
        ("stages: shadow", _rule(policy, "shadow").hold_hours == 0, "nothing comes before shadow, so nothing is held"),
        (
            "stages: champion",
            _rule(policy, "champion").approvals > 0,
            "whoever promotes is one owner: ask for 1 or more",
        ),
        ("operators", bool(policy.operators), "allows no operator"),
        ("operators", not crossed, f"bounds of {', '.join(crossed)} are the wrong way round"),
        ("operators", not again[0], f"name {again[0]} twice"),
        ("operators: admitted", not unbacked, f"of {unbacked}: routed by what was admitted of it, offline by nothing"),
        ("licences", bool(policy.licences), "accepts no licence"),
        ("licences", not again[1], f"name {again[1]} twice"),
        ("utility.accuracy", policy.utility.accuracy > 0, "must be above 0"),
        ("budget.worker_bytes", policy.budget.worker_bytes >= _LEAST_WORKER_BYTES, "must be at least 1 GiB"),
        ("budget.evaluations", policy.budget.evaluations > 0, "must be above 0: nothing could be judged"),
        ("budget.output_bytes", policy.budget.output_bytes > 0, "must be above 0"),
        *_gate_rules(policy),
        *_reserve_rules(policy),
        *_isolation_rules(policy),
        *_utility_rules(policy),
    )
    for field, holds, what in rules:
        if not holds:
            raise OutsideAllowlist(
                what, where=f"policy: {field}", advice="Mend the field in the policy file.", reason="policy.field"
            )


def _gate_rules(policy: Policy) -> tuple[tuple[str, bool, str], ...]:
    """Field, whether its rule holds, and the rule, for the thresholds of the decision."""
    return (
        ("gates.maximum_bytes", policy.gates.maximum_bytes > 0, "must be above 0"),
        (
            "gates.alpha",
            policy.gates.alpha >= LEAST_ALPHA,
            f"must be at least {LEAST_ALPHA:g}: below, no bound can be computed",
        ),
        ("gates.sealed_openings", policy.gates.sealed_openings > 0, "must be above 0: nothing could be confirmed"),
    )


def _reserve_rules(policy: Policy) -> tuple[tuple[str, bool, str], ...]:
    """Field, whether its rule holds, and the rule, for storage and the accounts beside it."""
    accounts = policy.reserve.accounts
    tight = ", ".join(a.account for a in accounts if a.minimum >= a.capacity)
    openings = min((a.capacity for a in accounts if a.account == "sealed-openings"), default=0)
    asked = sum(rule.approvals for rule in policy.stages) + 1
    acts = min((a.capacity - a.minimum for a in accounts if a.account == "attention"), default=asked)
    return (
        (
            "reserve.minimum_bytes",
            policy.reserve.minimum_bytes < policy.reserve.capacity_bytes,
            "must be below capacity_bytes: no model would fit beside it",
        ),
        ("reserve.accounts", not tight, f"of {tight}: the minimum must be below the capacity"),
        ("reserve.accounts", not _twice(a.account for a in accounts), "name an account twice"),
        (
            "reserve.accounts: sealed-openings",
            openings <= policy.gates.sealed_openings,
            "must not exceed gates.sealed_openings: further looks are refused anyway",
        ),
        (
            "reserve.accounts: attention",
            acts >= asked,
            f"leaves {acts} acts of people, and one promotion with its way back takes {asked}",
        ),
    )


def _isolation_rules(policy: Policy) -> tuple[tuple[str, bool, str], ...]:
    """The same for what every worker must reach: an unknown measure stops every round, and no measure stops nothing."""
    unknown = ", ".join(sorted(set(policy.minimum_isolation) - MEASURES))
    known = ", ".join(sorted(MEASURES))
    return (
        ("minimum_isolation", bool(policy.minimum_isolation), "demands nothing of workers"),
        ("minimum_isolation", not unknown, f"names {unknown}, which no worker can reach; there are {known}"),
    )


def _utility_rules(policy: Policy) -> tuple[tuple[str, bool, str], ...]:
    """The same for the weights: a cost below 0 would be a reward, and doing nothing would not be worth 0."""
    costs = ("memory", "compute", "risk", "switching_threshold")
    return tuple((f"utility.{name}", getattr(policy.utility, name) >= 0, "must not be below 0") for name in costs)


def check_version(policy: Policy, expected: int, where: object) -> None:
    """Refuse a policy that does not follow the one before it: versions count by one, and none is ever put back.

    Args:
        policy: The policy that shall come into force.
        expected: The only version that follows; one more than the newest that ever entered.
        where: Its file or record, for errors.

    Raises:
        OutOfOrder: ``policy.replay`` for an older version, ``policy.same`` for the newest, ``policy.skip`` for a later one.
    """
    found, newest = policy.policy_version, expected - 1
    if found == expected:
        return
    reason = "skip" if found > expected else "same" if found == newest else "replay"
    text = {
        "skip": f"is version {found}, and {newest} is the newest: a version in between was skipped",
        "same": f"is version {found} again, which entered already",
        "replay": f"is version {found}, older than version {newest}; an older policy is never put back",
    }[reason]
    advice = f"Set policy_version to {expected}, after a look at what changes: studbook policy diff current FILE"
    raise OutOfOrder(text, where=f"{where}: policy_version", advice=advice, reason=f"policy.{reason}")


def check_generation(policy: Policy, generation: int, what: str) -> None:
    """Refuse a candidate that would be further away from its founders than the policy allows.

    Args:
        policy: The policy in force.
        generation: Generations between the candidate and its farthest founder; a founder's own is 0.
        what: What is bred, for the message.

    Raises:
        OverBudget: ``budget.depth``.
    """
    if generation > policy.budget.depth:
        raise OverBudget(
            f"{what} would be generation {generation} after its founders; the policy allows {policy.budget.depth}",
            where="policy: budget.depth",
            advice="Breed from registered models again, or have the owner of the policy allow more generations.",
            reason="budget.depth",
        )


def stage_rule(policy: Policy, stage: str) -> StageRule:
    """What the policy asks for before a stage.

    Raises:
        OutsideAllowlist: if its way to champion does not include the stage.
    """
    for rule in policy.stages:
        if rule.stage == stage:
            return rule
    raise OutsideAllowlist(
        f"policy {policy.name} has no stage {stage!r}", where="policy: stages", reason="policy.stage"
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


def _rule(policy: Policy, stage: Literal["shadow", "champion"]) -> StageRule:
    """The rule of a stage; one that asks for nothing unusual where there is none, which is refused by itself."""
    found = next((rule for rule in policy.stages if rule.stage == stage), None)
    return found or StageRule(stage=stage, approvals=1, hold_hours=0)


def _twice(names: Iterable[str]) -> str:
    """The first name that stands twice; empty where none does."""
    return next((name for name, count in Counter(names).items() if count > 1), "")


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, bool):
        return ()
    if isinstance(value, int | float):
        return (float(value),)
    return tuple(float(v) for v in value if isinstance(v, int | float)) if isinstance(value, list | tuple) else ()
