"""Write the verb table and the exit codes from the program itself; with ``--check`` only say whether they are current.

    python tools/docs.py [--check] [--folder docs]

``verbs.md`` is the live command tree, ``exit-codes.md`` the error tree and the verdicts. Exit code 1 means that a page
is missing or stale.
"""

from __future__ import annotations

import argparse
import inspect
import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from studbook import cli, errors
from studbook.cli.commands import commands
from studbook.errors import StudbookError

__all__ = ["error_classes", "main", "pages", "verbs"]

FOLDER = Path(__file__).resolve().parents[1] / "docs"
NOTE = "<!-- Written by tools/docs.py from the source; edit the help texts or docstrings, then run that again. -->"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/verbs.md and docs/exit-codes.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    stale = 0
    for name, text in pages().items():
        path = options.folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"{'stale' if options.check else 'wrote'}: {path}")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if options.check and stale else 0


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    return {"verbs.md": _verbs_page(), "exit-codes.md": _codes_page()}


def verbs(
    group: click.Group = commands, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb with the words that call it, such as ``("suite", "freeze")``; groups themselves are no verbs."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from verbs(command, (*above, name))
        else:
            yield (*above, name), command


def error_classes() -> list[type[StudbookError]]:
    """Every error class, in the order of their definition."""
    return [kind for _, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, StudbookError)]


_FACETS = {"policy": "policies", "routes": "routes"}


def method_of(words: tuple[str, ...]) -> str:
    """The method a verb calls: `suite freeze` is ``lab.suites.freeze``, `review-pack` is ``lab.review_pack``."""
    facets = (_FACETS.get(word, f"{word}s") for word in words[:-1])
    last = f"{words[-1]}_" if keyword.iskeyword(words[-1]) else words[-1]
    return ".".join(("lab", *facets, last)).replace("-", "_")


def _verbs_page() -> str:
    rows = ["| verb | method | does |", "|---|---|---|"]
    for words, command in verbs():
        name = " ".join(words)
        rows.append(f"| [`{name}`](#{'-'.join(words)}) | `{method_of(words)}` | {_cell(command.help or '')} |")
    parts = [
        "# Verbs",
        NOTE,
        "One verb is one method of `Lab` and means one thing. Options of the program itself stand before the verb, as "
        "in `studbook --lab my-lab --json verify`. What each number means when a verb ends: [exit codes]"
        "(exit-codes.md).",
        "\n".join(rows),
        "## For every verb",
        _options(commands),
        *(_verb(words, command) for words, command in verbs()),
    ]
    return "\n\n".join(parts) + "\n"


def _verb(words: tuple[str, ...], command: click.Command) -> str:
    with click.Context(command, info_name=" ".join(("studbook", *words))) as context:
        usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    parts = [f"## {' '.join(words)}", command.help or "", f"    {usage}", _options(command)]
    return "\n\n".join(part for part in parts if part)


def _options(command: click.Command) -> str:
    """The options of a command as a list; empty if it has none."""
    lines = []
    for option in command.params:
        if isinstance(option, click.Option):
            needed = " (required)" if option.required else ""
            lines.append(f"* `{', '.join(option.opts)}`{_values(option)}: {option.help or ''}{needed}")
    return "\n".join(lines)


def _values(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " " + ", ".join(f"`{choice}`" for choice in option.type.choices)
    return ""


def _codes_page() -> str:
    said = re.search(r"Exit codes:(.*)", inspect.getdoc(cli) or "", flags=re.DOTALL)
    if said is None:
        raise SystemExit("studbook.cli: the docstring does not state the exit codes")
    rows = ["| exit | error | what it means | what to do |", "|---:|---|---|---|"]
    for kind in error_classes():
        rows.append(f"| {kind.exit_code} | `{kind.__name__}` | {_cell(inspect.getdoc(kind) or '')} | {kind.advice} |")
    parts = [
        "# Exit codes",
        NOTE,
        f"{_flow(said[1])}",
        "An error prints what is wrong, where, and what to do, on standard error. A refusal that is part of the work "
        "(a candidate that fails a gate, a round that ends in a no-op) is not an error but a record with reasons.",
        "\n".join(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _flow(text: str) -> str:
    """One line; the program's own names as code."""
    flowing = " ".join(text.replace("``", "`").split())
    return flowing[:1].upper() + flowing[1:]


def _cell(text: str) -> str:
    """The first sentence, without bars: it stands in a table."""
    return _flow(text.partition("\n\n")[0]).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
