"""How a descendant was made: declared before the run, recorded after it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Digest, JsonObject, Name, Record, Rung, Text, Zone
from studbook.records.sources import Check

__all__ = [
    "CandidateManifest",
    "ClientUpdate",
    "Expected",
    "FederatedReceipt",
    "InputDigest",
    "LineageTemplate",
    "OperatorReceipt",
    "WorkerLimits",
]


class WorkerLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one breeding worker may use.

    Attributes:
        seconds: Processor seconds.
        memory_bytes: Address space in bytes.
        output_bytes: Size of the output file in bytes.
    """

    seconds: int
    memory_bytes: int
    output_bytes: int


class Expected(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output as declared before the run; a difference from what came out rejects the candidate.

    Attributes:
        layout_sha256: Digest of names and shapes.
        tokenizer_sha256: Digest of the tokenizer section.
        label: Storage of the tensors.
        size_bytes: Exact file size.
        delta_norm: Upper bound of ||candidate - base|| (L2 over all tensors).
        relative_delta: The same over ||base||; the policy caps it.
    """

    layout_sha256: Digest
    tokenizer_sha256: Digest
    label: Name
    size_bytes: int
    delta_norm: Annotated[float, Meta(ge=0.0)]
    relative_delta: Annotated[float, Meta(ge=0.0)]


class LineageTemplate(Record, frozen=True, kw_only=True, tag="lineage-template/1"):
    """Binds parents, operator, budget and expected output before anything runs.

    Attributes:
        purpose: ``candidate`` may be promoted; ``ablation`` only explains one and is never eligible.
        cluster: Digest of the FailureCluster it is bred for; null for a checkpoint, which no suite here can judge, so
            that it may be bred, shown and exported but never decided upon.
        policy: Digest of the Policy in force.
        compatibility: Digest of the passing CompatibilityReport; null for operators of one parent.
        base: Digest of the base artifact.
        parents: Digests of the parents, in the order of the recipe.
        operator: The operator record, or the checkpoint recipe that holds one.
        recipe_sha256: Digest over base, parents and operator: the identity of the work.
        numeric_contract: Digest of the numeric contract.
        limits: Worker limits.
        expected: Expected output.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    purpose: Literal["candidate", "ablation"]
    cluster: Digest | None
    policy: Digest
    compatibility: Digest | None
    base: Digest
    parents: tuple[Digest, ...]
    operator: JsonObject
    recipe_sha256: Digest
    numeric_contract: Digest
    limits: WorkerLimits
    expected: Expected

    def subjects(self) -> tuple[str, ...]:
        """Base and parents."""
        return (self.base, *self.parents)

    def references(self) -> tuple[str, ...]:
        """Cluster, policy and compatibility report."""
        return tuple(d for d in (self.cluster, self.policy, self.compatibility) if d)


class InputDigest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input file, hashed before and after the run.

    Attributes:
        role: ``base`` or ``parent``.
        before: Digest before.
        after: Digest after; must be equal.
    """

    role: Literal["base", "parent"]
    before: Digest
    after: Digest


class OperatorReceipt(Record, frozen=True, kw_only=True, tag="operator-receipt/1"):
    """What an operator did and how to recompute it; no field is optional.

    Attributes:
        template: Digest of the LineageTemplate.
        operator: The operator record as the worker ran it.
        inputs: Base and parents, hashed before and after.
        numeric_contract: Digest of the numeric contract.
        isolation: The measures the worker had in force.
        output: Digest and size of what came out.
        delta_norm: Measured ||candidate - base|| (L2, observed).
        reproducibility: ``exact`` on any machine, or ``environment-bound``.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    template: Digest
    operator: JsonObject
    inputs: tuple[InputDigest, ...]
    numeric_contract: Digest
    isolation: tuple[Name, ...]
    output: Blob
    delta_norm: Annotated[float, Meta(ge=0.0)]
    reproducibility: Literal["exact", "environment-bound"]

    def subjects(self) -> tuple[str, ...]:
        """The output."""
        return (self.output.sha256,)

    def references(self) -> tuple[str, ...]:
        """The template."""
        return (self.template,)


class ClientUpdate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of one client of a federated round.

    Attributes:
        manifest: Digest of its data manifest.
        rows: Rows of it: the client's weight.
        package: Digest of the package it sent, which the lab keeps; null where it sent none.
        norm: L2 norm of the change, where it was let in; null otherwise.
        reason: Stable reason why it was left out, or empty.
        words: The same in words.
    """

    manifest: Digest
    rows: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    package: Digest | None
    norm: Annotated[float, Meta(ge=0.0)] | None
    reason: Text
    words: Text


class FederatedReceipt(Record, frozen=True, kw_only=True, tag="federated-receipt/1"):
    """How a federated round went: who sent what, who was left out and why. `verify` averages the packages again.

    That a client's package came from its rows, and that one which sent none had failed, is taken at the worker's word.

    Attributes:
        template: Digest of the LineageTemplate.
        limit: Largest L2 norm of a change that was let in.
        clients: One a client, in the operator's order.
        output: Digest of the child.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    template: Digest
    limit: Annotated[float, Meta(ge=0.0)]
    clients: tuple[ClientUpdate, ...]
    output: Digest

    def subjects(self) -> tuple[str, ...]:
        """The child."""
        return (self.output,)

    def references(self) -> tuple[str, ...]:
        """The template and the clients' data manifests."""
        return (self.template, *(client.manifest for client in self.clients))


class CandidateManifest(Record, frozen=True, kw_only=True, tag="candidate-manifest/1"):
    """Binds a produced artifact to its receipt, and says what it inherits and what it is not.

    Attributes:
        name: Family and a short digest.
        artifact: The candidate file.
        family: Its one mutation family.
        purpose: As in the template.
        template: Digest of the LineageTemplate.
        receipt: Digest of the OperatorReceipt.
        checks: Declared against produced output, one row each.
        licence: SPDX identifier of the strictest licence inherited.
        data: Digests of the data manifests inherited.
        claim: The rung of the gate ladder claimed.
        unsupported: What it does not do.
        trade_offs: What was given up.
        fallback: Digest of the artifact to use instead.
    """

    zone: ClassVar[Zone] = Zone.CANDIDATE
    name: Name
    artifact: Blob
    family: Name
    purpose: Literal["candidate", "ablation"]
    template: Digest
    receipt: Digest
    checks: tuple[Check, ...]
    licence: Name
    data: tuple[Digest, ...]
    claim: Rung
    unsupported: tuple[Text, ...]
    trade_offs: tuple[Text, ...]
    fallback: Digest

    def subjects(self) -> tuple[str, ...]:
        """The candidate file."""
        return (self.artifact.sha256,)

    def references(self) -> tuple[str, ...]:
        """Template, receipt and inherited data."""
        return (self.template, self.receipt, *self.data)
