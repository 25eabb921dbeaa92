"""The records of a bundle, held against the ledger as it was: the same steps as for a folder, read from the lab itself."""

from __future__ import annotations

from collections.abc import Sequence

from studbook.adapters.reader import parse_adapter
from studbook.assembly.building import without_smoke
from studbook.assembly.ledger_lines import check_ledger
from studbook.assembly.manifests import check_adapters, check_family, check_model
from studbook.assembly.meaning import Case, check_browser, check_case, check_meaning
from studbook.assembly.plan import BROWSER
from studbook.assembly.policy import check_policy
from studbook.assembly.receipts import check_receipt, check_registry
from studbook.assembly.rules import Drift
from studbook.assembly.running import Running
from studbook.errors import DigestDiffers
from studbook.files import read_file
from studbook.lab.assembling import describe
from studbook.lab.bundle_evidence import gather, inclusion, require_offered
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.ledger import audit_keys
from studbook.ledger.note import open_checkpoint, origin_of
from studbook.models.engine import ENGINE_SHA256, engine_bytes
from studbook.records import (
    KINDS,
    AdapterFamilyReceipt,
    AdapterManifest,
    AssemblyReceipt,
    BundleRelease,
    LedgerEvidence,
    ModelManifest,
    ModulePlan,
    Record,
    SelectorRegistry,
    digest,
    replace,
    write_record,
)
from studbook.records.plans import Module

__all__ = ["check_ledger_evidence", "check_plan", "check_release"]

_FIELD = "bundle.field"
_LEDGER_LIMIT = 1 << 30


def check_plan(_desk: Desk, record: ModulePlan) -> None:
    """A plan keeps the policy of every plan.

    Raises:
        DigestDiffers: with the reason that a page would refuse it by.
    """
    try:
        check_policy(record)
    except Drift as drift:
        raise _differs(drift) from drift


def check_ledger_evidence(desk: Desk, record: LedgerEvidence) -> None:
    """Proofs are of this ledger: an earlier checkpoint of it, signed, and lines that stand where they say.

    Args:
        desk: The lab as it was before the record.
        record: The evidence.

    Raises:
        DigestDiffers: naming the field; ``bundle.field``.
        NotAuthorised: if no audit key of the time signed the checkpoint.
    """
    ledger, mark = desk.workspace.ledger, record.checkpoint
    lines = read_file(ledger.path, _LEDGER_LIMIT).split(b"\n")
    facts: dict[str, tuple[object, object]] = {
        "checkpoint.size": (0 < mark.size <= len(desk.entries()), True),
        "checkpoint.origin": (mark.origin, origin_of(desk.workspace.root.lab)),
    }
    require("ledger-evidence", facts, _FIELD)
    authority = ledger.authority(mark.size - 1)
    found = open_checkpoint(record.note.encode(), mark.origin, audit_keys(authority), ledger.path)
    facts = {"checkpoint": ((found.size, found.root.hex()), (mark.size, mark.root))}
    facts["checkpoint.root"] = (mark.root, ledger.tree.root(mark.size).hex())
    for entry in record.entries:
        held = desk.workspace.entry(entry.record)
        facts[f"entries: {entry.role}"] = (entry.index, held.sequence if held else None)
        facts[f"entries: {entry.role}: line"] = (entry.line.encode(), lines[entry.index])
        facts[f"entries: {entry.role}: path"] = (
            [bytes.fromhex(node) for node in entry.path],
            ledger.tree.inclusion(entry.index, mark.size) if entry.index < mark.size else None,
        )
    require("ledger-evidence", facts, _FIELD)


def check_release(desk: Desk, record: BundleRelease) -> None:
    """A bundle release is of a bundle that the lab could assemble then, and that every page would go through.

    Plan, registry, manifests, receipts and evidence are read from the ledger and go through the page's own checks; the
    evidence is gathered and the model described again; and where this program has the engine, it runs once more.

    Args:
        desk: The lab as it was before the record.
        record: The release.

    Raises:
        DigestDiffers: naming the field (``bundle.field``), or with the reason that a page would refuse it by.
        StudbookError: any of its kinds, if the channel could not be assembled then, or bytes are gone.
    """
    plan = desk.workspace.get(record.plan, ModulePlan)
    registry = desk.workspace.get(record.registry, SelectorRegistry)
    try:
        check_policy(plan)
        case = _case(desk, plan)
        _walk(plan, registry, case)
    except Drift as drift:
        raise _differs(drift) from drift
    evidence = gather(desk, record.channel)
    smoke = case.digests.get(BROWSER)
    gathered = {role: digest for role, digest in case.digests.items() if role in evidence.records}
    described = _as_then(describe(desk, evidence, case.model.logits), case.model)
    facts: dict[str, tuple[object, object]] = {
        "channel": (record.channel, case.receipt.channel),
        "artifact": (record.artifact, evidence.artifact),
        "move": (record.move, evidence.records["move"]),
        "registry": (record.registry, _of(plan, "registry").sha256),
        "assembly_receipt": (record.assembly_receipt, digest(case.receipt)),
        "page_build": (record.page_build, plan.page.build),
        "browser_smoke": (record.browser_smoke, smoke),
        "evidence": (gathered, evidence.records),
        "model-manifest": (case.model, described),
    }
    require("bundle-release", facts, _FIELD)
    if plan.execution.engine == ENGINE_SHA256:
        _run(desk, plan, case)


def _as_then(described: ModelManifest, stated: ModelManifest) -> ModelManifest:
    """A manifest described now with the engine and header of one that was described then."""
    then: ModelManifest = replace(described, header=stated.header, runtime=stated.runtime)
    return then


def _case(desk: Desk, plan: ModulePlan) -> Case:
    """What the plan names, from the ledger.

    Raises:
        StudbookError: if a record is not there.
    """

    def record(module: Module) -> Record:
        entry = desk.workspace.entry(module.sha256)
        if entry is None:
            raise DigestDiffers("is not in the ledger", where=f"module-plan: {module.id}", reason="order.reference")
        found = desk.workspace.get(module.sha256, KINDS[entry.record_kind])
        require("module-plan", {f"{module.id}: size": (module.size, len(write_record(found)))}, _FIELD)
        return found

    texts = {m.id: record(m) for m in plan.modules if m.family in ("sidecar", "evidence")}
    evidence = [m for m in plan.modules if m.family == "evidence"]
    model, receipt, family = texts["model-manifest"], texts["assembly-receipt"], texts.get("adapter-family")
    adapters = [texts[f"adapter-manifest-{k}"] for k in range(1, len(plan.stack) + 1)]
    assert isinstance(model, ModelManifest)
    assert isinstance(receipt, AssemblyReceipt)
    assert family is None or isinstance(family, AdapterFamilyReceipt)
    return Case(
        plan=plan,
        receipt=receipt,
        model=model,
        adapters=tuple(a for a in adapters if isinstance(a, AdapterManifest)),
        family=family,
        records={m.role: texts[m.id] for m in evidence},
        digests={m.role: m.sha256 for m in evidence},
    )


def _walk(plan: ModulePlan, registry: SelectorRegistry, case: Case) -> None:
    """The checks of a page that need no bytes."""
    check_registry(plan, registry)
    check_model(plan, case.model)
    check_adapters(plan, registry, case.model, case.adapters)
    if case.family is not None:
        check_family(plan, case.model, case.adapters, case.family)
    check_receipt(plan, case.receipt)
    check_meaning(case)
    check_case(case)
    check_ledger(case, inclusion)
    if plan.unsmoked is not None:
        check_browser(case, without_smoke(plan, registry, case.receipt))


def _run(desk: Desk, plan: ModulePlan, case: Case) -> None:
    """Engine, model and packages, from the lab's own files."""
    packages: Sequence[bytes] = [desk.workspace.blob(digest) for digest in plan.stack]
    for package in packages:
        for made_from in parse_adapter(package).meta.digests.values():
            require_offered(desk, made_from)
    try:
        with Running(engine_bytes(), plan.execution) as running:
            running.load(desk.workspace.blob(case.model.artifact.sha256), case.model)
            running.smoke(case.model.logits, "smoke", "smoke.logits", "model")
            for manifest, package in zip(case.adapters, packages, strict=True):
                running.apply(package, manifest)
            if case.family is not None:
                running.smoke(case.family.logits, "adapters", "smoke.stack", "adapter-family")
    except Drift as drift:
        raise _differs(drift) from drift


def _of(plan: ModulePlan, name: str) -> Module:
    return next(module for module in plan.modules if module.id == name)


def _differs(drift: Drift) -> DigestDiffers:
    found = drift.refusal
    advice = "No page would take it. Assemble the channel anew, and look who holds the key that signed this."
    return DigestDiffers(found.detail, where=f"bundle: {found.module or 'plan'}", advice=advice, reason=found.reason)
