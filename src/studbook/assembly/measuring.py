"""What the engine says of a model with packages on it: logit digests, fused tensors, state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studbook.adapters.stack import Diagnostics
from studbook.models.engine import Engine
from studbook.records.manifests import EngineNeeds, LogitDigest

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


def measure(model: bytes, packages: Sequence[bytes], base: str | None, needs: EngineNeeds, positions: int) -> Measured:
    """Load a model, put packages on it one by one, and digest its logits before and after.

    Args:
        model: The container.
        packages: The packages, in order.
        base: Digest of the f32 model it was quantised from, as a verified receipt says; None for none.
        needs: What the engine may take.
        positions: Positions to digest.

    Raises:
        SlmRefused: if the model breaks a rule.
        AdapterRefused: if a package does not fit.
        OverBudget: if it does not fit the memory.
        UsageError: if a logit is not finite.
    """
    with Engine(model, memory_limit=needs.memory_limit) as engine:
        if base is not None:
            engine.accept(base)
        alone = LogitDigest(positions=positions, sha256=engine.logit_digest(positions))
        steps = tuple(engine.apply(package) for package in packages)
        whole = LogitDigest(positions=positions, sha256=engine.logit_digest(positions)) if packages else alone
    return Measured(alone, steps, whole)
