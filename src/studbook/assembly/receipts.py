"""Registry and assembly receipt, held against the plan that names them."""

from __future__ import annotations

from studbook.adapters.stack import state_sha256
from studbook.assembly import rules
from studbook.assembly.plan import BROWSER
from studbook.assembly.rules import Drift, Refusal
from studbook.records import AssemblyReceipt, ModulePlan, SelectorRegistry, digest
from studbook.records.plans import Module

__all__ = ["by_id", "check_receipt", "check_registry"]


def by_id(plan: ModulePlan) -> dict[str, Module]:
    """The modules of a plan by their id."""
    return {module.id: module for module in plan.modules}


def check_registry(plan: ModulePlan, registry: SelectorRegistry) -> None:
    """Hold a registry against the plan: its budgets, its one route, its family of packages.

    Raises:
        Drift: ``registry.budget``, ``registry.route`` or ``registry.family``.
    """
    modules, own = by_id(plan), registry
    budgets = (own.model_byte_budget, own.sidecar_byte_budget, own.sidecars_byte_budget, own.adapter_byte_budget)
    planned = plan.budgets
    if budgets != (planned.model, planned.sidecar, planned.sidecars, planned.adapters):
        raise _registry("registry.budget", "its budgets are not those of the plan")
    if [route.route for route in own.routes] != [plan.route] or own.default_strategy != rules.STRATEGY:
        raise _registry("registry.route", "has other routes than the one that is planned")
    route, model = own.routes[0], modules["model"]
    smoked = f"evidence-{BROWSER}" in modules
    facts: dict[str, tuple[object, object]] = {
        "strategy": (route.strategy, rules.STRATEGY),
        "visible": (route.visible, "browser" if smoked else "local"),
        "model": ((route.model.sha256, route.model.size), (model.sha256, model.size)),
        "manifest": (route.manifest, modules["model-manifest"].sha256),
    }
    for field, (found, wanted) in facts.items():
        if found != wanted:
            raise _registry("registry.route", f"{field} of the route is not what is planned")
    receipt = modules["adapter-family"].sha256 if "adapter-family" in modules else None
    packages = [(m.sha256, m.size) for m in plan.modules if m.family == "adapter"]
    families = [(f.receipt, [(a.sha256, a.size) for a in f.adapters]) for f in own.families]
    if route.family != receipt or families != ([(receipt, packages)] if receipt else []):
        raise _registry("registry.family", "its family of packages is not the stack of the plan")


def check_receipt(plan: ModulePlan, receipt: AssemblyReceipt) -> None:
    """Hold an assembly receipt against the plan: every digest it binds, calls, state and case.

    Raises:
        Drift: ``receipt.binding``, ``receipt.calls``, ``receipt.state`` or ``receipt.case``.
    """
    modules = by_id(plan)
    bound = {
        m.id: m.sha256
        for m in plan.modules
        if m.family == "evidence" or (m.family == "sidecar" and m.id not in ("registry", "assembly-receipt"))
    }
    family, smoke = modules.get("adapter-family"), modules.get(f"evidence-{BROWSER}")
    facts: dict[str, tuple[object, object]] = {
        "route": ((receipt.route, receipt.channel), (plan.route, plan.route)),
        "model": (receipt.model, modules["model"].sha256),
        "family": (receipt.family, family.sha256 if family else None),
        "browser_smoke": (receipt.browser_smoke, smoke.sha256 if smoke else None),
        "evidence": (receipt.evidence, bound),
    }
    for field, (found, wanted) in facts.items():
        if found != wanted:
            raise _receipt("receipt.binding", f"{field} is not what is planned")
    if receipt.calls_sha256 != digest(plan.calls):
        raise _receipt("receipt.calls", "binds other calls than the plan has")
    if receipt.state_sha256 != state_sha256(receipt.model, plan.stack):
        raise _receipt("receipt.state", "binds another assembly than the model with the stack of the plan")
    if receipt.eval_case != plan.eval_case:
        raise _receipt("receipt.case", "binds other suites or items than the plan")


def _registry(reason: str, detail: str) -> Drift:
    return Drift(Refusal("registry", reason, detail, "registry"))


def _receipt(reason: str, detail: str) -> Drift:
    return Drift(Refusal("receipts", reason, detail, "assembly-receipt"))
