"""What every plan has to keep, asked before anything it names is fetched: one question a reason, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from studbook.assembly import rules
from studbook.assembly.plan import BROWSER, OPTIONAL, Kind, calls_of, depends_of, kind_of, names_of, path_of
from studbook.assembly.rules import Drift, Refusal
from studbook.records import ModulePlan, digest
from studbook.records.assembly import Module

__all__ = ["check_policy"]

Finding = Iterator[tuple[str, str]]


def check_policy(plan: ModulePlan) -> None:
    """Hold a plan against the rules of every plan, before anything it names is fetched.

    Raises:
        Drift: with the first reason that applies.
    """
    for reason, ask in _POLICY:
        for detail, module in ask(plan):
            raise Drift(Refusal("policy", reason, detail, module))


def _profile(plan: ModulePlan) -> Finding:
    if plan.profile != rules.PROFILE:
        yield f"profile {plan.profile!r}; this page knows {rules.PROFILE}", ""


def _execution(plan: ModulePlan) -> Finding:
    own = plan.execution
    wanted = (rules.EXECUTION, rules.ABI, 1)
    if (own.profile, own.abi, own.threads) != wanted:
        yield f"profile {own.profile!r}, interface {own.abi}, {own.threads} threads; known: {wanted}", ""
    if not 1 << 16 <= own.memory_limit <= rules.MEMORY_MOST or own.memory_limit % (1 << 16):
        yield f"{own.memory_limit} bytes of memory are no whole number of pages up to {rules.MEMORY_MOST}", ""
    if not own.context:
        yield "a session of no positions", ""
    for module in plan.modules:
        if module.id == "engine" and module.sha256 != own.engine:
            yield "the engine to run is not the engine to fetch", "engine"


def _fetch_policy(plan: ModulePlan) -> Finding:
    if (plan.fetch.policy, plan.fetch.redirects) != (rules.POLICY, rules.REDIRECTS):
        yield f"policy {plan.fetch.policy!r}, redirects {plan.fetch.redirects!r}", ""


def _origin_policy(plan: ModulePlan) -> Finding:
    if plan.fetch.origin != rules.ORIGIN:
        yield f"origin {plan.fetch.origin!r}; only {rules.ORIGIN} is fetched from", ""


def _fetch_count(plan: ModulePlan) -> Finding:
    if plan.fetch.count != len(plan.modules):
        yield f"{plan.fetch.count} files are announced and {len(plan.modules)} planned", ""


def _model_budget(plan: ModulePlan) -> Finding:
    if plan.budgets.model != rules.MODEL_BUDGET:
        yield f"{plan.budgets.model} bytes for the model; the budget is {rules.MODEL_BUDGET}", ""


def _sidecar_budget(plan: ModulePlan) -> Finding:
    if (plan.budgets.sidecar, plan.budgets.sidecars) != (rules.SIDECAR_BUDGET, rules.SIDECARS_BUDGET):
        yield f"{plan.budgets.sidecar} and {plan.budgets.sidecars} bytes of text are not the budgets", ""


def _adapter_budget(plan: ModulePlan) -> Finding:
    if plan.budgets.adapters != rules.ADAPTER_BUDGET:
        yield f"{plan.budgets.adapters} bytes of packages; the budget is {rules.ADAPTER_BUDGET}", ""


def _resource(plan: ModulePlan) -> Finding:
    seen: set[str] = set()
    for module in plan.modules:
        kind = kind_of(module.id)
        if kind is None:
            yield "no part of a bundle has this name", module.id
        elif module.family != kind.family:
            yield f"class {module.family!r}; it is of class {kind.family}", module.id
        elif module.path != path_of(module.id, kind.family, module.sha256):
            yield f"path {module.path!r} does not follow from its class and digest", module.id
        if module.id in seen or module.path in seen:
            yield "stands twice in the plan", module.id
        seen |= {module.id, module.path}


def _role(plan: ModulePlan) -> Finding:
    for module, kind in _kinds(plan):
        if module.role != kind.role:
            yield f"role {module.role!r}; it is {kind.role}", module.id


def _slot(plan: ModulePlan) -> Finding:
    for module, kind in _kinds(plan):
        if module.slot != kind.slot:
            yield f"slot {module.slot!r}; it takes {kind.slot!r}", module.id


def _phase(plan: ModulePlan) -> Finding:
    for module, kind in _kinds(plan):
        if module.phase != kind.phase:
            yield f"phase {module.phase}; its phase is {kind.phase}", module.id


def _dependency(plan: ModulePlan) -> Finding:
    ids = [module.id for module in plan.modules]
    for module in plan.modules:
        wanted = depends_of(module.id, ids)
        if module.depends != wanted:
            yield f"depends on {', '.join(module.depends) or 'nothing'}; it has to on {', '.join(wanted)}", module.id


def _bytes(plan: ModulePlan) -> Finding:
    most = {
        "sidecar": plan.budgets.sidecar,
        "evidence": plan.budgets.sidecar,
        "engine": rules.ENGINE_BUDGET,
        "model": plan.budgets.model,
        "adapter": plan.budgets.adapters,
    }
    for module in plan.modules:
        if not 1 <= module.size <= most[module.family]:
            yield f"{module.size} bytes; between 1 and {most[module.family]} are allowed", module.id
    texts = sum(m.size for m in plan.modules if m.family in ("sidecar", "evidence"))
    packages = sum(m.size for m in plan.modules if m.family == "adapter")
    if texts > plan.budgets.sidecars:
        yield f"{texts} bytes of text; at most {plan.budgets.sidecars} are allowed", ""
    if packages > plan.budgets.adapters:
        yield f"{packages} bytes of packages; at most {plan.budgets.adapters} are allowed", ""


def _stack(plan: ModulePlan) -> Finding:
    found = tuple(m.sha256 for m in plan.modules if m.family == "adapter")
    if plan.stack != found:
        yield "the stack is not the packages of the plan in their order", ""
    if len(set(found)) < len(found) or len(found) > rules.MAX_ADAPTERS:
        yield f"a package stands twice in the stack, or there are more than {rules.MAX_ADAPTERS}", ""


def _graph(plan: ModulePlan) -> Finding:
    ids = tuple(module.id for module in plan.modules)
    promoted, smoked = f"evidence-{OPTIONAL[0]}" in ids, f"evidence-{BROWSER}" in ids
    if ids != names_of(len(plan.stack), promoted, smoked):
        yield "modules are missing, too many, or not in the order of a plan", ""
    if plan.calls != calls_of(ids):
        yield "the calls are not those of the modules, in their order", ""
    if smoked != (plan.unsmoked is not None):
        yield "a browser's smoke and the plan it was made of go together", ""


def _page(plan: ModulePlan) -> Finding:
    names = [file.path for file in plan.page.files]
    if plan.page.build != digest(plan.page.files) or names != sorted(set(names)) or not names:
        yield "the page's build is not the digest of its sorted files", ""


_POLICY: tuple[tuple[str, Callable[[ModulePlan], Finding]], ...] = (
    ("plan.profile", _profile),
    ("plan.execution", _execution),
    ("plan.fetch-policy", _fetch_policy),
    ("plan.origin-policy", _origin_policy),
    ("plan.fetch-count", _fetch_count),
    ("plan.model-budget", _model_budget),
    ("plan.sidecar-budget", _sidecar_budget),
    ("plan.adapter-budget", _adapter_budget),
    ("plan.resource", _resource),
    ("plan.role", _role),
    ("plan.slot", _slot),
    ("plan.phase", _phase),
    ("plan.dependency", _dependency),
    ("plan.bytes", _bytes),
    ("plan.stack", _stack),
    ("plan.graph", _graph),
    ("plan.page", _page),
)


def _kinds(plan: ModulePlan) -> Iterator[tuple[Module, Kind]]:
    for module in plan.modules:
        if (kind := kind_of(module.id)) is not None:
            yield module, kind
