"""The decision: candidates against the champion, their parents and doing nothing.

A pure function of records, so replaying the ledger gives the same bytes under any hash seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
from studbook.viability.actions import losing_action, retired, standing_champion, why_it_compresses
from studbook.viability.contenders import Baseline, Contender, Round
from studbook.viability.explanation import assumptions, best_parent, why_doing_nothing, why_it_lost, why_it_won
from studbook.viability.findings import cited
from studbook.viability.situation import ALONE, Situation, held
from studbook.viability.standings import Judged, judge, standing

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
    situation: Situation = ALONE,
) -> ViabilityDecision:
    """Choose one candidate for shadow, or nothing; everybody else is archived or quarantined with reasons.

    1. Hard gates: a failure quarantines (integrity) or archives.
    2. Non-inferiority to the champion on every protected suite, calibration included.
    3. Superiority on the target for finalists, who were screened on development items; every parent is beaten.
    4. Net utility above the switching threshold, and every reserve kept; else doing nothing wins.

    While a wait of the policy holds nobody is chosen. Where the cluster has a scope, the round is for a specialist: its own
    clusters are protected instead of every one, and the winner is packaged. What becomes of everybody:
    `studbook.viability.actions`.

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
        situation: What the ledger says before the decision; a lab without a past by default.

    Raises:
        OutOfOrder: if a scorecard of the champion or a parent is void, evaluators differ, a suite is not in the lock,
            or a candidate is offered twice.
    """
    circle = Round(policy, cluster, champion_development, champion_selection, tuple(parents), situation)
    circle.check(suites, contenders)
    judged = judge(contenders, circle)
    return _explained(header, circle, suites, judged, excluded)


def weigh(judged: Sequence[Judged]) -> Judged | None:
    """Of those that nothing stopped the one worth most, of equals the lowest digest; None is doing nothing."""
    passed = [j for j in judged if j.passed]
    return min(passed, key=lambda j: (-j.trial.worth.net if j.trial else 0.0, j.contender.artifact), default=None)


def _explained(
    header: Header,
    circle: Round,
    suites: SuitesLock,
    judged: Sequence[Judged],
    excluded: Sequence[Excluded],
) -> ViabilityDecision:
    waits, best = held(circle.rules, circle.situation), best_parent(circle)
    winner = None if waits else weigh(judged)
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
        standings=tuple(_cited(_standing(j, winner, circle, waits), circle) for j in judged),
        retired=() if circle.cluster.scope else retired(circle),
        as_of=circle.situation.as_of,
        action=_won(circle) if winner else "no-op" if waits else standing_champion(judged, circle),
        chosen=winner.contender.artifact if winner else None,
        best_parent=best.artifact if best else None,
        no_op=NoOp(chosen=winner is None, reasons=why_doing_nothing(judged, winner, circle, waits)),
        assumptions=assumptions(judged, winner, circle),
    )


def _won(circle: Round) -> Literal["promote-to-shadow", "package"]:
    return "package" if circle.cluster.scope else "promote-to-shadow"


def _cited(found: Standing, circle: Round) -> Standing:
    """The same standing with every number naming the scorecards it came from."""
    others = {p.artifact: digest(p.card) for p in circle.parents} | {circle.champion: digest(circle.selection)}
    return replace(found, comparisons=cited(found.comparisons, found.selection, others))


def _standing(judged: Judged, winner: Judged | None, circle: Round, waits: tuple[str, ...]) -> Standing:
    if judged is winner:
        return standing(judged, _won(circle), why_it_won(judged), circle.protected)
    action = losing_action(judged, circle)
    reasons = why_it_lost(judged, winner) or waits
    if action == "merge-compress":
        reasons = (why_it_compresses(judged, circle), *reasons)
    return standing(judged, action, reasons, circle.protected)
