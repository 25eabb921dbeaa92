"""The fixed numbers of a bundle, the steps of its verification, and every reason for which one of them refuses.

The page and `bundle verify` go through the same steps in the same order; the first refusal ends both. What is refused is
a value, not an error: a bundle is somebody else's, and that it does not hold is an answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from msgspec import Struct

__all__ = [
    "ABI",
    "ADAPTER_BUDGET",
    "BESIDES",
    "BUNDLE_JS",
    "ENGINE_BUDGET",
    "EXECUTION",
    "MAX_ADAPTERS",
    "MEMORY_MOST",
    "MODEL_BUDGET",
    "ORIGIN",
    "PLAIN_NAME",
    "PLAN_BYTES",
    "POLICY",
    "PROFILE",
    "REASONS",
    "REDIRECTS",
    "SIDECARS_BUDGET",
    "SIDECAR_BUDGET",
    "STEPS",
    "STRATEGY",
    "Drift",
    "Refusal",
    "Step",
]

PROFILE = "studbook-browser/1"
EXECUTION = "wasm32-simd128/1"
ABI = 1
POLICY, ORIGIN, REDIRECTS = "planned-only", "same-origin", "refuse"
STRATEGY = "direct"
BUNDLE_JS = "bundle.js"
PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""How a file of the page may be called."""
PLAN_BYTES = 1 << 20
MODEL_BUDGET = 33_554_432
SIDECAR_BUDGET = 1 << 20
SIDECARS_BUDGET = 16 << 20
ADAPTER_BUDGET = 1 << 20
ENGINE_BUDGET = 4 << 20
MAX_ADAPTERS = 16
MEMORY_MOST = 1 << 32

REASONS: dict[str, tuple[str, ...]] = {
    "plan": ("plan.digest-missing", "plan.size", "fetch.missing", "plan.digest", "plan.form"),
    "policy": (
        "plan.profile",
        "plan.execution",
        "plan.fetch-policy",
        "plan.origin-policy",
        "plan.fetch-count",
        "plan.model-budget",
        "plan.sidecar-budget",
        "plan.adapter-budget",
        "plan.resource",
        "plan.role",
        "plan.slot",
        "plan.phase",
        "plan.dependency",
        "plan.bytes",
        "plan.stack",
        "plan.graph",
        "plan.page",
    ),
    "registry": (
        "fetch.missing",
        "fetch.bytes",
        "fetch.checksum",
        "registry.form",
        "registry.budget",
        "registry.route",
        "registry.family",
    ),
    "receipts": (
        "fetch.missing",
        "fetch.bytes",
        "fetch.checksum",
        "manifest.form",
        "manifest.model",
        "manifest.runtime",
        "adapter.manifest",
        "family.form",
        "family.stack",
        "receipt.form",
        "receipt.binding",
        "receipt.calls",
        "receipt.state",
        "receipt.case",
    ),
    "evidence": (
        "evidence.file",
        "evidence.form",
        "evidence.meaning",
        "evidence.case",
        "evidence.ledger",
        "evidence.browser",
    ),
    "engine": ("fetch.missing", "fetch.bytes", "fetch.checksum", "engine.abi"),
    "model": ("fetch.missing", "fetch.bytes", "fetch.checksum", "model.facts"),
    "smoke": ("smoke.logits",),
    "adapters": (
        "adapter.artifact",
        "adapter.validation",
        "adapter.facts",
        "adapter.fused",
        "adapter.state",
        "smoke.stack",
    ),
    "ready": (),
}
"""Step -> its reasons, in the order in which they are asked for; the model's step has those of the engine besides."""

BESIDES: dict[str, tuple[str, ...]] = {
    "folder": ("folder.type", "folder.stray", "folder.page"),
    "diagnostics": (
        "diagnostics.form",
        "diagnostics.plan",
        "diagnostics.model",
        "diagnostics.state",
        "diagnostics.calls",
        "diagnostics.fused",
        "diagnostics.logits",
    ),
    "lab": ("lab.release", "lab.revoked", "lab.candidate"),
}
"""What no page can ask: of the folder, of what a page exported, and of the lab that assembled the bundle."""

STEPS = tuple(REASONS)


class Refusal(Struct, frozen=True):
    """Why a bundle is refused.

    Attributes:
        step: The step that refused.
        reason: A stable code.
        detail: In words.
        module: Id of the module it is about; empty where it is about none.
    """

    step: str
    reason: str
    detail: str
    module: str = ""


class Step(NamedTuple):
    """One step that was gone through.

    Attributes:
        name: The step.
        detail: What was verified, in words.
    """

    name: str
    detail: str


class Drift(Exception):
    """Ends a verification with its refusal; never leaves this room.

    Args:
        refusal: Why.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
