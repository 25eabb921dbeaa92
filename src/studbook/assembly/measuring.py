"""What the engine says of a model with packages on it: logit digests, fused tensors, state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from studbook.adapters.reader import parse_adapter
from studbook.adapters.stack import Diagnostics, Stack
from studbook.models.decoder import Decoder
from studbook.models.slm import Slm, parse_slm
from studbook.records.assembly import LogitDigest

__all__ = ["Measured", "measure"]


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        logits: Of the model alone.
        stack: With each package of the stack put on, one after the other: what was in force then.
        whole: Of the model with the whole stack.
    """

    logits: LogitDigest
    stack: tuple[Diagnostics, ...]
    whole: LogitDigest


def measure(model: bytes, packages: Sequence[bytes], base: str | None, positions: int) -> Measured:
    """Load a model, put packages on it one by one, and digest its logits before and after.

    Args:
        model: The container.
        packages: The packages, in order.
        base: Digest of the f32 model it was quantised from, as a verified receipt says; None for none.
        positions: Positions to digest.

    Raises:
        SlmRefused: if the model breaks a rule.
        AdapterRefused: if a package does not fit.
    """
    parsed = parse_slm(model)
    stack = Stack(parsed, {parsed.sha256: base} if base else {})
    alone = _logits(parsed, positions)
    steps = tuple(stack.apply(parse_adapter(package)) for package in packages)
    return Measured(alone, steps, _logits(stack.model(), positions))


def _logits(model: Slm, positions: int) -> LogitDigest:
    state, ids = 1, []
    for _ in range(positions):
        state ^= state << 13 & (1 << 64) - 1
        state ^= state >> 7
        state ^= state << 17 & (1 << 64) - 1
        ids.append((state >> 11) % model.shape.vocab_size)
    decoder = Decoder(model)
    values = decoder.logits(decoder.run(np.array([ids], dtype=np.int64)))
    digest = hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
    return LogitDigest(positions=positions, sha256=digest)
