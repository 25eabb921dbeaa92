"""What a bundle is made of: which files a page may fetch, in which order, and what each of them has to be.

What a rule of `studbook.assembly.rules` refuses by a reason of its own is a plain number or text here: the record only
says that it is one. Digests, names of fields and types are the record's own rules.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from studbook.records.base import Blob, Digest, Name, Record, Rung, Text, Zone

__all__ = [
    "AdapterFamily",
    "AdapterFamilyReceipt",
    "AdapterManifest",
    "AssemblyReceipt",
    "BrowserSmoke",
    "BundleRelease",
    "Call",
    "CheckpointMark",
    "EngineNeeds",
    "Execution",
    "Fetch",
    "LedgerEvidence",
    "LedgerLine",
    "LineageNode",
    "LogitDigest",
    "ModelManifest",
    "Module",
    "ModulePlan",
    "Package",
    "PageFile",
    "PageFiles",
    "PlanBudgets",
    "Route",
    "SelectorRegistry",
    "SuiteScore",
]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]


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


class EngineNeeds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs a model, and what that takes.

    Attributes:
        engine: Digest of the engine.
        abi: Version of its interface.
        memory_limit: Most bytes of its memory.
        context: Positions of a session.
        decoded_bytes: Bytes of the tensors that are decoded when the model is loaded.
        kv_bytes: Bytes of the cache of one session.
    """

    engine: Digest
    abi: Count
    memory_limit: Count
    context: Count
    decoded_bytes: Count
    kv_bytes: Count


class LogitDigest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine computes of a fixed sequence of tokens, bit for bit.

    Attributes:
        positions: Positions that were fed.
        sha256: SHA-256 over the little-endian f32 logits of all of them, in order.
    """

    positions: Count
    sha256: Digest


class LineageNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model, or package, that a model descends from, or itself.

    Attributes:
        digest: Digest of the artifact.
        name: What people call it.
        kind: A registered model, a registered package or folder of factors, or a candidate bred in the lab.
        operator: Tag of the operator that made a candidate; null otherwise.
        parents: Digests of base and parents of a candidate, each once.
    """

    digest: Digest
    name: Name
    kind: Literal["source", "package", "candidate"]
    operator: Name | None
    parents: tuple[Digest, ...]


class SuiteScore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model did on one suite of the scorecard that lies beside it.

    Attributes:
        label: The suite's cluster.
        dimension: What it measures.
        right: Items answered exactly.
        items: Its items.
        champion_right: The same of the champion it was decided against; null where that was not scored on the suite.
    """

    label: Name
    dimension: Name
    right: Count
    items: Count
    champion_right: Count | None


class ModelManifest(Record, frozen=True, kw_only=True, tag="model-manifest/1"):
    """What a model is, what it takes to run, and what the engine computes of it.

    Attributes:
        name: What people call it.
        artifact: Its file.
        storage: How its tensors are stored.
        parameters: Number of elements.
        vocab_size: Number of tokens.
        max_context: Longest sequence.
        tokenizer_sha256: Digest of the tokenizer section.
        layout_sha256: Digest of tensor names and shapes.
        base: Digest of the f32 model that a quantised build was made from; null otherwise.
        quantise_receipt: Digest of the OperatorReceipt that says so.
        licence: SPDX identifier.
        claim: The rung of the gate ladder it was admitted with.
        runtime: What runs it.
        logits: Digest of its logits, without any package.
        lineage: Itself first, then everything it descends from.
        role: Role of the suites that ``scores`` are of.
        scores: One a suite that has answers, in the order of the scorecard.
        unsupported: What it does not do.
        trade_offs: What was given up.
        fallback: Digest of the artifact to use instead.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    name: Name
    artifact: Blob
    storage: Literal["f32", "q8_0", "q4_0", "mixed"]
    parameters: Count
    vocab_size: Count
    max_context: Count
    tokenizer_sha256: Digest
    layout_sha256: Digest
    base: Digest | None
    quantise_receipt: Digest | None
    licence: Name
    claim: Rung
    runtime: EngineNeeds
    logits: LogitDigest
    lineage: tuple[LineageNode, ...]
    role: Name
    scores: tuple[SuiteScore, ...]
    unsupported: tuple[Text, ...]
    trade_offs: tuple[Text, ...]
    fallback: Digest

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.artifact.sha256,)

    def references(self) -> tuple[str, ...]:
        """The receipt of the quantised build."""
        return (self.quantise_receipt,) if self.quantise_receipt else ()


class AdapterManifest(Record, frozen=True, kw_only=True, tag="adapter-manifest/1"):
    """One package of a stack, and what the model is once it lies on top.

    Attributes:
        order: Place in the stack, from 1.
        artifact: The package's file.
        package: ADP1, ASP1 or ALR1.
        base: Digest of the f32 model it was made for.
        tokenizer_sha256: Digest of the tokenizer section it was made for.
        layout_sha256: Digest of tensor names and shapes it was made for.
        licence: SPDX identifier.
        source: Digest of its SourceManifest.
        fused: Tensor -> SHA-256 of its f32 bytes, of every tensor that the stack up to this package changes.
        state_sha256: Assembly-state checksum of the model with the stack up to this package.
        entries: Tensors that this package changes.
        unsupported: What it does not do.
        trade_offs: What was given up.
        fallback: Digest of the artifact to use instead.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    order: Annotated[int, Meta(ge=1, le=64)]
    artifact: Blob
    package: Literal["ADP1", "ASP1", "ALR1"]
    base: Digest
    tokenizer_sha256: Digest
    layout_sha256: Digest
    licence: Name
    source: Digest
    fused: dict[Name, Digest]
    state_sha256: Digest
    entries: Count
    unsupported: tuple[Text, ...]
    trade_offs: tuple[Text, ...]
    fallback: Digest

    def references(self) -> tuple[str, ...]:
        """Its registration."""
        return (self.source,)


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


class Execution(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page runs everything in.

    Attributes:
        profile: ``wasm32-simd128/1``.
        abi: Version of the engine's interface.
        engine: Digest of the engine.
        memory_limit: Most bytes of its memory.
        context: Positions of a session.
        threads: Threads.
    """

    profile: Text
    abi: Count
    engine: Digest
    memory_limit: Count
    context: Count
    threads: Count


class Fetch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page may fetch.

    Attributes:
        policy: ``planned-only``.
        origin: ``same-origin``.
        count: Number of files.
        redirects: ``refuse``.
    """

    policy: Text
    origin: Text
    count: Count
    redirects: Text


class PlanBudgets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Most bytes of each class of file.

    Attributes:
        model: Of the model.
        sidecar: Of one text file.
        sidecars: Of all text files.
        adapters: Of all packages.
    """

    model: Count
    sidecar: Count
    sidecars: Count
    adapters: Count


class Module(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle.

    Attributes:
        id: Its name in the plan.
        role: What it is to the assembly.
        family: How it is fetched and counted: sidecar, evidence, engine, model or adapter; written ``class``.
        path: Where it lies.
        sha256: Digest of its bytes.
        size: Their number.
        phase: When it is fetched; a later phase begins when the one before was verified whole.
        slot: What it takes in the engine; null for text.
        depends: Ids of the modules that have to be verified before it is fetched.
    """

    id: Name
    role: Text
    family: Text = field(name="class")
    path: Text
    sha256: Digest
    size: Count
    phase: Count
    slot: Text | None
    depends: tuple[Text, ...]


class Call(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of the validation and application.

    Attributes:
        order: Its place, from 1.
        call: What is called.
        module: Id of the module it is called for.
    """

    order: Count
    call: Text
    module: Text


class PageFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the page itself.

    Attributes:
        path: Its name.
        sha256: Digest of its bytes.
        size: Their number.
    """

    path: Text
    sha256: Digest
    size: Count


class PageFiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page that verifies the bundle, but for the one generated file that holds the plan's digest.

    Attributes:
        build: Digest of the list of files.
        files: Its files, sorted by path.
    """

    build: Digest
    files: tuple[PageFile, ...]


class ModulePlan(Record, frozen=True, kw_only=True, tag="module-plan/1"):
    """Everything a page fetches and calls, in order; its digest is compiled into the page.

    Attributes:
        profile: ``studbook-browser/1``.
        route: The route.
        execution: What runs it.
        fetch: What may be fetched.
        budgets: Most bytes.
        modules: Every file, in the order of fetching.
        calls: Every call, in order.
        stack: Digests of the packages, in order.
        eval_case: Digest over the suites and items that the model was scored on.
        page: The page's own files.
        unsmoked: Digest of the plan of the same bundle without a BrowserSmoke, which is what the browser ran; null in
            that one itself.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    profile: Text
    route: Text
    execution: Execution
    fetch: Fetch
    budgets: PlanBudgets
    modules: tuple[Module, ...]
    calls: tuple[Call, ...]
    stack: tuple[Digest, ...]
    eval_case: Digest
    page: PageFiles
    unsmoked: Digest | None


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
