"""Write the operator pages from the operators themselves; with ``--check`` only say whether they are up to date.

    python tools/operator_docs.py [--check] [--folder docs/operators]

Every page is the class docstring, the fields with the ranges their types state, and one example record. Exit code 1
means that a page is missing, stale or left over.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from studbook.breeding.operators import Operator, every_type
from studbook.breeding.operators.parameters import range_of
from studbook.records.doors import canonical
from studbook.tensors.contract import CONTRACT, CONTRACT_SHA256

__all__ = ["main", "page", "pages", "sections"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "operators"
NOTE = "<!-- Written by tools/operator_docs.py from the source; edit the docstring, then run `make docs`. -->"
KINDS = {float: "number", int: "integer", str: "text", bool: "true or false"}
ORDER = ("Formula", "Source", "Base", "Attributes", "Bound", "When to use", "Failure modes")


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/operators from the operators' docstrings.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    wanted = pages()
    found = {path.name: path.read_text(encoding="utf-8") for path in options.folder.glob("*.md")}
    stale = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if not options.check:
        _write(options.folder, wanted, stale)
    for name in stale:
        print(f"{'stale' if options.check else 'wrote' if name in wanted else 'removed'}: {options.folder / name}")
    return 1 if options.check and stale else 0


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    texts = {_file(kind): page(kind) for kind in every_type()}
    return {"README.md": _index(), **texts}


def page(kind: type[Operator]) -> str:
    """The page of one operator."""
    parts = sections(inspect.getdoc(kind) or "")
    fewest, most = kind.parents_needed
    lines = [
        f"# {kind.__name__}: `{kind.tag()}`",
        NOTE,
        _flow(parts[""]),
        f"Family `{kind.family}`; parents: {fewest if fewest == most else f'{fewest} to {most}'}.",
        "## Formula",
        *_formula(parts["Formula"]),
        f"**Source.** {_flow(parts['Source'])}",
        f"**Base.** {_flow(parts['Base'])}",
        "## Parameters",
        _parameters(kind, parts["Attributes"]),
        "No field has a default and no other field is accepted. A record looks like this:",
        f"```json\n{_example(kind)}\n```",
        "## Bound of the change",
        f"||child - base|| <= {_flow(parts['Bound'])}",
        "## When to use",
        _flow(parts["When to use"]),
        "## Failure modes",
        _flow(parts["Failure modes"]),
    ]
    return "\n\n".join(lines) + "\n"


def sections(docstring: str) -> dict[str, str]:
    """A docstring by its headings; the text before the first one stands under the empty name.

    Raises:
        SystemExit: naming the operator page's section that is missing or unknown.
    """
    parts = re.split(r"^([A-Z][A-Za-z ]*):\n(?=    )", docstring, flags=re.MULTILINE)
    found = {"": parts[0].strip()}
    found.update({name: textwrap.dedent(text).strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)})
    if wrong := set(found) ^ {"", *ORDER}:
        raise SystemExit(f"{found['']!r}: section missing or unknown: {', '.join(sorted(wrong))}")
    return found


def _write(folder: Path, wanted: Mapping[str, str], stale: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()


def _index() -> str:
    rows = ["| operator | does | family | parents |", "|---|---|---|---|"]
    for kind in every_type():
        fewest, most = kind.parents_needed
        parents = fewest if fewest == most else f"{fewest} to {most}"
        does = _flow(sections(inspect.getdoc(kind) or "")[""])
        rows.append(f"| [`{kind.tag()}`]({_file(kind)}) | {does} | {kind.family} | {parents} |")
    rules = [f"* **{name}**: {rule}" for name, rule in CONTRACT.items() if name != "contract"]
    return (
        "\n\n".join(
            [
                "# Operators",
                NOTE,
                "An operator is a record with parameters and one method that computes any range of one tensor. "
                "Each makes one kind of change; a candidate is made by exactly one.",
                "\n".join(rows),
                f"## Numeric contract `{CONTRACT['contract']}`",
                f"Its digest, `{CONTRACT_SHA256}`, stands in every receipt.",
                "\n".join(rules),
            ]
        )
        + "\n"
    )


def _file(kind: type[Operator]) -> str:
    return kind.tag().replace("/", "-") + ".md"


def _formula(text: str) -> list[str]:
    formula, *prose = text.split("\n\n")
    return [f"```\n{formula}\n```", *(_flow(part) for part in prose)]


def _flow(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _parameters(kind: type[Operator], attributes: str) -> str:
    described = dict(re.findall(r"^(\w+): (.*(?:\n +.*)*)", attributes, flags=re.MULTILINE))
    if set(described) != set(kind.__struct_fields__):
        raise SystemExit(f"{kind.__name__}: Attributes and fields differ")
    rows = ["| field | type | range | meaning |", "|---|---|---|---|"]
    for field in kind.__struct_fields__:
        bounds = range_of(kind, field)
        shown = f"{bounds[0]:g}..{_plain(bounds[1])}" if bounds else ""
        rows.append(f"| `{field}` | {_type(kind, field)} | {shown} | {_flow(described[field])} |")
    return "\n".join(rows)


def _word(hint: Any) -> str:
    """A type in a word; a record's type by its fields."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"record ({', '.join(hint.__struct_fields__)})"
    return KINDS.get(hint, "operator record")


def _type(kind: type[Operator], field: str) -> str:
    hint = get_type_hints(kind)[field]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        each = ", one a parent" if field in kind.per_parent else ""
        return f"list of {_word(get_args(hint)[0])}s{each}"
    return _word(hint)


def _plain(value: float) -> str:
    return "2^53-1" if value == 2**53 - 1 else f"{value:g}"


def _example(kind: type[Operator]) -> str:
    record = kind.examples(max(2, kind.parents_needed[0]) if kind.parents_needed[1] > 1 else 1)[0]
    return json.dumps(json.loads(canonical(record)), ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
