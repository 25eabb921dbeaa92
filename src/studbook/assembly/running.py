"""The engine at work on a bundle: what it says of model and packages, held against their manifests."""

from __future__ import annotations

import hashlib
from types import TracebackType

import numpy as np

from studbook.adapters.reader import parse_adapter
from studbook.adapters.stack import Stack
from studbook.assembly.rules import Drift, Refusal
from studbook.errors import AdapterRefused, SlmRefused, TokenizerRefused
from studbook.models.decoder import Decoder
from studbook.models.slm import Slm, parse_slm
from studbook.records import AdapterManifest, ModelManifest
from studbook.records.assembly import Execution, LogitDigest

__all__ = ["Running"]


class Running:
    """An engine with at most one model and a stack of packages; a context manager.

    Args:
        engine: The engine's module.
        execution: What it may take.

    Raises:
        Drift: ``engine.abi``, if it is no engine of the interface.
    """

    def __init__(self, engine: bytes, execution: Execution) -> None:
        self._execution = execution
        self._stack: Stack | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def load(self, data: bytes, manifest: ModelManifest) -> None:
        """Load the model, and hold what it is against its manifest.

        Raises:
            Drift: with the engine's reason, or ``model.facts``.
        """
        try:
            model = parse_slm(data)
        except (SlmRefused, TokenizerRefused) as error:
            raise Drift(Refusal("model", error.reason, error.message, "model")) from error
        own = manifest
        facts: dict[str, tuple[object, object]] = {
            "storage": (own.storage, model.label),
            "parameters": (own.parameters, model.shape.parameter_count),
            "vocab_size": (own.vocab_size, model.shape.vocab_size),
            "max_context": (own.max_context, model.shape.max_context),
            "tokenizer_sha256": (own.tokenizer_sha256, model.tokenizer_sha256),
            "layout_sha256": (own.layout_sha256, model.layout_sha256),
        }
        for field, (found, wanted) in facts.items():
            if found != wanted:
                raise Drift(Refusal("model", "model.facts", f"{field} is not what the engine finds", "model"))
        self._stack = Stack(model, {model.sha256: own.base} if own.base else {})

    def fused(self) -> dict[str, str]:
        """Tensor -> SHA-256 of its bytes, of every tensor that the packages in force change."""
        assert self._stack is not None
        return dict(self._stack.diagnostics().fused)

    def logits(self, positions: int) -> LogitDigest:
        """Digest of the logits of some positions with the packages in force."""
        assert self._stack is not None
        return LogitDigest(positions=positions, sha256=_logits(self._stack.model(), positions))

    def smoke(self, logits: LogitDigest, step: str, reason: str, module: str) -> None:
        """Compute the logits again that a record states.

        Raises:
            Drift: with the step and reason given.
        """
        if self.logits(logits.positions) != logits:
            text = f"the logits of {logits.positions} positions are not those on record"
            raise Drift(Refusal(step, reason, text, module))

    def apply(self, package: bytes, manifest: AdapterManifest) -> None:
        """Put a package on top, and hold what came of it against its manifest.

        Raises:
            Drift: ``adapter.validation``, ``adapter.fused`` or ``adapter.state``.
        """
        assert self._stack is not None
        name = f"adapter-{manifest.order}"
        try:
            found = self._stack.apply(parse_adapter(package))
        except AdapterRefused as error:
            text = f"{error.reason}: {error.message}"
            raise Drift(Refusal("adapters", "adapter.validation", text, name)) from error
        if found.fused != manifest.fused:
            raise Drift(Refusal("adapters", "adapter.fused", "fused tensors are not those on record", name))
        if found.state_sha256 != manifest.state_sha256:
            raise Drift(Refusal("adapters", "adapter.state", "the state is not the one on record", name))


def _logits(model: Slm, positions: int) -> str:
    state, ids = 1, []
    for _ in range(positions):
        state ^= state << 13 & (1 << 64) - 1
        state ^= state >> 7
        state ^= state << 17 & (1 << 64) - 1
        ids.append((state >> 11) % model.shape.vocab_size)
    decoder = Decoder(model)
    values = decoder.logits(decoder.run(np.array([ids], dtype=np.int64)))
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
