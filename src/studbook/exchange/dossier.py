"""What a lab knows of one model, gathered for documents that leave it: records with their digests, and nothing else.

The lab fills a `Dossier`; `card`, `cyclonedx`, `slsa` and `minimodel` write from it. It cannot be made with a claim
above its evidence, so neither can any of them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from studbook.errors import ClaimRefused
from studbook.records import (
    CandidateManifest,
    Comparison,
    Header,
    LineageTemplate,
    OperatorReceipt,
    ProducerSignature,
    ReportedResult,
    Rung,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    SuiteManifest,
)

__all__ = ["Ancestor", "Compared", "Dataset", "Dossier", "Making", "Member"]


class Member(Struct, frozen=True, kw_only=True):
    """One file of the model.

    Attributes:
        path: Relative path in the exported folder, with ``/``.
        sha256: SHA-256 of its bytes.
        size: Bytes.
    """

    path: str
    sha256: str
    size: int


class Ancestor(Struct, frozen=True, kw_only=True):
    """A model this one was bred from.

    Attributes:
        name: What people call it.
        artifact: Its digest.
        role: ``base`` or ``parent``.
        licence: SPDX identifier, or None.
    """

    name: str
    artifact: str
    role: Literal["base", "parent"]
    licence: str | None


class Dataset(Struct, frozen=True, kw_only=True):
    """A data manifest the model, or an ancestor of it, was trained on.

    Attributes:
        name: What people call it.
        record: Digest of its SourceManifest.
        sha256: SHA-256 of the manifest file.
        size: Bytes of the manifest file.
    """

    name: str
    record: str
    sha256: str
    size: int


class Making(Struct, frozen=True, kw_only=True):
    """How a model bred here was made.

    Attributes:
        template: What was declared before the run.
        receipt: What was recorded after it.
        started: When the template entered the ledger, UTC, RFC 3339.
        finished: When the receipt did.
    """

    template: LineageTemplate
    receipt: OperatorReceipt
    started: str
    finished: str


class Compared(Struct, frozen=True, kw_only=True):
    """One paired comparison of this model with another.

    Attributes:
        record: Digest of the ViabilityDecision or ConfirmationRecord it stands in.
        role: Role of the suites: ``selection`` or ``sealed``.
        against: Name of the other model.
        suites: Digests of the suites it was computed on; empty where none was.
        comparison: The comparison.
    """

    record: str
    role: Literal["selection", "sealed"]
    against: str
    suites: tuple[str, ...]
    comparison: Comparison


class Dossier(Struct, frozen=True, kw_only=True):
    """Everything on record about one model.

    Attributes:
        header: Who writes: program, version, environment, owner of the lab.
        lab: Identity of the lab, 64 hex digits.
        name: What people call the model.
        artifact: Its digest: of the container, or of the list of its files.
        form: ``slm``, ``checkpoint``, ``lora`` or ``adapter``.
        files: Its files, sorted by path.
        licence: SPDX identifier, or None.
        record: Digest of ``manifest``.
        manifest: The registration, or the candidate manifest of a model bred here.
        recorded: When that record entered the ledger, UTC, RFC 3339.
        making: How it was made; None for a registered source.
        signed: Digests and records of producers' signatures over it, oldest first.
        ancestors: Base and parents in the order of the recipe, each once.
        data: Data manifests it inherits.
        smoke: Digest and record of its passed runtime smoke, if there is one.
        cards: Digests and scorecards, development before selection; sealed ones stay in the lab.
        suites: Suites of the cards by digest.
        compared: Comparisons with other models.
        reported: Digests and records of what others report of it, oldest first.
        claim: The highest rung of the gate ladder claimed on record; None where the form claims nothing.
        evidence: The rungs that have evidence.

    Raises:
        ClaimRefused: if a rung up to the claim has no evidence; ``claim``.
    """

    header: Header
    lab: str
    name: str
    artifact: str
    form: Literal["slm", "checkpoint", "lora", "adapter"]
    files: tuple[Member, ...]
    licence: str | None
    record: str
    manifest: SourceManifest | CandidateManifest
    recorded: str
    making: Making | None
    signed: tuple[tuple[str, ProducerSignature], ...]
    ancestors: tuple[Ancestor, ...]
    data: tuple[Dataset, ...]
    smoke: tuple[str, RuntimeSmoke] | None
    cards: tuple[tuple[str, Scorecard], ...]
    suites: dict[str, SuiteManifest]
    compared: tuple[Compared, ...]
    claim: Rung | None
    evidence: frozenset[Rung]
    reported: tuple[tuple[str, ReportedResult], ...] = ()

    def __post_init__(self) -> None:
        for rung in Rung:
            if self.claim is not None and rung.height <= self.claim.height and rung not in self.evidence:
                text = f"claims {self.claim.value}, but there is no evidence for {rung.value}"
                raise ClaimRefused(text, where=self.name)
