"""A bundle from its parts: registry, receipts and plan follow from the files; nothing here reads or writes a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studbook.adapters.stack import state_sha256
from studbook.assembly import rules
from studbook.assembly.plan import (
    BROWSER,
    OPTIONAL,
    Sheet,
    budgets,
    calls_of,
    modules_of,
    names_of,
    page_files,
)
from studbook.records import (
    AdapterFamilyReceipt,
    AdapterManifest,
    AssemblyReceipt,
    Header,
    ModelManifest,
    ModulePlan,
    SelectorRegistry,
    digest,
    write_record,
)
from studbook.records.assembly import AdapterFamily, CheckpointMark, Execution, Fetch, Package, Route

__all__ = ["BUNDLE_JS", "Bundle", "Parts", "build", "bundle_js"]

BUNDLE_JS = "bundle.js"


class Parts(NamedTuple):
    """Everything a bundle is made of.

    Attributes:
        header: Header of the records.
        channel: The channel; also the route.
        model: The model's manifest.
        adapters: Those of the packages, in the order of the stack.
        family: The receipt of the stack; None without packages.
        evidence: Role -> bytes of its file, a BrowserSmoke included where there is one.
        checkpoint: The state of the ledger that the evidence was taken from.
        eval_case: Digest over the suites and items of the scorecard.
        binaries: Bytes of engine, model and packages by the id of their module.
        page: The page's files without the generated one: name -> bytes.
        unsmoked: Digest of the plan that a browser ran; None where none did.
    """

    header: Header
    channel: str
    model: ModelManifest
    adapters: tuple[AdapterManifest, ...]
    family: AdapterFamilyReceipt | None
    evidence: Mapping[str, bytes]
    checkpoint: CheckpointMark
    eval_case: str
    binaries: Mapping[str, bytes]
    page: Mapping[str, bytes]
    unsmoked: str | None


class Bundle(NamedTuple):
    """A bundle that was built.

    Attributes:
        plan: Its plan.
        registry: Its registry.
        receipt: Its assembly receipt.
        files: Path -> bytes of every file, the page's included.
    """

    plan: ModulePlan
    registry: SelectorRegistry
    receipt: AssemblyReceipt
    files: dict[str, bytes]


def build(parts: Parts) -> Bundle:
    """Build a bundle.

    Raises:
        RecordRefused: if a record does not survive its own reader.
    """
    texts = {"model-manifest": write_record(parts.model)}
    texts |= {f"adapter-manifest-{m.order}": write_record(m) for m in parts.adapters}
    if parts.family is not None:
        texts["adapter-family"] = write_record(parts.family)
    evidence = {f"evidence-{role}": data for role, data in parts.evidence.items()}
    names = names_of(len(parts.adapters), OPTIONAL[0] in parts.evidence, BROWSER in parts.evidence)
    registry = _registry(parts)
    contents = {"registry": write_record(registry), **texts, **evidence, **parts.binaries}
    receipt = _receipt(parts, {**texts, **evidence}, names)
    contents["assembly-receipt"] = write_record(receipt)
    modules = modules_of(_sheets(names, contents))
    plan = ModulePlan(
        header=parts.header,
        profile=rules.PROFILE,
        route=parts.channel,
        execution=_execution(parts.model),
        fetch=Fetch(policy=rules.POLICY, origin=rules.ORIGIN, count=len(modules), redirects=rules.REDIRECTS),
        budgets=budgets(),
        modules=modules,
        calls=calls_of(names),
        stack=tuple(m.artifact.sha256 for m in parts.adapters),
        eval_case=parts.eval_case,
        page=page_files(parts.page),
        unsmoked=parts.unsmoked,
    )
    data = write_record(plan)
    files = {m.path: contents[m.id] for m in modules}
    return Bundle(plan, registry, receipt, {**parts.page, BUNDLE_JS: bundle_js(data), "plan.json": data, **files})


def bundle_js(plan: bytes) -> bytes:
    """The one generated file of the page: digest and size of the plan it trusts."""
    return f'export const PLAN = {{sha256: "{hashlib.sha256(plan).hexdigest()}", size: {len(plan)}}};\n'.encode()


def _sheets(names: Sequence[str], contents: Mapping[str, bytes]) -> list[Sheet]:
    return [Sheet(n, hashlib.sha256(contents[n]).hexdigest(), len(contents[n])) for n in names]


def _registry(parts: Parts) -> SelectorRegistry:
    family = digest(parts.family) if parts.family else None
    route = Route(
        route=parts.channel,
        strategy=rules.STRATEGY,
        visible="browser" if BROWSER in parts.evidence else "local",
        model=parts.model.artifact,
        manifest=digest(parts.model),
        family=family,
    )
    packages = tuple(Package(package=m.package, sha256=m.artifact.sha256, size=m.artifact.size) for m in parts.adapters)
    return SelectorRegistry(
        header=parts.header,
        default_strategy=rules.STRATEGY,
        model_byte_budget=rules.MODEL_BUDGET,
        sidecar_byte_budget=rules.SIDECAR_BUDGET,
        sidecars_byte_budget=rules.SIDECARS_BUDGET,
        adapter_byte_budget=rules.ADAPTER_BUDGET,
        routes=(route,),
        families=(AdapterFamily(receipt=family, adapters=packages),) if family else (),
    )


def _receipt(parts: Parts, texts: Mapping[str, bytes], names: Sequence[str]) -> AssemblyReceipt:
    smoke = parts.evidence.get(BROWSER)
    stack = [m.artifact.sha256 for m in parts.adapters]
    return AssemblyReceipt(
        header=parts.header,
        route=parts.channel,
        channel=parts.channel,
        model=parts.model.artifact.sha256,
        evidence={n: hashlib.sha256(texts[n]).hexdigest() for n in names if n in texts},
        eval_case=parts.eval_case,
        checkpoint=parts.checkpoint,
        family=digest(parts.family) if parts.family else None,
        state_sha256=state_sha256(parts.model.artifact.sha256, stack),
        # What is called follows from the names alone, so it can be bound before there is a plan.
        calls_sha256=digest(calls_of(names)),
        browser_smoke=hashlib.sha256(smoke).hexdigest() if smoke is not None else None,
    )


def _execution(model: ModelManifest) -> Execution:
    needs = model.runtime
    return Execution(
        profile=rules.EXECUTION,
        abi=needs.abi,
        engine=needs.engine,
        memory_limit=needs.memory_limit,
        context=needs.context,
        threads=1,
    )
