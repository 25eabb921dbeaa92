"""The closed world of records: one line a kind.

A kind and version that was shipped never changes.
"""

from __future__ import annotations

from typing import get_args

from studbook.records import (
    assembly,
    authority,
    breeding,
    canary,
    changes,
    decisions,
    evaluation,
    experiments,
    manifests,
    packages,
    pedigree,
    plans,
    population,
    release,
    resident,
    routes,
    smokes,
    sources,
)
from studbook.records.base import Record
from studbook.records.doors import read_record as _read_record

__all__ = ["KINDS", "AnyRecord", "read_record"]

AnyRecord = (
    authority.Root
    | authority.Revocation
    | authority.Policy
    | authority.SuitesLock
    | sources.SourceManifest
    | sources.ProducerSignature
    | sources.ParentApproval
    | sources.CompatibilityReport
    | breeding.LineageTemplate
    | breeding.OperatorReceipt
    | breeding.CandidateManifest
    | breeding.FederatedReceipt
    | evaluation.FloorReport
    | evaluation.SuiteManifest
    | evaluation.ContaminationReceipt
    | smokes.RuntimeSmoke
    | evaluation.Scorecard
    | evaluation.DriftReport
    | evaluation.ReportedResult
    | evaluation.BaselineReceipt
    | decisions.FailureCluster
    | decisions.ViabilityDecision
    | decisions.ArchiveRecord
    | decisions.SealedOpening
    | decisions.ConfirmationRecord
    | release.StageApproval
    | release.PromotionTemplate
    | release.AdmissionRecord
    | release.ReleaseRecord
    | release.ChampionPromotion
    | release.RollbackRecord
    | release.ReadinessRecord
    | canary.CanaryPlan
    | canary.CanarySegment
    | canary.Halt
    | canary.Resumption
    | release.ChannelSnapshot
    | assembly.SelectorRegistry
    | manifests.ModelManifest
    | manifests.AdapterManifest
    | assembly.AdapterFamilyReceipt
    | assembly.LedgerEvidence
    | assembly.AssemblyReceipt
    | plans.ModulePlan
    | assembly.BrowserSmoke
    | assembly.BundleRelease
    | population.SearchReceipt
    | population.ParentPool
    | population.GenerationRecord
    | population.NoveltyRecord
    | population.PopulationReview
    | experiments.ExperimentCharter
    | experiments.ExperimentResult
    | changes.RedTeamReport
    | changes.EvaluatorChange
    | changes.CodeChangeProposal
    | changes.CodeChangeClosing
    | pedigree.Tombstone
    | pedigree.ClearingRecord
    | packages.SkillPackage
    | packages.PackageEvent
    | packages.RuntimeContract
    | packages.ExpertPartition
    | resident.ResidentSetRecord
    | pedigree.LedgerEntry
    | routes.RouterState
    | routes.SentenceModel
    | routes.RouteThreshold
    | routes.RouteRecord
    | routes.RouteSeal
    | routes.RouteSegment
)
KINDS: dict[str, type[Record]] = {kind.kind(): kind for kind in get_args(AnyRecord)}


def read_record(data: bytes, where: object = "") -> Record:
    """Read one record of any known kind from canonical bytes.

    Raises:
        RecordRefused: if the bytes are not exactly one known record in canonical form.
    """
    record: Record = _read_record(data, AnyRecord, where)
    return record
