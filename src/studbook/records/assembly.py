"""What binds a bundle: its registry of routes, receipts of stack and assembly, its evidence, and that it was released."""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import Struct

from studbook.records.base import Blob, Digest, Name, Record, Text, Zone
from studbook.records.manifests import Count, LogitDigest

__all__ = [
    "AdapterFamily",
    "AdapterFamilyReceipt",
    "AssemblyReceipt",
    "BrowserSmoke",
    "BundleRelease",
    "CheckpointMark",
    "LedgerEvidence",
    "LedgerLine",
    "Package",
    "Route",
    "SelectorRegistry",
]


class Package(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One adapter package of a family.

    Attributes:
        package: ADP1, ASP1 or ALR1.
        sha256: Digest of the package.
        size: Its bytes.
    """

    package: Literal["ADP1", "ASP1", "ALR1"]
    sha256: Digest
    size: Count


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way from a name to a model.

    Attributes:
        route: Its name: the channel.
        strategy: How a request is answered; ``direct``: by this model.
        visible: ``browser`` once a browser ran it on record, else ``local``.
        model: The model's file.
        manifest: Digest of its ModelManifest.
        family: Digest of the AdapterFamilyReceipt of the packages on it; null without any.
    """

    route: Name
    strategy: Name
    visible: Literal["local", "browser"]
    model: Blob
    manifest: Digest
    family: Digest | None


class AdapterFamily(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The packages of one route.

    Attributes:
        receipt: Digest of the AdapterFamilyReceipt.
        adapters: The packages, in the order of the stack.
    """

    receipt: Digest
    adapters: tuple[Package, ...]


class SelectorRegistry(Record, frozen=True, kw_only=True, tag="selector-registry/1"):
    """What a page may route to, within which bytes; nothing else is ever fetched as a model.

    Attributes:
        default_strategy: Strategy where a route names none.
        model_byte_budget: Most bytes of a model.
        sidecar_byte_budget: Most bytes of one text file.
        sidecars_byte_budget: Most bytes of all text files together.
        adapter_byte_budget: Most bytes of all packages together.
        routes: Every route.
        families: Every family of packages.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    default_strategy: Name
    model_byte_budget: Count
    sidecar_byte_budget: Count
    sidecars_byte_budget: Count
    adapter_byte_budget: Count
    routes: tuple[Route, ...]
    families: tuple[AdapterFamily, ...]

    def subjects(self) -> tuple[str, ...]:
        """The models."""
        return tuple(dict.fromkeys(r.model.sha256 for r in self.routes))

    def references(self) -> tuple[str, ...]:
        """Manifests and families."""
        return (*(r.manifest for r in self.routes), *(f.receipt for f in self.families))


class AdapterFamilyReceipt(Record, frozen=True, kw_only=True, tag="adapter-family-receipt/1"):
    """A stack of packages that was put on a model, whole and in order.

    Attributes:
        base: Digest of the f32 model the packages were made for.
        model: Digest of the model they were put on: the base, or a quantised build of it.
        stack: Digests of the packages, in order.
        manifests: Digests of the AdapterManifests, in order.
        bytes: Bytes of all packages.
        budget: Most bytes they may have.
        state_sha256: Assembly-state checksum of the model with the whole stack.
        logits: Digest of the logits with the whole stack.
        compatible: Pairs of packages that were put on each other, the lower one first; no other order was tried.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    base: Digest
    model: Digest
    stack: tuple[Digest, ...]
    manifests: tuple[Digest, ...]
    bytes: Count
    budget: Count
    state_sha256: Digest
    logits: LogitDigest
    compatible: tuple[tuple[Digest, Digest], ...]

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.model,)

    def references(self) -> tuple[str, ...]:
        """The manifests."""
        return self.manifests


class CheckpointMark(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which state of the ledger the evidence was taken from.

    Attributes:
        origin: Whose ledger it is.
        size: Its entries.
        root: Root of the Merkle tree over them.
    """

    origin: Text
    size: Count
    root: Digest


class LedgerLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That one record is in the ledger.

    Attributes:
        role: Which evidence it is.
        record: Digest of the record.
        index: Position of its entry.
        line: The ledger's line, without its newline: a signed envelope around the entry, which names the record.
        path: Hashes from the line's leaf up to the root, the leaf's sibling first (RFC 6962, section 2.1.1).
    """

    role: Name
    record: Digest
    index: Count
    line: str
    path: tuple[Digest, ...]


class LedgerEvidence(Record, frozen=True, kw_only=True, tag="ledger-evidence/1"):
    """A signed checkpoint of the ledger, and the proof that every record of the evidence is in it.

    Attributes:
        checkpoint: What the checkpoint says.
        note: The checkpoint as it was signed (c2sp.org/tlog-checkpoint).
        entries: One a record, in the order of the plan.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    checkpoint: CheckpointMark
    note: str
    entries: tuple[LedgerLine, ...]

    def references(self) -> tuple[str, ...]:
        """The records."""
        return tuple(entry.record for entry in self.entries)


class AssemblyReceipt(Record, frozen=True, kw_only=True, tag="assembly-receipt/1"):
    """Binds everything a bundle rests on: whoever trusts its digest trusts nothing else about the evidence.

    Attributes:
        route: The route.
        channel: The channel that pointed at the model.
        model: Digest of the model.
        evidence: Module -> digest, of every other sidecar and every evidence file of the plan.
        eval_case: Digest over the suites and items that the model was scored on.
        checkpoint: The ledger's state.
        family: Digest of the AdapterFamilyReceipt; null without packages.
        state_sha256: Assembly-state checksum with the whole stack.
        calls_sha256: Digest of the plan's calls.
        browser_smoke: Digest of the BrowserSmoke; null where no browser ran it.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    route: Name
    channel: Name
    model: Digest
    evidence: dict[Name, Digest]
    eval_case: Digest
    checkpoint: CheckpointMark
    family: Digest | None
    state_sha256: Digest
    calls_sha256: Digest
    browser_smoke: Digest | None

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.model,)

    def references(self) -> tuple[str, ...]:
        """The other sidecars and the evidence."""
        return tuple(self.evidence.values())


class BrowserSmoke(Record, frozen=True, kw_only=True, tag="browser-smoke/1"):
    """Proof that a browser verified a bundle from its plan on and computed the very same logits.

    Attributes:
        plan: Digest of the plan of the bundle that was opened.
        page_build: Digest of the page's files.
        browser: Name and version of the browser.
        engine: Digest of the engine it ran.
        model: Digest of the model.
        logits: What it computed, with the whole stack.
        state_sha256: Assembly-state checksum it reported.
        requests: Requests the page made; every one was for a file of the plan or of the page.
        passed: All of it is what the plan and its receipts say.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    plan: Digest
    page_build: Digest
    browser: Text
    engine: Digest
    model: Digest
    logits: LogitDigest
    state_sha256: Digest
    requests: Count
    passed: bool

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.model,)


class BundleRelease(Record, frozen=True, kw_only=True, tag="bundle-release/1"):
    """A bundle was assembled: the digest of its plan, held by the ledger.

    Attributes:
        channel: The channel it was made of.
        artifact: Digest of the model.
        move: Digest of the record that put the channel there.
        plan: Digest of the ModulePlan.
        registry: Digest of the SelectorRegistry.
        assembly_receipt: Digest of the AssemblyReceipt.
        page_build: Digest of the page's files.
        browser_smoke: Digest of the BrowserSmoke; null where no browser ran it.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    channel: Literal["shadow", "champion"]
    artifact: Digest
    move: Digest
    plan: Digest
    registry: Digest
    assembly_receipt: Digest
    page_build: Digest
    browser_smoke: Digest | None

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """The move, and the records of the bundle."""
        rest = (self.plan, self.registry, self.assembly_receipt, self.browser_smoke)
        return (self.move, *(d for d in rest if d))
