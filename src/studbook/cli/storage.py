"""The verbs about living with a lab: its witness, its space, its copies and its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.lab import Lab
from studbook.lab.storage import Cleared, Usage, Withdrawal

__all__ = ["add_to"]


@click.command()
@click.pass_obj
def witness(session: Session) -> None:
    """Let a new witness begin with the lab as it is, where there is none: for somebody who knows that the lab is whole."""
    with session.open() as lab:
        size = lab.witness()
    session.give({"entries": size}, pages.line(f"the witness saw {size} entries"))


@click.command()
@click.pass_obj
def du(session: Session) -> None:
    """Say what the lab takes on disk: by zone and kind, what receipts need, and what gc would free."""
    with session.open(writer=False) as lab:
        found = lab.du()
    session.give(found, _usage_page(found))


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_obj
def gc(session: Session, dry_run: bool) -> None:
    """Delete bytes of archived candidates that a receipt makes again and nothing needs, and leftovers of finished work."""
    with session.open(writer=not dry_run) as lab:
        found = lab.gc(dry_run=dry_run)
    session.give(found, _cleared_page(found, dry_run))


@click.command()
@click.argument("name")
@click.option("--as", "person", required=True, help="Who withdraws it; their policy key signs.")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def withdraw(session: Session, name: str, person: str, reason: str) -> None:
    """Take back a model or data for good: a signed tombstone stays, the bytes go; list what was made from it."""
    with session.open() as lab:
        found = lab.withdraw(name, person, reason)
    session.give(found, _withdrawal_page(found))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_obj
def backup(session: Session, folder: Path) -> None:
    """Copy the lab, without keys and witness, to a FOLDER that is a lab itself; or bring an earlier copy up to date."""
    with session.open(writer=False, still=True) as lab:
        found = lab.backup(folder)
    told = f"{found.entries} entries: {found.files} files of {found.size} bytes copied, {found.removed} removed"
    session.give(found, pages.line(told))


@click.command()
@click.argument("copy", type=click.Path(path_type=Path))
@click.pass_obj
def restore(session: Session, copy: Path) -> None:
    """Make the lab that --lab names from a COPY, after all of the copy was verified."""
    found = Lab.restore(copy, session.path, session.keys, session.witness)
    told = f"restored {found.entries} entries, {found.files} files of {found.size} bytes"
    session.give(found, pages.lines(*([f"warning: {found.warning}"] if found.warning else []), told))


@click.command()
@click.pass_obj
def upgrade(session: Session) -> None:
    """Bring a lab of an older format, which can only be read, to the format of this program."""
    found = Lab.upgrade(session.path, session.keys, session.witness)
    rows = [f"no key signs {k} yet: studbook key new OWNER --kind {k} --as PERSON" for k in found.ungranted]
    told = (
        f"format {found.before} -> {found.after}"
        if found.before < found.after
        else f"is of format {found.after} already"
    )
    session.give(found, pages.lines(*rows, told))


def _usage_page(found: Sequence[Usage]) -> Page:
    table = Table(box=None, pad_edge=False)
    for column in ("zone", "kind", "files", "bytes", "needed", "reclaimable"):
        table.add_column(column, justify="left" if column in ("zone", "kind") else "right")
    for row in found:
        table.add_row(row.zone, row.kind, *(f"{n:,}" for n in (row.files, row.size, row.needed, row.reclaimable)))
    sums = (sum(getattr(row, name) for row in found) for name in ("files", "size", "needed", "reclaimable"))
    table.add_row("all", "", *(f"{n:,}" for n in sums))
    return lambda out: out.print(table)


def _cleared_page(found: Cleared, dry_run: bool) -> Page:
    would = "would free" if dry_run else "freed"
    rows = [f"{name}: studbook reproduce {name} --restore brings it back" for name in found.candidates]
    return pages.lines(*rows, *found.folders, f"{would} {found.freed} bytes")


def _withdrawal_page(found: Withdrawal) -> Page:
    def show(out: Console) -> None:
        pages.signed(found.signed)(out)
        out.print(f"freed {found.freed} bytes")
        for row in found.descendants:
            out.print(f"made from it, and still here: {row.name} {row.artifact}", soft_wrap=True)

    return show


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (witness, du, gc, withdraw, backup, restore, upgrade):
        group.add_command(verb)
