"""The drift table: every way a bundle can drift, as edits of a good one, with the step and reason that refuse it.

Each edit seals the bundle again as far as a forger could, so that what is refused is what the edit is about. The same
table is for every checker: a `Drift` writes a folder, and whoever goes through that must stop at its step by its reason.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from assembly.drafts import Draft, canonical, relogged, sha

EVIL = "0" * 63 + "1"
Edit = Callable[[Draft], object]


class Drift(NamedTuple):
    """One edit.

    Attributes:
        kind: What drifts.
        name: The edit, in words.
        step: The step that refuses it.
        reason: The reason.
        edit: Changes a draft of a good bundle.
        smoked: Whether the good bundle has to be one that a browser ran (`smoked`).
    """

    kind: str
    name: str
    step: str
    reason: str
    edit: Edit
    smoked: bool = False

    def write(self, good: Path, target: Path) -> None:
        """Write the drifted bundle.

        Args:
            good: A good bundle; one from `smoked` where that is asked for.
            target: A new folder.
        """
        draft = Draft(good)
        self.edit(draft)
        draft.write(target)


def smoked(good: Path, target: Path) -> None:
    """Write the same bundle as one that a browser ran, with a BrowserSmoke that says what its receipts say."""
    draft = Draft(good)
    receipt, manifest = draft.text("assembly-receipt"), draft.text("model-manifest")
    family = draft.text("adapter-family") if "adapter-family" in draft.modules else None
    record = {
        "kind": "browser-smoke/1",
        "header": receipt["header"],
        "plan": sha((good / "plan.json").read_bytes()),
        "page_build": draft.plan["page"]["build"],
        "browser": "Chromium 150.0.0.0",
        "engine": draft.plan["execution"]["engine"],
        "model": manifest["artifact"]["sha256"],
        "logits": (family or manifest)["logits"],
        "state_sha256": receipt["state_sha256"],
        "requests": draft.plan["fetch"]["count"] + len(draft.plan["page"]["files"]) + 2,
        "passed": True,
    }
    module = {"role": "browser-smoke", "class": "evidence", "phase": 3, "slot": None, "depends": ["assembly-receipt"]}
    last = [m["id"] for m in draft.plan["modules"] if m["id"].startswith("evidence-")][-1]
    draft.add("evidence-browser-smoke", record, module, last)
    draft.edit("registry", lambda r: r["routes"][0].__setitem__("visible", "browser"))
    draft.edit("assembly-receipt", lambda r: r.__setitem__("browser_smoke", r["evidence"]["evidence-browser-smoke"]))
    draft.edit_plan(lambda plan: plan.__setitem__("unsmoked", record["plan"]))
    draft.write(target)


# -- edits ---------------------------------------------------------------------------------------------------------


def planned(*path: str | int, to: Any) -> Edit:
    """Set a field of the plan; a callable gets the value that was there."""
    return lambda draft: draft.edit_plan(lambda plan: _set(plan, path, to))


def module(name: str, **fields: Any) -> Edit:
    """Set fields of a module in the plan."""

    def edit(plan: dict[str, Any]) -> None:
        found = next(m for m in plan["modules"] if m["id"] == name)
        for key, to in fields.items():
            key = key.removesuffix("_")
            found[key] = to(found[key]) if callable(to) else to

    return lambda draft: draft.edit_plan(edit)


def field(name: str, *path: str | int, to: Any) -> Edit:
    """Set a field of a record; everything that names the record follows."""
    return lambda draft: draft.edit(name, lambda value: _set(value, path, to))


def gone(name: str, *path: str | int) -> Edit:
    """Take a field out of a record."""

    def edit(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        del value[path[-1]]

    return lambda draft: draft.edit(name, edit)


def both(*edits: Edit) -> Edit:
    """Several edits."""
    return lambda draft: [edit(draft) for edit in edits]


def logged(*edits: Edit) -> Edit:
    """Edits of evidence, with a ledger forged around them."""
    return both(*edits, relogged)


def lineage_of(change: Callable[[list[Any]], list[Any]]) -> Edit:
    """Another lineage shown."""
    return field("model-manifest", "lineage", to=change)


def flipped(name: str, at: int = -3) -> Edit:
    """Flip one bit of a file as it lies; nothing follows."""
    return lambda draft: draft.edit_files(lambda files: _change(draft, files, name, lambda d: _flip(d, at)))


def cut(name: str, by: int = 1) -> Edit:
    """Cut a file short."""
    return lambda draft: draft.edit_files(lambda files: _change(draft, files, name, lambda d: d[:-by]))


def grown(name: str, by: bytes = b"\n") -> Edit:
    """Append to a file."""
    return lambda draft: draft.edit_files(lambda files: _change(draft, files, name, lambda d: d + by))


def removed(name: str) -> Edit:
    """Remove a file."""
    return lambda draft: draft.edit_files(lambda files: files.pop(_path(draft, files, name)))


def swapped(first: str, second: str) -> Edit:
    """Exchange the bytes of two files."""

    def edit(draft: Draft, files: dict[str, bytes]) -> None:
        a, b = _path(draft, files, first), _path(draft, files, second)
        files[a], files[b] = files[b], files[a]

    return lambda draft: draft.edit_files(lambda files: edit(draft, files))


def script(text: str) -> Edit:
    """Write another bundle.js."""
    return lambda draft: draft.edit_files(lambda files: files.__setitem__("bundle.js", text.encode()))


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Edit:
    """Give a file other bytes; every digest of it follows."""
    return lambda draft: draft.put(name, change(draft.binary(name)))


def engine_of(data: bytes) -> Edit:
    """Another engine; the smoke that names it follows, and so does a forged ledger."""
    return logged(bytes_of("engine", lambda _: data))


def paged(change: Callable[[list[Any]], list[Any]]) -> Edit:
    """Change the list of the page's files; the build follows."""

    def edit(plan: dict[str, Any]) -> None:
        files = change(plan["page"]["files"])
        plan["page"] = {"build": sha(canonical(files)), "files": files}

    return lambda draft: draft.edit_plan(edit)


def respelled(name: str) -> Edit:
    """The same record in another spelling."""
    return bytes_of(name, lambda data: json.dumps(json.loads(data), indent=1).encode())


def reordered(path: str, change: Callable[[list[Any]], list[Any]]) -> Edit:
    """Change a list of the plan."""
    return planned(path, to=change)


def _set(value: Any, path: tuple[str | int, ...], to: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = to(value[path[-1]]) if callable(to) else to


def _change(draft: Draft, files: dict[str, bytes], name: str, change: Callable[[bytes], bytes]) -> None:
    path = _path(draft, files, name)
    files[path] = change(files[path])


def _path(draft: Draft, files: dict[str, bytes], name: str) -> str:
    if name in files:
        return name
    plan = json.loads(files["plan.json"])
    found: str = next(m["path"] for m in plan["modules"] if m["id"] == name)
    return found


def _flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def _flop(digest: str) -> str:
    return digest[:-1] + ("0" if digest[-1] != "0" else "1")


def _without(name: str) -> Edit:
    """Leave a module out everywhere: plan, dependencies, calls, receipt."""
    return lambda draft: draft.drop(name)


def _swap(values: list[Any], first: int, second: int) -> list[Any]:
    changed = list(values)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def _checked(data: bytes, at: int) -> bytes:
    """A container or package with its checksum (FORMATS 1.2) made right again."""
    changed = bytearray(data)
    changed[at : at + 8] = bytes(8)
    state = 0xCBF29CE484222325
    for index, byte in enumerate(changed):
        state ^= byte
        state ^= (index & 0xFF) << 8
        state = (state << 5 | state >> 59) & 0xFFFFFFFFFFFFFFFF
        state = state * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    struct.pack_into("<Q", changed, at, state or 1)
    return bytes(changed)


def model_bytes(change: Callable[[bytearray], None]) -> Edit:
    """Another model, with its checksum, in every record that names it."""

    def made(data: bytes) -> bytes:
        changed = bytearray(data)
        change(changed)
        return _checked(bytes(changed), 100)

    return logged(bytes_of("model", made))


def package(order: int, change: Callable[[bytearray], None], *, checksum: bool = True) -> Edit:
    """Another package of the stack, in every record that names it."""

    def made(data: bytes) -> bytes:
        changed = bytearray(data)
        change(changed)
        return _checked(bytes(changed), 120) if checksum else bytes(changed)

    return logged(bytes_of(f"adapter-{order}", made))


def _poke(at: int, data: bytes) -> Callable[[bytearray], None]:
    def change(changed: bytearray) -> None:
        start = at if at >= 0 else len(changed) + at
        changed[start : start + len(data)] = data

    return change


def _payload(changed: bytearray) -> int:
    """Where the first payload of a package begins."""
    return int(struct.unpack_from("<Q", changed, struct.unpack_from("<Q", changed, 104)[0] + 32)[0])


def _first_value(value: float) -> Callable[[bytearray], None]:
    return lambda changed: struct.pack_into("<f", changed, _payload(changed), value)


def _last_weight(changed: bytearray) -> None:
    struct.pack_into("<f", changed, len(changed) - 4, 0.125)


def _huge(changed: bytearray) -> None:
    start = _payload(changed)
    count = struct.unpack_from("<Q", changed, struct.unpack_from("<Q", changed, 104)[0] + 40)[0] // 4
    struct.pack_into(f"<{count}f", changed, start, *[3e38] * count)


_NAN = float("nan")
_MANIFEST = "model-manifest"
_FAMILY = "adapter-family"
_RECEIPT = "assembly-receipt"

DRIFTS: tuple[Drift, ...] = (
    # The plan itself.
    Drift("plan", "no digest", "plan", "plan.digest-missing", script("export const PLAN = {};\n")),
    Drift("plan", "an empty digest", "plan", "plan.digest-missing",
          script('export const PLAN = {sha256: "", size: 9};\n')),
    Drift("plan", "no script", "plan", "plan.digest-missing", removed("bundle.js")),
    Drift("plan", "a plan of more than a megabyte is announced", "plan", "plan.size",
          script(f'export const PLAN = {{sha256: "{EVIL}", size: 1048577}};\n')),
    Drift("plan", "more bytes than a number holds exactly", "plan", "plan.digest-missing",
          script(f'export const PLAN = {{sha256: "{EVIL}", size: 9007199254740993}};\n')),
    Drift("plan", "cut short", "plan", "plan.size", cut("plan.json")),
    Drift("plan", "grown", "plan", "plan.size", grown("plan.json")),
    Drift("plan", "not there", "plan", "fetch.missing", removed("plan.json")),
    Drift("plan", "a flipped bit", "plan", "plan.digest", flipped("plan.json", 40)),
    Drift("plan", "an unknown key", "plan", "plan.form", planned("note", to="hello")),
    Drift("plan", "a missing key", "plan", "plan.form", lambda d: d.edit_plan(lambda p: p.pop("eval_case") and None)),
    Drift("plan", "a module without a digest", "plan", "plan.form", module("model", sha256="")),
    Drift("plan", "a number that is none", "plan", "plan.form", planned("fetch", "count", to="28")),
    Drift("plan", "another kind", "plan", "plan.form", planned("kind", to="module-plan/2")),
    # Profiles and policies.
    Drift("plan profile", "a later one", "policy", "plan.profile", planned("profile", to="studbook-browser/2")),
    Drift("plan profile", "none", "policy", "plan.profile", planned("profile", to="")),
    Drift("plan profile", "another case", "policy", "plan.profile", planned("profile", to="Studbook-Browser/1")),
    Drift("execution profile", "relaxed SIMD", "policy", "plan.execution",
          planned("execution", "profile", to="wasm32-relaxed-simd/1")),
    Drift("execution profile", "another interface", "policy", "plan.execution", planned("execution", "abi", to=2)),
    Drift("execution profile", "threads", "policy", "plan.execution", planned("execution", "threads", to=4)),
    Drift("execution profile", "no memory", "policy", "plan.execution", planned("execution", "memory_limit", to=0)),
    Drift("execution profile", "half a page of memory", "policy", "plan.execution",
          planned("execution", "memory_limit", to=lambda n: n + 32768)),
    Drift("execution profile", "more memory than there is", "policy", "plan.execution",
          planned("execution", "memory_limit", to=2**33)),
    Drift("execution profile", "no context", "policy", "plan.execution", planned("execution", "context", to=0)),
    Drift("execution profile", "an engine that is not planned", "policy", "plan.execution",
          planned("execution", "engine", to=EVIL)),
    Drift("fetch policy", "anything", "policy", "plan.fetch-policy", planned("fetch", "policy", to="any")),
    Drift("fetch policy", "none", "policy", "plan.fetch-policy", planned("fetch", "policy", to="")),
    Drift("fetch policy", "redirects are followed", "policy", "plan.fetch-policy",
          planned("fetch", "redirects", to="follow")),
    Drift("origin policy", "any", "policy", "plan.origin-policy", planned("fetch", "origin", to="*")),
    Drift("origin policy", "another host", "policy", "plan.origin-policy",
          planned("fetch", "origin", to="https://example.org")),
    Drift("origin policy", "none", "policy", "plan.origin-policy", planned("fetch", "origin", to="")),
    Drift("fetch count", "one too few", "policy", "plan.fetch-count", planned("fetch", "count", to=lambda n: n - 1)),
    Drift("fetch count", "one too many", "policy", "plan.fetch-count", planned("fetch", "count", to=lambda n: n + 1)),
    Drift("fetch count", "none", "policy", "plan.fetch-count", planned("fetch", "count", to=0)),
    # Budgets.
    Drift("model byte budget", "raised in the plan", "policy", "plan.model-budget",
          planned("budgets", "model", to=33554433)),
    Drift("model byte budget", "none in the plan", "policy", "plan.model-budget", planned("budgets", "model", to=0)),
    Drift("model byte budget", "raised in plan and registry", "policy", "plan.model-budget",
          both(planned("budgets", "model", to=1 << 26), field("registry", "model_byte_budget", to=1 << 26))),
    Drift("model byte budget", "raised in the registry", "registry", "registry.budget",
          field("registry", "model_byte_budget", to=1 << 26)),
    Drift("model byte budget", "a model over it", "policy", "plan.bytes", module("model", size=33554433)),
    Drift("text-sidecar budget", "raised in the plan", "policy", "plan.sidecar-budget",
          planned("budgets", "sidecar", to=1 << 21)),
    Drift("text-sidecar budget", "raised for all in the plan", "policy", "plan.sidecar-budget",
          planned("budgets", "sidecars", to=1 << 25)),
    Drift("text-sidecar budget", "none in the plan", "policy", "plan.sidecar-budget",
          planned("budgets", "sidecar", to=0)),
    Drift("text-sidecar budget", "raised in the registry", "registry", "registry.budget",
          field("registry", "sidecar_byte_budget", to=1 << 21)),
    Drift("text-sidecar budget", "raised for all in the registry", "registry", "registry.budget",
          field("registry", "sidecars_byte_budget", to=1 << 25)),
    Drift("text-sidecar budget", "a text over it", "policy", "plan.bytes", module("evidence-decision", size=1048577)),
    Drift("text-sidecar budget", "all texts over it", "policy", "plan.bytes",
          lambda d: d.edit_plan(lambda p: [m.update(size=1 << 20) for m in p["modules"] if m["phase"] < 4] and None)),
    Drift("adapter budget", "raised in the plan", "policy", "plan.adapter-budget",
          planned("budgets", "adapters", to=1 << 25)),
    Drift("adapter budget", "raised in the registry", "registry", "registry.budget",
          field("registry", "adapter_byte_budget", to=1 << 25)),
    Drift("adapter budget", "packages over it together", "policy", "plan.bytes",
          both(module("adapter-1", size=1048576), module("adapter-2", size=1048576))),
    # Modules.
    Drift("resource", "a path out of the bundle", "policy", "plan.resource", module("model", path="../model.slm")),
    Drift("resource", "an absolute path", "policy", "plan.resource", module("model", path="/etc/passwd")),
    Drift("resource", "another host's path", "policy", "plan.resource",
          module("model", path="https://example.org/model.slm")),
    Drift("resource", "a path of another digest", "policy", "plan.resource",
          module("adapter-1", path=f"adapters/{EVIL}.adp")),
    Drift("resource", "another class", "policy", "plan.resource", module("model", class_="sidecar")),
    Drift("resource", "a name no module has", "policy", "plan.resource",
          module("evidence-smoke", id="evidence-smoke-2")),
    Drift("resource", "a module twice", "policy", "plan.resource",
          both(reordered("modules", lambda m: [*m, m[-1]]), planned("fetch", "count", to=lambda n: n + 1))),
    Drift("role", "the model's", "policy", "plan.role", module("model", role="engine")),
    Drift("role", "of an evidence file", "policy", "plan.role", module("evidence-smoke", role="review")),
    Drift("role", "none", "policy", "plan.role", module("registry", role="")),
    Drift("slot", "a text takes one", "policy", "plan.slot", module("evidence-smoke", slot="base")),
    Drift("slot", "the model takes none", "policy", "plan.slot", module("model", slot=None)),
    Drift("slot", "packages exchanged", "policy", "plan.slot",
          both(module("adapter-1", slot="adapter-2"), module("adapter-2", slot="adapter-1"))),
    Drift("phase", "the model before the evidence", "policy", "plan.phase", module("model", phase=1)),
    Drift("phase", "evidence after the model", "policy", "plan.phase", module("evidence-smoke", phase=7)),
    Drift("phase", "none", "policy", "plan.phase", module("registry", phase=0)),
    Drift("dependency", "the model on nothing", "policy", "plan.dependency", module("model", depends=[])),
    Drift("dependency", "the engine on less evidence", "policy", "plan.dependency",
          module("engine", depends=lambda d: d[:-1])),
    Drift("dependency", "a package not on the one below", "policy", "plan.dependency",
          module("adapter-2", depends=["model", "adapter-manifest-2"])),
    Drift("dependency", "on a module that is none", "policy", "plan.dependency",
          module("registry", depends=["elsewhere"])),
    Drift("stack", "the plan's in another order", "policy", "plan.stack", planned("stack", to=lambda s: s[::-1])),
    Drift("stack", "one too few in the plan", "policy", "plan.stack", planned("stack", to=lambda s: s[:-1])),
    Drift("stack", "none in the plan", "policy", "plan.stack", planned("stack", to=[])),
    Drift("stack", "the receipt's in another order", "receipts", "family.stack",
          field(_FAMILY, "stack", to=lambda s: s[::-1])),
    Drift("stack", "of another base", "receipts", "family.stack", field(_FAMILY, "base", to=EVIL)),
    Drift("stack", "of another model", "receipts", "family.stack", field(_FAMILY, "model", to=EVIL)),
    Drift("stack", "another sum of bytes", "receipts", "family.stack", field(_FAMILY, "bytes", to=lambda n: n + 1)),
    Drift("stack", "a larger budget", "receipts", "family.stack", field(_FAMILY, "budget", to=1 << 25)),
    Drift("stack", "another state", "receipts", "family.stack", field(_FAMILY, "state_sha256", to=EVIL)),
    Drift("stack", "pairs that nobody tried", "receipts", "family.stack",
          field(_FAMILY, "compatible", to=lambda p: [pair[::-1] for pair in p])),
    Drift("stack", "manifests in another order", "receipts", "family.stack",
          field(_FAMILY, "manifests", to=lambda m: m[::-1])),
    Drift("stack", "a receipt that is none", "receipts", "family.form", gone(_FAMILY, "compatible")),
    Drift("stack", "other logits", "adapters", "smoke.stack", field(_FAMILY, "logits", "sha256", to=EVIL)),
    Drift("stack", "the registry's in another order", "registry", "registry.family",
          field("registry", "families", 0, "adapters", to=lambda a: a[::-1])),
    Drift("stack", "the registry's of another receipt", "registry", "registry.family",
          field("registry", "routes", 0, "family", to=EVIL)),
    Drift("graph", "two calls exchanged", "policy", "plan.graph", reordered("calls", lambda c: _swap(c, 0, 1))),
    Drift("graph", "the model is not checked", "policy", "plan.graph",
          reordered("calls", lambda c: [x for x in c if x["call"] != "model.check"])),
    Drift("graph", "one call more", "policy", "plan.graph",
          reordered("calls", lambda c: [*c, {"call": "model.run", "module": "model", "order": len(c) + 1}])),
    Drift("graph", "a call for another module", "policy", "plan.graph",
          planned("calls", 0, "module", to="model")),
    Drift("graph", "modules in another order", "policy", "plan.graph", reordered("modules", lambda m: _swap(m, 1, 2))),
    Drift("graph", "evidence left out everywhere", "policy", "plan.graph", _without("evidence-smoke")),
    Drift("dependency", "the receipt left out everywhere", "policy", "plan.dependency", _without(_RECEIPT)),
    Drift("dependency", "the engine left out everywhere", "policy", "plan.dependency", _without("engine")),
    Drift("graph", "smoked by no browser", "policy", "plan.graph", planned("unsmoked", to=EVIL)),
    Drift("page", "another build", "policy", "plan.page", planned("page", "build", to=EVIL)),
    Drift("page", "a file out of the bundle", "policy", "plan.page", paged(lambda f: [{**f[0], "path": "../x.js"}, *f])),
    Drift("page", "a file of another host", "policy", "plan.page",
          paged(lambda f: sorted([*f, {**f[0], "path": "https:evil.js"}], key=lambda file: file["path"]))),
    Drift("page", "a file that is none of its own", "policy", "plan.page",
          paged(lambda f: sorted([*f, {**f[0], "path": "bundle.js"}], key=lambda file: file["path"]))),
    Drift("page", "a file twice", "policy", "plan.page", paged(lambda f: [f[0], *f])),
    Drift("page", "no files", "policy", "plan.page", paged(lambda f: [])),
    # Registry.
    Drift("resource", "an unplanned route", "registry", "registry.route",
          field("registry", "routes", to=lambda r: [*r, {**r[0], "route": "shadow"}])),
    Drift("resource", "no route", "registry", "registry.route", field("registry", "routes", to=[])),
    Drift("resource", "another route", "registry", "registry.route",
          field("registry", "routes", 0, "route", to="shadow")),
    Drift("resource", "a route to another model", "registry", "registry.route",
          field("registry", "routes", 0, "model", "sha256", to=EVIL)),
    Drift("resource", "a route of another manifest", "registry", "registry.route",
          field("registry", "routes", 0, "manifest", to=EVIL)),
    Drift("resource", "another strategy", "registry", "registry.route",
          field("registry", "routes", 0, "strategy", to="random")),
    Drift("resource", "said to be smoked by a browser", "registry", "registry.route",
          field("registry", "routes", 0, "visible", to="browser")),
    Drift("resource", "a registry in another spelling", "registry", "registry.form", respelled("registry")),
    Drift("resource", "a registry without budgets", "registry", "registry.form", gone("registry", "model_byte_budget")),
    # Bytes and checksums.
    Drift("byte count", "the registry one byte less", "registry", "fetch.bytes", cut("registry.json")),
    Drift("byte count", "a manifest one byte more", "receipts", "fetch.bytes", grown(_MANIFEST)),
    Drift("byte count", "evidence one byte more", "evidence", "evidence.file", grown("evidence-smoke")),
    Drift("byte count", "the engine cut short", "engine", "fetch.bytes", cut("engine", 100)),
    Drift("byte count", "the model one byte less", "model", "fetch.bytes", cut("model")),
    Drift("byte count", "the model one byte more", "model", "fetch.bytes", grown("model")),
    Drift("byte count", "planned with one byte less", "model", "fetch.bytes",
          both(module("model", size=lambda n: n - 1), field("registry", "routes", 0, "model", "size", to=lambda n: n - 1),
               field(_MANIFEST, "artifact", "size", to=lambda n: n - 1),
               field("evidence-candidate", "artifact", "size", to=lambda n: n - 1),
               field("evidence-operator-receipt", "output", "size", to=lambda n: n - 1),
               logged(field("evidence-template", "expected", "size_bytes", to=lambda n: n - 1)))),
    Drift("byte count", "planned with none", "policy", "plan.bytes", module("model", size=0)),
    Drift("checksum", "the registry", "registry", "fetch.checksum", flipped("registry.json")),
    Drift("checksum", "the manifest", "receipts", "fetch.checksum", flipped(_MANIFEST)),
    Drift("checksum", "the receipt", "receipts", "fetch.checksum", flipped(_RECEIPT)),
    Drift("checksum", "the engine", "engine", "fetch.checksum", flipped("engine", 60)),
    Drift("checksum", "the model", "model", "fetch.checksum", flipped("model")),
    Drift("engine", "no module", "engine", "engine.abi", engine_of(b"engine")),
    Drift("engine", "a module without a door", "engine", "engine.abi", engine_of(b"\0asm\1\0\0\0")),
    Drift("checksum", "two manifests exchanged", "receipts", "fetch.bytes", swapped(_MANIFEST, "adapter-manifest-1")),
    Drift("checksum", "the registry is not there", "registry", "fetch.missing", removed("registry.json")),
    Drift("checksum", "the receipt is not there", "receipts", "fetch.missing", removed(_RECEIPT)),
    Drift("checksum", "the engine is not there", "engine", "fetch.missing", removed("engine")),
    Drift("checksum", "the model is not there", "model", "fetch.missing", removed("model")),
    # What the sidecars say.
    Drift("runtime manifest", "of another file", "receipts", "manifest.model",
          field(_MANIFEST, "artifact", "sha256", to=EVIL)),
    Drift("runtime manifest", "of another size", "receipts", "manifest.model",
          field(_MANIFEST, "artifact", "size", to=lambda n: n + 64)),
    Drift("runtime manifest", "more right answers than items", "receipts", "manifest.model",
          field(_MANIFEST, "scores", 0, "champion_right", to=lambda n: n + 1000)),
    Drift("runtime manifest", "a build without a receipt", "receipts", "manifest.model",
          field(_MANIFEST, "base", to=EVIL)),
    Drift("runtime manifest", "another engine", "receipts", "manifest.runtime",
          field(_MANIFEST, "runtime", "engine", to=EVIL)),
    Drift("runtime manifest", "another interface", "receipts", "manifest.runtime",
          field(_MANIFEST, "runtime", "abi", to=2)),
    Drift("runtime manifest", "more memory", "receipts", "manifest.runtime",
          field(_MANIFEST, "runtime", "memory_limit", to=lambda n: n + 65536)),
    Drift("runtime manifest", "another context", "receipts", "manifest.runtime",
          field(_MANIFEST, "runtime", "context", to=lambda n: n // 2)),
    Drift("runtime manifest", "tensors to decode where none are", "receipts", "manifest.runtime",
          field(_MANIFEST, "runtime", "decoded_bytes", to=4096)),
    Drift("runtime manifest", "keys and values of another size", "model", "model.facts",
          field(_MANIFEST, "runtime", "kv_bytes", to=lambda n: n // 2)),
    Drift("runtime manifest", "a smoke of no positions", "receipts", "manifest.runtime",
          field(_MANIFEST, "logits", "positions", to=0)),
    Drift("runtime manifest", "an empty digest", "receipts", "manifest.form",
          field(_MANIFEST, "logits", "sha256", to="")),
    Drift("runtime manifest", "an unknown field", "receipts", "manifest.form", field(_MANIFEST, "quality", to="best")),
    Drift("runtime manifest", "another spelling", "receipts", "manifest.form", respelled(_MANIFEST)),
    Drift("runtime manifest", "more parameters than there are", "model", "model.facts",
          field(_MANIFEST, "parameters", to=lambda n: n + 1)),
    Drift("runtime manifest", "another vocabulary", "model", "model.facts",
          field(_MANIFEST, "vocab_size", to=lambda n: n + 1)),
    Drift("runtime manifest", "a longer context", "model", "model.facts",
          field(_MANIFEST, "max_context", to=lambda n: n * 2)),
    Drift("runtime manifest", "other logits than the smoke's", "evidence", "evidence.meaning",
          field(_MANIFEST, "logits", "sha256", to=EVIL)),
    Drift("runtime manifest", "other logits", "smoke", "smoke.logits",
          both(field(_MANIFEST, "logits", "sha256", to=EVIL),
               logged(field("evidence-smoke", "logits", "sha256", to=EVIL)))),
    Drift("runtime manifest", "logits of fewer positions", "smoke", "smoke.logits",
          both(field(_MANIFEST, "logits", "positions", to=lambda n: n - 1),
               field(_FAMILY, "logits", "positions", to=lambda n: n - 1),
               logged(field("evidence-smoke", "logits", "positions", to=lambda n: n - 1)))),
    Drift("runtime manifest", "another model of the same shape", "smoke", "smoke.logits", model_bytes(_last_weight)),
    Drift("runtime manifest", "a model with a NaN", "model", "slm.payload.non-finite",
          model_bytes(lambda changed: struct.pack_into("<f", changed, len(changed) - 4, _NAN))),
    Drift("runtime manifest", "a model that is none", "model", "slm.magic", model_bytes(_poke(0, b"SLM2"))),
    Drift("adapter manifest", "another order", "receipts", "adapter.manifest",
          field("adapter-manifest-1", "order", to=2)),
    Drift("adapter manifest", "of another kind than the registry's", "receipts", "adapter.manifest",
          field("registry", "families", 0, "adapters", 0, "package", to="ALR1")),
    Drift("adapter manifest", "of another file", "receipts", "adapter.manifest",
          field("adapter-manifest-2", "artifact", "sha256", to=EVIL)),
    Drift("adapter manifest", "for another base", "receipts", "adapter.manifest",
          field("adapter-manifest-1", "base", to=EVIL)),
    Drift("adapter manifest", "for another tokenizer", "receipts", "adapter.manifest",
          field("adapter-manifest-3", "tokenizer_sha256", to=EVIL)),
    Drift("adapter manifest", "for another layout", "receipts", "adapter.manifest",
          field("adapter-manifest-3", "layout_sha256", to=EVIL)),
    Drift("adapter manifest", "another state", "receipts", "adapter.manifest",
          field("adapter-manifest-2", "state_sha256", to=EVIL)),
    Drift("adapter manifest", "no entries", "receipts", "adapter.manifest",
          field("adapter-manifest-1", "entries", to=0)),
    Drift("adapter manifest", "an unknown field", "receipts", "adapter.manifest",
          field("adapter-manifest-1", "trust", to="me")),
    Drift("adapter manifest", "no registration", "receipts", "adapter.manifest",
          field("adapter-manifest-1", "source", to="")),
    Drift("adapter manifest", "another fused tensor", "adapters", "adapter.fused",
          field("adapter-manifest-1", "fused", to=lambda f: {name: _flop(d) for name, d in f.items()})),
    Drift("adapter manifest", "a fused tensor more", "adapters", "adapter.fused",
          field("adapter-manifest-3", "fused", to=lambda f: {**f, "zebra.weight": EVIL})),
    Drift("adapter manifest", "another kind of package", "receipts", "adapter.manifest",
          field("adapter-manifest-2", "package", to="ADP1")),
    Drift("adapter manifest", "another kind of package in the registry", "receipts", "adapter.manifest",
          field("registry", "families", 0, "adapters", 1, "package", to="ADP1")),
    Drift("adapter manifest", "another kind of package than was registered", "evidence", "evidence.meaning",
          both(field("adapter-manifest-2", "package", to="ADP1"),
               field("registry", "families", 0, "adapters", 1, "package", to="ADP1"))),
    Drift("adapter manifest", "another kind of package everywhere", "adapters", "adapter.facts",
          both(field("adapter-manifest-2", "package", to="ADP1"),
               field("registry", "families", 0, "adapters", 1, "package", to="ADP1"),
               logged(field("evidence-adapter-2-source", "source", "package", to="ADP1")))),
    Drift("adapter manifest", "another licence", "adapters", "adapter.facts",
          field("adapter-manifest-1", "licence", to="MIT")),
    Drift("adapter manifest", "fewer entries", "adapters", "adapter.facts",
          field("adapter-manifest-1", "entries", to=lambda n: n - 1)),
    Drift("graph", "a receipt of another model", "receipts", "receipt.binding", field(_RECEIPT, "model", to=EVIL)),
    Drift("graph", "a receipt of another route", "receipts", "receipt.binding", field(_RECEIPT, "route", to="shadow")),
    Drift("graph", "a receipt of other evidence", "receipts", "receipt.binding",
          field(_RECEIPT, "evidence", "evidence-smoke", to=EVIL)),
    Drift("graph", "a receipt of less evidence", "receipts", "receipt.binding",
          gone(_RECEIPT, "evidence", "evidence-review")),
    Drift("graph", "a receipt of more evidence", "receipts", "receipt.binding",
          field(_RECEIPT, "evidence", to=lambda e: {**e, "evidence-more": EVIL})),
    Drift("graph", "a receipt of no stack", "receipts", "receipt.binding", field(_RECEIPT, "family", to=None)),
    Drift("graph", "a receipt of a browser's smoke", "receipts", "receipt.binding",
          field(_RECEIPT, "browser_smoke", to=EVIL)),
    Drift("graph", "a receipt of other calls", "receipts", "receipt.calls", field(_RECEIPT, "calls_sha256", to=EVIL)),
    Drift("graph", "a receipt of another state", "receipts", "receipt.state", field(_RECEIPT, "state_sha256", to=EVIL)),
    Drift("graph", "a receipt that is none", "receipts", "receipt.form", gone(_RECEIPT, "checkpoint")),
    # Evidence.
    Drift("eval case", "the receipt's", "receipts", "receipt.case", field(_RECEIPT, "eval_case", to=EVIL)),
    Drift("eval case", "the plan's", "receipts", "receipt.case", planned("eval_case", to=EVIL)),
    Drift("eval case", "plan's and receipt's", "evidence", "evidence.case",
          both(planned("eval_case", to=EVIL), field(_RECEIPT, "eval_case", to=EVIL))),
    Drift("eval case", "scored on another suite", "evidence", "evidence.case",
          logged(field("evidence-evaluation", "results", 0, "suite", to=EVIL))),
    Drift("eval case", "scored on other items", "evidence", "evidence.case",
          logged(both(field("evidence-evaluation", "results", 0, "items_before", to=EVIL),
                      field("evidence-evaluation", "results", 0, "items_after", to=EVIL)))),
    Drift("eval case", "items changed while it was scored", "evidence", "evidence.case",
          logged(field("evidence-evaluation", "results", 0, "items_after", to=EVIL))),
    Drift("evidence file", "not there", "evidence", "evidence.file", removed("evidence-review")),
    Drift("evidence file", "a flipped bit", "evidence", "evidence.file", flipped("evidence-decision")),
    Drift("evidence file", "cut short", "evidence", "evidence.file", cut("evidence-ledger", 7)),
    Drift("evidence file", "two exchanged", "evidence", "evidence.file",
          swapped("evidence-smoke", "evidence-admission")),
    Drift("evidence file", "no record", "evidence", "evidence.form", bytes_of("evidence-review", lambda d: b"[]")),
    Drift("evidence file", "a form that every object inherits", "evidence", "evidence.form",
          logged(field("evidence-adapter-1-source", "source", "form", to="constructor"))),
    Drift("evidence file", "another kind of record", "evidence", "evidence.form",
          lambda d: d.edit("evidence-review", lambda _: {**d.text("evidence-recipe"), "seed": 7})),
    Drift("evidence file", "another spelling", "evidence", "evidence.form", respelled("evidence-smoke")),
    Drift("evidence file", "a form that none has", "evidence", "evidence.form",
          logged(field("evidence-adapter-1-source", "source", "form", to="constructor"))),
    Drift("evidence file", "an unknown field", "evidence", "evidence.form", field("evidence-move", "by", to="nobody")),
    Drift("evidence meaning", "a smoke that did not pass", "evidence", "evidence.meaning",
          logged(field("evidence-smoke", "passed", to=False))),
    Drift("evidence meaning", "a smoke that was not finite", "evidence", "evidence.meaning",
          logged(field("evidence-smoke", "finite", to=False))),
    Drift("evidence meaning", "a smoke by another engine", "evidence", "evidence.meaning",
          logged(field("evidence-smoke", "engine", to=EVIL))),
    Drift("evidence meaning", "a smoke with other logits", "evidence", "evidence.meaning",
          logged(field("evidence-smoke", "logits", "sha256", to=EVIL))),
    Drift("evidence meaning", "another model's smoke", "evidence", "evidence.meaning",
          logged(field("evidence-smoke", "artifact", to=EVIL))),
    Drift("evidence meaning", "another model's scorecard", "evidence", "evidence.meaning",
          logged(field("evidence-evaluation", "artifact", to=EVIL))),
    Drift("evidence meaning", "better scores shown than scored", "evidence", "evidence.meaning",
          field(_MANIFEST, "scores", 0, "right", to=lambda n: n + 1)),
    Drift("evidence meaning", "another role of the suites shown", "evidence", "evidence.meaning",
          field(_MANIFEST, "role", to="sealed")),
    Drift("evidence meaning", "a decision that chose nobody", "evidence", "evidence.meaning",
          logged(field("evidence-decision", "chosen", to=None))),
    Drift("evidence meaning", "a decision to do nothing", "evidence", "evidence.meaning",
          logged(field("evidence-decision", "action", to="no-op"))),
    Drift("evidence meaning", "chosen although archived", "evidence", "evidence.meaning",
          logged(field("evidence-decision", "standings",
                       to=lambda found: [{**one, "action": "archive"} for one in found]))),
    Drift("evidence meaning", "a weaker champion shown than it was compared with", "evidence", "evidence.meaning",
          field(_MANIFEST, "scores", 3, "champion_right", to=lambda n: n - 1)),
    Drift("evidence meaning", "a scorecard with calls that were never made", "evidence", "evidence.meaning",
          logged(field("evidence-evaluation", "results", 0, "actual_calls", to=0))),
    Drift("evidence meaning", "a decision that chose another", "evidence", "evidence.meaning",
          logged(field("evidence-decision", "chosen", to=EVIL))),
    Drift("evidence meaning", "an open gate", "evidence", "evidence.meaning",
          logged(field("evidence-promotion", "gates", 0, "status", to="pending"))),
    Drift("evidence meaning", "a failed gate before champion", "evidence", "evidence.meaning",
          logged(field("evidence-promotion-champion", "gates", 0, "status", to="failed"))),
    Drift("evidence meaning", "no gates", "evidence", "evidence.meaning",
          logged(field("evidence-promotion", "gates", to=[]))),
    Drift("evidence meaning", "a template of another candidate", "evidence", "evidence.meaning",
          logged(field("evidence-promotion", "manifest", to=EVIL))),
    Drift("evidence meaning", "a template of another decision", "evidence", "evidence.meaning",
          logged(field("evidence-promotion", "decision", to=EVIL))),
    Drift("evidence meaning", "an admission of another template", "evidence", "evidence.meaning",
          logged(field("evidence-admission", "template", to=EVIL))),
    Drift("evidence meaning", "an admission of another model", "evidence", "evidence.meaning",
          logged(field("evidence-admission", "artifact", to=EVIL))),
    Drift("evidence meaning", "a claim above the admission", "evidence", "evidence.meaning",
          field(_MANIFEST, "claim", to="assistant-quality")),
    Drift("evidence meaning", "a move of another model", "evidence", "evidence.meaning",
          logged(field("evidence-move", "artifact", to=EVIL))),
    Drift("evidence meaning", "a promotion on other evidence", "evidence", "evidence.meaning",
          logged(field("evidence-move", "evidence", to=EVIL))),
    Drift("evidence meaning", "a promotion that nothing was decided for", "evidence", "evidence.meaning",
          logged(field("evidence-move", "basis", to="first"))),
    Drift("evidence meaning", "a candidate of other bytes", "evidence", "evidence.meaning",
          logged(field("evidence-candidate", "artifact", "sha256", to=EVIL))),
    Drift("evidence meaning", "an ablation", "evidence", "evidence.meaning",
          logged(field("evidence-candidate", "purpose", to="ablation"))),
    Drift("evidence meaning", "a candidate of another receipt", "evidence", "evidence.meaning",
          logged(field("evidence-candidate", "receipt", to=EVIL))),
    Drift("evidence meaning", "a candidate that is not as declared", "evidence", "evidence.meaning",
          logged(field("evidence-candidate", "checks", 0, "passed", to=False))),
    Drift("evidence meaning", "a looser licence shown", "evidence", "evidence.meaning",
          field(_MANIFEST, "licence", to="MIT")),
    Drift("evidence meaning", "limits that are not shown", "evidence", "evidence.meaning",
          field(_MANIFEST, "trade_offs", to=lambda t: [*t, "none at all"])),
    Drift("evidence meaning", "a receipt of other bytes", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "output", "sha256", to=EVIL))),
    Drift("evidence meaning", "a receipt of another template", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "template", to=EVIL))),
    Drift("evidence meaning", "declared as another size", "evidence", "evidence.meaning",
          logged(field("evidence-template", "expected", "size_bytes", to=lambda n: n + 64))),
    Drift("evidence meaning", "made by another operator than declared", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "operator", "weights", to=[0.25, 0.75]))),
    Drift("evidence meaning", "a parameter that is only nearly the same", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "operator", to=lambda o: {**o, "extra": 1}),
                 field("evidence-template", "operator", to=lambda o: {**o, "extra": True}))),
    Drift("evidence meaning", "made of other parents than declared", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "inputs", to=lambda i: i[:-1]))),
    Drift("evidence meaning", "parents that changed during the run", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "inputs", 1, "after", to=EVIL))),
    Drift("evidence meaning", "made by another arithmetic than declared", "evidence", "evidence.meaning",
          logged(field("evidence-operator-receipt", "numeric_contract", to=EVIL))),
    Drift("evidence meaning", "another name shown", "evidence", "evidence.meaning",
          field(_MANIFEST, "name", to="trusted-model")),
    Drift("evidence meaning", "another operator shown", "evidence", "evidence.meaning",
          field(_MANIFEST, "lineage", 0, "operator", to="task-delta/1")),
    Drift("evidence meaning", "a parent left out of the lineage", "evidence", "evidence.meaning",
          lineage_of(lambda nodes: nodes[:-1])),
    Drift("evidence meaning", "a stranger in the lineage", "evidence", "evidence.meaning",
          lineage_of(lambda nodes: [*nodes, {**nodes[-1], "digest": EVIL, "name": "famous"}])),
    Drift("evidence meaning", "a parent twice in the lineage", "evidence", "evidence.meaning",
          lineage_of(lambda nodes: [*nodes, {**nodes[-1], "name": "famous"}])),
    Drift("evidence meaning", "a source that has parents", "evidence", "evidence.meaning",
          lineage_of(lambda nodes: [*nodes[:-1], {**nodes[-1], "parents": [nodes[0]["digest"]]}])),
    Drift("evidence meaning", "a candidate without parents", "evidence", "evidence.meaning",
          lineage_of(lambda nodes: [*nodes[:-1], {**nodes[-1], "kind": "candidate"}])),
    Drift("evidence meaning", "no source to be named by the recipe", "evidence", "evidence.meaning",
          both(lineage_of(lambda nodes: [{**node, "kind": "candidate"} for node in nodes]),
               logged(field("evidence-recipe", "members", to=[])))),
    Drift("evidence meaning", "another lineage shown", "evidence", "evidence.meaning",
          field(_MANIFEST, "lineage", 0, "parents", to=lambda p: p[:-1])),
    Drift("evidence meaning", "a source that was bred", "evidence", "evidence.meaning",
          field(_MANIFEST, "lineage", 1, "kind", to="candidate")),
    Drift("evidence meaning", "a recipe of nobody, for a lineage without sources", "evidence", "evidence.meaning",
          both(field(_MANIFEST, "lineage", to=lambda nodes: nodes[:1]),
               logged(field("evidence-recipe", "members", to=[]), field("evidence-recipe", "base", to=EVIL)))),
    Drift("evidence meaning", "another build's receipt", "evidence", "evidence.meaning",
          both(field(_MANIFEST, "base", to=EVIL), field(_MANIFEST, "quantise_receipt", to=EVIL),
               field(_FAMILY, "base", to=EVIL), *(field(f"adapter-manifest-{k}", "base", to=EVIL) for k in (1, 2, 3)))),
    Drift("evidence meaning", "a review that does not name it", "evidence", "evidence.meaning",
          logged(field("evidence-review", "residents", to=lambda r: r[1:] and [x for x in r if "candidate" in x]))),
    Drift("evidence meaning", "a recipe of another line", "evidence", "evidence.meaning",
          logged(field("evidence-recipe", "members", to=[]))),
    Drift("evidence meaning", "a registration of another package", "evidence", "evidence.meaning",
          logged(field("evidence-adapter-1-source", "source", "adapter_sha256", to=EVIL))),
    Drift("evidence meaning", "a registration for another base", "evidence", "evidence.meaning",
          logged(field("evidence-adapter-2-source", "source", "base", to=EVIL))),
    Drift("evidence ledger", "a record the ledger never held", "evidence", "evidence.ledger",
          field("evidence-smoke", "detail", to="loads, runs and sings")),
    Drift("evidence ledger", "a proof of another entry", "evidence", "evidence.ledger",
          field("evidence-ledger", "entries", 0, "index", to=lambda n: n + 1)),
    Drift("evidence ledger", "a path one node short", "evidence", "evidence.ledger",
          field("evidence-ledger", "entries", 0, "path", to=lambda p: p[:-1])),
    Drift("evidence ledger", "one record less", "evidence", "evidence.ledger",
          field("evidence-ledger", "entries", to=lambda e: e[:-1])),
    Drift("evidence ledger", "another tree", "evidence", "evidence.ledger",
          field("evidence-ledger", "checkpoint", "root", to=EVIL)),
    Drift("evidence ledger", "another tree, bound", "evidence", "evidence.ledger",
          both(field("evidence-ledger", "checkpoint", "root", to=EVIL), field(_RECEIPT, "checkpoint", "root", to=EVIL))),
    Drift("evidence ledger", "lines in another spelling", "evidence", "evidence.ledger",
          lambda draft: relogged(draft, lambda line: json.dumps(json.loads(line)))),
    Drift("evidence ledger", "lines with white space in their payload", "evidence", "evidence.ledger",
          lambda draft: relogged(draft, lambda line: line[:40] + " " + line[40:])),
    Drift("evidence ledger", "lines that name a key twice", "evidence", "evidence.ledger",
          lambda draft: relogged(draft, lambda line: '{"payload":"",' + line[1:])),
    Drift("evidence ledger", "a line of another record", "evidence", "evidence.ledger",
          field("evidence-ledger", "entries", to=lambda e: [{**x, "line": e[0]["line"]} for x in e])),
    # Packages.
    Drift("adapter artifact", "not there", "adapters", "adapter.artifact", removed("adapter-1")),
    Drift("adapter artifact", "a flipped bit", "adapters", "adapter.artifact", flipped("adapter-2")),
    Drift("adapter artifact", "one byte less", "adapters", "adapter.artifact", cut("adapter-3")),
    Drift("adapter artifact", "one byte more", "adapters", "adapter.artifact", grown("adapter-1", b"\0")),
    Drift("adapter validation", "another magic", "adapters", "adapter.validation", package(1, _poke(0, b"ADP2"))),
    Drift("adapter validation", "a wrong checksum", "adapters", "adapter.validation",
          package(1, _first_value(0.5), checksum=False)),
    Drift("adapter validation", "a NaN", "adapters", "adapter.validation", package(1, _first_value(_NAN))),
    Drift("adapter validation", "an overflow when fused", "adapters", "adapter.validation",
          package(3, _huge)),
    Drift("adapter validation", "of another layout", "adapters", "adapter.validation",
          package(2, _poke(32, bytes(32)))),
    Drift("adapter validation", "of another tokenizer", "adapters", "adapter.validation",
          package(3, _poke(64, bytes(32)))),
    Drift("adapter validation", "indices out of order", "adapters", "adapter.validation",
          package(2, lambda changed: struct.pack_into("<I", changed, _payload(changed), 0xFFFFFF))),
    Drift("adapter artifact", "other values, every digest right", "adapters", "adapter.fused",
          package(1, _first_value(0.5))),
    # What a browser said.
    Drift("browser smoke", "did not pass", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "passed", to=False), smoked=True),
    Drift("browser smoke", "of another plan", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "plan", to=EVIL), smoked=True),
    Drift("browser smoke", "of another plan, planned so", "evidence", "evidence.browser",
          both(field("evidence-browser-smoke", "plan", to=EVIL), planned("unsmoked", to=EVIL)), smoked=True),
    Drift("browser smoke", "of another page", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "page_build", to=EVIL), smoked=True),
    Drift("browser smoke", "of another engine", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "engine", to=EVIL), smoked=True),
    Drift("browser smoke", "other logits", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "logits", "sha256", to=EVIL), smoked=True),
    Drift("browser smoke", "another state", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "state_sha256", to=EVIL), smoked=True),
    Drift("browser smoke", "fewer requests than files", "evidence", "evidence.browser",
          field("evidence-browser-smoke", "requests", to=3), smoked=True),
    Drift("browser smoke", "visible to the lab only", "registry", "registry.route",
          field("registry", "routes", 0, "visible", to="local"), smoked=True),
    Drift("browser smoke", "not bound", "receipts", "receipt.binding",
          field(_RECEIPT, "browser_smoke", to=None), smoked=True),
)  # fmt: skip
