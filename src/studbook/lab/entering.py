"""What people sign, held against the lab it enters: at once, after it waited for signatures, and when `verify` replays.

A template says which gates stood open. It is derived again twice: as the lab was when it entered, where it has to be equal,
and as the lab is when the move that cites it enters, where every gate has to be passed still.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder
from studbook.lab.absence import check_tombstone
from studbook.lab.approvals import require_unrevoked
from studbook.lab.desk import Desk
from studbook.lab.gates import champion_template_for, recorded_shadow_template
from studbook.lab.policies import check_next
from studbook.lab.stages import check_approval
from studbook.records import (
    ChampionPromotion,
    ParentApproval,
    Policy,
    PromotionTemplate,
    Record,
    RollbackSet,
    StageApproval,
    Tombstone,
    ViabilityDecision,
    digest,
)
from studbook.release import check_promoted
from studbook.seal import Signer

__all__ = ["check_entering", "check_shadow"]


def check_entering(desk: Desk, record: Record, signers: Sequence[Signer], time: datetime) -> None:
    """Refuse what people signed if the lab it enters does not carry it; other kinds of record pass.

    Args:
        desk: The lab as it is before the record.
        record: The record.
        signers: Who signed it.
        time: When it enters, in UTC.

    Raises:
        StudbookError: any of its kinds, naming the gate or field.
    """
    if isinstance(record, Policy):
        check_next(desk, record, "policy")
    elif isinstance(record, StageApproval):
        check_approval(desk, record)
    elif isinstance(record, Tombstone):
        check_tombstone(desk, record)
    elif isinstance(record, ChampionPromotion):
        require_unrevoked(desk, record.artifact)
        if record.basis == "first":
            _check_first(desk, record)
        else:
            _check_promotion(desk, record, signers, time)


def check_shadow(desk: Desk, template_digest: str) -> None:
    """Refuse a move to shadow whose template does not say what was so, or whose gates do not hold any longer.

    Args:
        desk: The lab as it is before the move.
        template_digest: The template it rests on.

    Raises:
        DigestDiffers: if the template says something else than the lab did then.
        OutOfOrder: naming the gate that is not passed, or if the candidate was revoked.
    """
    template = desk.workspace.get(template_digest, PromotionTemplate)
    require_unrevoked(desk, template.artifact)
    _same(recorded_shadow_template(_then(desk, template_digest)[0], template), template)
    _all_passed(recorded_shadow_template(desk, template))


def _check_first(desk: Desk, record: ChampionPromotion) -> None:
    approval = desk.workspace.get(record.evidence, ParentApproval)
    if record.evidence in desk.taken_back():
        raise OutOfOrder(
            "rests on an approval that was revoked",
            where="champion-promotion: evidence",
            advice="Approve the model anew, and install it then.",
            reason="order.approval",
        )
    if approval.artifact != record.artifact or desk.channels()["champion"].record is not None:
        raise OutOfOrder("is no first champion, or the approval it cites is another model's", reason="order.champion")


def _check_promotion(desk: Desk, record: ChampionPromotion, signers: Sequence[Signer], time: datetime) -> None:
    template = desk.workspace.get(record.evidence, PromotionTemplate)
    decision = desk.workspace.get(template.decision, ViabilityDecision)
    channels = desk.channels()
    check_promoted(record, template, decision, channels["shadow"])
    champion = channels["champion"]
    if record.rollback != RollbackSet(artifact=champion.artifact, record=champion.record):
        raise OutOfOrder(
            "does not start from the champion there is",
            where="champion-promotion: rollback",
            advice="Another promotion or a rollback came first. Look again, and promote anew.",
            reason="order.channel",
        )
    promoter = next((s for s in signers if s.owner == record.promoted_by), None)
    if promoter is None:
        text = f"names {record.promoted_by}, who did not sign it"
        raise NotAuthorised(text, where="champion-promotion: promoted_by", reason="authority.person")
    then, entered = _then(desk, record.evidence)
    _same(champion_template_for(then, template.header, template.artifact, promoter, entered), template)
    _all_passed(champion_template_for(desk, template.header, template.artifact, promoter, time))


def _then(desk: Desk, record: str) -> tuple[Desk, datetime]:
    """The lab as it was before a record entered, and when that was."""
    entry = desk.workspace.entry(record)
    assert entry is not None
    return desk.at(entry.sequence), datetime.fromisoformat(entry.time)


def _same(again: PromotionTemplate, template: PromotionTemplate) -> None:
    if digest(again) != digest(template):
        pairs = {g.name: g for g in template.gates}
        wrong = next((g.name for g in again.gates if pairs.get(g.name) != g), "gates")
        raise DigestDiffers(
            "the template says something else than the lab did when it entered",
            where=f"promotion-template: {wrong}",
            advice="Do not use what it released; roll the channel back.",
            reason="release.template",
        )


def _all_passed(template: PromotionTemplate) -> None:
    for gate in template.open_gates:
        raise OutOfOrder(
            f"gate {gate.name} is {gate.status}: {gate.detail}",
            where=f"promotion-template: {gate.name}",
            advice="Look at it again, and release or promote it anew.",
            reason="order.gate",
        )
