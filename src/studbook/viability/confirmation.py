"""Step 5, the winner's one look at the sealed suites; and what becomes of everybody else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from studbook.errors import OutOfOrder, OverBudget
from studbook.records import (
    ArchivedCandidate,
    ArchiveRecord,
    Check,
    Comparison,
    ConfirmationRecord,
    FailureCluster,
    Header,
    Policy,
    Scorecard,
    Standing,
    ViabilityDecision,
    digest,
)
from studbook.records.decisions import Away
from studbook.statistics import Estimate, Paired, mcnemar
from studbook.viability.comparisons import joint_gain, no_data, no_worse, superior, target
from studbook.viability.contenders import check_labels, judged_by
from studbook.viability.dimensions import safety_checks
from studbook.viability.evidence import card_checks, check_evaluator, require
from studbook.viability.findings import cited, row
from studbook.viability.gates import failed
from studbook.viability.words import p_value, points

__all__ = ["archive", "confirm"]


def confirm(
    *,
    header: Header,
    policy: Policy,
    decision: ViabilityDecision,
    cluster: FailureCluster,
    opening: int,
    champion_card: Scorecard,
    candidate_card: Scorecard,
) -> ConfirmationRecord:
    """Confirm the single winner on sealed items: superior on the target, joint mean shown above the champion's, and safe.

    One question was asked of one candidate, so McNemar's p value meets alpha as it is. Safety has zero tolerance here as
    everywhere. Every protected suite is shown beside it. A void scorecard of the winner is recorded as not passed: the
    opening is spent.

    Args:
        header: Header of the record.
        policy: The policy of the decision.
        decision: The decision to be confirmed.
        cluster: Its failure cluster.
        opening: Which opening of the sealed suites this is, from 1.
        champion_card: The champion's scorecard on sealed items.
        candidate_card: The winner's.

    Raises:
        OutOfOrder: if there is no winner, the records are not the decision's, the champion's scorecard is void, or
            evaluators differ.
        OverBudget: if the policy allows no further opening.
    """
    _check_decision(policy, decision, cluster, opening)
    require(champion_card, decision.champion, "sealed", champion_card)
    rules = judged_by(policy, cluster)
    check_labels(champion_card, rules, cluster)
    check_evaluator((champion_card, candidate_card))
    checks = card_checks(candidate_card, str(decision.chosen), "sealed", champion_card)
    rows = _comparisons(rules, cluster, champion_card, candidate_card, failed(checks))
    comparisons = cited(rows, digest(candidate_card), {champion_card.artifact: digest(champion_card)})
    return ConfirmationRecord(
        header=header,
        decision=digest(decision),
        candidate=str(decision.chosen),
        opening=opening,
        of=policy.gates.sealed_openings,
        champion_card=digest(champion_card),
        candidate_card=digest(candidate_card),
        comparisons=comparisons,
        passed=all(c.passed for c in comparisons if c.test != "shown"),
    )


def archive(
    header: Header, decision: ViabilityDecision, confirmation: ConfirmationRecord | None = None
) -> ArchiveRecord:
    """Everybody the decision did not promote, with reasons and scorecards.

    Args:
        header: Header of the record.
        decision: The decision.
        confirmation: Where the winner failed on sealed items it is archived too.

    Raises:
        OutOfOrder: if the confirmation belongs to another decision.
    """
    if confirmation is not None and confirmation.decision != digest(decision):
        raise OutOfOrder("the confirmation belongs to another decision", where="confirmation-record: decision")
    refuted = confirmation is not None and not confirmation.passed
    field = decision.standings
    # Written out where a property would do, so that the type checker sees what is left.
    lost = ((s, s.action) for s in field if s.action != "promote-to-shadow" and s.action != "package")
    rows = [_archived(s, action, s.reasons) for s, action in lost]
    if confirmation is not None and refuted:
        winner = next(s for s in field if s.won)
        rows.append(_archived(winner, "archive", _refuted(confirmation), confirmation.candidate_card))
    return ArchiveRecord(header=header, decision=digest(decision), candidates=tuple(rows))


def _check_decision(policy: Policy, decision: ViabilityDecision, cluster: FailureCluster, opening: int) -> None:
    if decision.chosen is None:
        raise OutOfOrder(
            "the decision is to do nothing, so there is no winner to confirm",
            where="viability-decision: action",
            advice="Keep the sealed suites closed; confirm only a decision that promotes.",
        )
    if decision.policy != digest(policy) or decision.cluster != digest(cluster):
        raise OutOfOrder(
            "policy or failure cluster are not the ones the decision was made under",
            where="viability-decision: policy, cluster",
            advice="Confirm with the records the decision cites.",
        )
    if not 1 <= opening <= policy.gates.sealed_openings:
        raise OverBudget(
            f"opening {opening} of {policy.gates.sealed_openings} sealed openings",
            where=f"policy {policy.name}: gates.sealed_openings",
            advice="Have the policy's owner allow more, beside new sealed suites: studbook policy sign FILE --as NAME",
        )


def _comparisons(
    policy: Policy, cluster: FailureCluster, champion: Scorecard, candidate: Scorecard, broken: Sequence[Check]
) -> tuple[Comparison, ...]:
    gates, label = policy.gates, cluster.label
    if broken:
        why = f"{broken[0].name}: {broken[0].detail}"
        asked = ((label, gates.alpha), ("joint-mean", 0.0))
        return tuple(no_data("superiority", champion.artifact, on, limit, why).row for on, limit in asked)
    pair = target(candidate, champion, label)
    p = mcnemar(pair.wins, pair.losses)
    shown = [replace(finding.row, test="shown") for finding in no_worse(candidate, champion, policy)]
    return (
        superior(pair, champion.artifact, label, gates, p, 1, minimum=0.0).row,
        joint_gain(candidate, champion, "the champion", policy, "superiority").row,
        *_safety(candidate, champion),
        *shown,
    )


def _safety(candidate: Scorecard, champion: Scorecard) -> Iterator[Comparison]:
    """One row a safety suite, each of which a single failed item fails."""
    found = (result for result in candidate.results if result.dimension == "safety")
    for result, check in zip(found, safety_checks(candidate), strict=True):
        items, failures = len(result.correct), len(result.correct) - result.right
        # What was counted; how many may fail unseen stands in the words.
        rate = -failures / items if items else -1.0
        yield row(
            "non-inferiority",
            champion.artifact,
            f"safety/{result.cluster}",
            Paired(0, failures, items),
            Estimate(rate, rate, rate),
            threshold=0.0,
            passed=check.passed,
            method=f"zero tolerance, losses are failed items: {check.detail}"[:2000],
        )


def _refuted(confirmation: ConfirmationRecord) -> tuple[str, ...]:
    return tuple(
        f"not confirmed on sealed items: {c.on} {points(c.difference)}, lower bound {points(c.lower, 2)}, "
        f"{p_value(c.p_value)} ({c.method})"[:4000]
        for c in confirmation.comparisons
        if c.test != "shown" and not c.passed
    )


def _archived(standing: Standing, action: Away, reasons: tuple[str, ...], *more: str) -> ArchivedCandidate:
    cards = (standing.development, standing.selection, *more)
    return ArchivedCandidate(
        manifest=standing.manifest,
        artifact=standing.artifact,
        action=action,
        reasons=reasons,
        scorecards=tuple(card for card in cards if card is not None),
    )
