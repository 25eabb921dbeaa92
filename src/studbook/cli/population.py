"""The verbs of populations: who lives where, who is mated with whom, and many generations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.lab.evolving import Evolution, Plan
from studbook.lab.generation_pages import Told, told
from studbook.lab.mating import Mates
from studbook.lab.populations import Reviewed
from studbook.lab.recipe_sources import DEFAULT, SOURCES
from studbook.population import PoolMethod
from studbook.records import Policy

__all__ = ["add_to"]

WAITS = 21
_METHODS = click.Choice(["niches", "front", "all"])
_SEED = click.IntRange(0, 2**31 - 1)
_HOMES = {
    "active": "what channels point at or go back to",
    "pool": "founders and admitted children: who may be parents",
    "diverse": "the best of their kind, kept for diversity",
    "cold": "everybody else; receipts breed them again",
}


@click.command()
@click.pass_obj
def review(session: Session) -> None:
    """Review the populations: fronts, novelty, the grid of kinds, and who stands for retirement; moves nothing."""
    with session.open() as lab:
        found = lab.review()
        session.give(found.review, _review_page(found, lab.desk.policy[1], lab.desk.name_of))


@click.command()
@click.argument("cluster")
@click.option("--method", default="niches", show_default=True, type=_METHODS, help="How they are drawn.")
@click.option("--size", default=5, show_default=True, type=click.IntRange(2, 16), help="Parents wanted.")
@click.option("--seed", default=1, show_default=True, type=_SEED, help="Seed of the draw.")
@click.option("--keep", is_flag=True, help="Keep the draw on record; a bundle rests on one.")
@click.pass_obj
def parents(session: Session, cluster: str, method: PoolMethod, size: int, seed: int, keep: bool) -> None:
    """Show who would have children together for a CLUSTER, why, and how they fit; breeds nothing."""
    with session.open() as lab:
        found = lab.parents(cluster, method, size, seed, keep=keep)
    session.give(found, _mates_page(found))


@click.command()
@click.option("--generations", default=3, show_default=True, type=click.IntRange(1, 10_000),
              help="How many there shall be; those that are there count.")  # fmt: skip
@click.option("--budget", "evaluations", default=255, show_default=True, type=click.IntRange(1, 10_000),
              help="Recipes to run on development items in a generation.")  # fmt: skip
@click.option("--source", "sources", multiple=True, type=click.Choice(list(SOURCES)),
              help=f"Where recipes come from [{', '.join(DEFAULT)}].")  # fmt: skip
@click.option("--parents", "method", default="niches", show_default=True, type=_METHODS, help="How parents are drawn.")
@click.option("--size", default=5, show_default=True, type=click.IntRange(2, 16), help="Parents of a generation.")
@click.option("--seed", default=1, show_default=True, type=_SEED, help="Seed of draws and searches.")
@click.option("--ceiling", help="A registered joint-training model to show beside the candidates.")
@click.option("--as", "person", help="Who promotes every winner to champion [nobody; it stops and the winner waits].")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the page and the picture.")
@click.pass_obj
def evolve(session: Session, /, sources: Sequence[str], person: str | None, output: Path | None, **wanted: Any) -> None:
    """Breed generation after generation; the same command goes on where it stopped, a larger number goes further."""
    plan = Plan(sources=tuple(sources) or DEFAULT, **wanted)
    with session.open() as lab:
        found = lab.evolve(plan, person, output)
        rows = [told(lab.desk, record) for _, record in found.generations]
        name = lab.desk.name_of(found.champion)
    shown = {
        "generations": [msgspec.to_builtins(row) for row in rows],
        "waiting": found.waiting,
        "champion": found.champion,
        "files": found.files,
    }
    session.give(shown, _evolved_page(rows, found, name, output))
    raise SystemExit(WAITS if found.waiting else 0)


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (review, parents, evolve):
        group.add_command(verb)


def _review_page(found: Reviewed, policy: Policy, name: Callable[[str], str]) -> Page:
    novelty = {row.artifact: row for row in found.novelty.rows}
    most = {"active": policy.population.active, "pool": policy.population.pool, "diverse": policy.population.diverse}

    def page(out: Console) -> None:
        for home, words in _HOMES.items():
            rows = [r for r in found.review.residents if r.population == home]
            full = f"{len(rows)} of {most[home]}" if home in most else f"{len(rows)}"
            out.print(f"{home}: {full} ({words})")
            if not rows:
                continue
            table = Table(box=None, pad_edge=False, header_style="")
            for column in ("  model", "front", "mean", "worst", "novelty", "near, unsure, lost", "kind", "retire?"):
                table.add_column(column, justify="right" if column in ("front", "mean", "worst", "novelty") else "left")
            for r in rows:
                own = novelty[r.artifact]
                table.add_row(
                    f"  {name(r.artifact)}", str(r.rank or "-"), f"{r.mean_ppm / 1e6:.1%}", f"{r.worst_ppm / 1e6:.1%}",
                    f"{own.novelty_ppm / 1e6:.1%}", ", ".join(own.errors.split()), r.cell, r.retire or "no",
                )  # fmt: skip
            out.print(table)
            out.print()
        leaving = [name(r.artifact) for r in found.review.residents if r.retire]
        out.print(f"stands for retirement: {', '.join(leaving) or 'nobody'}. A review moves nothing; people do.")
        out.print("front 1: nobody is better beyond noise; novelty: items the five nearest answer differently")
        out.print(f"review: {found.digest}", soft_wrap=True)

    return page


def _mates_page(found: Mates) -> Page:
    def page(out: Console) -> None:
        table = Table(box=None, pad_edge=False, header_style="", title=f"Parents for {found.label} by {found.method}",
                      title_justify="left")  # fmt: skip
        for column in ("model", "drawn", "weight", "children", "mean"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for m in found.pool:
            drawn = str(m.place) if m.place else "-"
            table.add_row(m.name, drawn, f"{m.weight:.1%}", str(m.children), f"{m.mean:.1%}")
        out.print(table)
        out.print()
        pairs = Table(box=None, pad_edge=False, header_style="")
        for column in ("mates", "cosine", "sign conflict", "barrier", "what that predicts"):
            pairs.add_column(column, justify="left" if column in ("mates", "what that predicts") else "right")
        for p in found.pairs:
            numbers = f"{p.cosine:.3f}", f"{p.conflict:.1%}", f"{p.barrier:+.3f}"
            pairs.add_row(f"{p.first} + {p.second}", *numbers, p.words)
        out.print(pairs)

    return page


def _evolved_page(rows: Sequence[Told], found: Evolution, champion: str, folder: Path | None) -> Page:
    lines = []
    for row in rows:
        lines.append(f"generation {row.number}, {row.label}: {row.outcome}")
        lines.append(f"  parents: {', '.join(row.parents)}")
        lines += [f"  - {reason}" for reason in row.reasons]
        lines += [f"  not evaluated: {text}" for text in row.duplicates]
    lines.append(f"champion: {champion} {found.champion}")
    if found.waiting:
        lines.append(f"stopped: {found.waiting}")
    if found.files:
        lines.append(f"written to {folder}: {', '.join(found.files)}")
    return pages.lines(*lines)
