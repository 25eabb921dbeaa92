"""Every noun of the lab is a record: a frozen struct, one family a file, written once as canonical JSON.

``AnyRecord`` is the closed world: adding a kind means one struct and one line here. A kind and version that was
shipped never changes; a new shape is a new version.
"""

from __future__ import annotations

from typing import get_args

from studbook.records.assembly import (
    AdapterFamilyReceipt,
    AssemblyReceipt,
    BrowserSmoke,
    BundleRelease,
    LedgerEvidence,
    SelectorRegistry,
)
from studbook.records.authority import (
    Budget,
    Gates,
    KeyGrant,
    LicenceRule,
    OperatorGrant,
    OwnerKey,
    Owners,
    Policy,
    PopulationRule,
    Revocation,
    RevokedSubject,
    Root,
    StageRule,
    SuitesLock,
    Threshold,
    Utility,
)
from studbook.records.base import Basis, Blob, Digest, Header, JsonObject, Measure, Record, Rung, Zone, replace
from studbook.records.breeding import (
    CandidateManifest,
    ClientUpdate,
    Expected,
    FederatedReceipt,
    InputDigest,
    LineageTemplate,
    OperatorReceipt,
    WorkerLimits,
)
from studbook.records.canary import (
    Answered,
    CanaryLimits,
    CanaryPlan,
    CanarySegment,
    CanaryStep,
    Detection,
    Halt,
    Observation,
    Resumption,
)
from studbook.records.changes import (
    CodeChangeClosing,
    CodeChangeProposal,
    EvaluatorChange,
    RedTeamReport,
    RedTeamRow,
)
from studbook.records.decisions import (
    ArchivedCandidate,
    ArchiveRecord,
    Comparison,
    ConfirmationRecord,
    Excluded,
    FailureCluster,
    NoOp,
    Retired,
    SealedOpening,
    Standing,
    UtilityTerm,
    ViabilityDecision,
)
from studbook.records.doors import canonical, decode_json, digest, read_plain_json, read_struct, write_record
from studbook.records.doors import read_record as _read_record
from studbook.records.evaluation import (
    Agreement,
    BaselineReceipt,
    BaselineRow,
    ContaminationReceipt,
    DriftReport,
    FloorReport,
    FloorRow,
    ReportedResult,
    Scorecard,
    SuiteManifest,
    SuiteResult,
)
from studbook.records.experiments import (
    Analysis,
    ArmOutcome,
    ArmRun,
    BaselineRun,
    Contrast,
    Effect,
    ExperimentBudget,
    ExperimentCharter,
    ExperimentResult,
    Factor,
)
from studbook.records.manifests import AdapterManifest, ModelManifest
from studbook.records.packages import (
    Compatibility,
    Envelope,
    Expert,
    ExpertPartition,
    Overlap,
    PackageEvent,
    PackageEvidence,
    RuntimeContract,
    SkillPackage,
)
from studbook.records.pedigree import ClearingRecord, LedgerEntry, Tombstone
from studbook.records.plans import ModulePlan
from studbook.records.population import GenerationRecord, NoveltyRecord, ParentPool, PopulationReview, SearchReceipt
from studbook.records.release import (
    AdmissionRecord,
    ChampionPromotion,
    ChannelSnapshot,
    Deployment,
    Gate,
    PromotionTemplate,
    PublishedChannel,
    ReadinessRecord,
    ReleaseRecord,
    RollbackRecord,
    RollbackSet,
    StageApproval,
)
from studbook.records.reserves import Allowance, Hysteresis, Reserve
from studbook.records.resident import KnownGood, ResidentLine, ResidentSetRecord
from studbook.records.routes import (
    CurvePoint,
    RouteCandidate,
    RouteCost,
    RouteEncoder,
    RouteRecord,
    RouterState,
    RouteRule,
    RouteSeal,
    RouteSegment,
    RouteStep,
    RouteThreshold,
)
from studbook.records.smokes import LogitDigest, RuntimeSmoke
from studbook.records.sources import (
    AdapterSource,
    Check,
    CheckpointSource,
    CompatibilityReport,
    DataFile,
    DataSource,
    LicenceSource,
    LoraSource,
    ModelSource,
    ParentApproval,
    ProducerSignature,
    SourceManifest,
    TaskVectorPair,
)

AnyRecord = (
    Root
    | Revocation
    | Policy
    | SuitesLock
    | SourceManifest
    | ProducerSignature
    | ParentApproval
    | CompatibilityReport
    | LineageTemplate
    | OperatorReceipt
    | CandidateManifest
    | FederatedReceipt
    | FloorReport
    | SuiteManifest
    | ContaminationReceipt
    | RuntimeSmoke
    | Scorecard
    | DriftReport
    | ReportedResult
    | BaselineReceipt
    | FailureCluster
    | ViabilityDecision
    | ArchiveRecord
    | SealedOpening
    | ConfirmationRecord
    | StageApproval
    | PromotionTemplate
    | AdmissionRecord
    | ReleaseRecord
    | ChampionPromotion
    | RollbackRecord
    | ReadinessRecord
    | CanaryPlan
    | CanarySegment
    | Halt
    | Resumption
    | ChannelSnapshot
    | SelectorRegistry
    | ModelManifest
    | AdapterManifest
    | AdapterFamilyReceipt
    | LedgerEvidence
    | AssemblyReceipt
    | ModulePlan
    | BrowserSmoke
    | BundleRelease
    | SearchReceipt
    | ParentPool
    | GenerationRecord
    | NoveltyRecord
    | PopulationReview
    | ExperimentCharter
    | ExperimentResult
    | RedTeamReport
    | EvaluatorChange
    | CodeChangeProposal
    | CodeChangeClosing
    | Tombstone
    | ClearingRecord
    | SkillPackage
    | PackageEvent
    | RuntimeContract
    | ExpertPartition
    | ResidentSetRecord
    | LedgerEntry
    | RouterState
    | RouteThreshold
    | RouteRecord
    | RouteSeal
    | RouteSegment
)
KINDS: dict[str, type[Record]] = {kind.kind(): kind for kind in get_args(AnyRecord)}


def read_record(data: bytes, where: object = "") -> Record:
    """Read one record of any known kind from canonical bytes.

    Raises:
        RecordRefused: if the bytes are not exactly one known record in canonical form.
    """
    record: Record = _read_record(data, AnyRecord, where)
    return record


__all__ = [
    "KINDS",
    "AdapterFamilyReceipt",
    "AdapterManifest",
    "AdapterSource",
    "AdmissionRecord",
    "Agreement",
    "Allowance",
    "Analysis",
    "Answered",
    "AnyRecord",
    "ArchiveRecord",
    "ArchivedCandidate",
    "ArmOutcome",
    "ArmRun",
    "AssemblyReceipt",
    "BaselineReceipt",
    "BaselineRow",
    "BaselineRun",
    "Basis",
    "Blob",
    "BrowserSmoke",
    "Budget",
    "BundleRelease",
    "CanaryLimits",
    "CanaryPlan",
    "CanarySegment",
    "CanaryStep",
    "CandidateManifest",
    "ChampionPromotion",
    "ChannelSnapshot",
    "Check",
    "CheckpointSource",
    "ClearingRecord",
    "ClientUpdate",
    "CodeChangeClosing",
    "CodeChangeProposal",
    "Comparison",
    "Compatibility",
    "CompatibilityReport",
    "ConfirmationRecord",
    "ContaminationReceipt",
    "Contrast",
    "CurvePoint",
    "DataFile",
    "DataSource",
    "Deployment",
    "Detection",
    "Digest",
    "DriftReport",
    "Effect",
    "Envelope",
    "EvaluatorChange",
    "Excluded",
    "Expected",
    "ExperimentBudget",
    "ExperimentCharter",
    "ExperimentResult",
    "Expert",
    "ExpertPartition",
    "Factor",
    "FailureCluster",
    "FederatedReceipt",
    "FloorReport",
    "FloorRow",
    "Gate",
    "Gates",
    "GenerationRecord",
    "Halt",
    "Header",
    "Hysteresis",
    "InputDigest",
    "JsonObject",
    "KeyGrant",
    "KnownGood",
    "LedgerEntry",
    "LedgerEvidence",
    "LicenceRule",
    "LicenceSource",
    "LineageTemplate",
    "LogitDigest",
    "LoraSource",
    "Measure",
    "ModelManifest",
    "ModelSource",
    "ModulePlan",
    "NoOp",
    "NoveltyRecord",
    "Observation",
    "OperatorGrant",
    "OperatorReceipt",
    "Overlap",
    "OwnerKey",
    "Owners",
    "PackageEvent",
    "PackageEvidence",
    "ParentApproval",
    "ParentPool",
    "Policy",
    "PopulationReview",
    "PopulationRule",
    "ProducerSignature",
    "PromotionTemplate",
    "PublishedChannel",
    "ReadinessRecord",
    "Record",
    "RedTeamReport",
    "RedTeamRow",
    "ReleaseRecord",
    "ReportedResult",
    "Reserve",
    "ResidentLine",
    "ResidentSetRecord",
    "Resumption",
    "Retired",
    "Revocation",
    "RevokedSubject",
    "RollbackRecord",
    "RollbackSet",
    "Root",
    "RouteCandidate",
    "RouteCost",
    "RouteEncoder",
    "RouteRecord",
    "RouteRule",
    "RouteSeal",
    "RouteSegment",
    "RouteStep",
    "RouteThreshold",
    "RouterState",
    "Rung",
    "RuntimeContract",
    "RuntimeSmoke",
    "Scorecard",
    "SealedOpening",
    "SearchReceipt",
    "SelectorRegistry",
    "SkillPackage",
    "SourceManifest",
    "StageApproval",
    "StageRule",
    "Standing",
    "SuiteManifest",
    "SuiteResult",
    "SuitesLock",
    "TaskVectorPair",
    "Threshold",
    "Tombstone",
    "Utility",
    "UtilityTerm",
    "ViabilityDecision",
    "WorkerLimits",
    "Zone",
    "canonical",
    "decode_json",
    "digest",
    "read_plain_json",
    "read_record",
    "read_struct",
    "replace",
    "write_record",
]
