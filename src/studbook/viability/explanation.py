"""Why a decision came out as it did, and what would have to hold for it to be right; plain words with numbers."""

from __future__ import annotations

from collections.abc import Sequence

from studbook.records import SuiteResult
from studbook.statistics import minimum_detectable
from studbook.viability.contenders import Baseline, Round
from studbook.viability.reserve import checked, unchecked
from studbook.viability.screening import joint_mean
from studbook.viability.standings import Judged
from studbook.viability.words import counted, percent, points, told_apart

__all__ = ["assumptions", "best_parent", "why_doing_nothing", "why_it_lost", "why_it_won"]

PLANNED_DISAGREEMENT = 0.10
"""Share of discordant items the smallest detectable difference is stated for."""


def best_parent(circle: Round) -> Baseline | None:
    """The parent with the highest joint mean over protected selection suites; of equals the lowest digest."""
    labels = circle.protected
    return min(circle.parents, key=lambda p: (-joint_mean(p.card, labels), p.artifact), default=None)


def why_it_won(winner: Judged) -> tuple[str, ...]:
    """The numbers of the candidate that is promoted."""
    shown = [f.words for f in winner.findings if f.row.test in ("superiority", "parent", "utility")]
    held = [f.row for f in winner.findings if f.row.test == "non-inferiority"]
    worst = min((r for r in held if r.on != "calibration"), key=lambda r: (r.lower - r.threshold, r.on))
    kept = (
        f"no worse than the champion on all {len(held)} protected suites; the closest is {worst.on} with a lower bound "
        f"of {points(worst.lower)} where {points(worst.threshold)} is allowed"
    )
    return (*shown, kept, *_better_worst_skills(winner))


def why_it_lost(loser: Judged, winner: Judged | None) -> tuple[str, ...]:
    """What stopped a candidate, or who was better where nothing did."""
    if loser.reasons or winner is None or loser.trial is None or winner.trial is None:
        return loser.reasons
    mine, theirs = told_apart(loser.trial.worth.net, winner.trial.worth.net)
    return (f"passes every test, but {winner.name} is worth more: net utility lower bound {theirs} against {mine}",)


def why_doing_nothing(
    judged: Sequence[Judged], winner: Judged | None, circle: Round, waits: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The numbers that made doing nothing better, or that it lost to.

    Args:
        judged: Every candidate.
        winner: Who is promoted.
        circle: The round.
        waits: Why the champion may not be replaced yet.
    """
    threshold = circle.policy.utility.switching_threshold
    if winner is not None and winner.trial is not None:
        net, needed = told_apart(winner.trial.worth.net, threshold)
        return (f"doing nothing is worth 0; {winner.name} is worth at least {net}, and a switch costs {needed}",)
    if not judged:
        return (
            *waits,
            "no candidate was bred, so there is nothing to compare with the champion",
        )
    tried = [j for j in judged if j.trial is not None]
    passed = sum(j.passed for j in judged) or "none"
    opening = f"{passed} of {counted(len(judged), 'candidate')} passed; {len(tried)} met the selection suites"
    return (
        *waits,
        opening,
        *_best_gain(tried, circle),
        *_best_worth(tried, circle),
        *_each(judged),
        *_parent_itself(circle),
    )


def _best_gain(tried: Sequence[Judged], circle: Round) -> tuple[str, ...]:
    found = [(j, f) for j in tried if (f := j.finding("superiority", circle.cluster.label))]
    if not found:
        return ()
    best, finding = min(found, key=lambda pair: (-pair[1].row.difference, pair[0].contender.artifact))
    return (f"best {finding.words} ({best.name})",)


def _best_worth(tried: Sequence[Judged], circle: Round) -> tuple[str, ...]:
    found = [(j, f) for j in tried if (f := j.finding("utility", "net-utility"))]
    if not found:
        return ()
    best, finding = min(found, key=lambda pair: (-pair[1].row.lower, pair[0].contender.artifact))
    relation = "exceeds" if finding.row.passed else "does not exceed"
    net, needed = told_apart(finding.row.lower, finding.row.threshold)
    return (f"best net utility: {best.name} with a lower bound of {net}, which {relation} the threshold {needed}",)


def _each(judged: Sequence[Judged]) -> tuple[str, ...]:
    return tuple(f"{j.name}: {j.reasons[0]}" for j in judged if j.reasons)


def _parent_itself(circle: Round) -> tuple[str, ...]:
    best, labels = best_parent(circle), circle.protected
    if best is None or joint_mean(best.card, labels) <= joint_mean(circle.selection, labels):
        return ()
    theirs, champion = joint_mean(best.card, labels), joint_mean(circle.selection, labels)
    return (
        f"the parent {best.name} stands at {percent(theirs)} joint mean against the champion's {percent(champion)}; "
        "a parent itself is not promoted in this version",
    )


def _better_worst_skills(winner: Judged) -> tuple[str, ...]:
    return tuple(f.words for f in winner.findings if f.row.test == "shown" and not f.row.passed)


def assumptions(judged: Sequence[Judged], winner: Judged | None, circle: Round) -> tuple[str, ...]:
    """What would have to hold for the decision to be right, and what could not have been seen."""
    gates, family = circle.policy.gates, sum(j.trial is not None for j in judged)
    return (
        f"every test is one-sided at alpha {gates.alpha:g}; Holm's family is {counted(family, 'question')} "
        f"({counted(family, 'finalist')} x 1 target); "
        "non-inferiority is not corrected for the number of suites, because all of them have to hold",
        _detectable(circle),
        "items are independent of each other, and every suite counts the same in the joint mean",
        "the suites stand for the work: synthetic items say nothing about text of another kind",
        _unmeasured(circle),
        "whoever makes candidates learns of these selection suites only what the Ladder lets out, a number and a kind of "
        "reason a finalist; whoever reads this record learns more",
        "the way back is stored as a copy of the champion",
        *_reserved(circle),
        *_beside_the_best_parent(winner, circle),
    )


def _unmeasured(circle: Round) -> str:
    """What no suite asked; latency and energy are measured by none."""
    asked = {str(result.dimension) for result in circle.selection.results}
    silent = [name for name in ("robustness", "safety", "bias", "drift") if name not in asked]
    silent += [] if "cost" in asked else ["the work of answering"]
    return f"{', '.join([*silent, 'latency'])} and energy were not measured"


def _reserved(circle: Round) -> tuple[str, ...]:
    held = ", ".join(("storage", *(a.account for a in checked(circle.policy))))
    missing = ", ".join(unchecked(circle.policy))
    without = f"; the policy states no capacity for {missing}: no reserve of it was checked" if missing else ""
    return (f"a promotion is held against what is left of {held}{without}",)


def _detectable(circle: Round) -> str:
    alpha = circle.policy.gates.alpha
    gating = [r for r in circle.selection.results if _gates(r, circle)]
    parts = [
        f"{r.cluster} {points(minimum_detectable(len(r.correct), PLANNED_DISAGREEMENT, alpha), 1)[1:]} "
        f"({len(r.correct)} items)"
        for r in gating
    ]
    return f"smallest difference shown with 80 % power where 10 % of the items disagree: {', '.join(parts)}"


def _gates(result: SuiteResult, circle: Round) -> bool:
    return result.dimension == "task" and result.cluster in {circle.cluster.label, *circle.protected}


def _beside_the_best_parent(winner: Judged | None, circle: Round) -> tuple[str, ...]:
    best, labels = best_parent(circle), circle.protected
    if best is None:
        return ("no parent stood as a baseline",)
    stands = f"the best parent is {best.name} with {percent(joint_mean(best.card, labels))} joint mean"
    if winner is None or winner.contender.selection is None:
        return (stands,)
    mine, theirs = winner.contender.selection.tasks(), best.card.tasks()
    ahead = [
        f"{k} {percent(theirs[k].mean)} against {percent(mine[k].mean)}"
        for k in labels
        if theirs[k].mean > mine[k].mean
    ]
    return (f"{stands}; it is ahead of {winner.name} on: {', '.join(ahead) or 'no skill'}",)
