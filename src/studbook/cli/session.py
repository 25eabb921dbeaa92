"""Where the lab is and how results are shown; and what the words of a command mean."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from studbook.cli.progress import Shown
from studbook.errors import RecordRefused, UsageError
from studbook.files import read_file
from studbook.lab import Lab
from studbook.records import read_plain_json

__all__ = ["Session", "recipes_of", "work_of"]

_RECIPE_LIMIT = 1 << 20
_PLAIN_WIDTH = 120


class Session:
    """Where the lab is and how results are shown."""

    def __init__(self, lab: Path, keys: Path | None, as_json: bool) -> None:
        self.path, self.keys, self.as_json = lab, keys, as_json
        # A terminal says how wide it is; a file or pipe gets room for the widest table.
        width = None if sys.stdout.isatty() else _PLAIN_WIDTH
        self.out = Console(highlight=False, markup=False, emoji=False, width=width)
        self.progress = Shown(Console(stderr=True, highlight=False, markup=False, emoji=False))

    def open(self, *, writer: bool = True, still: bool = False) -> Lab:
        """Open the lab."""
        return Lab(self.path, self.keys, writer=writer, still=still, progress=self.progress)

    def give(self, value: Any, page: Callable[[Console], None]) -> None:
        """Print a result: the value itself as JSON, or its page."""
        if self.as_json:
            click.echo(json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=True, ensure_ascii=False))
        else:
            page(self.out)


def work_of(words: Sequence[str], mergekit: Path | None, seed: int) -> tuple[str | None, dict[str, Any]]:
    """Cluster, or None, and recipe, from the words of `breed`.

    Raises:
        UsageError: if they name none, or too much.
        RecordRefused: if the recipe is not JSON.
    """
    if mergekit is not None:
        if words:
            raise UsageError("a mergekit file is the whole recipe", where="--mergekit", advice="Leave RECIPE out.")
        text = read_file(mergekit, _RECIPE_LIMIT).decode("utf-8", "replace")
        return None, {"mergekit": text, "where": str(mergekit), "seed": seed}
    if len(words) not in (1, 2):
        raise UsageError("names no recipe", advice="studbook breed CLUSTER RECIPE, or studbook breed RECIPE --parent X")
    return (words[0] if len(words) == 2 else None), recipes_of(words[-1])[0]


def recipes_of(text: str) -> list[dict[str, Any]]:
    """Operator records from JSON text or a file; one or a list.

    Raises:
        UsageError: if there is no such file.
        RecordRefused: if it is not JSON, or no record.
    """
    inline = text.lstrip().startswith(("{", "["))
    data = text.encode() if inline else read_file(Path(text), _RECIPE_LIMIT)
    where = "recipe" if inline else text
    found = read_plain_json(data, where)
    many = found if isinstance(found, list) else [found]
    if not many or not all(isinstance(r, dict) for r in many):
        raise RecordRefused("not an operator record or a list of them", where=where, advice="See docs/operators.")
    return many
