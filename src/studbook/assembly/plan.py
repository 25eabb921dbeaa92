"""The module plan: what is fetched, in which order, and everything about it that follows from its name alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studbook.assembly import rules
from studbook.records import digest
from studbook.records.assembly import Call, Module, PageFile, PageFiles, PlanBudgets

__all__ = [
    "BROWSER",
    "EVIDENCE",
    "OPTIONAL",
    "Kind",
    "Sheet",
    "budgets",
    "calls_of",
    "depends_of",
    "kind_of",
    "modules_of",
    "names_of",
    "page_files",
    "path_of",
]

EVIDENCE = (
    "ledger",
    "review",
    "recipe",
    "operator-receipt",
    "candidate",
    "template",
    "promotion",
    "admission",
    "promotion-champion",
    "move",
    "smoke",
    "evaluation",
    "decision",
)
"""Roles of the evidence every bundle has, in order; the sources of packages and a BrowserSmoke follow."""

# Only a champion that a person promoted has a second template.
OPTIONAL = ("promotion-champion",)
BROWSER = "browser-smoke"
"""Role of the evidence that only a bundle has which a browser ran."""

_NUMBERED = re.compile(r"(adapter-manifest|adapter|evidence-adapter)-([1-9][0-9]?)(-source)?")
_FOLDERS = {
    "sidecar": ("sidecars", "json"),
    "evidence": ("evidence", "json"),
    "engine": ("engine", "wasm"),
    "model": ("models", "slm"),
    "adapter": ("adapters", "adp"),
}
_ROLES = {
    "registry": "selector-registry",
    "model-manifest": "model-manifest",
    "adapter-family": "adapter-family-receipt",
    "assembly-receipt": "assembly-receipt",
    "engine": "engine",
    "model": "model",
}
_CALLS = {
    "sidecar": ("verify",),
    "evidence": ("verify",),
    "engine": ("engine.open",),
    "model": ("model.check", "model.load", "model.smoke"),
    "adapter": ("adapter.check", "adapter.apply"),
}
_LAST_CALL, _LAST_MODULE = "assembly.state", "assembly-receipt"


class Sheet(NamedTuple):
    """One file before its place in the plan is known.

    Attributes:
        id: Its name.
        sha256: Digest of its bytes.
        size: Their number.
    """

    id: str
    sha256: str
    size: int


class Kind(NamedTuple):
    """What follows from a module's name.

    Attributes:
        role: What it is to the assembly.
        family: Its class.
        phase: When it is fetched.
        slot: What it takes in the engine.
    """

    role: str
    family: str
    phase: int
    slot: str | None


def modules_of(sheets: Sequence[Sheet]) -> tuple[Module, ...]:
    """The modules of some files, in the order of the files.

    Args:
        sheets: The files, in the order of `names_of`.
    """
    ids = [sheet.id for sheet in sheets]
    return tuple(
        Module(
            id=sheet.id,
            role=kind.role,
            family=kind.family,
            path=path_of(sheet.id, kind.family, sheet.sha256),
            sha256=sheet.sha256,
            size=sheet.size,
            phase=kind.phase,
            slot=kind.slot,
            depends=depends_of(sheet.id, ids),
        )
        for sheet in sheets
        if (kind := kind_of(sheet.id)) is not None
    )


def names_of(adapters: int, promoted: bool, smoked: bool) -> tuple[str, ...]:
    """The ids of a whole plan, in order.

    Args:
        adapters: Packages of the stack.
        promoted: Whether a person promoted the model to champion.
        smoked: Whether a browser ran the bundle.
    """
    numbers = range(1, adapters + 1)
    roles = [role for role in EVIDENCE if promoted or role not in OPTIONAL]
    return (
        "registry",
        "model-manifest",
        *(f"adapter-manifest-{k}" for k in numbers),
        *(("adapter-family",) if adapters else ()),
        "assembly-receipt",
        *(f"evidence-{role}" for role in roles),
        *(f"evidence-adapter-{k}-source" for k in numbers),
        *((f"evidence-{BROWSER}",) if smoked else ()),
        "engine",
        "model",
        *(f"adapter-{k}" for k in numbers),
    )


def depends_of(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    """What has to be verified before a module is fetched, in the order of the plan.

    Args:
        name: The module.
        ids: Ids of every module of the plan, in order.
    """
    kind = kind_of(name)
    if kind is None or name == "registry":
        return ()
    if kind.family == "evidence":
        return ("assembly-receipt",)
    if name == "engine":
        return tuple(i for i in ids if i.startswith("evidence-"))
    if name == "model":
        return ("engine", "model-manifest")
    if kind.family == "adapter":
        number = int(name.rpartition("-")[2])
        below = (f"adapter-{number - 1}",) if number > 1 else ()
        return ("model", f"adapter-manifest-{number}", *below)
    manifests = tuple(i for i in ids if i.startswith("adapter-manifest-"))
    if name == "adapter-family":
        return ("registry", *manifests)
    if name == "assembly-receipt":
        family = ("adapter-family",) if "adapter-family" in ids else ()
        return ("registry", "model-manifest", *manifests, *family)
    return ("registry",)


def calls_of(names: Sequence[str]) -> tuple[Call, ...]:
    """Every validation and application of the modules of some ids, in order; names that are none call nothing."""
    kinds = [(name, kind_of(name)) for name in names]
    named = [(call, name) for name, kind in kinds if kind is not None for call in _CALLS[kind.family]]
    return tuple(
        Call(order=order, call=call, module=module)
        for order, (call, module) in enumerate([*named, (_LAST_CALL, _LAST_MODULE)], 1)
    )


def budgets() -> PlanBudgets:
    """The budgets of every plan."""
    return PlanBudgets(
        model=rules.MODEL_BUDGET,
        sidecar=rules.SIDECAR_BUDGET,
        sidecars=rules.SIDECARS_BUDGET,
        adapters=rules.ADAPTER_BUDGET,
    )


def page_files(files: Mapping[str, bytes]) -> PageFiles:
    """The page's own files with the digest of their list.

    Args:
        files: Name -> bytes.
    """
    listed = tuple(
        PageFile(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for path, data in sorted(files.items())
    )
    return PageFiles(build=digest(listed), files=listed)


def kind_of(name: str) -> Kind | None:
    """What follows from a module's name; None if no module is called that."""
    if name == "registry":
        return Kind(_ROLES[name], "sidecar", 1, None)
    if name == "engine":
        return Kind(name, "engine", 4, "engine")
    if name == "model":
        return Kind(name, "model", 5, "base")
    if name in _ROLES:
        return Kind(_ROLES[name], "sidecar", 2, None)
    role = name.removeprefix("evidence-")
    if role != name and role in (*EVIDENCE, BROWSER):
        return Kind(role, "evidence", 3, None)
    found = _NUMBERED.fullmatch(name)
    if found is None or (found[1] == "evidence-adapter") != bool(found[3]):
        return None
    if found[3]:
        return Kind(role, "evidence", 3, None)
    sidecar = found[1] == "adapter-manifest"
    return Kind(found[1], "sidecar", 2, None) if sidecar else Kind("adapter", "adapter", 6, name)


def path_of(name: str, family: str, sha256: str) -> str:
    """Where a file of a class lies, by its digest; the registry alone has a place of its own."""
    folder, ending = _FOLDERS[family]
    return "registry.json" if name == "registry" else f"{folder}/{sha256}.{ending}"
