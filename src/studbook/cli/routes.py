"""The verbs about routes: a router learnt, which module answered what, why, and whether it would be chosen again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.lab.advice import Advice
from studbook.lab.route_learning import SHARE, Learned, read_rules
from studbook.lab.routes import Listed, Told
from studbook.records import RouteRecord

__all__ = ["routes"]


@click.group()
def routes() -> None:
    """Learn who answers which request, and look into the log of it."""


@routes.command()
@click.option("--rules", type=click.Path(path_type=Path), help="JSON list of rules that are asked before the n-grams.")
@click.option("--fallback", metavar="ID", help="The package that answers where nobody leads [the channel's own model].")
@click.option("--share", default=SHARE, show_default=True, help="Share of choices that are right from the margin on.")
@click.pass_obj
def learn(session: Session, rules: Path | None, fallback: str | None, share: float) -> None:
    """Learn a router for the installed packages from the development suites, with its margin."""
    with session.open() as lab:
        found = lab.routes.learn(read_rules(rules) if rules else (), fallback, share)
    session.give(found, _learned_page(found))


@routes.command(name="list")
@click.pass_obj
def list_(session: Session) -> None:
    """List the segments of the log, oldest first."""
    with session.open(writer=False) as lab:
        found = lab.routes.list()
    session.give(found, _list_page(found))


@routes.command()
@click.argument("route")
@click.pass_obj
def show(session: Session, route: str) -> None:
    """Show one route, SEGMENT:LINE, with every candidate and why it was chosen or not."""
    with session.open(writer=False) as lab:
        found = lab.routes.show(route)
    session.give(found, _route_page(found))


@routes.command()
@click.argument("route", default="")
@click.option("--prompt", help="The prompt of the one record, where the log does not hold it.")
@click.pass_obj
def replay(session: Session, route: str, prompt: str | None) -> None:
    """Derive choices again: of one record SEGMENT:LINE, of a SEGMENT, or of all."""
    with session.open(writer=False) as lab:
        found = lab.routes.replay(route, prompt)
    session.give(found, _told_page(found))


@routes.command()
@click.pass_obj
def verify(session: Session) -> None:
    """Check the log's chain and seals, and derive every choice in it again."""
    with session.open(writer=False) as lab:
        found = lab.routes.verify()
    session.give(found, _told_page(found))


@routes.command()
@click.option("--window", default=500, show_default=True, type=click.IntRange(1, 1 << 20), help="Requests of a window.")
@click.option("--budget", type=click.IntRange(1), help="MiB of weights that may be active [as many as now].")
@click.pass_obj
def advise(session: Session, window: int, budget: int | None) -> None:
    """Say which packages should be activated, put out, merged or split after the newest requests; changes nothing."""
    with session.open(writer=False) as lab:
        found = lab.routes.advise(window, None if budget is None else budget << 20)
    session.give(found, _advice_page(found))


def _advice_page(found: Advice) -> Page:
    unknown = f", {found.unknown} of them of no known cluster" if found.unknown else ""
    words = (" ".join(filter(None, (c.act, c.package, c.other, c.cluster))) + f" ({c.reason})" for c in found.changes)
    return pages.lines(f"{found.windows} windows with {found.requests} requests{unknown}", *words)


def _learned_page(found: Learned) -> Page:
    named = f"--router {found.router} --thresholds {found.thresholds}"
    measured = f"a lead of {found.margin:.4f} or more: {found.led} of {found.items} items, {found.right} of them right"
    return pages.lines(
        f"clusters {', '.join(found.clusters) or 'none'}, {found.rules} rules, fallback {found.fallback}",
        *([measured] if found.thresholds else ["no margin: rules decide, or nobody does"]),
        f"release it: studbook release NAME --to shadow {named if found.thresholds else f'--router {found.router}'}",
    )


def _list_page(found: Sequence[Listed]) -> Page:
    table = Table(box=None, pad_edge=False)
    for column in ("segment", "lines", "sealed", "recovered", "head", ""):
        table.add_column(column)
    for row in found:
        table.add_row(str(row.segment), str(row.lines), str(row.sealed), str(row.recovered), row.head[:12], row.where)
    return lambda out: out.print(table if found else "no route was ever logged")


def _route_page(found: RouteRecord) -> Page:
    def show(out: Console) -> None:
        chosen = next((c.id for c in found.candidates if c.revision == found.selected), "nobody")
        out.print(f"{found.how}: {chosen} ({found.reason}), {found.outcome}", soft_wrap=True)
        asked = found.request if found.prompt is None else f"{found.request} {found.prompt!r}"
        out.print(f"request {asked}", soft_wrap=True)
        out.print(f"state {found.state}, threshold {found.threshold or 'none'}, fallback {found.fallback or 'none'}")
        table = Table(box=None, pad_edge=False)
        for column in ("candidate", "revision", "score", "bytes", ""):
            table.add_column(column)
        for c in found.candidates:
            score = "" if c.score is None else f"{c.score:.4f}"
            table.add_row(c.id, c.revision[:12], score, str(c.cost), c.excluded or "")
        out.print(table)
        for step in found.steps:
            sure = "" if step.confidence is None else f", {step.confidence:.3f} sure"
            out.print(f"{step.revision[:12]}: {step.reason}, {step.tokens} tokens{sure}")
        if cost := found.observed:
            out.print(f"{cost.active_bytes} bytes active, {cost.prompt_tokens} tokens read, {cost.tokens} written")

    return show


def _told_page(found: Told) -> Page:
    return pages.lines(
        f"{found.routes} routes in {found.segments} segments: chain and seals hold",
        f"{found.replayed} choices come out the same, {found.from_prompts} of them from the prompt",
        *([f"{found.arranged} were answered by several models"] if found.arranged else []),
        *([f"{found.unsealed} are not sealed yet"] if found.unsealed else []),
    )
