"""The verbs about bundles: writing one from a channel, and looking at one that anybody wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session, check_new_folder
from studbook.lab.assembling import Assembled, Wanted
from studbook.lab.browser import CHROMIUM
from studbook.lab.bundles import Bundles, Checked

__all__ = ["add_to"]

WRONG = 22


@click.command()
@click.argument("channel", type=click.Choice(["shadow", "champion"]))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="A new or empty folder.")
@click.option("--adapter", "adapters", multiple=True, help="A package to put on the model; in the order of the stack.")
@click.option("--single", type=click.Path(path_type=Path), help="Write all of it into one FILE too, to open from disk.")
@click.option(
    "--browser-smoke",
    "browser",
    is_flag=False,
    flag_value=CHROMIUM,
    metavar="[CHROMIUM]",
    help="Let a Chromium verify and run it first, and bind what it computed.",
)
@click.pass_obj
def assemble(
    session: Session, channel: str, folder: Path, adapters: Sequence[str], single: Path | None, browser: str | None
) -> None:
    """Write what a CHANNEL points at as a bundle: a page, and everything it verifies before it runs the model."""
    check_new_folder(folder, session.path, "--output")
    with session.open() as lab:
        found = lab.assemble(channel, folder, Wanted(adapters, single, browser))
    session.give(found, _assembled_page(found))


@click.group()
def bundle() -> None:
    """Bundles that anybody wrote."""


@bundle.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--lab", type=click.Path(path_type=Path), help="The lab that assembled it: make the candidate again.")
@click.option("--diagnostics", type=click.Path(path_type=Path), help="A file that the page exported: compute it again.")
@click.pass_obj
def verify(session: Session, folder: Path, lab: Path | None, diagnostics: Path | None) -> None:
    """Do offline what the page does: every digest, record, proof, logit and fused tensor of the bundle in FOLDER."""
    found = Bundles.verify(folder, lab, diagnostics)
    session.give({**msgspec.to_builtins(found), "ok": found.ok}, _checked_page(found))
    raise SystemExit(0 if found.ok else WRONG)


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (assemble, bundle):
        group.add_command(verb)


def _assembled_page(found: Assembled) -> Page:
    seen = "a browser ran it" if found.visible == "browser" else "no browser ran it yet; visible: local"
    return pages.lines(
        f"{found.channel} -> {found.name} {found.artifact}",
        f"{found.files} files of {found.size} bytes written to {found.folder}; {seen}",
        *([f"all of it in one page: {found.single}"] if found.single else []),
        f"plan {found.plan}, held by {found.release}",
        f"next: serve the folder from https or localhost, or studbook bundle verify {found.folder}",
    )


def _checked_page(found: Checked) -> Page:
    rows = [f"verified  {step.name}: {step.detail}" for step in found.steps]
    if found.refusal is not None:
        about = f" ({found.refusal.module})" if found.refusal.module else ""
        rows.append(f"refused   {found.refusal.step}: {found.refusal.reason}{about}: {found.refusal.detail}")
    return pages.lines(*rows)
