"""Records against the records they cite, as the lab was when they entered: nothing is taken at its word."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.lab import judging
from studbook.lab.absence import check_clearing
from studbook.lab.bundle_records import check_ledger_evidence, check_plan, check_release
from studbook.lab.canary_plans import check_trial_plan
from studbook.lab.comparing import check_producer, check_report
from studbook.lab.deployments import check_deployment
from studbook.lab.desk import Desk
from studbook.lab.entering import check_admitting, check_entering
from studbook.lab.evaluators import check_measured_by
from studbook.lab.experiment_charter import check_charter
from studbook.lab.experiment_check import check_result
from studbook.lab.facts import require
from studbook.lab.federated import check_federated
from studbook.lab.gates import confirmation_of, evidence_for, replay_confirmation
from studbook.lab.generation_rules import check_generation_record
from studbook.lab.halts import check_halt
from studbook.lab.measured import (
    check_contamination,
    check_drift,
    check_floor,
    check_name,
    check_ready,
    check_reported,
    check_scorecard,
    check_smoke,
    check_suite,
)
from studbook.lab.offering import check_offered
from studbook.lab.package_life import check_event
from studbook.lab.package_making import check_package
from studbook.lab.partitions import check_partition
from studbook.lab.pooling import check_pool
from studbook.lab.populations import check_novelty, check_review
from studbook.lab.proposals import check_proposed
from studbook.lab.publish import check_snapshot
from studbook.lab.rederive import check_candidate, check_receipt_record, check_source, check_template
from studbook.lab.redteam import check_red_team
from studbook.lab.rollbacks import check_rollback
from studbook.lab.search_check import check_search
from studbook.lab.situations import check_moment, situation
from studbook.lab.trials import check_segment, require_going
from studbook.records import (
    AdmissionRecord,
    ArchiveRecord,
    BaselineReceipt,
    BundleRelease,
    CanaryPlan,
    CanarySegment,
    CandidateManifest,
    ChampionPromotion,
    ChannelSnapshot,
    CheckpointSource,
    ClearingRecord,
    CodeChangeProposal,
    CompatibilityReport,
    ConfirmationRecord,
    ContaminationReceipt,
    DriftReport,
    ExperimentCharter,
    ExperimentResult,
    ExpertPartition,
    FailureCluster,
    FederatedReceipt,
    FloorReport,
    GenerationRecord,
    Halt,
    LedgerEntry,
    LedgerEvidence,
    LineageTemplate,
    ModelSource,
    ModulePlan,
    NoveltyRecord,
    OperatorReceipt,
    PackageEvent,
    ParentPool,
    Policy,
    PopulationReview,
    ProducerSignature,
    PromotionTemplate,
    ReadinessRecord,
    Record,
    RedTeamReport,
    ReleaseRecord,
    ReportedResult,
    RollbackRecord,
    RuntimeSmoke,
    Scorecard,
    SealedOpening,
    SearchReceipt,
    SkillPackage,
    SourceManifest,
    SuiteManifest,
    SuitesLock,
    ViabilityDecision,
    digest,
)
from studbook.release import check_admitted, check_claim, decided_against
from studbook.seal import Sealed
from studbook.viability import Baseline, archive, decide

__all__ = ["check_record", "replay"]


def check_record(desk: Desk, entry: LedgerEntry, sealed: Sealed | None = None) -> None:
    """Hold one record against what it cites.

    Args:
        desk: The lab as it was before the entry.
        entry: The record's ledger entry.
        sealed: What came out of its envelope, if that was verified just now; it is read and verified here otherwise.

    Raises:
        StudbookError: any of its kinds, if the record says something its evidence does not.
    """
    sealed = sealed or desk.workspace.sealed(entry)
    try:
        if check := _CHECKS.get(type(sealed.record)):
            check(desk, sealed.record)
        check_entering(desk, sealed.record, sealed.signers, datetime.fromisoformat(entry.time))
        if isinstance(sealed.record, ReleaseRecord | ChampionPromotion | RollbackRecord):
            _follows(desk.at(entry.sequence + 1), sealed)
    except (LookupError, ArithmeticError, ValueError, TypeError, AssertionError) as error:
        # No check foresees every forgery, and none may keep the records behind it from being looked at.
        raise DigestDiffers(
            f"contradicts what it cites: {type(error).__name__} {error}",
            where=entry.record_kind,
            advice="Look who holds the key that signed it, and put another in its place.",
            reason="record.contradiction",
        ) from error


def replay(desk: Desk, record: ViabilityDecision) -> ViabilityDecision:
    """Decide again from the records a decision cites; equal bytes or something was changed.

    Args:
        desk: The lab as it was before the decision.
        record: The decision.

    Raises:
        DigestDiffers: if it does not cite what a decision cites.
        StudbookError: any of its kinds, if what it cites carries no decision.
    """
    card = desk.scorecard
    _check_shape(desk, record)
    champion = [card(d) for d in record.champion_cards]
    field = [
        judging.with_cards(
            judging.contender(desk, s.manifest, champion[0].evaluator),
            card(s.development) if s.development else None,
            card(s.selection) if s.selection else None,
        )
        for s in record.standings
    ]
    development = next(c for c in champion if c.role == "development")
    selection = next(c for c in champion if c.role == "selection")
    pairs = zip(record.parents, record.parent_cards, strict=True)
    return decide(
        header=record.header,
        policy=desk.workspace.get(record.policy, Policy),
        cluster=desk.workspace.get(record.cluster, FailureCluster),
        suites=desk.workspace.get(record.suites, SuitesLock),
        contenders=field,
        champion_development=development,
        champion_selection=selection,
        parents=[Baseline(p, desk.name_of(p), card(c)) for p, c in pairs],
        excluded=record.excluded,
        situation=situation(desk, selection, development, field, record.as_of),
    )


def _decision(desk: Desk, record: ViabilityDecision) -> None:
    champion = desk.channels()["champion"].artifact
    holds, detail = decided_against(record, champion, desk.policy[0], desk.suites_lock[0])
    if not holds:
        raise OutOfOrder(f"the decision {detail}")
    entry = desk.workspace.entry(digest(record))
    assert entry is not None
    check_offered(desk, record, datetime.fromisoformat(entry.time))
    check_moment(desk, record, entry)
    judging.check_budget(desk, len(record.standings))
    _same(replay(desk, record), record, "deciding again from the records it cites gives another decision")


def _opening(desk: Desk, record: SealedOpening) -> None:
    allowed = desk.policy[1].gates.sealed_openings
    if record.of != allowed or not 1 <= record.opening <= allowed:
        raise DigestDiffers(f"is opening {record.opening} of {record.of}, and the policy allowed {allowed}")
    looks = [o for _, o in desk.all(SealedOpening)]
    again = record.decision is not None and any(o.decision == record.decision for o in looks)
    if again or any(o.opening == record.opening for o in looks):
        raise DigestDiffers(f"is opening {record.opening} again, or another look for the same decision")
    if record.decision and desk.workspace.get(record.decision, ViabilityDecision).chosen != record.candidate:
        raise DigestDiffers("is a look at another model than the winner of its decision")


def _confirmation(desk: Desk, record: ConfirmationRecord) -> None:
    logged = {(o.decision, o.opening, o.of) for _, o in desk.all(SealedOpening)}
    if (record.decision, record.opening, record.of) not in logged:
        raise OutOfOrder(f"opening {record.opening} of the sealed suites was not logged before it was taken")
    _same(replay_confirmation(desk, record), record, "confirming again from the records it cites gives another result")


def _archive(desk: Desk, record: ArchiveRecord) -> None:
    decision = desk.workspace.get(record.decision, ViabilityDecision)
    again = archive(record.header, decision, confirmation_of(desk, record.decision))
    _same(again, record, "does not archive what its decision archived")


def _candidate(desk: Desk, record: CandidateManifest) -> None:
    check_candidate(desk, record)
    check_claim(record.claim, evidence_for(desk, record.artifact.sha256))


def _source(desk: Desk, record: SourceManifest) -> None:
    check_name(desk, record)
    check_source(desk, record)
    if isinstance(record.source, ModelSource | CheckpointSource):
        check_claim(record.source.claim, {record.source.claim: desk.sound(record.artifact.sha256)})


def _check_shape(desk: Desk, record: ViabilityDecision) -> None:
    """A decision cites one development and one selection scorecard of the champion, and one scorecard a parent."""
    facts: dict[str, tuple[object, object]] = {
        "champion_cards": ([desk.scorecard(d).role for d in record.champion_cards], ["development", "selection"]),
        "parent_cards": (len(record.parent_cards), len(record.parents)),
    }
    require("viability-decision", facts, "decision.field")


def _baselines(desk: Desk, record: BaselineReceipt) -> None:
    if not record.rows or record.rows[0].artifact != record.candidate:
        raise DigestDiffers("its first row is not the candidate it is about")
    for row in record.rows:
        card = desk.scorecard(row.scorecard)
        if (card.artifact, card.role) != (row.artifact, record.role) or round(card.joint_mean, 9) != row.joint_mean:
            raise DigestDiffers(f"row {row.label!r} is not what the scorecard it cites says")


def _scorecard(desk: Desk, record: Scorecard) -> None:
    check_measured_by(desk, record)
    check_scorecard(desk, record)
    if record.role == "sealed" and record.artifact not in _looked_at(desk):
        raise OutOfOrder(
            "the sealed suites were opened for it without a look on record",
            where="scorecard: role",
            advice="Count it as a look all the same, and find out who opened them; freeze new sealed suites.",
            reason="order.opening",
        )


def _looked_at(desk: Desk) -> set[str]:
    """Whom the logged looks at the sealed suites were for: the model each names, and the champion a winner meets there."""
    looks = [look for _, look in desk.all(SealedOpening)]
    decided = {d: record.champion for d, record in desk.all(ViabilityDecision)}
    return {look.candidate for look in looks} | {decided[look.decision] for look in looks if look.decision in decided}


def _drift(desk: Desk, record: DriftReport) -> None:
    check_measured_by(desk, record)
    check_drift(desk, record)


def _smoke(desk: Desk, record: RuntimeSmoke) -> None:
    check_measured_by(desk, record)
    check_smoke(desk, record)


def _admission(desk: Desk, record: AdmissionRecord) -> None:
    template = desk.workspace.get(record.template, PromotionTemplate)
    decision = desk.workspace.get(template.decision, ViabilityDecision)
    check_admitted(record, template, decision)
    check_admitting(desk, record.template, _time(desk, record))
    check_claim(record.claim, evidence_for(desk, record.artifact))


def _release(desk: Desk, record: ReleaseRecord) -> None:
    admission = desk.workspace.get(record.admission, AdmissionRecord)
    if admission.artifact != record.artifact:
        raise DigestDiffers("the admission it cites is another candidate's")
    stage = desk.workspace.get(admission.template, PromotionTemplate).stage
    if record.channel != stage:
        raise OutOfOrder(f"its admission is for {stage}", where="release-record: channel", reason="order.template")
    require_going(desk)
    check_deployment(desk, record.artifact, record.deployment)
    if stage == "canary":
        before = desk.channels()["shadow"].deployment
        require("release-record", {"deployment": (record.deployment, before)}, "release.deployment")
    # An admission of another day may be used again, but only while all of it still holds.
    check_admitting(desk, admission.template, _time(desk, record))


def _time(desk: Desk, record: Record) -> datetime:
    """When a record entered, in UTC."""
    entry = desk.workspace.entry(digest(record))
    assert entry is not None
    return datetime.fromisoformat(entry.time)


def _follows(desk: Desk, sealed: Sealed) -> None:
    if fault := desk.move_faults().get(sealed.digest):
        where = f"{sealed.record.kind().partition('/')[0]}: {fault.field}"
        advice = "It moved nothing. Look who holds the key that signed it, and put another in its place."
        raise OutOfOrder(fault.words, where=where, advice=advice, reason=fault.reason)


def _same(again: Record, record: Record, what: str) -> None:
    if digest(again) != digest(record):
        raise DigestDiffers(what)


_CHECKS: dict[type[Record], Callable[[Desk, Any], None]] = {
    SourceManifest: _source,
    ProducerSignature: check_producer,
    CompatibilityReport: check_report,
    LineageTemplate: check_template,
    OperatorReceipt: check_receipt_record,
    FederatedReceipt: check_federated,
    CandidateManifest: _candidate,
    FailureCluster: judging.check_cluster,
    ViabilityDecision: _decision,
    SealedOpening: _opening,
    ConfirmationRecord: _confirmation,
    ArchiveRecord: _archive,
    BaselineReceipt: _baselines,
    AdmissionRecord: _admission,
    ReleaseRecord: _release,
    CanaryPlan: check_trial_plan,
    CanarySegment: check_segment,
    Halt: check_halt,
    RollbackRecord: check_rollback,
    SearchReceipt: check_search,
    ParentPool: check_pool,
    GenerationRecord: check_generation_record,
    NoveltyRecord: check_novelty,
    PopulationReview: check_review,
    ExperimentCharter: check_charter,
    ExperimentResult: check_result,
    ClearingRecord: check_clearing,
    ChannelSnapshot: check_snapshot,
    DriftReport: _drift,
    ReportedResult: check_reported,
    Scorecard: _scorecard,
    RuntimeSmoke: _smoke,
    RedTeamReport: check_red_team,
    CodeChangeProposal: check_proposed,
    FloorReport: check_floor,
    SuiteManifest: check_suite,
    ContaminationReceipt: check_contamination,
    ReadinessRecord: check_ready,
    LedgerEvidence: check_ledger_evidence,
    ModulePlan: check_plan,
    BundleRelease: check_release,
    SkillPackage: check_package,
    PackageEvent: check_event,
    ExpertPartition: check_partition,
}
