"""The verbs that let something in: register a source, make an adapter package that can be registered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from studbook.cli import pages
from studbook.cli.session import Session, only_with
from studbook.errors import UsageError
from studbook.lab.producers import Producer

__all__ = ["add_to"]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", help="What to call the model [its file's name].")
@click.option("--licence", help="SPDX identifier of a checkpoint whose model card states none.")
@click.option("--producer-key", type=click.Path(path_type=Path), help="Public key (PEM); its signature must hold.")
@click.option(
    "--signature", type=click.Path(path_type=Path), help="The producer's signature [model.sig in the folder]."
)
@click.pass_obj
def register(
    session: Session,
    paths: Sequence[Path],
    name: str | None,
    licence: str | None,
    producer_key: Path | None,
    signature: Path | None,
) -> None:
    """Register founder folders, models, manifests, Hugging Face checkpoints or LoRA folders."""
    if name and len(paths) > 1:
        raise UsageError("a name goes with one path", where="--name")
    only_with("signature", "with --producer-key, which it is checked with", producer_key is not None)
    if signature and len(paths) > 1:
        raise UsageError("a signature goes with one path", where="--signature")
    producer = Producer(producer_key, signature) if producer_key else None
    with session.open() as lab:
        manifests = [m for path in paths for m in lab.register(path, name, licence, producer)]
    session.give(manifests, pages.registered(manifests))


@click.group()
def adapter() -> None:
    """Adapter packages: changes of a model that can be put on and taken off."""


@adapter.command()
@click.argument("base")
@click.argument("tuned")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["dense", "top", "random"]), help="How, of a model [dense].")
@click.option("--share", type=float, help="Share of the elements that top and random keep [0.1].")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="Seed of random [1].")
@click.pass_obj
def make(session: Session, /, base: str, tuned: str, folder: Path, **how: Any) -> None:
    """Write TUNED, a model or a LoRA folder, as a package over BASE into a new FOLDER that can be registered."""
    only_with("share", "with --kind top or random", how["kind"] in ("top", "random"))
    only_with("seed", "with --kind random", how["kind"] == "random")
    with session.open(writer=False) as lab:
        found = lab.adapters.make(base, tuned, folder, **how)
    told = f"{found.package} of {found.size} bytes: {found.folder}; next: studbook register {found.folder}"
    session.give(found._asdict() | {"folder": str(folder)}, pages.line(told))


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (register, adapter):
        group.add_command(verb)
