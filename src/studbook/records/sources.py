"""Where a descendant comes from: registered sources, approvals of parents, compatibility of parents."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Date, Digest, Measure, Name, Record, Rung, Text, Zone

__all__ = [
    "AdapterSource",
    "Check",
    "CheckpointSource",
    "CompatibilityReport",
    "DataFile",
    "DataSource",
    "LicenceSource",
    "LoraSource",
    "ModelSource",
    "ParentApproval",
    "ProducerSignature",
    "SourceManifest",
    "TaskVectorPair",
    "TokenizerChange",
]


class ModelSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="form", tag="model"):
    """A model in an SLM1 container.

    Attributes:
        label: Storage of its tensors: f32, q8_0, q4_0 or mixed.
        parameters: Number of elements.
        tokenizer_sha256: Digest of the tokenizer section.
        layout_sha256: Digest of tensor names and shapes, without dtypes.
        base: Digest of the artifact it was fine-tuned from, where declared.
        trained_manifest: Digest of the trained-source manifest that names every tensor's digest, if there is one.
        licence: Digest of the SourceManifest of its licence, if one was declared.
        data: Digests of the SourceManifests of the data it was trained on.
        claim: The rung of the gate ladder its provenance reaches.
    """

    label: Name
    parameters: int
    tokenizer_sha256: Digest
    layout_sha256: Digest
    base: Digest | None
    trained_manifest: Digest | None
    licence: Digest | None
    data: tuple[Digest, ...]
    claim: Rung


class AdapterSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="form", tag="adapter"):
    """An adapter-source manifest: a promise of an adapter for one base and tokenizer, with its file's digest.

    Attributes:
        package: Package kind: ADP1, ASP1 or ALR1.
        base: Digest of the f32 base artifact.
        tokenizer_sha256: Digest of the tokenizer section it was made for.
        adapter_sha256: Digest of the adapter file.
        licence: Digest of the SourceManifest of its licence, if one was declared.
    """

    package: Literal["ADP1", "ASP1", "ALR1"]
    base: Digest
    tokenizer_sha256: Digest
    adapter_sha256: Digest
    licence: Digest | None


class CheckpointSource(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="form", tag="checkpoint"
):
    """A Hugging Face checkpoint; the artifact is the canonical list of its files, and every file is in the store.

    Attributes:
        label: Storage of its tensors: f32, f16, bf16 or mixed.
        parameters: Number of elements.
        architecture: The first of ``architectures`` in its config, or ``unknown``.
        vocab_size: Rows of its embedding as the config states them; 0 where it states none.
        tokenizer_sha256: Digest over its tokenizer files.
        layout_sha256: Digest of tensor names and shapes, without dtypes.
        weights_bytes: Bytes of its weight files.
        licence: Digest of the SourceManifest of its licence, if one was declared.
        claim: The rung of the gate ladder its provenance reaches.
    """

    label: Name
    parameters: int
    architecture: Text
    vocab_size: int
    tokenizer_sha256: Digest
    layout_sha256: Digest
    weights_bytes: int
    licence: Digest | None
    claim: Rung


class LoraSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="form", tag="lora"):
    """A PEFT LoRA folder; the artifact is the canonical list of its files, and every file is in the store.

    Attributes:
        rank: Largest rank of its factors.
        tensors: How many tensors it changes.
        base_name: What its config calls the base model; a name, not an identity.
        licence: Digest of the SourceManifest of its licence, if one was declared.
    """

    rank: int
    tensors: int
    base_name: Text
    licence: Digest | None


class DataFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a data manifest.

    Attributes:
        label: The cluster its rows belong to.
        sha256: Digest of its bytes.
        rows: Number of rows.
    """

    label: Name
    sha256: Digest
    rows: Annotated[int, Meta(ge=0)]


class DataSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="form", tag="data"):
    """A data manifest: what was, or may be, trained on.

    Attributes:
        split: Which split of its generator it is.
        split_rule: How a row is assigned to a split.
        seed: Seed of the generator.
        rows: Rows in the whole split that training drew from.
        files: The slices that are held as files.
        licence: Digest of the SourceManifest of its licence, if one was declared.
    """

    split: Name
    split_rule: Text
    seed: Text
    rows: int
    files: tuple[DataFile, ...]
    licence: Digest | None


class LicenceSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="form", tag="licence"):
    """A licence: identifier, text and the place where it was declared.

    Attributes:
        spdx: SPDX identifier.
        text_sha256: Digest of the licence text.
        declared_in: Where the producer declared it.
    """

    spdx: Name
    text_sha256: Digest
    declared_in: Text


class SourceManifest(Record, frozen=True, kw_only=True, tag="source-manifest/1"):
    """One registered source; its bytes lie in the immutable store under their digest.

    Attributes:
        name: What people call it; newest registration of a name wins in look-ups, the digest is the identity.
        artifact: The source's own bytes: container, manifest or licence text.
        files: Further bytes that belong to it, such as a trained-source manifest or data slices.
        source: What it is, by form.
        unsupported: What it is known not to do.
    """

    zone: ClassVar[Zone] = Zone.REGISTRY
    name: Name
    artifact: Blob
    files: tuple[Blob, ...]
    source: ModelSource | CheckpointSource | LoraSource | AdapterSource | DataSource | LicenceSource
    unsupported: tuple[Text, ...]

    def subjects(self) -> tuple[str, ...]:
        """The artifact."""
        return (self.artifact.sha256,)

    def references(self) -> tuple[str, ...]:
        """The licence and data manifests it names."""
        licence = () if isinstance(self.source, LicenceSource) else (self.source.licence,)
        data = self.source.data if isinstance(self.source, ModelSource) else ()
        return tuple(d for d in (*licence, *data) if d)


class ParentApproval(Record, frozen=True, kw_only=True, tag="parent-approval/1"):
    """Who approved which parent for which clusters until when; registered is not approved.

    Attributes:
        artifact: Digest of the model.
        source: Digest of its SourceManifest.
        approved_by: The person whose key signs.
        clusters: Labels it may be bred for; ``*`` stands for all.
        until: Last day the approval holds.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.REGISTRY
    artifact: Digest
    source: Digest
    approved_by: Name
    clusters: tuple[Text, ...]
    until: Date
    reason: Text

    def subjects(self) -> tuple[str, ...]:
        """The approved model."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """Its registration."""
        return (self.source,)


class ProducerSignature(Record, frozen=True, kw_only=True, tag="producer-signature/1"):
    """A producer's signature over a folder, checked when the source was registered from it.

    The signature's file and the key enter the store with the record, under ``document_sha256`` and ``key_sha256``.

    Attributes:
        artifact: Digest of the source.
        source: Digest of its SourceManifest.
        form: ``oms`` (a model signature) or ``in-toto-link``.
        key_sha256: SHA-256 of the producer's public key in DER form (RFC 5280, SubjectPublicKeyInfo).
        document_sha256: SHA-256 of the signature's file.
        name: What the signer calls the model, or the step.
        covered: Files that were taken from the folder, sorted; each has the digest that was signed.
        absent: Files that were signed and not taken, sorted.
    """

    zone: ClassVar[Zone] = Zone.REGISTRY
    artifact: Digest
    source: Digest
    form: Literal["oms", "in-toto-link"]
    key_sha256: Digest
    document_sha256: Digest
    name: Text
    covered: tuple[Text, ...]
    absent: tuple[Text, ...]

    def subjects(self) -> tuple[str, ...]:
        """The source."""
        return (self.artifact,)

    def references(self) -> tuple[str, ...]:
        """Its registration."""
        return (self.source,)


class Check(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named check with its outcome in words.

    Attributes:
        name: What was checked.
        passed: Whether it holds.
        detail: The first difference and what to do, or what was found equal.
    """

    name: Name
    passed: bool
    detail: Text


class TaskVectorPair(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How two parents' task vectors (parent - base) lie to each other.

    Attributes:
        first: Digest of one parent.
        second: Digest of the other.
        cosine: Cosine of the two task vectors over all tensors.
        sign_conflict: Share of elements, among those where both moved, that moved in opposite directions.
        barrier: Loss (nats per answer token) at the midpoint minus the mean of the two ends, on the anchor rows.
    """

    first: Digest
    second: Digest
    cosine: Measure
    sign_conflict: Measure
    barrier: Measure


class TokenizerChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes between the base's tokenizer and a parent's, held against both: ids, and what texts become.

    Attributes:
        parent: Digest of the parent whose tokenizer is another one.
        kept: Tokens that both have.
        moved: Of these, tokens whose id is another one.
        dropped: Tokens of the base that the parent lacks.
        added: Tokens of the parent that the base lacks.
        text_bytes: Bytes of the texts that were tried, UTF-8; 0 where none were.
        base_tokens: Tokens the base's tokenizer makes of them.
        parent_tokens: Tokens the parent's makes of them.
        differing: Texts that do not become the same tokens under both.
        failed: Texts that one of them does not give back.
        detail: The first differences, in words.
    """

    parent: Digest
    kept: Annotated[int, Meta(ge=0)]
    moved: Annotated[int, Meta(ge=0)]
    dropped: Annotated[int, Meta(ge=0)]
    added: Annotated[int, Meta(ge=0)]
    text_bytes: Annotated[int, Meta(ge=0)]
    base_tokens: Annotated[int, Meta(ge=0)]
    parent_tokens: Annotated[int, Meta(ge=0)]
    differing: Annotated[int, Meta(ge=0)]
    failed: Annotated[int, Meta(ge=0)]
    detail: Text


class CompatibilityReport(Record, frozen=True, kw_only=True, tag="compatibility-report/1"):
    """Whether these parents may be combined at all; merge-style operators refuse to start without a passing one.

    Attributes:
        base: Digest of the shared base.
        parents: Digests of the parents, in order.
        checks: Quantisation, tokenizer, layout, adapter, resource envelope, licence, provenance; of checkpoints
            architecture, config, tokenizer, layout, licence.
        tokenizers: Every parent whose tokenizer is not the base's, in order.
        pairs: Geometry of every pair of task vectors; none for checkpoints.
        anchor: Digest of the rows the barrier and the tokenizers were measured on.
        passed: All checks hold.
    """

    zone: ClassVar[Zone] = Zone.REGISTRY
    base: Digest
    parents: tuple[Digest, ...]
    checks: tuple[Check, ...]
    tokenizers: tuple[TokenizerChange, ...]
    pairs: tuple[TaskVectorPair, ...]
    anchor: Digest
    passed: bool

    def subjects(self) -> tuple[str, ...]:
        """Base and parents."""
        return (self.base, *self.parents)
