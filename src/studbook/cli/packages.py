"""The verbs about packages: agreed on, made, installed, taken up and put aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.errors import RecordRefused
from studbook.files import read_file
from studbook.lab.packages import Installed, Shown, Terms, Wanted
from studbook.records import JsonObject, read_plain_json
from studbook.runtime.packages import PERMISSIONS
from studbook.runtime.schemas import TEXT

__all__ = ["package"]

_SCHEMA_LIMIT = 1 << 20
_COUNT = click.IntRange(0, 2**53 - 1)


@click.group()
def package() -> None:
    """What a host may run: small models, each for its own clusters."""


@package.command()
@click.option("--as", "person", required=True, help="Who agrees.")
@click.option("--permission", "permissions", multiple=True, type=click.Choice(PERMISSIONS),
              help="What may be allowed at all; may be repeated [as before, all in the first one].")  # fmt: skip
@click.option("--licence", "licences", multiple=True, help="A licence that is accepted; may be repeated [as before].")
@click.option("--packages", type=_COUNT, help="Most packages that are installed [as before, 512].")
@click.option("--bytes", "size", type=_COUNT, help="Most bytes of one package's files [as before, 134217728].")
@click.option("--decoded", type=_COUNT, help="Most bytes of one package's weights, decoded [as before, 536870912].")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def contract(session: Session, /, person: str, reason: str, permissions: Sequence[str], **terms: Any) -> None:
    """Say what packages may do and take here at most: a person's act."""
    licences = tuple(terms.pop("licences")) or None
    with session.open() as lab:
        found = lab.packages.contract(person, Terms(tuple(permissions) or None, licences, **terms), reason)
    session.give(found, pages.signed(found))


@package.command()
@click.argument("name", metavar="ID")
@click.argument("model")
@click.option("--version", required=True, help="Its semantic version, above the one before.")
@click.option("--for", "clusters", multiple=True, required=True, help="A cluster it answers for; may be repeated.")
@click.option("--adapter", "adapters", multiple=True, help="A registered package on it; in the order of the stack.")
@click.option("--requires", multiple=True, help="Id of a package it needs; may be repeated.")
@click.option("--permission", "permissions", multiple=True, type=click.Choice(PERMISSIONS),
              help="What it asks to be allowed; may be repeated [answer, stream].")  # fmt: skip
@click.option(
    "--input", "into", type=click.Path(path_type=Path), help="File with the JSON Schema of what goes in [any text]."
)
@click.option("--output", type=click.Path(path_type=Path), help="File with that of what comes out [any text].")
@click.option("--unsupported", multiple=True, help="What it does not do; may be repeated.")
@click.option("--trade-off", "trade_offs", multiple=True, help="What was given up; may be repeated.")
@click.option("--fallback", help="Id of the package to ask instead [the champion].")
@click.pass_obj
def make(
    session: Session,
    /,
    name: str,
    model: str,
    version: str,
    into: Path | None,
    output: Path | None,
    fallback: str | None,
    permissions: Sequence[str],
    **lists: Sequence[str],
) -> None:
    """Package a MODEL that was admitted, or a source that was approved; installs nothing."""
    asked = tuple(permissions) or ("answer", "stream")
    schemas = {"input": _schema(into), "output": _schema(output)}
    more: dict[str, Any] = {**schemas, **{key: tuple(value) for key, value in lists.items()}}
    wanted = Wanted(version=version, permissions=asked, fallback=fallback, **more)
    with session.open() as lab:
        revision, record = lab.packages.make(name, model, wanted)
    told = f"made {record.id} {record.package_version}: {revision}", f"next: studbook package install {record.id}"
    session.give({"revision": revision, "package": record}, pages.lines(*told))


@package.command()
@click.argument("name", metavar="ID")
@click.pass_obj
def install(session: Session, name: str) -> None:
    """Install a package: everything is checked beside its place before it takes it."""
    with session.open() as lab:
        found = lab.packages.install(name)
    session.give(found, _told(found))


@package.command(name="list")
@click.pass_obj
def list_(session: Session) -> None:
    """Every package, where it stands, and why no server takes it up."""
    with session.open(writer=False) as lab:
        found = lab.packages.list()
    session.give(found, _table(found))


@package.command()
@click.argument("name", metavar="ID")
@click.pass_obj
def show(session: Session, name: str) -> None:
    """One package, by its id, ID@VERSION or revision, and everything that became of it."""
    with session.open(writer=False) as lab:
        found = lab.packages.show(name)
    session.give(found, _shown(found))


@package.command()
@click.argument("name", metavar="ID")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def suspend(session: Session, name: str, reason: str) -> None:
    """Put a package aside; it can be taken up again."""
    with session.open() as lab:
        found = lab.packages.suspend(name, reason)
    session.give(found, _told(found))


@package.command()
@click.argument("name", metavar="ID")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def resume(session: Session, name: str, reason: str) -> None:
    """Take a suspended package up again, if everything that carried it still does."""
    with session.open() as lab:
        found = lab.packages.resume(name, reason)
    session.give(found, _told(found))


@package.command()
@click.argument("name", metavar="ID")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def retire(session: Session, name: str, reason: str) -> None:
    """Take a package out for good; its bytes leave the host's folder."""
    with session.open() as lab:
        found = lab.packages.retire(name, reason)
    session.give(found, _told(found))


@package.command()
@click.argument("name", metavar="ID")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def quarantine(session: Session, name: str, reason: str) -> None:
    """Take a package out of service at once, and keep its bytes for whoever looks into it."""
    with session.open() as lab:
        found = lab.packages.quarantine(name, reason)
    session.give(found, _told(found))


def _schema(path: Path | None) -> JsonObject:
    if path is None:
        return TEXT
    found = read_plain_json(read_file(path, _SCHEMA_LIMIT), path)
    if not isinstance(found, dict):
        advice = 'Write an object, such as {"type": "string"}.'
        raise RecordRefused("is no JSON object", where=path, advice=advice, reason="package.schema")
    return found


def _told(found: Installed) -> Page:
    rest = f"; no server takes it up: {found.why_not}" if found.why_not else ""
    return pages.line(f"{found.id} {found.version} ({found.revision[:12]}) is {found.state}{rest}")


def _table(found: Sequence[Installed]) -> Page:
    table = Table(box=None, pad_edge=False, header_style="")
    for column in ("package", "version", "revision", "model", "for", "state", "kept out by"):
        table.add_column(column, no_wrap=column != "kept out by")
    for one in found:
        clusters = ", ".join(one.clusters)
        table.add_row(one.id, one.version, one.revision[:12], one.model, clusters, one.state, one.why_not)
    return lambda out: out.print(table if found else "nothing was packaged yet")


def _shown(found: Shown) -> Page:
    held, envelope = found.package, found.package.envelope
    sizes = ", ".join(
        f"{name} {measure.value:,.0f}"
        for name, measure in (
            ("files", envelope.file_bytes),
            ("decoded", envelope.decoded_bytes),
            ("cache a position", envelope.kv_bytes_per_position),
            ("scratch", envelope.scratch_bytes),
        )
    )

    def page(out: Console) -> None:
        rows = [
            f"{held.id} {held.package_version}  {found.state}",
            f"revision    {found.revision}",
            f"artifact    {held.artifact.sha256}",
            f"answers for {', '.join(held.clusters)}",
            f"may         {', '.join(held.permissions) or 'nothing'}",
            f"requires    {', '.join(held.requires) or 'nothing'}",
            f"instead     {held.fallback or 'the champion'}",
            f"carried by  {held.evidence.basis} {held.evidence.record[:12]}",
            f"bytes       {sizes}",
            *(f"{event.before or '-'} -> {event.after}: {event.reason}" for event in found.events),
        ]
        for row in rows:
            out.print(row, soft_wrap=True)

    return page
