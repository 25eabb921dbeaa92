"""That a model runs at all, and what the engine computes of it, bit for bit."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from studbook.records.base import Digest, Record, Text, Zone

__all__ = ["LogitDigest", "RuntimeSmoke"]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class LogitDigest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine computes of a fixed sequence of tokens, bit for bit.

    Attributes:
        positions: Positions that were fed.
        sha256: SHA-256 over the little-endian f32 logits of all of them, in order.
    """

    positions: Count
    sha256: Digest


class RuntimeSmoke(Record, frozen=True, kw_only=True, tag="runtime-smoke/1"):
    """Proof that an artifact loads and runs; never a statement about quality.

    Attributes:
        artifact: Digest of the model.
        evaluator: Digest of the evaluator.
        engine: Digest of the engine that ran it; in a page the same engine computes the same.
        prompts: Digest of the fixed prompts.
        outputs_sha256: Digest of the greedy token ids of all prompts.
        tokens: Tokens generated.
        logits: Its logits on a fixed sequence; null where one of them is not finite.
        fuel: What the engine counted for all of it, the same on every machine.
        finite: Every logit was finite.
        deterministic: A second run gave the same tokens.
        passed: Both hold and every output decodes or ends within its bound.
        detail: In words.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    artifact: Digest
    evaluator: Digest
    engine: Digest
    prompts: Digest
    outputs_sha256: Digest
    tokens: int
    logits: LogitDigest | None
    fuel: Count
    finite: bool
    deterministic: bool
    passed: bool
    detail: Text

    def subjects(self) -> tuple[str, ...]:
        """The model."""
        return (self.artifact,)
