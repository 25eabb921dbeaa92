"""The verbs about suites: made, floor-tested, planned, frozen, sealed, opened; and what others report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.lab.openings import Opened
from studbook.lab.suites import Power
from studbook.records import FloorRow
from studbook.records.evaluation import Dimension, Role

__all__ = ["suite"]


@click.group()
def suite() -> None:
    """The suites that judge."""


@suite.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--like", type=click.Path(path_type=Path), help="A suite folder whose items and settings are taken over.")
@click.option(
    "--perturb", multiple=True, help="A perturber for its items, such as case or white-space; may be repeated."
)
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), default=1, help="Seed of the perturbers [1].")
@click.option("--name", help="Its name [the folder's].")
@click.option("--role", type=click.Choice(get_args(Role)), help="Its role [development].")
@click.option("--dimension", type=click.Choice(get_args(Dimension)), help="What it measures [task].")
@click.option("--cluster", help="The label of its items [the folder's name].")
@click.option("--scorer", help="Kind of scorer [exact-match].")
@click.pass_obj
def new(
    session: Session, /, folder: Path, like: Path | None, perturb: Sequence[str], seed: int, **also: str | None
) -> None:
    """Write a suite folder around the items in it, another suite's items perturbed, or two examples."""
    with session.open(writer=False) as lab:
        count = lab.suites.new(folder, like, perturb, seed, **also)
    told = f"wrote {folder}: {count} items; next: studbook suite floor {folder}"
    session.give({"folder": str(folder), "items": count}, pages.line(told))


@suite.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_obj
def floor(session: Session, folder: Path) -> None:
    """Put a suite to the floor test and show what every worthless answerer and the oracle get."""
    with session.open() as lab:
        rows = lab.suites.floor(folder)
    session.give(rows, _floor_page(rows))


@suite.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "person", help="Whose policy key signs the lock [any at hand].")
@click.pass_obj
def freeze(session: Session, folders: Sequence[Path], person: str | None) -> None:
    """Floor-test suites and freeze them: a person's act."""
    with session.open() as lab:
        manifests = lab.suites.freeze(folders, person)
    session.give(manifests, pages.frozen(manifests))


@suite.command()
@click.argument("names", nargs=-1)
@click.option(
    "--margin", type=click.FloatRange(0, 1, min_open=True), help="Refuse it if it cannot be tested [ask only]."
)
@click.option("--disagreement", type=click.FloatRange(0, 1, min_open=True), help="Share of discordant items [four].")
@click.pass_obj
def power(session: Session, names: Sequence[str], margin: float | None, disagreement: float | None) -> None:
    """Say which effect suites can show and how many items a margin needs: frozen suites by name, or folders."""
    with session.open(writer=False) as lab:
        rows = lab.suites.power(names, margin, disagreement)
    session.give(rows, _power_page(rows))


@suite.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "person", help="Whose policy key signs the lock [any at hand].")
@click.pass_obj
def seal(session: Session, folders: Sequence[Path], person: str | None) -> None:
    """Freeze sealed suites whose items stand in no training slice and no other suite: a person's act."""
    with session.open() as lab:
        manifests = lab.suites.seal(folders, person)
    session.give(manifests, pages.frozen(manifests))


@suite.command("open")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def open_(session: Session, names: Sequence[str]) -> None:
    """Score models on the sealed suites; every look is on record and counts against the policy's openings."""
    with session.open() as lab:
        looks = lab.suites.open(names)
    session.give(looks, _opened_page(looks))


@suite.command()
@click.argument("name")
@click.argument("benchmark")
@click.argument("value", type=float)
@click.option("--unit", default="share", help="Unit of the value [share].")
@click.option("--method", required=True, help="Who measured it how.")
@click.option("--citation", required=True, help="Where it can be read.")
@click.pass_obj
def attach(session: Session, name: str, benchmark: str, value: float, unit: str, method: str, citation: str) -> None:
    """Put on record what somebody else reports of a model: shown beside it, and read by no gate."""
    with session.open() as lab:
        record = lab.suites.attach(name, benchmark, value, unit, method, citation)
    session.give(record, pages.line(f"attached to {name}: {benchmark} {value:g} {unit}, reported"))


def _floor_page(rows: Sequence[FloorRow]) -> Page:
    table = _table("answerer", "score", "verdict")
    for row in rows:
        table.add_row(row.answerer, f"{row.score:.4f}", row.verdict)
    sound = all((row.verdict == "pass") == (row.answerer == "oracle") for row in rows)
    told = "only the oracle passes" if sound else "this suite would not be frozen"

    def page(out: Console) -> None:
        out.print(table)
        out.print(told)

    return page


def _power_page(rows: Sequence[Power]) -> Page:
    table = _table("suite", "items", "disagreement", "detectable", "margin", "needs items")
    for r in rows:
        cells = f"{r.items:,}", f"{r.disagreement:.0%}", f"{r.detectable:.2%}", f"{r.margin:.2%}", f"{r.needed:,}"
        table.add_row(r.suite, *cells)
    return lambda out: out.print(table if rows else "no suite is frozen; name a folder")


def _opened_page(looks: Sequence[Opened]) -> Page:
    table = _table("model", "opening", "joint mean", "worst skill")
    for look in looks:
        card = look.card.card
        worst = min(card.tasks().values(), key=lambda r: r.mean, default=None)
        opening = f"{look.opening} of {look.of}" if look.opening else "seen before"
        told = (f"{card.joint_mean:.1%}", f"{worst.cluster} {worst.mean:.1%}") if worst else ("no tasks", "-")
        table.add_row(look.name, opening, *told)
    return lambda out: out.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table
