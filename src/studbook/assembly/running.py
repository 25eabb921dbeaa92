"""The engine at work on a bundle: what it says of model and packages, held against their manifests."""

from __future__ import annotations

import hashlib

from studbook.adapters.reader import parse_adapter
from studbook.assembly.rules import Drift, Refusal
from studbook.errors import StudbookError
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.records import AdapterManifest, ModelManifest
from studbook.records.plans import Execution
from studbook.records.smokes import LogitDigest

__all__ = ["Running"]


class Running:
    """An engine with at most one model and a stack of packages; a context manager.

    Only the engine that this program ships is ever run: what a foreign bundle brings may be anything.

    Args:
        engine: The bundle's engine.
        execution: What it may take.

    Raises:
        Drift: ``engine.abi``, if it is not the engine of this program.
    """

    def __init__(self, engine: bytes, execution: Execution) -> None:
        if hashlib.sha256(engine).hexdigest() != ENGINE_SHA256:
            text = f"is not the engine of this program, {ENGINE_SHA256[:16]}...; use the version that assembled it"
            raise Drift(Refusal("engine", "engine.abi", text, "engine"))
        self._limit = execution.memory_limit
        self._engine: Engine | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def load(self, data: bytes, manifest: ModelManifest) -> None:
        """Load the model, and hold what it is against its manifest.

        Raises:
            Drift: with the engine's reason, or ``model.facts``.
        """
        try:
            engine = self._engine = Engine(data, memory_limit=self._limit)
        except StudbookError as error:
            raise Drift(Refusal("model", str(error.reason), error.message, "model")) from error
        if manifest.base is not None:
            engine.accept(manifest.base)
        found, shape = engine.facts, engine.shape
        facts: dict[str, tuple[object, object]] = {
            "parameters": (manifest.parameters, shape.parameter_count),
            "vocab_size": (manifest.vocab_size, shape.vocab_size),
            "max_context": (manifest.max_context, shape.max_context),
            "tokenizer_sha256": (manifest.tokenizer_sha256, found.tokenizer_sha256),
            "layout_sha256": (manifest.layout_sha256, found.layout_sha256),
            "kv_bytes": (manifest.runtime.kv_bytes, shape.kv_bytes(manifest.runtime.context)),
        }
        for field, (stated, known) in facts.items():
            if stated != known:
                raise Drift(Refusal("model", "model.facts", f"{field} is {known}, and not {stated}", "model"))

    def fused(self) -> dict[str, str]:
        """Tensor -> SHA-256 of its bytes, of every tensor that the packages in force change."""
        return self._loaded.diagnostics().fused

    def logits(self, positions: int) -> LogitDigest:
        """Digest of the logits of some positions with the packages in force.

        Raises:
            UsageError: if they are more than the context, or a logit is not finite.
        """
        return LogitDigest(positions=positions, sha256=self._loaded.logit_digest(positions))

    def smoke(self, logits: LogitDigest, step: str, reason: str, module: str) -> None:
        """Compute the logits again that a record states.

        Raises:
            Drift: with the step and reason given.
        """
        try:
            found = self.logits(logits.positions)
        except StudbookError as error:
            raise Drift(Refusal(step, reason, error.message, module)) from error
        if found != logits:
            text = f"{logits.positions} positions give {found.sha256}, and not {logits.sha256}"
            raise Drift(Refusal(step, reason, text, module))

    def apply(self, package: bytes, manifest: AdapterManifest) -> None:
        """Put a package on top, and hold what came of it against its manifest.

        Raises:
            Drift: ``adapter.validation``, ``adapter.facts``, ``adapter.fused`` or ``adapter.state``.
        """
        name = f"adapter-{manifest.order}"
        try:
            found = self._loaded.apply(package)
        except StudbookError as error:
            text = f"{error.reason}: {error.message}"
            raise Drift(Refusal("adapters", "adapter.validation", text, name)) from error
        # What the engine took is sound, so it is only read here.
        own = parse_adapter(package)
        facts: dict[str, tuple[object, object]] = {
            "package": (manifest.package, own.head.magic),
            "entries": (manifest.entries, len(own.changes)),
            "licence": (manifest.licence, own.meta.licence),
        }
        for field, (stated, known) in facts.items():
            if stated != known:
                raise Drift(Refusal("adapters", "adapter.facts", f"{field} is {known}, and not {stated}", name))
        if found.fused != manifest.fused:
            raise Drift(Refusal("adapters", "adapter.fused", "fused tensors are not those on record", name))
        if found.state_sha256 != manifest.state_sha256:
            raise Drift(Refusal("adapters", "adapter.state", f"the state is {found.state_sha256}", name))

    @property
    def _loaded(self) -> Engine:
        assert self._engine is not None, "load a model first"
        return self._engine
