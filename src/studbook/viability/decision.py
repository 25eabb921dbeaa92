"""The decision: candidates against the champion, their parents and doing nothing.

A pure function of records, so replaying the ledger gives the same bytes under any hash seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from studbook.records import (
    Excluded,
    FailureCluster,
    Header,
    NoOp,
    Policy,
    Scorecard,
    Standing,
    SuitesLock,
    ViabilityDecision,
    digest,
)
from studbook.viability.contenders import Baseline, Contender, Round
from studbook.viability.explanation import assumptions, best_parent, why_doing_nothing, why_it_lost, why_it_won
from studbook.viability.findings import cited
from studbook.viability.standings import Judged, judge, losing_action, standing

__all__ = ["decide", "weigh"]


def decide(
    *,
    header: Header,
    policy: Policy,
    cluster: FailureCluster,
    suites: SuitesLock,
    contenders: Sequence[Contender],
    champion_development: Scorecard,
    champion_selection: Scorecard,
    parents: Sequence[Baseline],
    excluded: Sequence[Excluded],
) -> ViabilityDecision:
    """Choose one candidate for shadow, or nothing; everybody else is archived or quarantined with reasons.

    1. Hard gates: a failure quarantines (integrity) or archives.
    2. Non-inferiority to the champion on every protected suite, calibration included.
    3. Superiority on the target for finalists, who were screened on development items; every parent is beaten.
    4. Net utility above the switching threshold, and the storage reserve kept; else doing nothing wins.

    Args:
        header: Header of the record.
        policy: The policy in force.
        cluster: The failure cluster the round was started for.
        suites: The suites lock in force.
        contenders: Every candidate, in the order they were bred.
        champion_development: The champion's scorecard on development items.
        champion_selection: The champion's scorecard on selection items.
        parents: Every parent that was offered, as a baseline.
        excluded: Registered models that were not offered, for the record.

    Raises:
        OutOfOrder: if a scorecard of the champion or a parent is void, evaluators differ, a suite is not in the lock,
            or a candidate is offered twice.
    """
    circle = Round(policy, cluster, champion_development, champion_selection, tuple(parents))
    circle.check(suites, contenders)
    judged = judge(contenders, circle)
    return _explained(header, circle, suites, judged, weigh(judged), excluded)


def weigh(judged: Sequence[Judged]) -> Judged | None:
    """Of those that nothing stopped the one worth most, of equals the lowest digest; None is doing nothing."""
    passed = [j for j in judged if j.passed]
    return min(passed, key=lambda j: (-j.trial.worth.net if j.trial else 0.0, j.contender.artifact), default=None)


def _explained(
    header: Header,
    circle: Round,
    suites: SuitesLock,
    judged: Sequence[Judged],
    winner: Judged | None,
    excluded: Sequence[Excluded],
) -> ViabilityDecision:
    best = best_parent(circle)
    return ViabilityDecision(
        header=header,
        cluster=digest(circle.cluster),
        policy=digest(circle.policy),
        suites=digest(suites),
        champion=circle.champion,
        champion_cards=(digest(circle.development), digest(circle.selection)),
        parents=tuple(parent.artifact for parent in circle.parents),
        parent_cards=tuple(digest(parent.card) for parent in circle.parents),
        excluded=tuple(excluded),
        standings=tuple(_cited(_standing(j, winner, circle), circle) for j in judged),
        action="promote-to-shadow" if winner else "no-op",
        chosen=winner.contender.artifact if winner else None,
        best_parent=best.artifact if best else None,
        no_op=NoOp(chosen=winner is None, reasons=why_doing_nothing(judged, winner, circle)),
        assumptions=assumptions(judged, winner, circle),
    )


def _cited(found: Standing, circle: Round) -> Standing:
    """The same standing with every number naming the scorecards it came from."""
    others = {p.artifact: digest(p.card) for p in circle.parents} | {circle.champion: digest(circle.selection)}
    return replace(found, comparisons=cited(found.comparisons, found.selection, others))


def _standing(judged: Judged, winner: Judged | None, circle: Round) -> Standing:
    if judged is winner:
        return standing(judged, "promote-to-shadow", why_it_won(judged), circle.protected)
    return standing(judged, losing_action(judged), why_it_lost(judged, winner), circle.protected)
