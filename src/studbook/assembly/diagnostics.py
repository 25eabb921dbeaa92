"""What a page exported about itself, computed again from the bundle: nothing in it is taken at its word but its pace."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from studbook.adapters.stack import state_sha256
from studbook.assembly.meaning import Case
from studbook.assembly.rules import Drift, Refusal
from studbook.errors import RecordRefused
from studbook.records import Digest, digest, read_struct
from studbook.records.manifests import Count
from studbook.records.smokes import LogitDigest

__all__ = ["LIMIT", "Called", "Diagnostics", "check_diagnostics", "read_diagnostics"]

LIMIT = 1 << 20
Pace = Annotated[float, Meta(ge=0.0)]


class Called(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call the page made.

    Attributes:
        order: Its place, from 1.
        call: What was called.
        module: Id of the module it was called for.
        sha256: Digest of that module's file, as the page computed it.
        status: ``passed``.
    """

    order: Count
    call: str
    module: str
    sha256: Digest
    status: str


class Diagnostics(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="bundle-diagnostics/1"
):
    """What was in force in a page when somebody exported it.

    Attributes:
        plan: Digest of the plan.
        page_build: Digest of the page's files.
        browser: How the browser calls itself.
        engine: Digest of the engine.
        model: Digest of the model.
        quantisation: How its tensors are stored.
        applied: Digests of the packages on it: the first few of the stack, in order.
        fused: Tensor -> SHA-256 of its f32 bytes, of every tensor that they change.
        state_sha256: Assembly-state checksum.
        logits: Digest of the logits with these packages.
        calls: Every call of the verification, in order.
        calls_sha256: Digest of the plan's calls.
        kv_length: Positions in the session's cache.
        tokens: Tokens that were written last.
        tokens_per_second: At which pace; the page's own word.
    """

    plan: Digest
    page_build: Digest
    browser: str
    engine: Digest
    model: Digest
    quantisation: str
    applied: tuple[Digest, ...]
    fused: dict[str, Digest]
    state_sha256: Digest
    logits: LogitDigest
    calls: tuple[Called, ...]
    calls_sha256: Digest
    kv_length: Count
    tokens: Count
    tokens_per_second: Pace


def read_diagnostics(data: bytes, case: Case) -> Diagnostics:
    """Read what a page exported, and hold it against a verified bundle; the engine is asked afterwards.

    Args:
        data: The file.
        case: The bundle.

    Raises:
        Drift: ``diagnostics.form``, ``.plan``, ``.model``, ``.state`` or ``.calls``.
    """
    try:
        own = read_struct(data, Diagnostics)
    except RecordRefused as error:
        raise _refused("form", error.message) from error
    plan = case.plan
    facts: dict[str, tuple[str, object, object]] = {
        "plan": ("plan", own.plan, digest(plan)),
        "page_build": ("plan", own.page_build, plan.page.build),
        "engine": ("plan", own.engine, plan.execution.engine),
        "model": ("model", own.model, case.model.artifact.sha256),
        "quantisation": ("model", own.quantisation, case.model.storage),
        "applied": ("state", own.applied, plan.stack[: len(own.applied)]),
        "state_sha256": ("state", own.state_sha256, state_sha256(case.model.artifact.sha256, own.applied)),
        "kv_length": ("state", own.kv_length <= plan.execution.context, True),
        # The last token is never fed, so a text after one token may be as long as the context.
        "tokens": ("state", own.tokens <= plan.execution.context, True),
        "calls": ("calls", own.calls, _trace(case)),
        "calls_sha256": ("calls", own.calls_sha256, digest(plan.calls)),
    }
    for field, (reason, found, wanted) in facts.items():
        if found != wanted:
            raise _refused(reason, f"{field} is not that of this bundle")
    return own


def _trace(case: Case) -> tuple[Called, ...]:
    """The calls of a page that went through a bundle whole."""
    digests = {module.id: module.sha256 for module in case.plan.modules}
    return tuple(
        Called(order=c.order, call=c.call, module=c.module, sha256=digests[c.module], status="passed")
        for c in case.plan.calls
    )


def check_diagnostics(own: Diagnostics, case: Case, fused: dict[str, str], logits: LogitDigest) -> None:
    """Hold what the engine finds with the same packages against what the page exported.

    Args:
        own: What was exported.
        case: The bundle.
        fused: What the engine fused.
        logits: What it computed.

    Raises:
        Drift: ``diagnostics.fused`` or ``.logits``.
    """
    if own.fused != fused:
        raise _refused("fused", "fused tensors are not those that the packages give")
    if own.logits != logits or own.logits.positions != case.model.logits.positions:
        raise _refused("logits", "logits are not those that the engine computes")


def _refused(rule: str, detail: str) -> Drift:
    return Drift(Refusal("diagnostics", f"diagnostics.{rule}", detail))
