"""Where the lab is and how results are shown; and what the words of a command mean."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console

from studbook.cli.progress import Shown
from studbook.errors import Busy, NotAuthorised, RecordRefused, UsageError
from studbook.files import read_file
from studbook.lab import Lab
from studbook.lab.moves import Moves
from studbook.lab.remote import Remote
from studbook.records import read_plain_json
from studbook.seal import read_passphrase

__all__ = ["Session", "Work", "check_new_folder", "check_once", "only_with", "recipes_of", "work_of"]

_RECIPE_LIMIT = 1 << 20
_PLAIN_WIDTH = 120


class Session:
    """Where the lab is and how results are shown."""

    def __init__(
        self,
        lab: Path,
        keys: Path | None,
        as_json: bool,
        passphrase_file: Path | None = None,
        witness: Path | None = None,
    ) -> None:
        self.path, self.keys, self.as_json, self.passphrase_file = lab, keys, as_json, passphrase_file
        self.witness = witness
        # A terminal says how wide it is; a file or pipe gets room for the widest table.
        width = None if sys.stdout.isatty() else _PLAIN_WIDTH
        self.out = Console(highlight=False, markup=False, emoji=False, width=width)
        self.progress = Shown(Console(stderr=True, highlight=False, markup=False, emoji=False))

    def open(self, *, writer: bool = True, still: bool = False) -> Lab:
        """Open the lab."""
        how: dict[str, Any] = {"progress": self.progress, "passphrase": self.passphrase, "witness": self.witness}
        return Lab(self.path, self.keys, writer=writer, still=still, **how)

    @contextmanager
    def acting(self) -> Iterator[Moves]:
        """The lab for what moves its channels: opened for writing, or by way of the server that holds it."""
        try:
            lab = self.open()
        except Busy as busy:
            with self.remote() as remote:
                if not remote.there():
                    # Somebody else writes.
                    raise busy from None
                yield remote
        else:
            with lab:
                yield lab

    def remote(self) -> Remote:
        """The lab by way of the server that holds it, if one does."""
        return Remote(lambda: self.open(writer=False).desk)

    def passphrase(self, path: Path) -> bytes:
        """The passphrase of a key file: from the file that was named for it, or typed by whoever sits there."""
        if self.passphrase_file is not None:
            return read_passphrase(self.passphrase_file)
        if not sys.stdin.isatty():
            advice = "Name the file that holds it with --passphrase-file."
            text = "is encrypted, and nobody is there to type its passphrase"
            raise NotAuthorised(text, where=path, advice=advice, reason="authority.passphrase")
        return str(click.prompt(f"passphrase of {path}", hide_input=True, err=True)).encode()

    def give(self, value: Any, page: Callable[[Console], None]) -> None:
        """Print a result: the value itself as JSON, or its page."""
        if self.as_json:
            click.echo(json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=True, ensure_ascii=False))
        else:
            page(self.out)


class Work(NamedTuple):
    """What `breed` is asked for.

    Attributes:
        cluster: The failure cluster; None for checkpoints.
        recipe: An operator record, a whole recipe, or the text of a mergekit file with its name and seed.
    """

    cluster: str | None
    recipe: dict[str, Any]


def work_of(words: Sequence[str], mergekit: Path | None, seed: int | None) -> Work:
    """Cluster, or None, and recipe, from the words of `breed`.

    Raises:
        UsageError: if they name none or too much, or the seed has nothing to go to.
        RecordRefused: if the recipe is not JSON.
    """
    if mergekit is not None:
        if words:
            raise UsageError("a mergekit file is the whole recipe", where="--mergekit", advice="Leave RECIPE out.")
        text = read_file(mergekit, _RECIPE_LIMIT).decode("utf-8", "replace")
        return Work(None, {"mergekit": text, "where": str(mergekit), **({} if seed is None else {"seed": seed})})
    if seed is not None:
        raise UsageError("is for a mergekit file", where="--seed", advice="Write the seed into RECIPE, if it has one.")
    if len(words) not in (1, 2):
        raise UsageError("names no recipe", advice="studbook breed CLUSTER RECIPE, or studbook breed RECIPE --parent X")
    cluster = words[0] if len(words) == 2 else None
    recipe, *more = recipes_of(words[-1])
    if more:
        advice = "Give one record to breed. A round tries several: studbook round CLUSTER --recipes FILE"
        raise UsageError(f"holds {1 + len(more)} records, and one child is bred", where="RECIPE", advice=advice)
    return Work(cluster, recipe)


def only_with(option: str, wanted: str, fits: bool) -> None:
    """Refuse an option that stands on the command line where nothing would read it; a default may stand anywhere.

    Args:
        option: Name of its parameter.
        wanted: Where the option has a meaning, such as ``--method m2n2``.
        fits: Whether that is so here.

    Raises:
        UsageError: naming the option.
    """
    context = click.get_current_context()
    if not fits and context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
        shown = next((p.opts[-1] for p in context.command.params if p.name == option), option)
        raise UsageError(f"means something only {wanted}", where=shown, advice=f"Leave {shown} out.")


def check_once(parents: Sequence[str]) -> None:
    """Refuse a parent that is named twice.

    Raises:
        UsageError: naming it.
    """
    for place, parent in enumerate(parents):
        if parent in parents[:place]:
            advice = "Name every parent once; a recipe's weights say how much of it is taken."
            raise UsageError(f"{parent!r} is named twice", where="--parent", advice=advice, reason="usage.twice")


def check_new_folder(path: Path, lab: Path, where: str) -> None:
    """Refuse, before any work, a folder that nothing could be written to at its end.

    Args:
        path: The folder to be; new in a folder that exists, or empty.
        lab: The lab's folder, which holds nothing but what the lab puts there.
        where: The option or argument that names it.

    Raises:
        UsageError: saying what is in the way.
        OSError: if the disk is full.
    """
    place = f"{where} {path}"
    advice = "Name a new folder in one that exists and can be written to, or an empty one."
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(lab)):
        advice = "Name a folder outside the lab, which holds nothing but its own files."
        raise UsageError("lies in the lab", where=place, advice=advice, reason="usage.folder")
    try:
        if not path.is_dir():
            # A name that is taken, a folder above that is missing, permissions, a full disk: the system knows.
            path.mkdir()
            path.rmdir()
        elif any(path.iterdir()):
            raise UsageError("is not empty", where=place, advice=advice, reason="usage.folder")
        else:
            tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"cannot be written to: {error.strerror}"
        raise UsageError(message, where=place, advice=advice, reason="usage.folder") from error


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
