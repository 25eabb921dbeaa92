"""What the engine finds in a model with packages on it: whether it loads, what it takes, what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.records import Envelope, LogitDigest, Measure

__all__ = ["MEMORY", "POSITIONS", "Probe", "probe"]

MEMORY = 1 << 30
"""Most bytes that a package may take while it is probed."""
POSITIONS = 512
"""Positions of the session it is probed with; fewer where its context is shorter."""


class Probe(NamedTuple):
    """What was found.

    Attributes:
        sha256: Digest of the model.
        size: Its bytes.
        tokenizer: Digest of its tokenizer section.
        decoded_bytes: Bytes of its weights in f32, and of what packages on it fused.
        envelope: What it takes.
        logits: Digest of its logits, with the packages on it.
    """

    sha256: str
    size: int
    tokenizer: str
    decoded_bytes: int
    envelope: Envelope
    logits: LogitDigest


def probe(model: bytes, stack: Sequence[bytes] = (), base: str | None = None, where: object = "") -> Probe:
    """Load a model, put packages on it, digest its logits, open a session, and read off what all of that took.

    Args:
        model: The container.
        stack: Adapter packages, in order.
        base: Digest of the f32 model it was quantised from, as a verified receipt says; None for none.
        where: What to call it in errors.

    Raises:
        SlmRefused: if the model breaks a rule.
        AdapterRefused: if a package does not fit.
        OverBudget: if it does not fit the memory.
        UsageError: if a logit is not finite.
    """
    with Engine(model, memory_limit=MEMORY, where=where) as engine:
        if base is not None:
            engine.accept(base)
        fused = engine.apply(*stack).fused if stack else {}
        positions = engine.shape.smoke_positions
        logits = LogitDigest(positions=positions, sha256=engine.logit_digest(positions))
        elements = {spec.name: spec.elements for spec in engine.shape.tensors()}
        weights = engine.facts.decoded_bytes + sum(4 * elements[name] for name in fused)
        length = min(POSITIONS, engine.shape.max_context)
        with engine.session(length):
            taken = engine.memory_bytes
        cache = engine.shape.kv_bytes(1)
        facts = engine.facts
    files = len(model) + sum(map(len, stack))
    return Probe(
        sha256=facts.sha256,
        size=facts.size,
        tokenizer=facts.tokenizer_sha256,
        decoded_bytes=weights,
        envelope=_envelope(files, weights, cache, max(0, taken - weights - cache * length), length),
        logits=logits,
    )


def _envelope(files: int, weights: int, cache: int, scratch: int, length: int) -> Envelope:
    engine = f"engine {ENGINE_SHA256[:16]}"
    rest = f"{engine}: memory with one session of {length} positions, less weights and cache; the file is part of it"
    return Envelope(
        file_bytes=_bytes(files, "observed", "length of the files"),
        decoded_bytes=_bytes(weights, "observed", f"{engine}: tensors in f32, fused ones counted again"),
        kv_bytes_per_position=_bytes(cache, "estimated", "two f32 a layer and element of a key"),
        scratch_bytes=_bytes(scratch, "observed", rest),
    )


def _bytes(value: int, basis: str, method: str) -> Measure:
    return Measure(value=value, unit="bytes", basis=basis, method=method)  # type: ignore[arg-type]
