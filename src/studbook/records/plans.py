"""The module plan: which files a page may fetch, in which order, and what it calls.

What a rule of `studbook.assembly.rules` refuses by a reason of its own is a plain number or text here: the record only
says that it is one. Digests, names of fields and types are the record's own rules.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from studbook.records.base import Digest, Name, Record, Text, Zone
from studbook.records.manifests import Count

__all__ = [
    "Call",
    "Execution",
    "Fetch",
    "Module",
    "ModulePlan",
    "PageFile",
    "PageFiles",
    "PlanBudgets",
]


class Execution(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page runs everything in.

    Attributes:
        profile: ``wasm32-simd128/1``.
        abi: Version of the engine's interface.
        engine: Digest of the engine.
        memory_limit: Most bytes of its memory.
        context: Positions of a session.
        threads: Threads.
    """

    profile: Text
    abi: Count
    engine: Digest
    memory_limit: Count
    context: Count
    threads: Count


class Fetch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page may fetch.

    Attributes:
        policy: ``planned-only``.
        origin: ``same-origin``.
        count: Number of files.
        redirects: ``refuse``.
    """

    policy: Text
    origin: Text
    count: Count
    redirects: Text


class PlanBudgets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Most bytes of each class of file.

    Attributes:
        model: Of the model.
        sidecar: Of one text file.
        sidecars: Of all text files.
        adapters: Of all packages.
    """

    model: Count
    sidecar: Count
    sidecars: Count
    adapters: Count


class Module(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle.

    Attributes:
        id: Its name in the plan.
        role: What it is to the assembly.
        family: How it is fetched and counted: sidecar, evidence, engine, model or adapter; written ``class``.
        path: Where it lies.
        sha256: Digest of its bytes.
        size: Their number.
        phase: When it is fetched; a later phase begins when the one before was verified whole.
        slot: What it takes in the engine; null for text.
        depends: Ids of the modules that have to be verified before it is fetched.
    """

    id: Name
    role: Text
    family: Text = field(name="class")
    path: Text
    sha256: Digest
    size: Count
    phase: Count
    slot: Text | None
    depends: tuple[Text, ...]


class Call(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of the validation and application.

    Attributes:
        order: Its place, from 1.
        call: What is called.
        module: Id of the module it is called for.
    """

    order: Count
    call: Text
    module: Text


class PageFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the page itself.

    Attributes:
        path: Its name.
        sha256: Digest of its bytes.
        size: Their number.
    """

    path: Text
    sha256: Digest
    size: Count


class PageFiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page that verifies the bundle, but for the one generated file that holds the plan's digest.

    Attributes:
        build: Digest of the list of files.
        files: Its files, sorted by path.
    """

    build: Digest
    files: tuple[PageFile, ...]


class ModulePlan(Record, frozen=True, kw_only=True, tag="module-plan/1"):
    """Everything a page fetches and calls, in order; its digest is compiled into the page.

    Attributes:
        profile: ``studbook-browser/1``.
        route: The route.
        execution: What runs it.
        fetch: What may be fetched.
        budgets: Most bytes.
        modules: Every file, in the order of fetching.
        calls: Every call, in order.
        stack: Digests of the packages, in order.
        eval_case: Digest over the suites and items that the model was scored on.
        page: The page's own files.
        unsmoked: Digest of the plan of the same bundle without a BrowserSmoke, which is what the browser ran; null in
            that one itself.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    profile: Text
    route: Text
    execution: Execution
    fetch: Fetch
    budgets: PlanBudgets
    modules: tuple[Module, ...]
    calls: tuple[Call, ...]
    stack: tuple[Digest, ...]
    eval_case: Digest
    page: PageFiles
    unsmoked: Digest | None
