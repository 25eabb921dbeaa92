"""What a model and the packages on it are, what they take to run, and what the engine computes of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Digest, Name, Record, Rung, Text, Zone

__all__ = [
    "AdapterManifest",
    "Count",
    "EngineNeeds",
    "LineageNode",
    "LogitDigest",
    "ModelManifest",
    "SuiteScore",
]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]


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
