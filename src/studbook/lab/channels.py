"""Moving channels: to shadow and canary, to champion by a person's key; aliases follow the ledger. `rollbacks` goes back."""

from __future__ import annotations

from functools import partial

from studbook.errors import OutOfOrder, UsageError
from studbook.lab import clock, judging
from studbook.lab.approvals import require_unrevoked
from studbook.lab.canary_plans import canary_template
from studbook.lab.deployments import deployment_of
from studbook.lab.desk import Desk
from studbook.lab.entering import check_entering, check_first
from studbook.lab.gates import CLAIM, champion_template_for, entry_template
from studbook.lab.pending import Signed, accept, approve_pending, sign
from studbook.lab.situations import require_released_hold
from studbook.lab.stages import decision_for
from studbook.lab.storage import finish_withdrawals
from studbook.lab.trials import open_stop, require_going
from studbook.lab.words import plain_text
from studbook.policy import stage_rule
from studbook.records import (
    AdmissionRecord,
    ChampionPromotion,
    Deployment,
    PromotionTemplate,
    Record,
    ReleaseRecord,
    Resumption,
    Revocation,
    Tombstone,
    ViabilityDecision,
    digest,
)
from studbook.release import (
    ChannelState,
    admit,
    enter,
    first_champion,
    promote,
    stage_before,
)
from studbook.seal import Signer
from studbook.workspace import Accession

__all__ = [
    "accept_signed",
    "admit_specialist",
    "alias_content",
    "approve_waiting",
    "finish_aliases",
    "promotion",
    "propose",
    "release",
    "release_to_shadow",
    "require_promoter",
    "sync_aliases",
]


def release(
    desk: Desk,
    name: str,
    stage: str,
    person: str | None = None,
    reason: str = "",
    router: str | None = None,
    thresholds: str | None = None,
) -> Record | Signed:
    """Move a candidate to a stage, or install the first champion.

    A promotion that takes more people than one waits for them; then nothing has moved, and what waits is returned.

    Args:
        desk: The lab.
        name: The candidate, or an approved source where there was no champion yet.
        stage: ``shadow``, ``canary`` or ``champion``.
        person: Who promotes; required for champion.
        reason: Why, for the record.
        router: Digest of the router's state it is deployed with, where it enters its first channel.
        thresholds: The same of the thresholds.

    Raises:
        OutOfOrder: if a gate is not passed, or everything is stopped.
        OutsideAllowlist: if the policy does not list the stage.
        NotAuthorised: if the promotion key is not at hand.
    """
    stage_rule(desk.policy[1], stage)
    require_going(desk)
    plain_text(reason, "--reason")
    artifact = desk.find_model(name)
    require_unrevoked(desk, artifact)
    beside = partial(deployment_of, desk, artifact, router, thresholds)
    if stage == "shadow":
        decision, record = decision_for(desk, artifact)
        if held := release_to_shadow(desk, decision, record, beside(), again=True):
            advice = f"See every gate: studbook show {artifact[:12]}. People approve: studbook approve {artifact[:12]} "
            advice += "--for shadow --as NAME"
            raise OutOfOrder(held, where=f"{desk.name_of(artifact)} to shadow", advice=advice, reason="order.gate")
        return desk.workspace.get(_last_move(desk, "shadow"), ReleaseRecord)
    if stage == "canary":
        return _to_canary(desk, artifact)
    if person is None:
        raise UsageError("promotion to champion is an act of a person: name who does it", where="--as")
    if not any(c.artifact.sha256 == artifact for _, c in desk.candidates()):
        return _install_first(desk, artifact, person, reason, beside())
    return _promote(desk, artifact, person, reason)


def release_to_shadow(
    desk: Desk, decision: str, record: ViabilityDecision, deployment: Deployment | None = None, *, again: bool = False
) -> str:
    """Check every gate of the winner, admit it and point shadow at it.

    Args:
        desk: The lab.
        decision: Digest of the decision.
        record: The decision.
        deployment: What it is deployed with; the newest package of it by default.
        again: Put a winner back that was in shadow before; only a person asks for that.

    Returns:
        Why it was held back, or an empty string when shadow points at it now.
    """
    assert record.chosen is not None
    stage_rule(desk.policy[1], "shadow")
    if open_stop(desk):
        return "everything is stopped"
    if reason := desk.revoked(record.chosen):
        return f"it {reason}"
    shadow = desk.channels()["shadow"]
    if shadow.artifact == record.chosen:
        return ""
    if not again and any(r.artifact == record.chosen for _, r in desk.all(ReleaseRecord)):
        return f"it was in shadow and left it; `studbook release {record.chosen[:12]} --to shadow` puts it back"
    admission = _admit(desk, decision, record)
    if isinstance(admission, str):
        return admission
    deployment = deployment or deployment_of(desk, record.chosen)
    desk.workspace.commit(enter(desk.header, "shadow", admission, digest(admission), deployment, shadow))
    sync_aliases(desk)
    return ""


def admit_specialist(desk: Desk, decision: str, record: ViabilityDecision) -> str:
    """Check every gate of a specialist and admit it; it enters no channel, and `studbook package make` goes on.

    Returns:
        Why it was held back, or an empty string.
    """
    assert record.chosen is not None
    if reason := desk.revoked(record.chosen):
        return f"it {reason}"
    found = _admit(desk, decision, record)
    return found if isinstance(found, str) else ""


def _admit(desk: Desk, decision: str, record: ViabilityDecision) -> AdmissionRecord | str:
    """Commit the template of a winner, and its admission if every gate is passed; else why it is held back."""
    template = entry_template(desk, decision, record)
    template_digest = desk.workspace.commit(template)
    if template.open_gates:
        first = template.open_gates[0]
        return f"gate {first.name} is {first.status}: {first.detail}"
    admission = admit(desk.header, template, template_digest, CLAIM)
    desk.workspace.commit(admission)
    return admission


def alias_content(channel: str, state: ChannelState) -> dict[str, str | None]:
    """What a channel's alias says."""
    return {"artifact": state.artifact, "channel": channel, "record": state.record}


def sync_aliases(desk: Desk) -> None:
    """Write every alias that does not say what the ledger says; a channel that never moved has none."""
    for channel, state in desk.channels().items():
        _write_alias(desk, channel, state)


def finish_aliases(desk: Desk) -> None:
    """Write an alias again that a crash left at the state before the last move, or that names a move which moved nothing.

    Any other content is left to verify.
    """
    void = desk.void_moves()
    for channel, state in desk.channels().items():
        history = desk.history(channel)
        path = desk.workspace.alias_path(channel)
        before = desk.workspace.alias_bytes(alias_content(channel, history[-2])) if len(history) > 1 else None
        found = path.read_bytes() if path.is_file() else None
        undone = found is not None and any(f'"record":"{digest}"'.encode() in found for digest in void)
        if found == before or undone:
            _write_alias(desk, channel, state)


def approve_waiting(desk: Desk, name: str, person: str) -> Signed:
    """A person signs a record that waits; the last signature commits it, if the lab still carries it.

    With a tombstone the bytes go at once, with a revocation the aliases of moves that are void now.

    Raises:
        StudbookError: as `approve_pending`; and if a gate of a promotion does not hold any longer, or another policy came
            into force meanwhile. Then nothing is written.
    """
    found = approve_pending(desk, name, person, check_entering)
    if found.committed and isinstance(found.record, Revocation):
        finish_aliases(desk)
    elif found.committed and isinstance(found.record, Tombstone):
        finish_withdrawals(desk)
    return _moved(desk, found)


def accept_signed(desk: Desk, envelope: bytes) -> Signed:
    """Take in a promotion or resumption that a person signed elsewhere.

    Raises:
        StudbookError: as `studbook.lab.pending.accept`; and if a gate of a promotion does not hold. Then nothing is
            written.
    """
    return _moved(desk, accept(desk, envelope, (ChampionPromotion, Resumption), check_entering))


def _moved(desk: Desk, found: Signed) -> Signed:
    if found.committed and isinstance(found.record, ChampionPromotion):
        sync_aliases(desk)
    return found


def _write_alias(desk: Desk, channel: str, state: ChannelState) -> None:
    if state.record is None:
        desk.workspace.alias_path(channel).unlink(missing_ok=True)
    else:
        desk.workspace.write_alias(channel, alias_content(channel, state))


def _to_canary(desk: Desk, artifact: str) -> Record:
    """Check every gate, admit the candidate to the canary and point canary at it; its trial begins."""
    channels = desk.channels()
    if channels["canary"].artifact == artifact:
        raise OutOfOrder(f"{desk.name_of(artifact)} is in canary already", where="canary", reason="order.canary")
    template = canary_template(desk, desk.header, artifact, clock.now())
    admission = admit(desk.header, template, digest(template), CLAIM)
    move = enter(desk.header, "canary", admission, digest(admission), channels["shadow"].deployment, channels["canary"])
    desk.workspace.commit_all([Accession(record, {}, None, None) for record in (template, admission, move)])
    sync_aliases(desk)
    return move


def _install_first(desk: Desk, artifact: str, person: str, reason: str, deployment: Deployment) -> Record | Signed:
    approval = check_first(desk, artifact, clock.today())
    if artifact not in judging.smoke_all(desk, [artifact]):
        raise OutOfOrder(f"{desk.name_of(artifact)} did not pass its runtime smoke", reason="order.smoke")
    state = desk.channels()["champion"]
    record = first_champion(desk.header, artifact, approval, person, reason, deployment, state)
    check_entering(desk, record, [require_promoter(desk, person)], clock.now())
    return _signed(desk, record, person)


def _promote(desk: Desk, artifact: str, person: str, reason: str) -> Record | Signed:
    # Refused without the person's key before anything is written.
    template = propose(desk, artifact, require_promoter(desk, person))
    record = promotion(desk, template, person, reason)
    desk.workspace.commit(template)
    return _signed(desk, record, person)


def propose(desk: Desk, name: str, promoter: Signer) -> PromotionTemplate:
    """Every gate of a promotion to champion by a person; nothing is written.

    Args:
        desk: The lab.
        name: The candidate.
        promoter: The person, and the key they will sign with.

    Raises:
        OutOfOrder: if it does not stand before champion, or everything is stopped.
    """
    stage_rule(desk.policy[1], "champion")
    require_going(desk)
    artifact = desk.find_model(name)
    require_unrevoked(desk, artifact)
    if desk.channels()["champion"].artifact == artifact:
        raise OutOfOrder(f"{desk.name_of(artifact)} is the champion already", reason="order.champion")
    decision_for(desk, artifact)
    require_released_hold(desk, clock.now())
    return champion_template_for(desk, desk.header, artifact, promoter, clock.now())


def promotion(desk: Desk, template: PromotionTemplate, person: str, reason: str) -> ChampionPromotion:
    """What a person signs to promote what a template speaks of.

    Raises:
        OutOfOrder: naming the gate that is not passed.
    """
    channels, before = desk.channels(), stage_before(desk.policy[1], "champion")
    return promote(desk.header, template, person, reason, channels[before].deployment, channels["champion"])


def require_promoter(desk: Desk, person: str) -> Signer:
    """Who promotes to champion, with the key at hand.

    Raises:
        NotAuthorised: if the person has no such key here.
    """
    kind = ChampionPromotion.kind()
    key = desk.workspace.keys.find(desk.workspace.authority(kind), ChampionPromotion.zone, kind, person)
    return Signer(key.public, person)


def _signed(desk: Desk, promotion: ChampionPromotion, person: str) -> Record | Signed:
    """Sign a promotion; the channel moves if that is enough, else the promotion waits."""
    found = sign(desk, promotion, person)
    if not found.committed:
        return found
    sync_aliases(desk)
    return promotion


def _last_move(desk: Desk, channel: str) -> str:
    record = desk.channels()[channel].record
    assert record is not None
    return record
