"""Write the forms of the records that a bundle's page reads; with ``--check`` only say whether they are up to date.

    python tools/page_forms.py [--check] [--file src/studbook/assembly/web/schemas.js]

They are the JSON Schemas of the records, without words, so that page and `studbook bundle verify` ask for the same.
Exit code 1 means stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from schemas import schema_of

from studbook.assembly.meaning import kinds_of
from studbook.assembly.plan import BROWSER, EVIDENCE
from studbook.records import (
    AdapterFamilyReceipt,
    AdapterManifest,
    AssemblyReceipt,
    ModelManifest,
    ModulePlan,
    Record,
    SelectorRegistry,
)

__all__ = ["main", "page_kinds", "text"]

FILE = Path(__file__).resolve().parents[1] / "src" / "studbook" / "assembly" / "web" / "schemas.js"
_SIDECARS = (ModulePlan, SelectorRegistry, ModelManifest, AdapterManifest, AdapterFamilyReceipt, AssemblyReceipt)
_WORDS = frozenset({"title", "description", "$id", "$schema"})
_HEAD = "/** The forms of all records that a page reads; generated from the records themselves (tools/page_forms.py). */\n\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the forms of the records that a bundle's page reads.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    file: Path = options.file
    wanted = text()
    if file.exists() and file.read_text(encoding="utf-8") == wanted:
        return 0
    print(f"{'stale' if options.check else 'wrote'}: {file}")
    if options.check:
        return 1
    file.write_text(wanted, encoding="utf-8")
    return 0


def page_kinds() -> tuple[type[Record], ...]:
    """Every kind of record that a page reads, each once: sidecars, then evidence of every role."""
    roles = (*EVIDENCE, BROWSER, "adapter-1-source")
    return tuple(dict.fromkeys((*_SIDECARS, *(kind for role in roles for kind in kinds_of(role)))))


def text() -> str:
    """The module: kind -> name of its form, and every form by name."""
    kinds: dict[str, str] = {}
    forms: dict[str, Any] = {}
    for kind in page_kinds():
        schema = schema_of(kind)
        kinds[kind.kind()] = _name(schema["$ref"])
        for name, form in schema["$defs"].items():
            short = _short(form)
            # Two records may share a part, but no two parts a name.
            if forms.setdefault(name, short) != short:
                raise msgspec.ValidationError(f"two different forms are called {name}")
    table = json.dumps({"forms": forms, "kinds": kinds}, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{_HEAD}export const SCHEMAS = {table};\n"


def _short(value: Any, names: bool = False) -> Any:
    """A form without words; below ``properties`` the keys are names. References lose everything but the name."""
    if isinstance(value, list):
        return [_short(v) for v in value]
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if names or k not in _WORDS}
    special = {"$ref": _name, "discriminator": _mapping}
    return {
        k: special[k](v) if k in special and not names else _short(v, not names and k == "properties")
        for k, v in kept.items()
    }


def _mapping(value: Any) -> dict[str, Any]:
    return {**value, "mapping": {tag: _name(place) for tag, place in value["mapping"].items()}}


def _name(reference: Any) -> str:
    return str(reference).rpartition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
