"""Steps 2 and 3: one candidate against the champion and the parents, item by item.

Every question gives a `Finding`: the row that goes on record and the sentence a reader gets when it does not hold.
Bounds are rounded before they are compared, so a reader of the record can repeat every comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from studbook.records import Gates, Policy, Scorecard, SuiteResult
from studbook.statistics import (
    Estimate,
    Paired,
    mcnemar,
    mean_bounds,
    paired_bounds,
    paired_counts,
    stratified_bounds,
    unpaired_bounds,
)
from studbook.viability.dimensions import dimension_findings
from studbook.viability.findings import Finding, Test, paired_method, row
from studbook.viability.screening import joint_mean
from studbook.viability.words import brier, counted, p_value, percent, points, settle, told_apart

__all__ = ["joint", "joint_gain", "no_data", "no_worse", "superior", "target", "worst_skill"]

MICRO = 1e-6


def no_data(test: Test, against: str, on: str, threshold: float, why: str) -> Finding:
    """A question that could not be asked; it never passes."""
    empty = row(
        test,
        against,
        on,
        Paired(0, 0, 0),
        Estimate(0.0, -1.0, 1.0),
        threshold=threshold,
        passed=False,
        method=f"no data: {why}"[:2000],
    )
    return Finding(empty, f"{on}: no data, and no data never promotes ({why})"[:2000])


def no_worse(candidate: Scorecard, champion: Scorecard, policy: Policy) -> list[Finding]:
    """Step 2: non-inferiority to the champion on every protected suite and every suite of calibration, robustness and bias.

    All have to hold, so nothing is corrected for their number.
    """
    mine, theirs = candidate.tasks(), champion.tasks()
    labels = policy.protects(champion.labels())
    findings = [_no_worse_task(mine[k], theirs[k], champion.artifact, policy.gates) for k in labels]
    for own, other in zip(candidate.results, champion.results, strict=True):
        if other.dimension == "calibration":
            findings.append(_no_worse_calibrated(own, other, champion.artifact, policy.gates))
    return [*findings, *dimension_findings(candidate, champion, policy.gates)]


def _no_worse_task(own: SuiteResult, other: SuiteResult, champion: str, gates: Gates) -> Finding:
    pair = paired_counts(own.correct, other.correct)
    estimate = paired_bounds(*pair, gates.alpha)
    finding = row(
        "non-inferiority",
        champion,
        own.cluster,
        pair,
        estimate,
        threshold=-gates.margin,
        passed=settle(estimate.lower) >= -gates.margin,
        method=paired_method(pair),
    )
    lower, allowed = told_apart(estimate.lower, -gates.margin)
    moved = (
        f"{own.cluster} fell from {percent(other.mean)} to {percent(own.mean)}"
        if estimate.value < 0
        else f"{own.cluster} is not shown to be no worse: {percent(own.mean)} against {percent(other.mean)}"
    )
    return Finding(finding, f"{moved} (lower bound {lower}, allowed {allowed})")


def _no_worse_calibrated(own: SuiteResult, other: SuiteResult, champion: str, gates: Gates) -> Finding:
    gains = [b - a for a, b in zip(own.briers, other.briers, strict=True)]
    if len(gains) < 2:
        return no_data("non-inferiority", champion, "calibration", -gates.calibration_margin, "fewer than two items")
    micro = mean_bounds(gains, gates.alpha)
    estimate = Estimate(*(value * MICRO for value in micro))
    pair = Paired(sum(g > 0 for g in gains), sum(g < 0 for g in gains), len(gains))
    finding = row(
        "non-inferiority",
        champion,
        "calibration",
        pair,
        estimate,
        threshold=-gates.calibration_margin,
        passed=settle(estimate.lower) >= -gates.calibration_margin,
        method="improvement of the mean Brier score (0..2), paired by item, bounds -/+ z s / sqrt(n); wins and losses "
        "count items with a lower and a higher score",
    )
    before, after = (sum(r.briers) / len(r.briers) * MICRO for r in (other, own))
    return Finding(
        finding,
        f"calibration: mean Brier score went from {brier(before)} to {brier(after)} (lower bound of the "
        f"improvement {brier(estimate.lower)}, allowed {brier(-gates.calibration_margin)})",
    )


def target(candidate: Scorecard, champion: Scorecard, label: str) -> Paired:
    """Wins, losses and items on the suite of the target failure cluster."""
    return paired_counts(candidate.tasks()[label].correct, champion.tasks()[label].correct)


def superior(
    pair: Paired, champion: str, label: str, gates: Gates, adjusted: float, family: int, *, minimum: float
) -> Finding:
    """Step 3: superiority on the target, by McNemar's exact test and by the smallest effect worth having.

    Args:
        pair: Wins, losses and items on the target.
        champion: Digest of the champion.
        label: The target cluster.
        gates: Thresholds of the policy.
        adjusted: The p value after Holm's correction.
        family: Number of questions corrected for.
        minimum: Smallest difference that counts, as a share of items.
    """
    estimate = paired_bounds(*pair, gates.alpha)
    p = mcnemar(pair.wins, pair.losses)
    finding = row(
        "superiority",
        champion,
        label,
        pair,
        estimate,
        threshold=gates.alpha,
        passed=settle(adjusted) <= gates.alpha and settle(estimate.value) >= minimum,
        p=p,
        method="exact one-sided McNemar, p = P(Bin(wins + losses, 1/2) >= wins); "
        f"{adjusted:.3g} after Holm over {counted(family, 'question')}; and a difference of at least {points(minimum)}; "
        f"bounds: {paired_method(pair)}",
    )
    return Finding(
        finding,
        f"gain on {label} is {points(estimate.value)}, lower bound {points(estimate.lower)}, "
        f"{p_value(adjusted)} after Holm over {family}; needs {points(minimum)} and p <= {gates.alpha:g}",
    )


def joint(candidate: Scorecard, other: Scorecard, labels: Sequence[str], alpha: float) -> tuple[Paired, Estimate]:
    """Counts over all these suites, and the unweighted mean of their differences with its bounds."""
    mine, theirs = candidate.tasks(), other.tasks()
    strata = [paired_counts(mine[label].correct, theirs[label].correct) for label in labels]
    total = Paired(sum(s.wins for s in strata), sum(s.losses for s in strata), sum(s.items for s in strata))
    return total, stratified_bounds(strata, alpha)


def joint_gain(
    candidate: Scorecard, other: Scorecard, name: str, policy: Policy, test: Literal["parent", "superiority"]
) -> Finding:
    """The joint mean over protected suites has to be shown above somebody else's: lower bound > 0.

    Args:
        candidate: The candidate's scorecard.
        other: The scorecard of a parent, or of the champion.
        name: What to call the other.
        policy: The policy in force.
        test: ``parent`` in the decision, ``superiority`` in the confirmation.
    """
    labels = policy.protects(other.labels())
    pair, estimate = joint(candidate, other, labels, policy.gates.alpha)
    finding = row(
        test,
        other.artifact,
        "joint-mean",
        pair,
        estimate,
        threshold=0.0,
        passed=settle(estimate.lower) > 0.0,
        method=f"unweighted mean of the paired differences of {counted(len(labels), 'protected suite')}, variance "
        "sum var_k / K^2; lower bound above 0",
    )
    mine, theirs = (joint_mean(card, labels) for card in (candidate, other))
    against = f"{percent(mine)} against {percent(theirs)}"
    margin = f"lower bound {points(estimate.lower, 2)}"
    if candidate.artifact == other.artifact:
        words = f"identical to {name}"
    elif finding.passed:
        words = f"better than {name}: {against} ({margin})"
    elif theirs > mine:
        words = f"{name} is better: {percent(theirs)} against {percent(mine)}"
    else:
        words = f"not shown to be better than {name}: {against} ({margin}, has to be above 0)"
    return Finding(finding, words)


def worst_skill(candidate: Scorecard, other: Scorecard, name: str, labels: Sequence[str], alpha: float) -> Finding:
    """The worst skill of the candidate beside the worst skill of a parent; shown, no gate."""
    own, theirs = _worst(candidate, labels), _worst(other, labels)
    if own.cluster == theirs.cluster:
        pair = paired_counts(own.correct, theirs.correct)
        estimate, how = paired_bounds(*pair, alpha), "paired"
    else:
        pair = Paired(0, 0, len(own.correct))
        estimate = unpaired_bounds(own.right, len(own.correct), theirs.right, len(theirs.correct), alpha)
        how = "different suites, so unpaired: Wilson bounds combined by squares"
    told = f"{own.cluster} {percent(own.mean)} against {name}'s {theirs.cluster} {percent(theirs.mean)}"
    finding = row(
        "shown",
        other.artifact,
        "worst-skill",
        pair,
        estimate,
        threshold=0.0,
        passed=settle(estimate.value) >= 0.0,
        method=f"worst protected suite of each: {told}; {how}; shown, never a gate",
    )
    return Finding(finding, f"{name} keeps a better worst skill: {told}")


def _worst(card: Scorecard, labels: Sequence[str]) -> SuiteResult:
    tasks = card.tasks()
    return min((tasks[label] for label in labels), key=lambda r: (settle(r.mean), r.cluster))
