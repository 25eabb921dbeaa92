"""What has to hold before a candidate enters a channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

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
    Rung,
    ViabilityDecision,
)
from studbook.release.channels import ChannelState

__all__ = [
    "champion_template",
    "check_admitted",
    "check_carried",
    "check_claim",
    "check_promoted",
    "decided_against",
    "gate",
    "stage_before",
    "standing_gate",
]


def stage_before(policy: Policy, stage: Literal["canary", "champion"]) -> Literal["shadow", "canary"]:
    """The stage that a candidate has to stand in before another, by the policy's way to champion.

    Raises:
        OutsideAllowlist: if the policy's way to champion does not include the stage.
    """
    stage_rule(policy, stage)
    return "canary" if stage == "champion" and any(r.stage == "canary" for r in policy.stages) else "shadow"


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
    """Refuse an admission, to shadow or as a specialist's package, that its template and decision do not carry.

    Raises:
        OutOfOrder: naming what does not hold.
    """
    if template.stage == "champion":
        raise OutOfOrder(
            "its template is for champion, and an admission is for the stages before", reason="order.template"
        )
    check_carried(admission.artifact, template.stage, template, decision)


def check_promoted(
    promotion: ChampionPromotion,
    template: PromotionTemplate,
    decision: ViabilityDecision,
    stage: str,
    before: ChannelState,
) -> None:
    """Refuse a promotion that its template, decision and the channel before champion do not carry.

    Args:
        promotion: The promotion.
        template: The template it cites.
        decision: The decision that template cites.
        stage: The stage before champion.
        before: What its channel pointed at, and what worked together with it.

    Raises:
        OutOfOrder: naming what does not hold.
    """
    check_carried(promotion.artifact, "champion", template, decision)
    if before.artifact != promotion.artifact:
        raise OutOfOrder(f"was not in {stage} when it was promoted", reason=f"order.{stage}")
    if before.deployment != promotion.deployment:
        raise OutOfOrder(f"is deployed with something else than in {stage}", reason="order.deployment")


def check_carried(artifact: str, stage: str, template: PromotionTemplate, decision: ViabilityDecision) -> None:
    """Refuse a move to a stage that its template and decision do not carry.

    Args:
        artifact: Digest of what moves.
        stage: The channel it moves to, or ``package``.
        template: The template that the move rests on.
        decision: The decision that the template cites.

    Raises:
        OutOfOrder: naming what does not hold.
    """
    if template.stage != stage or template.artifact != artifact:
        raise OutOfOrder(f"its template is not for this candidate and {stage}", reason="order.template")
    if template.open_gates:
        raise OutOfOrder(f"gate {template.open_gates[0].name} of its template is not passed", reason="order.gate")
    if decision.chosen != artifact:
        raise OutOfOrder("the decision it rests on chose another candidate", reason="order.decision")
    if (decision.action == "package") != (stage == "package"):
        raise OutOfOrder(
            f"its decision is to {decision.action}, and it moves to {stage}",
            where="viability-decision: action",
            advice="A specialist is packaged and enters no channel; hold a round without --specialist for one that may.",
            reason="order.specialist",
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


def standing_gate(stage: str, artifact: str, state: ChannelState) -> Gate:
    """Whether a candidate is what the stage before points at."""
    here = state.artifact == artifact
    found = f"is what {stage} points at" if here else f"is not in {stage}"
    return gate(stage, here, state.record if here else None, "release", found)


def champion_template(
    header: Header,
    manifest: CandidateManifest,
    manifest_digest: str,
    decision: str,
    state: Mapping[str, ChannelState],
    stage: str,
    person: str,
    current: tuple[bool, str],
    asked: Iterable[Gate],
) -> PromotionTemplate:
    """The gates between the stage before and champion; the person's own signature is the last of them.

    Args:
        header: Record header.
        manifest: The candidate's manifest.
        manifest_digest: Its digest.
        decision: Digest of the decision that sent it to shadow.
        state: The channels.
        stage: The stage before champion.
        person: Who signs the promotion.
        current: Whether the decision was taken against what is in force, as `decided_against` says.
        asked: The gates that the policy asks for beside these: time in that stage, what its trial found, and approvals.
    """
    champion = state["champion"]
    gates = (
        standing_gate(stage, manifest.artifact.sha256, state[stage]),
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
