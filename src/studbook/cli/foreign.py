"""The verb that takes over a task of another evaluation tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from studbook.cli import pages
from studbook.cli.session import Session
from studbook.lab.suites import Suites
from studbook.records.evaluation import Role

__all__ = ["add_to"]


@click.command(name="import")
@click.argument("task", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--cluster", required=True, help="The skill it asks for.")
@click.option("--licence", required=True, help="SPDX identifier of its data.")
@click.option("--role", default="development", show_default=True, type=click.Choice(get_args(Role)), help="Its role.")
@click.option("--name", help="What to call the suite [the task's name].")
@click.pass_obj
def import_(session: Session, /, task: Path, folder: Path, **how: Any) -> None:
    """Write TASK, a local YAML task of lm-eval-harness, as a suite folder; needs no lab."""
    found = Suites.import_(task, folder, **how)
    told = f"{found.items} items for the scorer {found.scorer}; next: studbook suite freeze {found.folder}"
    session.give(found._asdict() | {"folder": str(folder)}, pages.line(told))


def add_to(group: click.Group) -> None:
    """Hang the verb into its group."""
    group.add_command(import_)
