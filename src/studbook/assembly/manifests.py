"""What a model and its packages are and need: written from their parsed files, and held against a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

from studbook.adapters.reader import Adapter
from studbook.adapters.stack import Diagnostics, state_sha256
from studbook.assembly import rules
from studbook.assembly.rules import Drift, Refusal
from studbook.models.slm import Slm
from studbook.models.stored import Dtype
from studbook.records import (
    AdapterFamilyReceipt,
    AdapterManifest,
    Blob,
    Header,
    ModelManifest,
    ModulePlan,
    Scorecard,
    SelectorRegistry,
    SourceManifest,
    digest,
)
from studbook.records.manifests import EngineNeeds, LineageNode, SuiteScore
from studbook.records.smokes import LogitDigest

__all__ = [
    "Applied",
    "adapter_manifests",
    "check_adapters",
    "check_family",
    "check_model",
    "eval_case",
    "family_receipt",
    "fault_in_line",
    "needs",
    "scores",
]

_PAGE = 1 << 16
_SPARE = 32 << 20


class Applied(NamedTuple):
    """One package of a stack, and what the engine said once it lay on top.

    Attributes:
        adapter: The package.
        source: Digest of its SourceManifest.
        manifest: The SourceManifest.
        diagnostics: What was in force with the stack up to it.
    """

    adapter: Adapter
    source: str
    manifest: SourceManifest
    diagnostics: Diagnostics


def needs(model: Slm, engine: str) -> EngineNeeds:
    """What it takes to run a model with packages on it, its whole context long.

    The limit covers the file, decoded tensors, every tensor fused twice over while a stack is swapped, a cache, and as
    much again, for no allocator is perfect; it bounds a page, it reserves nothing.

    Args:
        model: The model.
        engine: Digest of the engine.
    """
    shape = model.shape
    decoded = sum(4 * math.prod(t.dims) for t in model.tensors.values() if t.dtype is not Dtype.F32)
    cache = shape.kv_bytes(shape.max_context)
    most = 2 * (model.size + decoded + 8 * shape.parameter_count + cache) + _SPARE
    return EngineNeeds(
        engine=engine,
        abi=rules.ABI,
        memory_limit=min(rules.MEMORY_MOST, -(-most // _PAGE) * _PAGE),
        context=shape.max_context,
        decoded_bytes=decoded,
        kv_bytes=cache,
    )


def scores(card: Scorecard, champion: Scorecard | None) -> tuple[SuiteScore, ...]:
    """What a page shows of a scorecard: right answers beside those of the champion it was decided against.

    Args:
        card: The model's scorecard.
        champion: The champion's on the same role; None where there is none.
    """
    other = {r.suite: r.right for r in champion.results if r.correct} if champion else {}
    return tuple(
        SuiteScore(
            label=r.cluster,
            dimension=r.dimension,
            right=r.right,
            items=len(r.correct),
            champion_right=other.get(r.suite),
        )
        for r in card.results
        if r.correct
    )


def eval_case(card: Scorecard) -> str:
    """Digest of the sorted pairs of suite and items that a scorecard is about."""
    return digest(sorted([r.suite, r.items_before] for r in card.results))


def adapter_manifests(header: Header, model: ModelManifest, stack: Sequence[Applied]) -> tuple[AdapterManifest, ...]:
    """The manifests of a stack.

    Args:
        header: Header of the records.
        model: Manifest of the model below.
        stack: The packages, in order.
    """
    return tuple(
        AdapterManifest(
            header=header,
            order=order,
            artifact=_blob(applied.adapter),
            package=_kind(applied.adapter),
            base=applied.adapter.meta.base_sha256,
            tokenizer_sha256=applied.adapter.head.tokenizer_sha256,
            layout_sha256=applied.adapter.head.layout_sha256,
            licence=applied.adapter.meta.licence,
            source=applied.source,
            fused=dict(applied.diagnostics.fused),
            state_sha256=applied.diagnostics.state_sha256,
            entries=len(applied.adapter.changes),
            unsupported=applied.manifest.unsupported,
            trade_offs=(_TRADE_OFF,),
            fallback=model.artifact.sha256,
        )
        for order, applied in enumerate(stack, 1)
    )


def family_receipt(
    header: Header, model: ModelManifest, manifests: Sequence[AdapterManifest], logits: LogitDigest
) -> AdapterFamilyReceipt:
    """The receipt of a stack.

    Args:
        header: Header of the record.
        model: Manifest of the model below.
        manifests: Those of the packages, in order.
        logits: Digest of the logits with the whole stack.
    """
    stack = tuple(m.artifact.sha256 for m in manifests)
    return AdapterFamilyReceipt(
        header=header,
        base=model.base or model.artifact.sha256,
        model=model.artifact.sha256,
        stack=stack,
        manifests=tuple(digest(m) for m in manifests),
        bytes=sum(m.artifact.size for m in manifests),
        budget=rules.ADAPTER_BUDGET,
        state_sha256=state_sha256(model.artifact.sha256, stack),
        logits=logits,
        compatible=tuple(combinations(stack, 2)),
    )


def fault_in_line(line: Sequence[LineageNode]) -> str | None:
    """What is wrong with a lineage; None if it is the first node and everything that descends to it, each once.

    Args:
        line: The model first.
    """
    nodes = {node.digest: node for node in line}
    if len(nodes) < len(line):
        return "a node stands twice"
    if any((node.kind == "candidate") != made for node in line for made in (bool(node.parents), bool(node.operator))):
        return "a candidate has no parents or no operator, or something else has"
    pending, seen = [node.digest for node in line[:1]], set[str]()
    while pending:
        digest_ = pending.pop()
        if digest_ not in nodes:
            return "a parent is not in it"
        if digest_ not in seen:
            seen.add(digest_)
            pending += nodes[digest_].parents
    return None if len(seen) == len(nodes) else "a node is nobody's parent"


def check_model(plan: ModulePlan, manifest: ModelManifest) -> None:
    """Hold a model's manifest against the plan.

    Raises:
        Drift: ``manifest.model`` or ``manifest.runtime``.
    """
    module = next(m for m in plan.modules if m.id == "model")
    own, run = manifest.artifact, plan.execution
    if (own.sha256, own.size) != (module.sha256, module.size):
        raise _refused("manifest.model", "speaks of another file than the plan fetches")
    if (manifest.base is None) != (manifest.quantise_receipt is None) or manifest.base == own.sha256:
        raise _refused(
            "manifest.model", "a quantised build names its f32 base and the receipt of its making, or neither"
        )
    planned = (run.engine, run.abi, run.memory_limit, run.context)
    runtime = manifest.runtime
    if (runtime.engine, runtime.abi, runtime.memory_limit, runtime.context) != planned:
        raise _refused("manifest.runtime", "needs another engine, memory or context than the plan gives")
    # Tensors in f32 are read in place, all others decoded to four bytes an element.
    whole = 4 * manifest.parameters
    fits = {"f32": runtime.decoded_bytes == 0, "mixed": 0 < runtime.decoded_bytes < whole}
    if not fits.get(manifest.storage, runtime.decoded_bytes == whole):
        raise _refused("manifest.runtime", "decodes other tensors than its storage says")
    if any(s.right > s.items or (s.champion_right or 0) > s.items for s in manifest.scores):
        raise _refused("manifest.model", "more right answers are shown than there are items")
    if runtime.context > manifest.max_context or not 1 <= manifest.logits.positions < max(2, manifest.max_context):
        raise _refused("manifest.runtime", "asks for more positions than the model has")


def check_adapters(
    plan: ModulePlan, registry: SelectorRegistry, model: ModelManifest, manifests: Sequence[AdapterManifest]
) -> None:
    """Hold the manifests of a stack against plan, registry and model.

    Raises:
        Drift: ``adapter.manifest``.
    """
    files = [m for m in plan.modules if m.family == "adapter"]
    packages = [package for family in registry.families for package in family.adapters]
    for order, (file, package, own) in enumerate(zip(files, packages, manifests, strict=True), 1):
        name = f"adapter-manifest-{order}"
        facts: dict[str, tuple[object, object]] = {
            "order": (own.order, order),
            "artifact": ((own.artifact.sha256, own.artifact.size), (file.sha256, file.size)),
            "package": (own.package, package.package),
            "base": (own.base, model.base or model.artifact.sha256),
            "tokenizer_sha256": (own.tokenizer_sha256, model.tokenizer_sha256),
            "layout_sha256": (own.layout_sha256, model.layout_sha256),
            "state_sha256": (own.state_sha256, state_sha256(model.artifact.sha256, plan.stack[:order])),
            "entries": (1 <= own.entries <= len(own.fused), True),
            "fallback": (own.fallback, model.artifact.sha256),
        }
        for field, (found, wanted) in facts.items():
            if found != wanted:
                raise _refused("adapter.manifest", f"{field} is not what plan, registry and model say", name)
    for below, above in pairwise(manifests):
        if not below.fused.keys() <= above.fused.keys():
            text = "a tensor that a package below it changed is not among the fused"
            raise _refused("adapter.manifest", text, f"adapter-manifest-{above.order}")


def check_family(
    plan: ModulePlan, model: ModelManifest, manifests: Sequence[AdapterManifest], family: AdapterFamilyReceipt
) -> None:
    """Hold the receipt of a stack against plan, model and manifests; it follows from them whole, but for the logits.

    Raises:
        Drift: ``family.stack``.
    """
    again = family_receipt(family.header, model, manifests, family.logits)
    for name in again.__struct_fields__:
        if getattr(family, name) != getattr(again, name):
            raise _refused("family.stack", f"{name} is not that of the stack", "adapter-family")
    if family.stack != plan.stack or family.logits.positions != model.logits.positions:
        raise _refused("family.stack", "is the receipt of another stack, or of other positions", "adapter-family")


_TRADE_OFF = "Fused tensors stay resident as f32 beside the model's own; detaching restores its bytes."


def _kind(adapter: Adapter) -> Literal["ADP1", "ASP1", "ALR1"]:
    kinds: tuple[Literal["ADP1", "ASP1", "ALR1"], ...] = ("ADP1", "ASP1", "ALR1")
    return next(kind for kind in kinds if kind == adapter.head.magic)


def _blob(adapter: Adapter) -> Blob:
    return Blob(sha256=adapter.sha256, size=adapter.size)


def _refused(reason: str, detail: str, module: str = "model-manifest") -> Drift:
    return Drift(Refusal("receipts", reason, detail, module))
