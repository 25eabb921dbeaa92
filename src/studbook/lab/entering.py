"""What people sign, held against the lab it enters: at once, after it waited for signatures, and when `verify` replays.

A template says which gates stood open. It is derived again twice: as the lab was when it entered, where it has to be equal,
and as the lab is when the move that cites it enters, where every gate has to be passed still.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder
from studbook.lab.absence import check_tombstone
from studbook.lab.approvals import require_unrevoked
from studbook.lab.canary_plans import canary_template
from studbook.lab.deployments import check_deployment
from studbook.lab.desk import Desk
from studbook.lab.evaluators import check_change
from studbook.lab.gates import champion_template_for, recorded_template
from studbook.lab.halts import check_resumption
from studbook.lab.judge_owners import check_lock, check_owners
from studbook.lab.package_making import check_contract
from studbook.lab.policies import check_next
from studbook.lab.proposals import check_ending
from studbook.lab.situations import require_released_hold
from studbook.lab.stages import check_approval
from studbook.lab.trials import require_going
from studbook.records import (
    ChampionPromotion,
    CodeChangeClosing,
    EvaluatorChange,
    ParentApproval,
    Policy,
    PromotionTemplate,
    Record,
    Resumption,
    RuntimeContract,
    RuntimeSmoke,
    StageApproval,
    SuitesLock,
    Tombstone,
    ViabilityDecision,
    digest,
)
from studbook.release import check_promoted, stage_before
from studbook.seal import Signer

__all__ = ["check_admitting", "check_entering", "check_first"]


def check_entering(desk: Desk, record: Record, signers: Sequence[Signer], time: datetime) -> None:
    """Refuse what people signed if the lab it enters does not carry it; of other kinds only whom they name is asked.

    Args:
        desk: The lab as it is before the record.
        record: The record.
        signers: Who signed it.
        time: When it enters, in UTC.

    Raises:
        StudbookError: any of its kinds, naming the gate or field.
    """
    _check_people(record, signers)
    check_owners(desk, record, signers)
    if isinstance(record, Policy):
        check_next(desk, record, "policy")
    elif isinstance(record, SuitesLock):
        check_lock(desk, record, "suites-lock: lock_version, suites")
    elif isinstance(record, StageApproval):
        check_approval(desk, record)
    elif isinstance(record, EvaluatorChange):
        check_change(desk, record, signers)
    elif isinstance(record, CodeChangeClosing):
        check_ending(desk, record, signers)
    elif isinstance(record, Tombstone):
        check_tombstone(desk, record)
    elif isinstance(record, RuntimeContract):
        check_contract(desk, record)
    elif isinstance(record, Resumption):
        check_resumption(desk, record)
    elif isinstance(record, ChampionPromotion):
        require_going(desk)
        require_unrevoked(desk, record.artifact)
        check_deployment(desk, record.artifact, record.deployment)
        if record.basis == "first":
            _check_first(desk, record, time)
        else:
            _check_promotion(desk, record, signers, time)


def check_admitting(desk: Desk, template_digest: str, time: datetime) -> None:
    """Refuse an admission or a move below champion whose template does not say what was so, or whose gates hold no longer.

    Args:
        desk: The lab as it is before the record.
        template_digest: The template it rests on.
        time: When it enters, in UTC.

    Raises:
        DigestDiffers: if the template says something else than the lab did then.
        OutOfOrder: naming the gate that is not passed, or if the candidate was revoked.
    """
    template = desk.workspace.get(template_digest, PromotionTemplate)
    require_unrevoked(desk, template.artifact)
    then, entered = _then(desk, template_digest)
    if template.stage == "canary":
        _same(canary_template(then, template.header, template.artifact, entered), template)
        _all_passed(canary_template(desk, template.header, template.artifact, time))
    else:
        _same(recorded_template(then, template), template)
        _all_passed(recorded_template(desk, template))


def check_first(desk: Desk, artifact: str, day: date) -> str:
    """Refuse a first champion that is no SLM1 model, or that no approval in force carries.

    Args:
        desk: The lab as it is before the promotion.
        artifact: Digest of the model.
        day: The UTC day of the promotion, which the approval must cover.

    Returns:
        Digest of the newest approval of the model, which is its evidence.

    Raises:
        OutOfOrder: ``order.unjudged`` or ``order.approval``.
    """
    name, source = desk.name_of(artifact), desk.sources().get(artifact)
    if source is None:
        raise OutOfOrder(
            f"{name} is no registered SLM1 model, and no suite here can judge it",
            where=f"{name} to champion",
            advice="Checkpoints and adapters are bred from, shown and exported; a channel holds what was judged.",
            reason="order.unjudged",
        )
    given = [(d, a) for d, a in desk.unrevoked(ParentApproval) if a.artifact == artifact]
    if not given or given[-1][1].until < day.isoformat() or given[-1][1].source != source[0]:
        raise OutOfOrder(
            f"{name} has no approval in force",
            where=f"{name} to champion",
            advice=f"Approve it first: studbook approve {name} --as PERSON",
            reason="order.approval",
        )
    return given[-1][0]


def _check_first(desk: Desk, record: ChampionPromotion, time: datetime) -> None:
    approval = desk.workspace.get(record.evidence, ParentApproval)
    if record.evidence in desk.taken_back():
        raise OutOfOrder(
            "rests on an approval that was revoked",
            where="champion-promotion: evidence",
            advice="Approve the model anew, and install it then.",
            reason="order.approval",
        )
    if approval.artifact != record.artifact or desk.channels()["champion"].record is not None:
        raise OutOfOrder(
            "is no first champion, or the approval it cites is another model's",
            where="champion-promotion: basis, evidence",
            advice="There is a champion already, or the wrong model was approved; look at both: studbook show champion",
            reason="order.champion",
        )
    if check_first(desk, record.artifact, time.date()) != record.evidence:
        raise OutOfOrder(
            "rests on an approval that a newer one took the place of",
            where="champion-promotion: evidence",
            advice="Install the model anew, on the newest approval.",
            reason="order.approval",
        )
    smokes = [s for _, s in desk.all(RuntimeSmoke) if s.artifact == record.artifact]
    if not smokes or not smokes[-1].passed:
        raise OutOfOrder(
            f"{desk.name_of(record.artifact)} did not pass its runtime smoke",
            where="champion-promotion: artifact",
            advice="A champion has to run. Look at its smoke record, or install another model.",
            reason="order.smoke",
        )


def _check_people(record: Record, signers: Sequence[Signer]) -> None:
    """Whoever a record names as acting is one of those who signed it."""
    owners = {signer.owner for signer in signers}
    for field in ("approved_by", "promoted_by", "withdrawn_by", "proposed_by", "closed_by", "agreed_by", "resumed_by"):
        named = getattr(record, field, None)
        if named is not None and named not in owners:
            raise NotAuthorised(
                f"names {named}, but {' and '.join(sorted(owners))} signed it",
                where=f"{record.kind()}: {field}",
                advice=f"Have {named} sign it, or write it anew in the name of whoever signs.",
                reason="authority.person",
            )


def _check_promotion(desk: Desk, record: ChampionPromotion, signers: Sequence[Signer], time: datetime) -> None:
    template = desk.workspace.get(record.evidence, PromotionTemplate)
    decision = desk.workspace.get(template.decision, ViabilityDecision)
    require_released_hold(desk, time)
    channels = desk.channels()
    before = stage_before(desk.policy[1], "champion")
    check_promoted(record, template, decision, before, channels[before])
    champion = channels["champion"]
    if record.rollback != champion.back:
        raise OutOfOrder(
            "does not start from the champion there is",
            where="champion-promotion: rollback",
            advice="Another promotion or a rollback came first. Look again, and promote anew.",
            reason="order.channel",
        )
    promoter = next(s for s in signers if s.owner == record.promoted_by)
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
