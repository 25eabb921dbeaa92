"""The verbs that ask about the past: the log, a moment, descent, one artifact under audit, and a pack to review."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from studbook.cli.pages import Page
from studbook.cli.session import Session, only_with
from studbook.lab.audit_artifact import ArtifactAudit
from studbook.lab.history import Descendant, Logged, Moment

__all__ = ["add_to"]

_ABOUT = 3


@click.command()
@click.option("--kind", "kinds", multiple=True, help="A kind of record, such as scorecard [all].")
@click.option("--zone", default="", help="A zone [all].")
@click.option("--about", default="", help="A model, data manifest or record that an entry speaks about.")
@click.option("--since", default="", help="A day or moment in UTC, such as 2026-07-14 [the beginning].")
@click.pass_obj
def log(session: Session, kinds: Sequence[str], zone: str, about: str, since: str) -> None:
    """List what entered the ledger, oldest first."""
    with session.open(writer=False) as lab:
        found = lab.log(kinds, zone, about, since)
    session.give(found, _log_page(found))


@click.command()
@click.argument("time")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the proof to this file, .line and .record."
)
@click.option("--channel", default="champion", show_default=True, type=click.Choice(["shadow", "canary", "champion"]),
              help="The channel to prove.")  # fmt: skip
@click.pass_obj
def at(session: Session, time: str, output: Path | None, channel: str) -> None:
    """Say what the channels pointed at on a day or at a moment (UTC), and prove it."""
    only_with("channel", "with --output", output is not None)
    with session.open(writer=False) as lab:
        found = lab.at(time, output, channel)
    session.give(found, _moment_page(found))


@click.command()
@click.argument("name", default="")
@click.option("--revoked", is_flag=True, help="What descends from anything that was revoked.")
@click.pass_obj
def descendants(session: Session, name: str, revoked: bool) -> None:
    """List everything made from a model or from data, at any depth."""
    with session.open(writer=False) as lab:
        found = lab.descendants(name, revoked=revoked)
    session.give(found, _descendants_page(found))


@click.command()
@click.argument("name")
@click.pass_obj
def audit(session: Session, name: str) -> None:
    """Say what one model is, what made and judged it, what could change that, and what must be kept."""
    with session.open(writer=False) as lab:
        found = lab.audit(name)
    session.give(found, _audit_page(found))


@click.command(name="review-pack")
@click.argument("candidate")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A new or empty folder [review-DIGEST].")
@click.pass_obj
def review_pack(session: Session, candidate: str, output: Path | None) -> None:
    """Write one folder that a person reads before signing a promotion; it signs nothing and needs no key."""
    with session.open(writer=False) as lab:
        found = lab.review_pack(candidate, output)
    told = f"{found.review.asked.question} Read {found.folder}/README.md ({len(found.files)} files)."
    session.give(found, lambda out: out.print(told, soft_wrap=True))


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (log, at, descendants, audit, review_pack):
        group.add_command(verb)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _log_page(found: Sequence[Logged]) -> Page:
    table = _table("entry", "time (UTC)", "kind", "record", "about")
    for row in found:
        names = ", ".join(row.about[:_ABOUT]) + (f" and {len(row.about) - _ABOUT} more" if row.about[_ABOUT:] else "")
        about = f"void: its key was revoked {names}" if row.void else names
        table.add_row(str(row.sequence), row.time[:19], row.kind, row.record[:12], about)
    return lambda out: out.print(table)


def _moment_page(found: Moment) -> Page:
    def show(out: Console) -> None:
        out.print(f"{found.time}: {found.entries} entries")
        for row in found.channels:
            what = f"{row.name} {row.artifact}" if row.artifact else "empty"
            told = f", since {row.since}, entry {row.sequence}" if row.sequence is not None else ""
            out.print(f"{row.channel}: {what}{told}", soft_wrap=True)
        for path in found.proof:
            out.print(f"proof: {path}", soft_wrap=True)

    return show


def _descendants_page(found: Sequence[Descendant]) -> Page:
    table = _table("depth", "name", "artifact", "through", "channels", "")
    for row in found:
        told = "revoked" if row.revoked else ""
        table.add_row(
            str(row.depth), row.name, row.artifact[:12], ", ".join(row.parents), ", ".join(row.channels), told
        )
    return lambda out: out.print(table if found else "nothing descends from it")


def _audit_page(found: ArtifactAudit) -> Page:
    def show(out: Console) -> None:
        out.print(
            f"{found.name}: {found.artifact}, {found.size} bytes, {found.licence or 'no licence'}", soft_wrap=True
        )
        out.print(f"on record since {found.entered} in {found.manifest}", soft_wrap=True)
        if made := found.made:
            out.print(f"made by {made.operator}, {made.revision}, in {made.environment}", soft_wrap=True)
            out.print(f"  recipe {made.recipe_sha256}, receipt {made.receipt}", soft_wrap=True)
            out.print(f"  numeric contract {made.backend}, {made.reproducibility}", soft_wrap=True)
            out.print(f"  isolation: {', '.join(made.isolation)}", soft_wrap=True)
        for vouched in found.vouched:
            told = f"signed by its producer as {vouched.name!r}, {vouched.covered} files ({vouched.form}): {vouched.record}"
            out.print(told, soft_wrap=True)
            out.print(f"  key {vouched.key_sha256}", soft_wrap=True)
        for row in found.judged:
            out.print(f"scored on {row.role} by {row.revision} in {row.environment}: {row.record}", soft_wrap=True)
            out.print(f"  evaluator {row.evaluator}; {', '.join(row.suites)}", soft_wrap=True)
        out.print("what could change the result:")
        for text in found.assumptions:
            out.print(f"  {text}", soft_wrap=True)
        out.print("what must be kept:")
        for kept in found.keep:
            state = "" if kept.here else " (missing, can be made again)" if kept.recomputable else " (MISSING)"
            out.print(f"  {kept.sha256} {kept.size} bytes: {kept.why}{state}", soft_wrap=True)

    return show
