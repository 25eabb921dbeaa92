"""Gates, admission and channels as a pure state machine: records in, records or refusals out, no I/O.

The rules:

1. A candidate enters a channel only with every gate of its template passed.
2. Shadow needs an admission; champion needs to have been in shadow and a person's signature.
3. The first champion is an approved source: there has to be something to beat.
4. Every move names its way back. A rollback goes there or further along it, and never forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple, get_args

from studbook.errors import ClaimRefused, OutOfOrder
from studbook.policy import stage_rule
from studbook.records import (
    AdmissionRecord,
    CandidateManifest,
    ChampionPromotion,
    Gate,
    Header,
    Policy,
    PromotionTemplate,
    Record,
    ReleaseRecord,
    RollbackRecord,
    RollbackSet,
    Rung,
    ViabilityDecision,
)
from studbook.records.release import Channel

__all__ = [
    "ChannelState",
    "admit",
    "champion_template",
    "channel_state",
    "check_admitted",
    "check_claim",
    "check_promoted",
    "check_stage",
    "decided_against",
    "first_champion",
    "gate",
    "promote",
    "roll_back",
    "to_shadow",
    "ways_back",
]

Moves = Iterable[tuple[str, Record | None]]
CANARY_REFUSAL = "the canary stage is not built in this version, and it is never simulated"

# What an open gate before champion is about, where that is not the candidate, and what opens it.
_SPEAKS = {"approvals": "", "way-back": ""}
_NEXT = {
    "approvals": "Have other owners approve it: studbook approve CANDIDATE --for champion --as NAME",
    "decided-against": "Run the round again: studbook round CLUSTER",
    "hold": "Wait until then; only the policy's owners can ask for less.",
}


class ChannelState(NamedTuple):
    """What a channel points at.

    Attributes:
        artifact: Digest, or None when it is empty.
        record: Digest of the last move of this channel, or None.
        way_back: What a rollback would restore, or None when nothing was ever released.
    """

    artifact: str | None
    record: str | None
    way_back: RollbackSet | None


def channel_state(moves: Moves) -> dict[str, ChannelState]:
    """Replay every move of the ledger.

    Args:
        moves: Digest and record of every ReleaseRecord, ChampionPromotion and RollbackRecord, oldest first. None for a
            void one: it moved nothing, and what follows it starts from the state before it.

    Returns:
        The state of ``shadow``, ``canary`` and ``champion``.

    Raises:
        OutOfOrder: if a move does not start from the state the moves before it left (``order.channel``), or a rollback
            restores what is not on its channel's way back (``order.rollback``).
    """
    return _replayed(moves)[0]


def ways_back(moves: Moves, channel: str) -> tuple[RollbackSet, ...]:
    """Every state of a channel that a rollback may restore, newest first.

    They are the states the channel really had and that no rollback undid: each names the one before it. So every
    rollback shortens the way back, and none goes forward again; that takes a release or a promotion.

    Args:
        moves: As `channel_state` takes them.
        channel: The channel.

    Raises:
        OutOfOrder: as `channel_state`.
    """
    state, history = _replayed(moves)
    return _ways(channel, state[channel], history)


def _replayed(moves: Moves) -> tuple[dict[str, ChannelState], dict[str, ChannelState]]:
    """The channels now, and the state that every move left its channel in."""
    state: dict[str, ChannelState] = dict.fromkeys(get_args(Channel), ChannelState(None, None, None))
    history: dict[str, ChannelState] = {}
    void: set[str] = set()
    for digest, move in moves:
        if isinstance(move, ReleaseRecord | ChampionPromotion):
            channel: Channel = move.channel if isinstance(move, ReleaseRecord) else "champion"
            back = _must_follow(state[channel], move.rollback.record, digest, void)
            if move.rollback != back and move.rollback.record not in void:
                raise OutOfOrder(
                    f"move {digest[:16]}... names a way back that was never there", reason="order.rollback"
                )
            history[digest] = state[channel] = ChannelState(move.artifact, digest, back)
        elif isinstance(move, RollbackRecord):
            _must_follow(state[move.channel], move.undone, digest, void)
            target = RollbackSet(artifact=move.artifact, record=move.restored)
            if target not in _ways(move.channel, state[move.channel], history):
                where = f"rollback-record {digest[:16]}: restored"
                raise OutOfOrder("restores what was never there, or was undone", where=where, reason="order.rollback")
            before = history[move.restored].way_back if move.restored else None
            history[digest] = state[move.channel] = ChannelState(move.artifact, digest, before)
        elif move is None:
            void.add(digest)
    return state, history


def _ways(channel: str, state: ChannelState, history: Mapping[str, ChannelState]) -> tuple[RollbackSet, ...]:
    """What the way back of a state leads through; a champion is never taken away without another in its place."""
    found, back = [], state.way_back
    while back is not None:
        if back.artifact is not None or channel != "champion":
            found.append(back)
        back = history[back.record].way_back if back.record else None
    return tuple(found)


def check_stage(policy: Policy, stage: str) -> None:
    """Refuse a stage that does not exist yet or that the policy does not list.

    Raises:
        OutOfOrder: for canary, which is not built.
        OutsideAllowlist: if the policy's way to champion does not include it.
    """
    if stage == "canary":
        raise OutOfOrder(
            CANARY_REFUSAL, advice="Release to shadow; promote with a person's key.", reason="order.canary"
        )
    stage_rule(policy, stage)


def gate(name: str, passed: bool | None, evidence: str | None, satisfied_by: str, detail: str) -> Gate:
    """One gate; ``passed`` None means pending."""
    status = {True: "passed", False: "failed", None: "pending"}[passed]
    return Gate(name=name, status=status, evidence=evidence, satisfied_by=satisfied_by, detail=detail)  # type: ignore[arg-type]


def check_claim(claim: Rung, evidence: Mapping[Rung, bool]) -> None:
    """Refuse a claim above the highest rung whose evidence, and that of every rung below, exists.

    Args:
        claim: The rung claimed.
        evidence: Rung -> whether its evidence exists.

    Raises:
        ClaimRefused: naming the first rung without evidence.
    """
    for rung in Rung:
        if rung.height > claim.height:
            return
        if not evidence.get(rung, False):
            raise ClaimRefused(f"claims {claim.value}, but there is no evidence for {rung.value}")


def check_admitted(admission: AdmissionRecord, template: PromotionTemplate, decision: ViabilityDecision) -> None:
    """Refuse an admission that its template and decision do not carry.

    Raises:
        OutOfOrder: naming what does not hold.
    """
    _check_carried(admission.artifact, "shadow", template, decision)


def check_promoted(
    promotion: ChampionPromotion, template: PromotionTemplate, decision: ViabilityDecision, shadow: ChannelState
) -> None:
    """Refuse a promotion that its template, decision and the shadow channel do not carry.

    Args:
        promotion: The promotion.
        template: The template it cites.
        decision: The decision that template cites.
        shadow: What shadow pointed at before.

    Raises:
        OutOfOrder: naming what does not hold.
    """
    _check_carried(promotion.artifact, "champion", template, decision)
    if shadow.artifact != promotion.artifact:
        raise OutOfOrder("was not in shadow when it was promoted", reason="order.shadow")


def _check_carried(artifact: str, stage: str, template: PromotionTemplate, decision: ViabilityDecision) -> None:
    if template.stage != stage or template.artifact != artifact:
        raise OutOfOrder(f"its template is not for this candidate and {stage}", reason="order.template")
    if template.open_gates:
        raise OutOfOrder(f"gate {template.open_gates[0].name} of its template is not passed", reason="order.gate")
    if decision.chosen != artifact:
        raise OutOfOrder("the decision it rests on chose another candidate", reason="order.decision")


def admit(header: Header, template: PromotionTemplate, template_digest: str, claim: Rung) -> AdmissionRecord:
    """Admit a candidate whose every gate passed.

    Raises:
        OutOfOrder: naming the first gate that is pending or failed.
    """
    if template.open_gates:
        first = template.open_gates[0]
        raise OutOfOrder(
            f"gate {first.name} is {first.status}: {first.detail}",
            advice=f"It can be settled by: {first.satisfied_by}.",
            reason="order.gate",
        )
    return AdmissionRecord(header=header, artifact=template.artifact, template=template_digest, claim=claim)


def to_shadow(header: Header, admission: AdmissionRecord, admission_digest: str, shadow: ChannelState) -> ReleaseRecord:
    """Point shadow at an admitted candidate."""
    back = RollbackSet(artifact=shadow.artifact, record=shadow.record)
    return ReleaseRecord(
        header=header, channel="shadow", artifact=admission.artifact, admission=admission_digest, rollback=back
    )


def decided_against(decision: ViabilityDecision, champion: str | None, policy: str, suites: str) -> tuple[bool, str]:
    """Whether a decision was taken against what is in force now; a stale one promotes nothing.

    Args:
        decision: The decision.
        champion: Digest of the champion now.
        policy: Digest of the policy now.
        suites: Digest of the suites lock now.

    Returns:
        Whether it holds, and the first difference in words.
    """
    for what, then, now in (
        ("champion", decision.champion, champion),
        ("policy", decision.policy, policy),
        ("suites", decision.suites, suites),
    ):
        if then != now:
            return False, f"was decided against another {what} than the one in force; run the round again"
    return True, "was decided against the champion, policy and suites in force"


def champion_template(
    header: Header,
    manifest: CandidateManifest,
    manifest_digest: str,
    decision: str,
    state: Mapping[str, ChannelState],
    person: str,
    current: tuple[bool, str],
    asked: Iterable[Gate],
) -> PromotionTemplate:
    """The gates between shadow and champion; the person's own signature is the last of them.

    Args:
        header: Record header.
        manifest: The candidate's manifest.
        manifest_digest: Its digest.
        decision: Digest of the decision that sent it to shadow.
        state: The channels.
        person: Who signs the promotion.
        current: Whether the decision was taken against what is in force, as `decided_against` says.
        asked: The gates that the policy asks for beside these: time in shadow, and approvals.
    """
    shadow, champion = state["shadow"], state["champion"]
    here = shadow.artifact == manifest.artifact.sha256
    found = "is what shadow points at" if here else "is not in shadow"
    gates = (
        gate("shadow", here, shadow.record if here else None, "release", found),
        gate(
            "way-back",
            champion.record is not None,
            champion.record,
            "release",
            "a champion stands to go back to" if champion.record else "there is no champion to go back to",
        ),
        gate("decided-against", current[0], decision, "decisions", current[1]),
        *asked,
        gate("person", True, None, "person", f"is signed for by {person}"),
    )
    return PromotionTemplate(
        header=header,
        stage="champion",
        artifact=manifest.artifact.sha256,
        manifest=manifest_digest,
        decision=decision,
        gates=gates,
    )


def promote(
    header: Header, template: PromotionTemplate, evidence: str, person: str, reason: str, champion: ChannelState
) -> ChampionPromotion:
    """Make what stands in shadow the champion.

    Raises:
        OutOfOrder: if a gate is not passed.
    """
    if template.open_gates:
        first = template.open_gates[0]
        raise OutOfOrder(
            f"gate {first.name} is {first.status}: {_SPEAKS.get(first.name, 'the candidate ')}{first.detail}",
            where=f"{template.artifact[:12]} to {template.stage}",
            advice=_NEXT.get(first.name, "A candidate goes to shadow first: studbook round CLUSTER."),
            reason="order.gate",
        )
    return ChampionPromotion(
        header=header,
        basis="promotion",
        artifact=template.artifact,
        evidence=evidence,
        promoted_by=person,
        reason=reason,
        rollback=RollbackSet(artifact=champion.artifact, record=champion.record),
    )


def first_champion(
    header: Header, artifact: str, approval: str, person: str, reason: str, champion: ChannelState
) -> ChampionPromotion:
    """Install the deployed model where no champion ever was.

    Raises:
        OutOfOrder: if the channel was ever used.
    """
    if champion.record is not None or champion.artifact is not None:
        raise OutOfOrder(
            "there is a champion already; only a candidate that passed shadow may replace it",
            advice="Offer the model as an approved parent, or roll back.",
            reason="order.champion",
        )
    return ChampionPromotion(
        header=header,
        basis="first",
        artifact=artifact,
        evidence=approval,
        promoted_by=person,
        reason=reason,
        rollback=RollbackSet(artifact=None, record=champion.record),
    )


def roll_back(
    header: Header, channel: str, state: ChannelState, reason: str, to: RollbackSet | None = None
) -> RollbackRecord:
    """Put a channel back to what it pointed at before its last move, or further back; needs no person's key.

    Args:
        header: Record header.
        channel: The channel.
        state: Its state now.
        reason: Why.
        to: One of `ways_back`; the state before the last move by default.

    Raises:
        OutOfOrder: if there is nothing to undo, or undoing would leave no champion.
    """
    if state.record is None or state.way_back is None:
        raise OutOfOrder(f"{channel} was never moved, so there is nothing to undo", reason="order.rollback")
    target = to or state.way_back
    if channel == "champion" and target.artifact is None:
        raise OutOfOrder("this is the first champion; there is nothing before it", reason="order.rollback")
    return RollbackRecord(
        header=header,
        channel=channel,  # type: ignore[arg-type]
        artifact=target.artifact,
        undone=state.record,
        restored=target.record,
        reason=reason,
    )


def _must_follow(state: ChannelState, named: str | None, digest: str, void: Set[str]) -> RollbackSet:
    """The state a move really starts from; it has to name it, or a move after it that counts no longer."""
    if state.record != named and named not in void:
        raise OutOfOrder(f"move {digest[:16]}... does not start from the state before it", reason="order.channel")
    return RollbackSet(artifact=state.artifact, record=state.record)
