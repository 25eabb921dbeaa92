"""Editing a bundle and sealing it again: every digest, path, size, receipt, plan and the page's plan digest follow.

Whoever forges a bundle does just this, so a refusal that comes after it is one of meaning and not of checksums.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rfc8785

Edit = Callable[[Any], Any]

# Everything that a digest of an earlier one stands in comes after it.
_ORDER = (
    "template", "operator-receipt", "candidate", "smoke", "evaluation", "decision", "promotion", "admission",
    "promotion-champion", "move", "review", "recipe",
)  # fmt: skip
_LAST = (
    "model-manifest",
    "adapter-manifest",
    "adapter-family",
    "registry",
    "evidence-browser-smoke",
    "assembly-receipt",
)
_FOLDERS = {
    "sidecar": ("sidecars", "json"),
    "evidence": ("evidence", "json"),
    "engine": ("engine", "wasm"),
    "model": ("models", "slm"),
    "adapter": ("adapters", "adp"),
}


def sha(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """RFC 8785."""
    return rfc8785.dumps(value)


class Draft:
    """A bundle that is being edited.

    Args:
        folder: A whole bundle.

    Attributes:
        plan: Its plan as plain values, as it was.
        modules: Its modules by id.
        sealed: Digests of the texts that were sealed so far, for edits of what cites them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_bytes())
        self.modules: dict[str, Any] = {m["id"]: m for m in self.plan["modules"]}
        self.sealed: dict[str, str] = {}
        self._bytes = {m["id"]: (folder / m["path"]).read_bytes() for m in self.plan["modules"]}
        self._edits: dict[str, list[Edit]] = {}
        self._raw: dict[str, bytes] = {}
        self._plan: list[Edit] = []
        self._files: list[Callable[[dict[str, bytes]], None]] = []
        self._added: dict[str, dict[str, Any]] = {}
        self._dropped: set[str] = set()

    def text(self, name: str) -> dict[str, Any]:
        """A record as plain values, as it was."""
        found: dict[str, Any] = json.loads(self._bytes[name])
        return found

    def binary(self, name: str) -> bytes:
        """The bytes of a file, as they were."""
        return self._bytes[name]

    def edit(self, name: str, edit: Edit) -> None:
        """Change a record; what it cites follows first, and what cites it afterwards. ``edit`` returns it, or None."""
        self._edits.setdefault(name, []).append(edit)

    def put(self, name: str, data: bytes) -> None:
        """Give a file other bytes; everything that names it follows."""
        self._raw[name] = data

    def drop(self, name: str) -> None:
        """Leave a module out of the plan, and out of what depends on it."""
        self._dropped.add(name)

    def add(self, name: str, value: dict[str, Any], module: dict[str, Any], after: str) -> None:
        """Add a module behind another one."""
        self._added[name] = {**module, "after": after}
        self._bytes[name] = canonical(value)

    def edit_plan(self, edit: Edit) -> None:
        """Change the plan after everything else followed; the page is compiled with the outcome."""
        self._plan.append(edit)

    def edit_files(self, edit: Callable[[dict[str, bytes]], None]) -> None:
        """Change files at the very end; nothing follows."""
        self._files.append(edit)

    def write(self, target: Path) -> None:
        """Seal and write the bundle into a new folder."""
        files = self._sealed()
        for edit in self._files:
            edit(files)
        for path, data in files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(data)

    def _sealed(self) -> dict[str, bytes]:
        plan = json.loads(canonical(self.plan))
        self._arrange(plan)
        renamed = self._binaries(plan)
        sizes = {m["sha256"]: len(self._bytes[m["id"]]) for m in self.plan["modules"]}
        contents = dict(self._bytes)
        for name, data in self._raw.items():
            contents[name] = data
            sizes[sha(data)] = len(data)
        for name in self._ordered(plan):
            before = sha(self._bytes[name])
            contents[name] = self._follow(name, contents[name], renamed, sizes, plan)
            self.sealed[name] = sha(contents[name])
            if self.sealed[name] != before:
                renamed[before] = self.sealed[name]
        for module in plan["modules"]:
            data = contents[module["id"]]
            module |= {"sha256": sha(data), "size": len(data)}
            folder, ending = _FOLDERS[module["class"]]
            module["path"] = "registry.json" if module["id"] == "registry" else f"{folder}/{sha(data)}.{ending}"
        plan = _renamed(plan, renamed, {})
        plan["execution"]["engine"] = sha(contents["engine"])
        for edit in self._plan:
            plan = edit(plan) or plan
        page = {f["path"]: (self.folder / f["path"]).read_bytes() for f in self.plan["page"]["files"]}
        data = canonical(plan)
        script = f'export const PLAN = {{sha256: "{sha(data)}", size: {len(data)}}};\n'.encode()
        own = {m["id"]: m for m in plan["modules"]}
        files = {m["path"]: contents[name] for name, m in own.items() if name in contents and _inside(m["path"])}
        return {**page, **files, "plan.json": data, "bundle.js": script}

    def _arrange(self, plan: dict[str, Any]) -> None:
        """Modules, dependencies, count and calls without what is left out, and with what is added."""
        modules = [m for m in plan["modules"] if m["id"] not in self._dropped]
        for name, module in self._added.items():
            place = next(i for i, m in enumerate(modules) if m["id"] == module["after"]) + 1
            modules.insert(place, {"id": name, **{k: v for k, v in module.items() if k != "after"}})
            if name.startswith("evidence-"):
                engine = next(m for m in modules if m["id"] == "engine")
                engine["depends"] = [m["id"] for m in modules if m["id"].startswith("evidence-")]
        for module in modules:
            module["depends"] = [d for d in module["depends"] if d not in self._dropped]
        plan["modules"] = modules
        plan["fetch"]["count"] = len(modules)
        if self._dropped or self._added:
            known = {m["id"] for m in self.plan["modules"]}
            calls = [c for c in plan["calls"] if c["module"] not in self._dropped]
            for name, module in self._added.items():
                place = next(i for i, c in enumerate(calls) if c["module"] == module["after"]) + 1
                calls.insert(place, {"call": "verify", "module": name})
            plan["calls"] = [{**c, "order": order} for order, c in enumerate(calls, 1)]
            assert known

    def _binaries(self, plan: dict[str, Any]) -> dict[str, str]:
        """Old digest -> new one of every file that got other bytes, and of the states that follow from them."""
        renamed = {sha(self._bytes[name]): sha(data) for name, data in self._raw.items()}
        model = self.modules["model"]["sha256"]
        for count in range(len(self.plan["stack"]) + 1):
            stack = [model, *self.plan["stack"][:count]]
            renamed[_state(stack)] = _state([renamed.get(d, d) for d in stack])
        renamed[sha(canonical(self.plan["calls"]))] = sha(canonical(plan["calls"]))
        return {old: new for old, new in renamed.items() if old != new}

    def _ordered(self, plan: dict[str, Any]) -> list[str]:
        names = [m["id"] for m in plan["modules"] if m["class"] in ("sidecar", "evidence")]
        first = [f"evidence-{role}" for role in _ORDER if f"evidence-{role}" in names]
        late = [n for prefix in _LAST for n in names if n.startswith(prefix)]
        rest = [n for n in names if n not in first and n not in late and n != "evidence-ledger"]
        return [*first, *rest, *(["evidence-ledger"] if "evidence-ledger" in names else []), *late]

    def _follow(
        self, name: str, data: bytes, renamed: dict[str, str], sizes: dict[str, int], plan: dict[str, Any]
    ) -> bytes:
        if name in self._raw:
            return data
        value = _renamed(json.loads(data), renamed, sizes)
        if name == "assembly-receipt":
            # Digests of what was added or left out.
            bound = {
                **value["evidence"],
                **{n: renamed.get(sha(self._bytes[n]), sha(self._bytes[n])) for n in self._added},
            }
            value["evidence"] = {n: d for n, d in bound.items() if n not in self._dropped}
        for edit in self._edits.get(name, []):
            value = edit(value) or value
        return canonical(value)


def _inside(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/") and "\\" not in path


def _state(stack: list[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(d) for d in stack)).hexdigest()


def _renamed(value: Any, renamed: dict[str, str], sizes: dict[str, int]) -> Any:
    """The same values with every digest that changed, and sizes beside it."""
    if isinstance(value, str):
        return renamed.get(value, value)
    if isinstance(value, list):
        return [_renamed(v, renamed, sizes) for v in value]
    if isinstance(value, dict):
        made = {k: _renamed(v, renamed, sizes) for k, v in value.items()}
        if isinstance(value.get("sha256"), str) and value["sha256"] in renamed and made["sha256"] in sizes:
            made["size"] = sizes[made["sha256"]]
        return made
    return value


def relogged(draft: Draft, spelled: Callable[[str], str] = str) -> None:
    """Give the ledger's evidence a tree of its own that holds exactly the records as they are now: a forged ledger.

    ``spelled`` may write its lines in another way.
    """

    def forge(value: dict[str, Any]) -> None:
        lines = [spelled(_line(e["record"], index)) for index, e in enumerate(value["entries"])]
        root, paths = _tree([hashlib.sha256(b"\x00" + line.encode()).digest() for line in lines])
        for index, (entry, line) in enumerate(zip(value["entries"], lines, strict=True)):
            entry |= {"index": index, "line": line, "path": [node.hex() for node in paths[index]]}
        mark = value["checkpoint"] | {"size": len(lines), "root": root.hex()}
        value["checkpoint"] = mark
        value["note"] = f"{mark['origin']}\n{mark['size']}\n{base64.b64encode(root).decode()}\n\nsigned by nobody\n"
        draft.edit("assembly-receipt", lambda receipt: receipt.__setitem__("checkpoint", mark))

    draft.edit("evidence-ledger", forge)


def _line(record: str, index: int) -> str:
    statement = canonical({"predicate": {"record": record, "sequence": index}})
    return canonical({"payload": base64.b64encode(statement).decode()}).decode()


def _tree(leaves: list[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """Root and inclusion paths of a Merkle tree, by the definition of RFC 6962 section 2.1."""
    if len(leaves) == 1:
        return leaves[0], [[]]
    cut = 1 << (len(leaves) - 1).bit_length() - 1
    (left, first), (right, second) = _tree(leaves[:cut]), _tree(leaves[cut:])
    root = hashlib.sha256(b"\x01" + left + right).digest()
    return root, [[*p, right] for p in first] + [[*p, left] for p in second]
