"""Everything the lab has on record about one model, gathered for the documents that leave with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from studbook.errors import OutOfOrder
from studbook.exchange.dossier import Ancestor, Compared, Dataset, Dossier, Making, Member
from studbook.lab.checkpoints import is_checkpoint
from studbook.lab.desk import Desk
from studbook.lab.gates import evidence_for
from studbook.lab.producers import signatures
from studbook.lab.sources import inherited_data, licence_of
from studbook.records import (
    AdapterSource,
    AdmissionRecord,
    CandidateManifest,
    CheckpointSource,
    Comparison,
    ConfirmationRecord,
    LineageTemplate,
    LoraSource,
    ModelSource,
    OperatorReceipt,
    ReportedResult,
    Rung,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    SuiteManifest,
    ViabilityDecision,
)

__all__ = ["collect"]

_ROLES = ("development", "selection")


def collect(desk: Desk, artifact: str, files: Mapping[str, Path]) -> Dossier:
    """The dossier of a model.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        files: Relative path -> where the file lies in the store; its name there is its digest.

    Raises:
        ClaimRefused: if it claims more than its evidence shows.
        StudbookError: any of its kinds, if a record cannot be read.
    """
    record, manifest = _manifest(desk, artifact)
    bred = isinstance(manifest, CandidateManifest)
    cards = _cards(desk, artifact)
    return Dossier(
        header=desk.header,
        lab=desk.workspace.root.lab,
        name=desk.name_of(artifact),
        artifact=artifact,
        form=_form(desk, artifact, manifest),
        files=tuple(Member(path=p, sha256=f.name, size=f.stat().st_size) for p, f in sorted(files.items())),
        licence=licence_of(desk, artifact),
        record=record,
        manifest=manifest,
        recorded=_entered(desk, record),
        making=_making(desk, manifest) if isinstance(manifest, CandidateManifest) else None,
        signed=signatures(desk, artifact),
        ancestors=_ancestors(desk, manifest) if isinstance(manifest, CandidateManifest) else (),
        data=_data(
            desk, manifest.data if isinstance(manifest, CandidateManifest) else inherited_data(desk, [artifact])
        ),
        smoke=next(((d, s) for d, s in desk.all(RuntimeSmoke) if s.artifact == artifact and s.passed), None),
        cards=cards,
        suites={r.suite: desk.workspace.get(r.suite, SuiteManifest) for _, card in cards for r in card.results},
        compared=tuple(_compared(desk, artifact)) if bred else (),
        claim=_claim(desk, artifact, manifest),
        evidence=frozenset(rung for rung, found in evidence_for(desk, artifact).items() if found),
        reported=tuple((d, r) for d, r in desk.all(ReportedResult) if r.artifact == artifact),
    )


def _manifest(desk: Desk, artifact: str) -> tuple[str, SourceManifest | CandidateManifest]:
    """The first candidate manifest of an artifact, or its registration, with its digest."""
    for record, candidate in desk.candidates():
        if candidate.artifact.sha256 == artifact:
            return record, candidate
    return desk.registered()[artifact]


def _form(
    desk: Desk, artifact: str, manifest: SourceManifest | CandidateManifest
) -> Literal["slm", "checkpoint", "lora", "adapter"]:
    source = manifest.source if isinstance(manifest, SourceManifest) else None
    if isinstance(source, AdapterSource):
        return "adapter"
    if isinstance(source, LoraSource):
        return "lora"
    return "checkpoint" if is_checkpoint(desk, artifact) else "slm"


def _claim(desk: Desk, artifact: str, manifest: SourceManifest | CandidateManifest) -> Rung | None:
    """The highest claim on record: of the manifest, or of an admission that followed it."""
    if isinstance(manifest, SourceManifest):
        source = manifest.source
        return source.claim if isinstance(source, ModelSource | CheckpointSource) else None
    admitted = [a.claim for _, a in desk.all(AdmissionRecord) if a.artifact == artifact]
    return max((manifest.claim, *admitted), key=lambda rung: rung.height)


def _making(desk: Desk, manifest: CandidateManifest) -> Making:
    return Making(
        template=desk.workspace.get(manifest.template, LineageTemplate),
        receipt=desk.workspace.get(manifest.receipt, OperatorReceipt),
        started=_entered(desk, manifest.template),
        finished=_entered(desk, manifest.receipt),
    )


def _ancestors(desk: Desk, manifest: CandidateManifest) -> tuple[Ancestor, ...]:
    """Base and parents, each once; a base that is a parent too counts as a parent."""
    template = desk.workspace.get(manifest.template, LineageTemplate)
    return tuple(
        Ancestor(
            name=desk.name_of(artifact),
            artifact=artifact,
            role="parent" if artifact in template.parents else "base",
            licence=licence_of(desk, artifact),
        )
        for artifact in dict.fromkeys((template.base, *template.parents))
    )


def _data(desk: Desk, records: tuple[str, ...]) -> tuple[Dataset, ...]:
    found = [(record, desk.workspace.get(record, SourceManifest)) for record in records]
    return tuple(
        Dataset(name=m.name, record=record, sha256=m.artifact.sha256, size=m.artifact.size) for record, m in found
    )


def _cards(desk: Desk, artifact: str) -> tuple[tuple[str, Scorecard], ...]:
    """The newest scorecard of every open role; what the sealed suites showed is told by comparisons alone."""
    newest = {card.role: (record, card) for record, card in desk.all(Scorecard) if card.artifact == artifact}
    return tuple(newest[role] for role in _ROLES if role in newest)


def _compared(desk: Desk, artifact: str) -> list[Compared]:
    """Every comparison of a candidate, on selection suites first; one that several records repeat stands once."""
    found: dict[object, Compared] = {}
    for record, decision in desk.all(ViabilityDecision):
        for standing in (s for s in decision.standings if s.artifact == artifact and s.selection):
            for row in standing.comparisons:
                found.setdefault(row, _row(desk, record, "selection", str(standing.selection), row))
    for record, look in desk.all(ConfirmationRecord):
        for row in look.comparisons if look.candidate == artifact else ():
            found[("sealed", row)] = _row(desk, record, "sealed", look.candidate_card, row)
    return list(found.values())


def _row(desk: Desk, record: str, role: Literal["selection", "sealed"], card: str, row: Comparison) -> Compared:
    """One comparison with the suites it was computed on: of its cluster, of calibration, or all that ask for skill."""
    results = desk.scorecard(card).results
    kind, _, rest = row.on.partition("/")
    kind = kind if kind in ("calibration", "robustness", "bias") else "task"
    asked = [r for r in results if r.dimension == kind] if row.items else []
    own = [r for r in asked if r.cluster in (row.on, rest.partition("/")[0])] or asked
    suites = tuple(r.suite for r in own)
    return Compared(record=record, role=role, against=desk.name_of(row.against), suites=suites, comparison=row)


def _entered(desk: Desk, record: str) -> str:
    """When a record entered the ledger, UTC, RFC 3339.

    Raises:
        OutOfOrder: if it is not in the ledger.
    """
    entry = desk.workspace.entry(record)
    if entry is None:
        raise OutOfOrder(f"record {record[:16]}... is not in the ledger", where="audit/ledger.jsonl")
    return entry.time
