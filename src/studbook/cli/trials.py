"""The verbs about trials in shadow and canary: planned, looked at, paused, resumed, aborted, stopped, promoted from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.errors import RecordRefused
from studbook.files import read_file
from studbook.lab.canaries import TrialState
from studbook.lab.pending import Signed
from studbook.records import Halt, read_plain_json

__all__ = ["abort", "add_to", "pause", "plan", "promote", "resume", "stop", "trials"]

_LIMIT = 1 << 20


@click.command()
@click.argument("channel", type=click.Choice(["shadow", "canary"]))
@click.option(
    "--file", type=click.Path(path_type=Path), help="JSON object with the settings that differ from the usual."
)
@click.pass_obj
def plan(session: Session, channel: Literal["shadow", "canary"], file: Path | None) -> None:
    """Register the plan of a trial of what stands in shadow, before it begins."""
    with session.acting() as lab:
        made = lab.plan(channel, _settings(file) if file else None)
    found = made.detection
    told = (
        f"registered: one that fails {found.failing:g} of the time is found out within {found.most} requests, 9 in 10"
    )
    session.give(made, pages.line(told))


@click.command()
@click.pass_obj
def trials(session: Session) -> None:
    """Show where the trials in shadow and canary stand."""
    with session.remote() as lab:
        found = lab.trials()
    session.give(found, _page(found))


@click.command()
@click.option("--as", "person", required=True, help="Who promotes; their key signs.")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def promote(session: Session, person: str, reason: str) -> None:
    """Make what stands in canary, or in shadow where the policy has no canary, the champion."""
    with session.acting() as lab:
        record = lab.promote(person, reason)
        moved = (
            pages.signed(record) if isinstance(record, Signed) else pages.moved("champion", record, lab.desk.name_of)
        )
        session.give(record, moved)


@click.command()
@click.option("--as", "person", default="", help="Who does it [the lab's owner].")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def pause(session: Session, person: str, reason: str) -> None:
    """Pause the trial that runs; needs no person's key."""
    with session.acting() as lab:
        _told(session, lab.pause(reason, person))


@click.command()
@click.option("--as", "person", required=True, help="Who lets it go on; their key signs.")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def resume(session: Session, person: str, reason: str) -> None:
    """Let go on what was paused or stopped."""
    with session.acting() as lab:
        made = lab.resume(person, reason)
    session.give(made, pages.signed(made) if isinstance(made, Signed) else pages.line("resumed"))


@click.command()
@click.option("--as", "person", default="", help="Who does it [the lab's owner].")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def abort(session: Session, person: str, reason: str) -> None:
    """End the trial that there is and take its candidate out of the channel; needs no person's key."""
    with session.acting() as lab:
        _told(session, lab.abort(reason, person))


@click.command()
@click.option("--as", "person", default="", help="Who does it [the lab's owner].")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def stop(session: Session, person: str, reason: str) -> None:
    """Stop everything: empty shadow and canary, and answer no request until a person resumes."""
    with session.acting() as lab:
        _told(session, lab.stop(reason, person))


def _told(session: Session, made: Halt) -> None:
    session.give(made, pages.line(f"{made.act} by {made.raised_by}: {made.reason or made.code}"))


def _settings(path: Path) -> dict[str, Any]:
    found = read_plain_json(read_file(path, _LIMIT), path)
    if not isinstance(found, dict):
        raise RecordRefused(
            "is not a JSON object", where=path, advice="Name the settings that differ.", reason="canary.file"
        )
    return found


def _page(found: tuple[TrialState, ...]) -> Page:
    def page(console: Console) -> None:
        table = Table("channel", "candidate", "step", "share", "requests", "probes", "failures", "state")
        for row in found:
            state = row.halted or ("ready" if row.ready else "runs")
            numbers = (row.step, f"{row.share:g}", row.requests, row.probes, row.failures)
            table.add_row(row.channel, row.candidate, *map(str, numbers), state)
        console.print(table if found else "nothing is on trial")

    return page


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (plan, trials, promote, pause, resume, abort, stop):
        group.add_command(verb)
