"""Going through a bundle as the page does: plan, policy, registry, receipts, evidence, engine, model, smoke, adapters.

No byte is asked for before everything that leads to it was verified: the model's not before its step, a package's not
before its own. The reader is a function, so the same steps hold for a folder, a single file or a test's dictionary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, Union

from studbook.assembly import rules
from studbook.assembly.building import without_smoke
from studbook.assembly.diagnostics import check_diagnostics, read_diagnostics
from studbook.assembly.ledger_lines import check_ledger
from studbook.assembly.manifests import check_adapters, check_family, check_model
from studbook.assembly.meaning import Case, check_browser, check_case, check_meaning, kinds_of
from studbook.assembly.policy import check_policy
from studbook.assembly.receipts import by_id, check_receipt, check_registry
from studbook.assembly.rules import BUNDLE_JS, Drift, Refusal, Step
from studbook.assembly.running import Running
from studbook.errors import RecordRefused
from studbook.records import (
    AdapterFamilyReceipt,
    AdapterManifest,
    AssemblyReceipt,
    ModelManifest,
    ModulePlan,
    Record,
    SelectorRegistry,
)
from studbook.records.doors import read_record
from studbook.records.plans import Module

__all__ = ["Inclusion", "Outcome", "Read", "exported", "verify"]

_PLAN = re.compile(rb'export const PLAN = \{sha256: "([0-9a-f]{64})", size: ([1-9][0-9]{0,15})\};\n')
_LIMIT = 1 << 16
R = TypeVar("R", bound=Record)
Read = Callable[[str, int], bytes | None]
"""Path and most bytes -> the file's bytes, one more than the most at the utmost; None if there is no such file."""
Inclusion = Callable[[bytes, int, int, list[bytes], bytes], None]
"""Refuses a line that is not in a tree: line, position, size of the tree, path, root."""


class Outcome(NamedTuple):
    """What came of a verification.

    Attributes:
        steps: Every step that was gone through whole, in order.
        refusal: Why it ended before the last; None when all holds.
        case: Plan, receipts and evidence, where it came that far.
    """

    steps: tuple[Step, ...]
    refusal: Refusal | None
    case: Case | None


def verify(read: Read, inclusion: Inclusion) -> Outcome:
    """Go through a bundle up to the first refusal.

    Args:
        read: Gives its files.
        inclusion: Checks one inclusion in the ledger's tree.
    """
    walk = _Walk(read, inclusion)
    try:
        plan = walk.plan()
        registry = walk.registry(plan)
        texts = walk.receipts(plan, registry)
        case = walk.evidence(plan, registry, texts)
        walk.run(case)
    except Drift as drift:
        return Outcome(tuple(walk.steps), drift.refusal, walk.case)
    return Outcome(tuple(walk.steps), None, walk.case)


def exported(read: Read, case: Case, data: bytes) -> Refusal | None:
    """Hold what a page exported against a verified bundle, with the engine at work once more.

    Args:
        read: Gives the bundle's files.
        case: What its verification found.
        data: The exported file.
    """
    walk, modules = _Walk(read, _nothing), by_id(case.plan)
    try:
        own = read_diagnostics(data, case)
        with Running(walk.fetch(modules["engine"], "engine"), case.plan.execution) as running:
            running.load(walk.fetch(modules["model"], "model"), case.model)
            for manifest in case.adapters[: len(own.applied)]:
                running.apply(walk.fetch(modules[f"adapter-{manifest.order}"], "adapters"), manifest)
            check_diagnostics(own, case, running.fused(), running.logits(case.model.logits.positions))
    except Drift as drift:
        return drift.refusal
    return None


class _Texts(NamedTuple):
    """The sidecars of the second phase."""

    model: ModelManifest
    adapters: tuple[AdapterManifest, ...]
    family: AdapterFamilyReceipt | None
    receipt: AssemblyReceipt


class _Walk:
    """One walk through a bundle: how to read on, and what was gone through."""

    def __init__(self, read: Read, inclusion: Inclusion) -> None:
        self.read, self.inclusion = read, inclusion
        self.steps: list[Step] = []
        self.case: Case | None = None

    def plan(self) -> ModulePlan:
        """The plan that the page was compiled with, after its policy was checked."""
        named = self.read(BUNDLE_JS, _LIMIT)
        found = _PLAN.fullmatch(named or b"")
        # No whole number that the page knows is larger.
        if found is None or int(found[2]) >= 1 << 53:
            raise _plan("plan.digest-missing", f"{BUNDLE_JS} names no digest and size of a plan")
        sha256, size = found[1].decode(), int(found[2])
        if size > rules.PLAN_BYTES:
            raise _plan("plan.size", f"{size} bytes are announced; a plan has at most {rules.PLAN_BYTES}")
        data = self.read("plan.json", size)
        if data is None:
            raise _plan("fetch.missing", "plan.json is not there")
        if len(data) != size:
            raise _plan("plan.size", f"does not have the {size} bytes that are announced")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _plan("plan.digest", "is not the plan that the page was compiled with")
        plan: ModulePlan = _record(data, ModulePlan, Refusal("plan", "plan.form", ""))
        self.done("plan", f"{sha256}, {size} bytes")
        check_policy(plan)
        self.done("policy", f"{len(plan.modules)} files of {sum(m.size for m in plan.modules)} bytes")
        return plan

    def registry(self, plan: ModulePlan) -> SelectorRegistry:
        """The registry, held against the plan."""
        data = self.fetch(by_id(plan)["registry"], "registry")
        registry: SelectorRegistry = _record(
            data, SelectorRegistry, Refusal("registry", "registry.form", "", "registry")
        )
        check_registry(plan, registry)
        self.done("registry", f"{plan.route}, visible: {registry.routes[0].visible}")
        return registry

    def receipts(self, plan: ModulePlan, registry: SelectorRegistry) -> _Texts:
        """Manifests and receipts: all of them fetched, then read and held against plan and each other."""
        sidecars = [m for m in plan.modules if m.family == "sidecar" and m.id != "registry"]
        data = {module.id: self.fetch(module, "receipts") for module in sidecars}

        def one(name: str, kind: type[R], reason: str) -> R:
            found: R = _record(data[name], kind, Refusal("receipts", reason, "", name))
            return found

        model = one("model-manifest", ModelManifest, "manifest.form")
        check_model(plan, model)
        names = [f"adapter-manifest-{order}" for order in range(1, len(plan.stack) + 1)]
        adapters = tuple(one(name, AdapterManifest, "adapter.manifest") for name in names)
        check_adapters(plan, registry, model, adapters)
        family = None
        if "adapter-family" in data:
            family = one("adapter-family", AdapterFamilyReceipt, "family.form")
            check_family(plan, model, adapters, family)
        receipt = one("assembly-receipt", AssemblyReceipt, "receipt.form")
        check_receipt(plan, receipt)
        self.done("receipts", f"{len(sidecars)} files")
        return _Texts(model, adapters, family, receipt)

    def evidence(self, plan: ModulePlan, registry: SelectorRegistry, texts: _Texts) -> Case:
        """The evidence: all of it fetched, then read, then held against the model and the records it goes with."""
        modules = [m for m in plan.modules if m.family == "evidence"]
        data = {module.role: self.fetch(module, "evidence", "evidence.file") for module in modules}
        records = {module.role: _evidence(module, data[module.role]) for module in modules}
        digests = {module.role: module.sha256 for module in modules}
        case = Case(plan, texts.receipt, texts.model, texts.adapters, texts.family, records, digests)
        check_meaning(case)
        check_case(case)
        check_ledger(case, self.inclusion)
        if plan.unsmoked is not None:
            check_browser(case, without_smoke(plan, registry, texts.receipt))
        self.case = case
        self.done("evidence", f"{len(modules)} files, every checksum and meaning")
        return case

    def run(self, case: Case) -> None:
        """Engine, model and packages, as the page runs them."""
        plan, modules = case.plan, by_id(case.plan)
        engine = self.fetch(modules["engine"], "engine")
        with Running(engine, plan.execution) as running:
            self.done("engine", plan.execution.engine)
            running.load(self.fetch(modules["model"], "model"), case.model)
            self.done("model", f"{case.model.name}, {case.model.artifact.size} bytes")
            running.smoke(case.model.logits, "smoke", "smoke.logits", "model")
            self.done("smoke", f"{case.model.logits.positions} positions")
            for manifest in case.adapters:
                package = self.fetch(modules[f"adapter-{manifest.order}"], "adapters", "adapter.artifact")
                running.apply(package, manifest)
            if case.family is not None:
                running.smoke(case.family.logits, "adapters", "smoke.stack", "adapter-family")
            self.done("adapters", f"{len(case.adapters)} packages, state {case.receipt.state_sha256}")
        self.done("ready", case.model.name)

    def done(self, name: str, detail: str) -> None:
        self.steps.append(Step(name, detail))

    def fetch(self, module: Module, step: str, reason: str = "") -> bytes:
        """A planned file's bytes, counted and hashed; ``reason`` stands for those of fetching where it is named."""
        data = self.read(module.path, module.size)
        if data is None:
            raise Drift(Refusal(step, reason or "fetch.missing", f"{module.path} is not there", module.id))
        if len(data) != module.size:
            count = "more" if len(data) > module.size else f"{len(data)}"
            text = f"{count} bytes instead of {module.size}"
            raise Drift(Refusal(step, reason or "fetch.bytes", text, module.id))
        if hashlib.sha256(data).hexdigest() != module.sha256:
            text = f"{module.path} does not have the digest it is planned with"
            raise Drift(Refusal(step, reason or "fetch.checksum", text, module.id))
        return data


def _evidence(module: Module, data: bytes) -> Record:
    refusal = Refusal("evidence", "evidence.form", "", module.id)
    kinds = kinds_of(module.role)
    union: Any = kinds[0] if len(kinds) == 1 else Union[kinds]  # noqa: UP007 - of a tuple
    record: Record = _record(data, union, refusal)
    return record


def _record(data: bytes, kind: Any, refusal: Refusal) -> Any:
    """A record in exactly its form, or the refusal with what is wrong."""
    try:
        return read_record(data, kind)
    except RecordRefused as error:
        raise Drift(Refusal(refusal.step, refusal.reason, error.message, refusal.module)) from error


def _nothing(*_: object) -> None:
    """Where no line of a ledger is looked at."""


def _plan(reason: str, detail: str) -> Drift:
    return Drift(Refusal("plan", reason, detail))
