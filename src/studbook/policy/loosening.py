"""Which differences between two policies make something easier to pass; the rest of them judge nobody or get stricter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from studbook.records import Policy, Reserve

__all__ = ["loosened"]

# Larger is looser.
_UP = {
    "gates": (
        "alpha",
        "margin",
        "calibration_margin",
        "maximum_bytes",
        "sealed_openings",
        "robustness_margin",
        "bias_margin",
        "drift_nats",
    ),
    "reserve": ("capacity_bytes",),
    "budget": ("evaluations", "relative_delta", "depth", "output_bytes", "worker_seconds", "worker_bytes"),
}
# Smaller is looser.
_DOWN = {
    "gates": ("practical_minimum", "drift_alignment"),
    "utility": ("memory", "risk", "switching_threshold"),
    "reserve": ("minimum_bytes",),
    "hysteresis": ("window_days", "window_decisions", "cooldown_hours"),
}
# Looser either way: fewer finalists are corrected for less, more of them let others try; a weight on what a candidate
# may lose or save lets another one through whichever way it moves.
_EITHER = {"gates": ("finalists",), "utility": ("accuracy", "compute")}
# Which models bred here may have children, from the strictest on.
_DESCENDANTS = ("none", "admitted", "diverse")


def loosened(before: Policy, after: Policy) -> tuple[str, ...]:
    """The fields of a policy that let a candidate pass which the one before would have stopped; empty when none does.

    ``gates.cluster_error`` is none of them, since it lets a round begin and nobody pass.

    Args:
        before: The policy in force.
        after: The one that shall follow it.
    """
    return tuple(_loosened(before, after))


def _loosened(before: Policy, after: Policy) -> Iterator[str]:
    for table, sign in ((_UP, 1), (_DOWN, -1)):
        for section, fields in table.items():
            old, new = getattr(before, section), getattr(after, section)
            yield from (f"{section}.{f}" for f in fields if sign * (getattr(new, f) - getattr(old, f)) > 0)
    for section, fields in _EITHER.items():
        old, new = getattr(before, section), getattr(after, section)
        yield from (f"{section}.{f}" for f in fields if getattr(new, f) != getattr(old, f))
    if _DESCENDANTS.index(after.population.descendants) > _DESCENDANTS.index(before.population.descendants):
        yield "population.descendants"
    # 0 asks nothing, and is the loosest.
    if 0.0 < before.gates.cost_ratio < (after.gates.cost_ratio or math.inf):
        yield "gates.cost_ratio"
    yield from _accounts(before.reserve, after.reserve)
    if _unprotected(before, after):
        yield "protected"
    if set(before.minimum_isolation) - set(after.minimum_isolation):
        yield "minimum_isolation"
    if (before.recompute, after.recompute) == ("full", "receipt"):
        yield "recompute"
    yield from _stages(before, after)
    yield from _operators(before, after)
    yield from _licences(before, after)


def _accounts(before: Reserve, after: Reserve) -> Iterator[str]:
    new = {a.account: a for a in after.accounts}
    for old in before.accounts:
        now = new.get(old.account)
        if now is None or now.capacity > old.capacity or now.minimum < old.minimum:
            yield f"reserve.accounts: {old.account}"


def _unprotected(before: Policy, after: Policy) -> bool:
    """Whether a label lost its protection; no label named means every one, so naming some gives up the rest."""
    if not after.protected:
        return False
    return not before.protected or bool(set(before.protected) - set(after.protected))


def _stages(before: Policy, after: Policy) -> Iterator[str]:
    new: Mapping[str, tuple[int, int]] = {r.stage: (r.approvals, r.hold_hours) for r in after.stages}
    for rule in before.stages:
        # A stage that is left out asks for less than nothing.
        approvals, hours = new.get(rule.stage, (-1, -1))
        if approvals < rule.approvals or hours < rule.hold_hours:
            yield f"stages: {rule.stage}"


def _operators(before: Policy, after: Policy) -> Iterator[str]:
    """Operators that are new, and those of which a number may go further; routing one lets nobody pass."""
    old = {g.operator: g.bounds for g in before.operators}
    for grant in after.operators:
        held = old.get(grant.operator)
        if held is None or any(not _within(grant.bounds.get(f), held[f]) for f in held):
            yield f"operators: {grant.operator}"


def _within(bounds: tuple[float, float] | None, outer: tuple[float, float]) -> bool:
    return bounds is not None and outer[0] <= bounds[0] and bounds[1] <= outer[1]


def _licences(before: Policy, after: Policy) -> Iterator[str]:
    old = {rule.spdx: set(rule.combines_with) for rule in before.licences}
    for rule in after.licences:
        if rule.spdx not in old or set(rule.combines_with) - old[rule.spdx]:
            yield f"licences: {rule.spdx}"
