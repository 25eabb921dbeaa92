"""The verbs about living with a lab: its witness, its space, its copies and its format."""

from __future__ import annotations

import click

from studbook.cli import pages
from studbook.cli.session import Session

__all__ = ["add_to"]


@click.command()
@click.pass_obj
def witness(session: Session) -> None:
    """Let a new witness begin with the lab as it is, where there is none: for somebody who knows that the lab is whole."""
    with session.open() as lab:
        size = lab.witness()
    session.give({"entries": size}, pages.line(f"the witness saw {size} entries"))


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (witness,):
        group.add_command(verb)
