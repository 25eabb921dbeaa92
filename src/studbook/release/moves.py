"""Admission and every way a channel moves: records out, or a refusal that says what is missing."""

from __future__ import annotations

from typing import Literal

from studbook.errors import OutOfOrder
from studbook.records import (
    AdmissionRecord,
    ChampionPromotion,
    Deployment,
    Header,
    PromotionTemplate,
    ReleaseRecord,
    RollbackRecord,
    RollbackSet,
    Rung,
    digest,
)
from studbook.release.channels import ChannelState

__all__ = ["admit", "enter", "first_champion", "promote", "roll_back"]

# What an open gate before champion is about, where that is not the candidate, and what opens it.
_SPEAKS = {"approvals": "", "way-back": "", "readiness": "", "plan": ""}
_NEXT = {
    "approvals": "Have other owners approve it: studbook approve CANDIDATE --for STAGE --as NAME",
    "readiness": "Run the exit criteria: studbook ready",
    "plan": "Register one: studbook plan canary",
    "trial": "Serve requests until it is ready: studbook trials",
    "decided-against": "Run the round again: studbook round CLUSTER",
    "hold": "Wait until then; only the policy's owners can ask for less.",
}


def admit(header: Header, template: PromotionTemplate, template_digest: str, claim: Rung) -> AdmissionRecord:
    """Admit a candidate whose every gate passed.

    Raises:
        OutOfOrder: naming the first gate that is pending or failed.
    """
    if template.open_gates:
        first = template.open_gates[0]
        raise OutOfOrder(
            f"gate {first.name} is {first.status}: {_SPEAKS.get(first.name, 'the candidate ')}{first.detail}",
            where=f"{template.artifact[:12]} to {template.stage}",
            advice=_NEXT.get(first.name, f"It can be settled by: {first.satisfied_by}."),
            reason="order.gate",
        )
    return AdmissionRecord(header=header, artifact=template.artifact, template=template_digest, claim=claim)


def enter(
    header: Header,
    channel: Literal["shadow", "canary"],
    admission: AdmissionRecord,
    admission_digest: str,
    deployment: Deployment,
    state: ChannelState,
) -> ReleaseRecord:
    """Point shadow or canary at an admitted candidate; ``state`` is the channel before."""
    return ReleaseRecord(
        header=header,
        channel=channel,
        artifact=admission.artifact,
        admission=admission_digest,
        deployment=deployment,
        rollback=state.back,
    )


def promote(
    header: Header,
    template: PromotionTemplate,
    person: str,
    reason: str,
    deployment: Deployment,
    champion: ChannelState,
) -> ChampionPromotion:
    """Make what stands in the stage before the champion.

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
        evidence=digest(template),
        promoted_by=person,
        reason=reason,
        deployment=deployment,
        rollback=champion.back,
    )


def first_champion(
    header: Header,
    artifact: str,
    approval: str,
    person: str,
    reason: str,
    deployment: Deployment,
    champion: ChannelState,
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
        deployment=deployment,
        rollback=champion.back,
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
        deployment=target.deployment,
        undone=state.record,
        restored=target.record,
        reason=reason,
    )
