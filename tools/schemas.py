"""Write one JSON Schema a kind of record into ``schemas/``; with ``--check`` only say whether they are up to date.

    python tools/schemas.py [--check] [--folder schemas]

``shipped.json`` beside them holds the digest of every kind's rules, without titles and descriptions. A kind that is
listed there never changes: a change needs a new version of the kind. New kinds are added to the list; a listed one
whose rules differ is an error in both modes, exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from studbook.records import KINDS, Record

__all__ = ["files", "main", "rules_sha256", "schema_of"]

FOLDER = Path(__file__).resolve().parents[1] / "schemas"
SHIPPED = "shipped.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
WORDS = frozenset({"title", "description", "$id", "$schema"})


def main(arguments: list[str] | None = None) -> int:
    """Write or check the schemas; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write schemas/ from the records.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a schema is stale")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    shipped: dict[str, str] = json.loads(found.get(SHIPPED, "{}"))
    broken = [k for k, d in shipped.items() if k not in KINDS or rules_sha256(KINDS[k]) != d]
    for kind in sorted(broken):
        print(f"changed after it was shipped: {kind}; give the new rules a new version of the kind")
    wanted = files(shipped)
    stale = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    for name in stale:
        print(f"{'stale' if options.check else 'wrote' if name in wanted else 'removed'}: {folder / name}")
        if not options.check:
            _put(folder / name, wanted.get(name))
    return 1 if broken or (options.check and stale) else 0


def files(shipped: dict[str, str]) -> dict[str, str]:
    """File name -> text of every schema and of the list of shipped kinds, which only grows."""
    texts = {f"{name.replace('/', '-')}.json": _text(schema_of(kind)) for name, kind in KINDS.items()}
    return {**texts, SHIPPED: _text({name: rules_sha256(kind) for name, kind in KINDS.items()} | shipped)}


def schema_of(kind: type[Record]) -> dict[str, Any]:
    """The JSON Schema of one kind; field order and spelling of numbers are the business of the canonical form."""
    schema = {"$schema": DIALECT, "$id": f"urn:studbook:record:{kind.kind()}", **msgspec.json.schema(kind)}
    portable: dict[str, Any] = _portable(schema)
    return portable


def rules_sha256(kind: type[Record]) -> str:
    """SHA-256 over the rules of a kind: its schema without the words that explain it."""
    rules = json.dumps(_without_words(schema_of(kind)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(rules.encode()).hexdigest()


def _portable(value: Any) -> Any:
    """Patterns as ECMA regular expressions, where ``^`` and ``$`` mean what Python calls A and Z; even indentation."""
    if isinstance(value, dict):
        fixed = {k: _portable(v) for k, v in value.items()}
        if isinstance(fixed.get("pattern"), str):
            fixed["pattern"] = fixed["pattern"].replace(r"\A", "^").replace(r"\Z", "$")
        # Newer Pythons strip a docstring's indentation themselves; the files must not depend on that.
        if isinstance(fixed.get("description"), str):
            fixed["description"] = inspect.cleandoc(fixed["description"])
        return fixed
    return [_portable(v) for v in value] if isinstance(value, list) else value


def _without_words(value: Any, names: bool = False) -> Any:
    """The same without explanations; below ``properties`` and ``$defs`` the keys are names, not keywords."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if names or k not in WORDS}
        return {k: _without_words(v, not names and k in {"properties", "$defs"}) for k, v in kept.items()}
    return [_without_words(v) for v in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _put(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
