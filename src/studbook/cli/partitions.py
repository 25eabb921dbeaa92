"""The verbs about partitions: which specialist answers for which clusters."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console

from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.errors import UsageError
from studbook.records import ExpertPartition

__all__ = ["partition"]


@click.group()
def partition() -> None:
    """Which specialist answers for which clusters."""


@partition.command()
@click.argument("experts", nargs=-1, required=True, metavar="ID=CLUSTER[,CLUSTER]...")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def declare(session: Session, experts: Sequence[str], reason: str) -> None:
    """Put installed packages together anew, every cluster to one of them at most."""
    with session.open() as lab:
        found = lab.partitions.declare(_experts(experts), reason)
    session.give({"digest": found[0], "partition": found[1]}, _page(*found))


@partition.command()
@click.argument("whole", metavar="ID")
@click.argument("parts", nargs=2, metavar="ID=CLUSTER[,CLUSTER]...")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def split(session: Session, whole: str, parts: Sequence[str], reason: str) -> None:
    """Give the clusters of one specialist to two installed packages, every cluster to one of them."""
    with session.open() as lab:
        found = lab.partitions.split(whole, _experts(parts), reason)
    session.give({"digest": found[0], "partition": found[1]}, _page(*found))


@partition.command()
@click.argument("first", metavar="ID")
@click.argument("second", metavar="ID")
@click.option("--into", required=True, help="Id of the installed package that shall answer for both.")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def merge(session: Session, first: str, second: str, into: str, reason: str) -> None:
    """Give the clusters of two specialists to one installed package that is no worse on either's."""
    with session.open() as lab:
        found = lab.partitions.merge(first, second, into, reason)
    session.give({"digest": found[0], "partition": found[1]}, _page(*found))


@partition.command()
@click.pass_obj
def show(session: Session) -> None:
    """The partition in force: who answers for what, and what nobody answers for."""
    with session.open(writer=False) as lab:
        found = lab.partitions.show()
    session.give({"digest": found[0], "partition": found[1]}, _page(*found))


def _experts(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        name, sign, clusters = word.partition("=")
        if not sign or not all((name, *clusters.split(","))) or name in found:
            advice = "Write every specialist once, with its clusters: rot=rot,rev"
            raise UsageError(f"{word!r} names no specialist with its clusters", advice=advice, reason="usage.partition")
        found[name] = clusters.split(",")
    return found


def _page(name: str, found: ExpertPartition) -> Page:
    """Who answers for what; of the items that judge, no number is shown, for whoever sees it could learn to pass them."""

    def page(out: Console) -> None:
        out.print(f"partition {name} ({found.made_by})", soft_wrap=True)
        for expert in found.experts:
            out.print(f"  {expert.id}: {', '.join(expert.clusters)}", soft_wrap=True)
        out.print(f"covers {found.coverage:.0%} of {len(found.labels)} clusters", soft_wrap=True)
        if found.uncovered:
            out.print(f"the champion answers for {', '.join(found.uncovered)}", soft_wrap=True)

    return page
