"""The verbs of experiments: register a charter, run it, show what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.lab.experiments import Experiment
from studbook.records import ExperimentCharter, ExperimentResult

__all__ = ["experiment"]


@click.group()
def experiment() -> None:
    """Experiments: charters before the run, results after it."""


@experiment.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def new(session: Session, file: Path) -> None:
    """Register the charter of an experiment from a JSON FILE; nothing is bred yet."""
    with session.open() as lab:
        found = lab.experiments.new(file)
    session.give(found, _page(found))


@experiment.command()
@click.argument("name")
@click.pass_obj
def run(session: Session, name: str) -> None:
    """Do what a charter says, on development items; the same command goes on where it stopped."""
    with session.open() as lab:
        found = lab.experiments.run(name)
    session.give(found, _page(found))


@experiment.command()
@click.argument("name", required=False)
@click.pass_obj
def show(session: Session, name: str | None) -> None:
    """Show one experiment, or list all of them, those without a result included."""
    with session.open(writer=False) as lab:
        found = lab.experiments.show(name)
    session.give(found, _list(found) if name is None else _page(found[0]))


def _list(found: Sequence[Experiment]) -> Page:
    table = _table("experiment", "registered (UTC)", "operator", "cluster", "runs", "result")
    for row in found:
        told = "none yet" if row.result is None else "supported" if row.result.supported else "not supported"
        charter = row.charter
        runs = str(charter.budget.candidates)
        table.add_row(charter.name, row.entered[:19], charter.operator, row.label, runs, told)
    return lambda out: out.print(table if found else "no experiment is registered")


def _page(found: Experiment) -> Page:
    def page(out: Console) -> None:
        charter = found.charter
        out.print(f"{charter.name}: {charter.hypothesis}", soft_wrap=True)
        out.print(f"charter {found.digest}, registered {found.entered}", soft_wrap=True)
        fixed = msgspec.json.encode(charter.fixed).decode()
        seeds = ", ".join(map(str, charter.seeds))
        out.print(f"{charter.operator} for {found.label}, fixed {fixed}, seeds {seeds}", soft_wrap=True)
        for place, factor in enumerate(charter.factors, start=1):
            off, on = (msgspec.json.encode(v).decode() for v in (factor.off, factor.on))
            out.print(f"factor {place}: {factor.field}, 0 is {off}, 1 is {on}", soft_wrap=True)
        budget = charter.budget
        out.print(f"at most {budget.candidates} candidates and {budget.calls} model calls on development items")
        if found.result is None:
            out.print(f"no result yet; next: studbook experiment run {charter.name}", soft_wrap=True)
        else:
            _result(out, found, charter, found.result)

    return page


def _result(out: Console, found: Experiment, charter: ExperimentCharter, result: ExperimentResult) -> None:
    arms = _table("arm", charter.analysis.metric, "bounds")
    for row in result.outcomes:
        name = f"{row.arm or 'candidate'}{' (primary)' if row.arm == charter.primary else ''}"
        arms.add_row(name, f"{row.score:.2%}", f"{row.lower:.2%} to {row.upper:.2%}")
    rivals = _table("primary arm against", "difference", "bounds", "")
    for against in result.contrasts:
        who = found.names[against.artifact] if against.artifact else against.baseline
        rivals.add_row(who, *_points(against.difference, against.lower, against.upper), _word(against.beaten, "beaten"))
    factors = _table("factor", "effect", "bounds", "pairs ahead", "")
    for row_ in result.attribution:
        told = _points(row_.difference, row_.lower, row_.upper)
        factors.add_row(row_.field, *told, f"{row_.ahead} of {row_.pairs}", _word(row_.shown, "shown"))
    for table in (arms, rivals, *([factors] if result.attribution else [])):
        out.print()
        out.print(table)
    out.print()
    out.print("the hypothesis is supported" if result.supported else "the hypothesis is NOT supported")
    for text in result.unsupported:
        out.print(f"  {text}", soft_wrap=True)
    out.print(f"result {found.result_digest}; on development items, so nothing is released by it", soft_wrap=True)


def _points(difference: float, lower: float, upper: float) -> tuple[str, str]:
    return f"{100 * difference:+.2f} pp", f"{100 * lower:+.2f} to {100 * upper:+.2f}"


def _word(holds: bool, word: str) -> str:
    return word if holds else f"not {word}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
