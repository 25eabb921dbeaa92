"""How a candidate stands: what the round decided, what everybody scored, and which gates are open before whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from studbook.exchange.figures import UNITS, measured
from studbook.lab import clock
from studbook.lab.desk import Desk
from studbook.lab.gates import confirmation_of, current
from studbook.lab.review.facts import GateRow, Line, Row, Score, Situation, Verdict
from studbook.lab.stages import approvals_gate, hold_gate
from studbook.lab.trials import trial_gate
from studbook.records import (
    CandidateManifest,
    ChampionPromotion,
    Comparison,
    ConfirmationRecord,
    FailureCluster,
    ParentApproval,
    Policy,
    PromotionTemplate,
    Root,
    RuntimeSmoke,
    Scorecard,
    Standing,
    SuiteManifest,
    ViabilityDecision,
)
from studbook.release import champion_template, stage_before

__all__ = [
    "decision_of",
    "first_gates",
    "gates_of",
    "own_scores",
    "people_for",
    "scores_of",
    "standing_of",
    "verdict_of",
]

_PERSON = "person"


def decision_of(desk: Desk, artifact: str) -> tuple[str, ViabilityDecision] | None:
    """The newest decision that chose a candidate, or else the newest that judged it, with its digest."""
    judged = [(d, r) for d, r in desk.all(ViabilityDecision) if any(s.artifact == artifact for s in r.standings)]
    return next((pair for pair in reversed(judged) if pair[1].chosen == artifact), judged[-1] if judged else None)


def standing_of(record: ViabilityDecision, artifact: str) -> Standing:
    """How a decision judged a candidate."""
    return next(s for s in record.standings if s.artifact == artifact)


def verdict_of(desk: Desk, digest: str, record: ViabilityDecision, artifact: str) -> Verdict:
    """What a decision says of a candidate, with every comparison it was judged by, sealed ones last."""
    standing, look = standing_of(record, artifact), confirmation_of(desk, digest)
    own_look = look if look is not None and look.candidate == artifact else None
    rows = [_row(desk, c, "selection", digest) for c in standing.comparisons]
    rows += [_row(desk, c, "sealed", _of(desk, own_look)) for c in (own_look.comparisons if own_look else ())]
    return Verdict(
        decision=digest,
        cluster=desk.workspace.get(record.cluster, FailureCluster).label,
        action=record.action,
        winner=desk.name_of(record.chosen) if record.chosen else "",
        own=standing.action,
        reasons=standing.reasons,
        nothing_chosen=record.no_op.chosen,
        nothing=record.no_op.reasons,
        net_utility=standing.net_utility,
        switching_threshold=desk.workspace.get(record.policy, Policy).utility.switching_threshold,
        confirmation=_of(desk, own_look) if own_look else None,
        confirmed=own_look.passed if own_look else None,
        rows=tuple(rows),
    )


def scores_of(desk: Desk, record: ViabilityDecision, artifact: str) -> tuple[Line, ...]:
    """Every open suite that the decision looked at: candidate, champion, every parent, and doing nothing.

    Doing nothing leaves the champion where it is, so it scores what the champion scores.
    """
    standing = standing_of(record, artifact)
    own = [d for d in (standing.development, standing.selection) if d]
    held = [("candidate", artifact, own), ("champion", record.champion, list(record.champion_cards))]
    held += [
        (f"parent {desk.name_of(p)}", p, [card]) for p, card in zip(record.parents, record.parent_cards, strict=True)
    ]
    held.append(("doing nothing", record.champion, list(record.champion_cards)))
    return _side_by_side(desk, held)


def own_scores(desk: Desk, artifact: str, digests: Sequence[str]) -> tuple[Line, ...]:
    """The same for a model that no decision judged, alone."""
    return _side_by_side(desk, [("candidate", artifact, list(digests))])


def gates_of(
    desk: Desk, digest: str, record: ViabilityDecision, artifact: str, situation: Situation
) -> tuple[GateRow, ...]:
    """Every gate between a candidate and champion: hard gates, those of shadow as recorded, those of champion as of now."""
    standing = standing_of(record, artifact)
    rows = [
        GateRow(
            stage="candidate",
            name=check.name,
            status="passed" if check.passed else "failed",
            by="nobody: the records say so",
            detail=check.detail,
            evidence=digest,
        )
        for check in standing.gates
    ]
    if situation == "not-chosen":
        why = standing.reasons[0] if standing.reasons else "was not chosen"
        waits = GateRow(
            stage="shadow", name="decision", status="failed", by=_by(desk, "decisions"), detail=why, evidence=digest
        )
        return (*rows, waits)
    papers = [t for _, t in desk.all(PromotionTemplate) if t.decision == digest and t.stage == "shadow"]
    rows += _of_template(desk, papers[-1]) if papers else []
    return (*rows, *_of_template(desk, _before_champion(desk, digest, record, standing)))


def first_gates(desk: Desk, artifact: str) -> tuple[GateRow, ...]:
    """What has to hold before a registered source is installed as the first champion."""
    approval = next((p for p in reversed(list(desk.all(ParentApproval))) if p[1].artifact == artifact), None)
    force = approval is not None and approval[1].until >= clock.today().isoformat()
    force = force and approval is not None and approval[1].source == desk.sources()[artifact][0]
    smoke = next((d for d, s in desk.all(RuntimeSmoke) if s.artifact == artifact and s.passed), None)
    told = f"approved by {approval[1].approved_by} until {approval[1].until}" if approval else "nobody approved it"
    held = (
        ("approval", force, "registry", told, approval[0] if approval else None),
        ("runtime-smoke", smoke is not None, "evaluation", "loads and runs; the release tries it otherwise", smoke),
        (_PERSON, False, _PERSON, "waits for the signature", None),
    )
    return tuple(
        GateRow(
            stage="champion",
            name=name,
            status="passed" if passed else "pending",
            by=_by(desk, zone),
            detail=detail,
            evidence=evidence,
        )
        for name, passed, zone, detail, evidence in held
    )


def people_for(desk: Desk) -> tuple[tuple[str, ...], int]:
    """Who may sign a promotion to champion now, and how many of them it takes."""
    root, kind = _root(desk), ChampionPromotion.kind()
    people = sorted({g.owner for g in root.keys if kind in g.kinds})
    return tuple(people), next((t.owners for t in root.thresholds if t.kind == kind), 1)


def _root(desk: Desk) -> Root:
    return desk.workspace.root


def _of(desk: Desk, look: ConfirmationRecord | None) -> str:
    return next((d for d, c in desk.all(ConfirmationRecord) if c is look), "")


def _row(desk: Desk, found: Comparison, role: str, record: str) -> Row:
    # McNemar's threshold is one of the p value; everything else is held against the lower bound.
    exact = found.test == "superiority" and found.on != "joint-mean"
    return Row(
        role=role,
        test=found.test,
        against=desk.name_of(found.against),
        artifact=found.against,
        on=found.on,
        unit=UNITS.get(found.on, "share"),
        items=found.items,
        wins=found.wins,
        losses=found.losses,
        difference=found.difference,
        lower=found.lower,
        upper=found.upper,
        threshold=found.threshold,
        threshold_of="" if found.test == "shown" else "p-value" if exact else "lower",
        p_value=found.p_value,
        passed=found.passed,
        method=found.method,
        record=record,
    )


def _side_by_side(desk: Desk, held: Sequence[tuple[str, str, list[str]]]) -> tuple[Line, ...]:
    cards = [(who, model, [(d, desk.scorecard(d)) for d in digests]) for who, model, digests in held]
    suites = dict.fromkeys(r.suite for _, _, found in cards[:2] for _, card in found for r in card.results)
    return tuple(_line(desk, suite, cards) for suite in suites)


def _line(desk: Desk, suite: str, cards: list[tuple[str, str, list[tuple[str, Scorecard]]]]) -> Line:
    manifest = desk.workspace.get(suite, SuiteManifest)
    scores = []
    for who, artifact, found in cards:
        results = [(r, d, c) for d, c in found for r in c.results if r.suite == suite and r.correct]
        figure = measured(manifest, *results[0]) if results else None
        scores.append(Score(who=who, artifact=artifact, figure=figure))
    return Line(
        suite=manifest.name,
        role=manifest.role,
        dimension=manifest.dimension,
        cluster=manifest.cluster,
        scores=tuple(scores),
    )


def _before_champion(desk: Desk, digest: str, record: ViabilityDecision, standing: Standing) -> PromotionTemplate:
    """The template a promotion would be written on now; nothing of it is signed or stored."""
    manifest = desk.workspace.get(standing.manifest, CandidateManifest)
    held, artifact = current(desk, record), manifest.artifact.sha256
    before = stage_before(desk.policy[1], "champion")
    asked = (
        *((trial_gate(desk, artifact),) if before == "canary" else ()),
        hold_gate(desk, "champion", artifact, clock.now()),
        approvals_gate(desk, "champion", artifact, digest),
    )
    state = desk.channels()
    return champion_template(desk.header, manifest, standing.manifest, digest, state, before, "nobody", held, asked)


def _of_template(desk: Desk, template: PromotionTemplate) -> Iterator[GateRow]:
    """Its gates; the person's own signature is what the pack asks for, so it is pending."""
    for found in template.gates:
        asked = template.stage == "champion" and found.name == _PERSON
        yield GateRow(
            stage=template.stage,
            name=found.name,
            status="pending" if asked else found.status,
            by=_by(desk, found.satisfied_by),
            detail="waits for the signature" if asked else found.detail,
            evidence=found.evidence,
        )


def _by(desk: Desk, satisfied_by: str) -> str:
    """Who may settle a gate: a person, or whoever's process holds a key of a zone."""
    if satisfied_by == _PERSON:
        return f"a person: {', '.join(people_for(desk)[0]) or 'nobody holds a key'}"
    owners = sorted({g.owner for g in _root(desk).keys if g.zone == satisfied_by})
    return f"{satisfied_by} keys of {', '.join(owners)}" if owners else satisfied_by
