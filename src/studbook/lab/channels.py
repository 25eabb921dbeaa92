"""Moving channels: release to shadow, promotion by a person's key, rollback. Aliases follow the ledger."""

from __future__ import annotations

from studbook.errors import OutOfOrder, StudbookError, UsageError
from studbook.lab import breeding, judging
from studbook.lab.desk import Desk
from studbook.records import (
    CandidateManifest,
    ChampionPromotion,
    ConfirmationRecord,
    FailureCluster,
    Gate,
    ParentApproval,
    PromotionTemplate,
    Record,
    ReleaseRecord,
    RollbackRecord,
    Rung,
    RuntimeSmoke,
    ViabilityDecision,
    digest,
)
from studbook.release import (
    ChannelState,
    admit,
    champion_template,
    check_claim,
    check_stage,
    first_champion,
    gate,
    promote,
    roll_back,
    to_shadow,
)
from studbook.viability import confirm

__all__ = [
    "alias_content",
    "confirmation_of",
    "evidence_for",
    "finish_aliases",
    "release",
    "release_to_shadow",
    "rollback",
    "sync_aliases",
]


def release(desk: Desk, name: str, stage: str, person: str | None = None, reason: str = "") -> Record:
    """Move a candidate to a stage, or install the first champion.

    Args:
        desk: The lab.
        name: The candidate, or an approved source where there was no champion yet.
        stage: ``shadow`` or ``champion``.
        person: Who promotes; required for champion.
        reason: Why, for the record.

    Raises:
        OutOfOrder: if a gate is not passed; canary is not built.
        NotAuthorised: if the promotion key is not at hand.
    """
    check_stage(desk.policy[1], stage)
    artifact = desk.find_model(name)
    if stage == "shadow":
        decision, record = _decision_for(desk, artifact)
        if held := release_to_shadow(desk, decision, record):
            raise OutOfOrder(held, reason="order.gate")
        return desk.workspace.get(_last_move(desk, "shadow"), ReleaseRecord)
    if person is None:
        raise UsageError("promotion to champion is an act of a person: name who does it", where="--as")
    if not any(c.artifact.sha256 == artifact for _, c in desk.candidates()):
        return _install_first(desk, artifact, person, reason)
    return _promote(desk, artifact, person, reason)


def release_to_shadow(desk: Desk, decision: str, record: ViabilityDecision) -> str:
    """Check every gate of the winner, admit it and point shadow at it.

    Returns:
        Why it was held back, or an empty string when shadow points at it now.
    """
    assert record.chosen is not None
    check_stage(desk.policy[1], "shadow")
    standing = next(s for s in record.standings if s.artifact == record.chosen)
    manifest = desk.workspace.get(standing.manifest, CandidateManifest)
    template = PromotionTemplate(
        header=desk.header,
        stage="shadow",
        artifact=record.chosen,
        manifest=standing.manifest,
        decision=decision,
        gates=_shadow_gates(desk, decision, record, manifest),
    )
    template_digest = desk.workspace.commit(template)
    if template.open_gates:
        first = template.open_gates[0]
        return f"gate {first.name} is {first.status}: {first.detail}"
    claim = Rung.TRAINED
    check_claim(claim, evidence_for(desk, record.chosen))
    admission = admit(desk.header, template, template_digest, claim)
    admission_digest = desk.workspace.commit(admission)
    shadow = desk.channels()["shadow"]
    if shadow.artifact != record.chosen:
        desk.workspace.commit(to_shadow(desk.header, admission, admission_digest, shadow))
    sync_aliases(desk)
    return ""


def rollback(desk: Desk, channel: str, reason: str) -> RollbackRecord:
    """Undo the last move of a channel; needs no person's key.

    Raises:
        OutOfOrder: if there is nothing to undo, or what stood there before is gone.
        UsageError: if there is no such channel.
    """
    channels = desk.channels()
    if channel not in channels:
        raise UsageError(f"no channel {channel!r}", advice=f"Channels: {', '.join(sorted(channels))}.")
    record = roll_back(desk.header, channel, channels[channel], reason)
    if record.artifact is not None:
        desk.workspace.blob(record.artifact)
    desk.workspace.commit(record)
    sync_aliases(desk)
    return record


def evidence_for(desk: Desk, artifact: str) -> dict[Rung, bool]:
    """Which rungs of the gate ladder an artifact has evidence for.

    Structure: the lab parsed it. Smoke: a passed RuntimeSmoke. Converted-trained: every source it descends from has a
    trained-source manifest. Assistant quality needs an evaluation sidecar without a single failure and a safety
    review, which this version cannot make.
    """
    smoked = any(s.artifact == artifact and s.passed for _, s in desk.workspace.all(RuntimeSmoke))
    return {
        Rung.STRUCTURAL: desk.workspace.has_blob(artifact),
        Rung.SMOKE: smoked,
        Rung.TRAINED: all(desk.trained(source) for source in desk.founders_of(artifact)),
        Rung.ASSISTANT: False,
    }


def alias_content(channel: str, state: ChannelState) -> dict[str, str | None]:
    """What a channel's alias says."""
    return {"artifact": state.artifact, "channel": channel, "record": state.record}


def sync_aliases(desk: Desk) -> None:
    """Write every alias that does not say what the ledger says."""
    for channel, state in desk.channels().items():
        if state.record is not None:
            desk.workspace.write_alias(channel, alias_content(channel, state))


def finish_aliases(desk: Desk) -> None:
    """Roll an alias forward that a crash left at the state before the last move; any other content is left to verify."""
    for channel, state in desk.channels().items():
        history = desk.history(channel)
        path = desk.workspace.alias_path(channel)
        before = desk.workspace.alias_bytes(alias_content(channel, history[-2])) if len(history) > 1 else None
        found = path.read_bytes() if path.is_file() else None
        if state.record is not None and found == before:
            desk.workspace.write_alias(channel, alias_content(channel, state))


def _shadow_gates(
    desk: Desk, decision: str, record: ViabilityDecision, manifest: CandidateManifest
) -> tuple[Gate, ...]:
    artifact = manifest.artifact.sha256
    gates = [gate("decision", True, decision, "decisions", "chosen over champion, parents and doing nothing")]
    kept = all(c.passed for c in manifest.checks)
    gates.append(gate("lineage", kept, manifest.template, "candidate", "came out as declared"))
    try:
        breeding.reproduce(desk, artifact)
        gates.append(gate("recompute", True, manifest.receipt, "candidate", "its receipt gives the same bytes"))
    except StudbookError as error:
        gates.append(gate("recompute", False, manifest.receipt, "candidate", str(error)))
    smoke = next(((d, s) for d, s in desk.workspace.all(RuntimeSmoke) if s.artifact == artifact and s.passed), None)
    gates.append(gate("runtime-smoke", smoke is not None, smoke[0] if smoke else None, "evaluation", "loads and runs"))
    if all(g.status == "passed" for g in gates):
        gates.append(_confirmation_gate(desk, decision, record))
    else:
        gates.append(gate("confirmation", None, None, "decisions", "waits for the gates before it"))
    champion = desk.channels()["champion"]
    gates.append(gate("way-back", champion.record is not None, champion.record, "release", "a champion to go back to"))
    return tuple(gates)


def _confirmation_gate(desk: Desk, decision: str, record: ViabilityDecision) -> Gate:
    """One look at the sealed suites, logged as opening k of K; a look that was taken is never taken again."""
    _, policy = desk.policy
    looks = list(desk.workspace.all(ConfirmationRecord))
    found = next(((d, c) for d, c in looks if c.decision == decision), None)
    if found is None:
        if len(looks) >= policy.gates.sealed_openings:
            detail = (
                f"the sealed suites were opened {len(looks)} times; the policy allows {policy.gates.sealed_openings}"
            )
            return gate("confirmation", False, None, "policy", detail)
        assert record.chosen is not None
        cards = judging.evaluate(desk, [record.champion, record.chosen], "sealed")
        made = confirm(
            header=desk.header,
            policy=policy,
            decision=record,
            cluster=desk.workspace.get(record.cluster, FailureCluster),
            opening=len(looks) + 1,
            champion_card=cards[record.champion].card,
            candidate_card=cards[record.chosen].card,
        )
        found = desk.workspace.commit(made), made
    confirmation = found[1]
    failed = [c for c in confirmation.comparisons if not c.passed]
    outcome = "confirmed" if confirmation.passed else "not confirmed on " + ", ".join(c.on for c in failed)
    detail = f"opening {confirmation.opening} of {confirmation.of} of the sealed suites: {outcome}"
    return gate("confirmation", confirmation.passed, found[0], "decisions", detail)


def confirmation_of(desk: Desk, decision: str) -> ConfirmationRecord | None:
    """The look at the sealed suites a decision's winner had, if it got that far."""
    return next((c for _, c in desk.workspace.all(ConfirmationRecord) if c.decision == decision), None)


def _install_first(desk: Desk, artifact: str, person: str, reason: str) -> ChampionPromotion:
    approval = next((d for d, a in desk.workspace.all(ParentApproval) if a.artifact == artifact), None)
    if approval is None:
        raise OutOfOrder(
            f"{desk.name_of(artifact)} is not approved",
            advice=f"Approve it first: studbook approve {desk.name_of(artifact)} --as {person}",
            reason="order.approval",
        )
    judging.smoke_all(desk, [artifact])
    state = desk.channels()["champion"]
    record = first_champion(desk.header, artifact, approval, person, reason, state)
    desk.workspace.commit(record, owner=person)
    sync_aliases(desk)
    return record


def _promote(desk: Desk, artifact: str, person: str, reason: str) -> ChampionPromotion:
    channels = desk.channels()
    decision, record = _decision_for(desk, artifact)
    standing = next(s for s in record.standings if s.artifact == artifact)
    manifest = desk.workspace.get(standing.manifest, CandidateManifest)
    template = champion_template(desk.header, manifest, standing.manifest, decision, channels, person)
    promotion = promote(desk.header, template, digest(template), person, reason, channels["champion"])
    # Refused without the person's key before anything is written.
    desk.workspace.keys.find(desk.workspace.root, promotion.zone, promotion.kind(), person)
    desk.workspace.commit(template)
    desk.workspace.commit(promotion, owner=person)
    sync_aliases(desk)
    return promotion


def _decision_for(desk: Desk, artifact: str) -> tuple[str, ViabilityDecision]:
    found = [(d, r) for d, r in desk.workspace.all(ViabilityDecision) if r.chosen == artifact]
    if not found:
        raise OutOfOrder(
            f"no decision chose {desk.name_of(artifact)}",
            advice="Only the winner of a round is released; `studbook show` says why it was not chosen.",
            reason="order.decision",
        )
    return found[-1]


def _last_move(desk: Desk, channel: str) -> str:
    record = desk.channels()[channel].record
    assert record is not None
    return record
