"""What has to hold before a winner enters a channel, each gate with the record that settles it."""

from __future__ import annotations

from datetime import datetime

from studbook.errors import ClaimRefused, OutOfOrder, StudbookError
from studbook.lab import breeding, judging
from studbook.lab.absence import absent
from studbook.lab.desk import Desk
from studbook.lab.evaluators import stale
from studbook.lab.proposals import proposal_gates
from studbook.lab.rederive import check_candidate
from studbook.lab.stages import approvals_gate, decision_for, hold_gate
from studbook.lab.trials import trial_gate
from studbook.records import (
    CandidateManifest,
    ConfirmationRecord,
    FailureCluster,
    Gate,
    Header,
    Policy,
    PromotionTemplate,
    Rung,
    RuntimeSmoke,
    SealedOpening,
    ViabilityDecision,
    digest,
)
from studbook.release import champion_template, check_claim, decided_against, gate, stage_before
from studbook.seal import Signer
from studbook.viability import confirm

__all__ = [
    "CLAIM",
    "champion_template_for",
    "confirmation_of",
    "current",
    "entry_template",
    "evidence_for",
    "manifest_of",
    "recorded_template",
    "replay_confirmation",
]

# What an admitted candidate claims: it runs, and every source it descends from was trained.
CLAIM = Rung.TRAINED


def entry_template(desk: Desk, decision: str, record: ViabilityDecision) -> PromotionTemplate:
    """Every gate between a decision and shadow, or between a specialist's decision and its package.

    The sealed suites are opened only when the gates before have passed, and people approve last: they see everything.
    """
    manifest = desk.workspace.get(manifest_of(record), CandidateManifest)
    gates = _first_gates(desk, decision, record, manifest, _recompute_gate(desk, manifest))
    if all(g.status == "passed" for g in gates):
        gates.append(_confirmation_gate(desk, decision, record))
    else:
        gates.append(gate("confirmation", None, None, "decisions", "waits for the gates before it"))
    return _entry_template(desk, desk.header, decision, record, gates)


def recorded_template(desk: Desk, template: PromotionTemplate) -> PromotionTemplate:
    """The same from what is on record, for the decision that a template cites; nothing is bred, scored or written.

    That a candidate was bred again is taken at its word here: `studbook ready` does it once more.
    """
    decision, record = template.decision, desk.workspace.get(template.decision, ViabilityDecision)
    manifest = desk.workspace.get(manifest_of(record), CandidateManifest)
    gates = _first_gates(desk, decision, record, manifest, _recomputed(desk, manifest))
    found = next(((d, c) for d, c in desk.all(ConfirmationRecord) if c.decision == decision), None)
    gates.append(
        _confirmed(*found) if found else gate("confirmation", None, None, "decisions", "was not looked at yet")
    )
    return _entry_template(desk, template.header, decision, record, gates)


def champion_template_for(
    desk: Desk, header: Header, artifact: str, promoter: Signer, time: datetime
) -> PromotionTemplate:
    """Every gate between the stage before and champion.

    Args:
        desk: The lab.
        header: Header of the template.
        artifact: Digest of the candidate.
        promoter: Who promotes, and with which key.
        time: When, in UTC; how long it was in that stage is counted up to then.

    Raises:
        OutOfOrder: if no decision chose it.
    """
    decision, record = decision_for(desk, artifact)
    manifest = manifest_of(record)
    before = stage_before(desk.policy[1], "champion")
    asked: tuple[Gate, ...] = (
        *((trial_gate(desk, artifact),) if before == "canary" else ()),
        hold_gate(desk, "champion", artifact, time),
        approvals_gate(desk, "champion", artifact, decision, promoter),
        *proposal_gates(desk),
    )
    candidate = desk.workspace.get(manifest, CandidateManifest)
    held = current(desk, record)
    return champion_template(
        header, candidate, manifest, decision, desk.channels(), before, promoter.owner, held, asked
    )


def manifest_of(record: ViabilityDecision) -> str:
    """Digest of the manifest of the candidate that a decision chose.

    Raises:
        OutOfOrder: if it chose nobody, or nobody it speaks of; ``order.decision``.
    """
    found = next((s.manifest for s in record.standings if s.artifact == record.chosen), None)
    if found is None:
        raise OutOfOrder(
            "the decision it rests on chose none of its candidates",
            where="viability-decision: chosen",
            advice="Run the round again: studbook round CLUSTER",
            reason="order.decision",
        )
    return found


def _entry_template(
    desk: Desk, header: Header, decision: str, record: ViabilityDecision, gates: list[Gate]
) -> PromotionTemplate:
    """What a decision leads to: shadow, with approvals; or a specialist's package, where people sign the contract."""
    assert record.chosen is not None
    alone = record.action == "package"
    asked = () if alone else (approvals_gate(desk, "shadow", record.chosen, decision),)
    return PromotionTemplate(
        header=header,
        stage="package" if alone else "shadow",
        artifact=record.chosen,
        manifest=manifest_of(record),
        decision=decision,
        gates=(*gates, *asked),
    )


def _first_gates(
    desk: Desk, decision: str, record: ViabilityDecision, manifest: CandidateManifest, recomputed: Gate
) -> list[Gate]:
    artifact = manifest.artifact.sha256
    holds, detail = current(desk, record)
    kept = all(c.passed for c in manifest.checks)
    smoke = next((d for d, s in desk.unrevoked(RuntimeSmoke) if s.artifact == artifact and s.passed), None)
    champion = desk.channels()["champion"]
    return [
        gate("decision", True, decision, "decisions", "chosen over champion, parents and doing nothing"),
        gate("decided-against", holds, decision, "decisions", detail),
        gate("lineage", kept, manifest.template, "candidate", "came out as declared"),
        recomputed,
        gate("runtime-smoke", smoke is not None, smoke, "evaluation", "loads and runs"),
        _claim_gate(desk, artifact, smoke),
        gate("way-back", champion.record is not None, champion.record, "release", "a champion to go back to"),
        *proposal_gates(desk),
    ]


def current(desk: Desk, record: ViabilityDecision) -> tuple[bool, str]:
    """Whether a decision, what it rests on and its confirmation stand, and it was taken against what is in force now."""
    decision = digest(record)
    looks = (d for d, look in desk.all(ConfirmationRecord) if look.decision == decision)
    if desk.taken_back() & {decision, *record.references(), *looks}:
        return False, "rests on a record that was revoked since; run the round again"
    if stale(desk, record):
        return False, "was decided by another evaluator than the one in force; run the round again"
    return decided_against(record, desk.channels()["champion"].artifact, desk.policy[0], desk.suites_lock[0])


def evidence_for(desk: Desk, artifact: str) -> dict[Rung, bool]:
    """Which rungs of the gate ladder an artifact has evidence for.

    Structure: the lab's reader accepts its bytes, or did before a record let them go. Smoke: a passed RuntimeSmoke.
    Converted-trained: every source it descends from has a trained-source manifest. Assistant quality needs an
    evaluation sidecar without a single failure and a safety review, which this version cannot make.
    """
    smoked = any(s.artifact == artifact and s.passed for _, s in desk.unrevoked(RuntimeSmoke))
    return {
        Rung.STRUCTURAL: desk.workspace.has_blob(artifact) and (artifact in absent(desk) or desk.sound(artifact)),
        Rung.SMOKE: smoked,
        Rung.TRAINED: all(desk.trained(source) for source in desk.founders_of(artifact)),
        Rung.ASSISTANT: False,
    }


def confirmation_of(desk: Desk, decision: str) -> ConfirmationRecord | None:
    """The look at the sealed suites a decision's winner had, if it got that far."""
    return next((c for _, c in desk.all(ConfirmationRecord) if c.decision == decision), None)


def replay_confirmation(desk: Desk, record: ConfirmationRecord) -> ConfirmationRecord:
    """Confirm again from the records a confirmation cites; equal bytes or something was changed."""
    decision = desk.workspace.get(record.decision, ViabilityDecision)
    return confirm(
        header=record.header,
        policy=desk.workspace.get(decision.policy, Policy),
        decision=decision,
        cluster=desk.workspace.get(decision.cluster, FailureCluster),
        opening=record.opening,
        champion_card=desk.scorecard(record.champion_card),
        candidate_card=desk.scorecard(record.candidate_card),
    )


def _recompute_gate(desk: Desk, manifest: CandidateManifest) -> Gate:
    try:
        if desk.policy[1].recompute == "full":
            breeding.reproduce_manifest(desk, manifest)
        else:
            check_candidate(desk, manifest)
    except StudbookError as error:
        return gate("recompute", False, manifest.receipt, "candidate", error.message)
    return _recomputed(desk, manifest)


def _recomputed(desk: Desk, manifest: CandidateManifest) -> Gate:
    full = desk.policy[1].recompute == "full"
    detail = "its receipt gives the same bytes" if full else "receipt, template and bytes fit; it was not bred again"
    return gate("recompute", True, manifest.receipt, "candidate", detail)


def _claim_gate(desk: Desk, artifact: str, smoke: str | None) -> Gate:
    try:
        check_claim(CLAIM, evidence_for(desk, artifact))
    except ClaimRefused as error:
        return gate("claim", False, smoke, "registry", error.message)
    return gate("claim", True, smoke, "registry", f"evidence reaches {CLAIM.value}")


def _confirmation_gate(desk: Desk, decision: str, record: ViabilityDecision) -> Gate:
    """One look at the sealed suites, logged as opening k of K before it is taken; a look is never taken twice."""
    found = next(((d, c) for d, c in desk.all(ConfirmationRecord) if c.decision == decision), None)
    if found is None:
        opening = _open_sealed(desk, decision, record)
        if opening is None:
            allowed = desk.policy[1].gates.sealed_openings
            return gate(
                "confirmation", False, None, "policy", f"all {allowed} openings of the sealed suites are used up"
            )
        made = _confirm(desk, record, opening)
        found = desk.workspace.commit(made), made
    return _confirmed(*found)


def _confirmed(digest: str, confirmation: ConfirmationRecord) -> Gate:
    failed = [c.on for c in confirmation.comparisons if not c.passed]
    outcome = "confirmed" if confirmation.passed else f"not confirmed on {', '.join(failed) or 'any data'}"
    detail = f"opening {confirmation.opening} of {confirmation.of} of the sealed suites: {outcome}"
    return gate("confirmation", confirmation.passed, digest, "decisions", detail)


def _open_sealed(desk: Desk, decision: str, record: ViabilityDecision) -> int | None:
    """Log an opening for this decision, or find the one that a crash cut short; None when none is left."""
    assert record.chosen is not None
    looks = [o for _, o in desk.all(SealedOpening)]
    if mine := next((o for o in looks if o.decision == decision), None):
        return mine.opening
    allowed = desk.policy[1].gates.sealed_openings
    # Not their count: one that a stolen key signed is left out, and no number is given twice.
    number = max((o.opening for o in looks), default=0) + 1
    if number > allowed:
        return None
    opening = SealedOpening(header=desk.header, decision=decision, candidate=record.chosen, opening=number, of=allowed)
    desk.workspace.commit(opening)
    return opening.opening


def _confirm(desk: Desk, record: ViabilityDecision, opening: int) -> ConfirmationRecord:
    assert record.chosen is not None
    cards = judging.evaluate(desk, [record.champion, record.chosen], "sealed")
    return confirm(
        header=desk.header,
        policy=desk.policy[1],
        decision=record,
        cluster=desk.workspace.get(record.cluster, FailureCluster),
        opening=opening,
        champion_card=cards[record.champion].card,
        candidate_card=cards[record.chosen].card,
    )
