"""The verbs between a lab and those who have none: offering the channels, taking what they offer, running what they hold."""

from __future__ import annotations

from itertools import chain, repeat
from pathlib import Path
from typing import Any

import click

from studbook.cli import pages
from studbook.cli.interrupt import TERMINATED, ending_on_request
from studbook.cli.pages import Page
from studbook.cli.session import Session, only_with
from studbook.errors import StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.deploying import KEEP, Deployed, Wanted, follow
from studbook.lab.hooks import Hook
from studbook.lab.publish import DAYS, Published
from studbook.lab.pull import Pulled, Request

__all__ = ["add_to"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--days", default=DAYS, show_default=True, type=click.IntRange(1, 366), help="Days until it ends.")
@click.pass_obj
def publish(session: Session, folder: Path, days: int) -> None:
    """Write what the channels offer to a FOLDER of plain files that any server can hand out."""
    with session.open() as lab:
        found = lab.publish(folder, days)
    session.give(found, _published_page(found))


@click.command()
@click.argument("channel", type=click.Choice(["shadow", "champion"]))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--root", required=True, type=click.Path(path_type=Path), help="The root of keys you were given.")
@click.option("--from", "source", default="", help="Folder or address of the publication [where it came from last].")
@click.option("--allow-remote", is_flag=True, help="Take an address of another machine too.")
@click.pass_obj
def pull(session: Session, channel: str, dest: Path, root: Path, source: str, allow_remote: bool) -> None:
    """Verify a publication and bring the artifact of a CHANNEL to the folder DEST; needs no lab."""
    found = Lab.pull(Request(channel, dest, root, source, allow_remote), session.progress)
    session.give(found, _pulled_page(found))


@click.command()
@click.argument("channel", type=click.Choice(["shadow", "canary", "champion"]))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--hook", type=click.Path(path_type=Path), help="A program that is shown a release, and may say no.")
@click.option("--hook-seconds", default=300.0, show_default=True, help="How long it may take.")
@click.option("--keep", default=KEEP, show_default=True, type=click.IntRange(1, 1000), help="Releases that stay.")
@click.option("--gguf", is_flag=True, help="Also the model as GGUF for llama.cpp, model.gguf (extra gguf).")
@click.option("--follow", "every", type=float, help="Look again every so many seconds.")
@click.pass_obj
def deploy(
    session: Session, /, channel: str, folder: Path, every: float | None, hook: Path | None, hook_seconds: float,
    **how: Any,
) -> None:  # fmt: skip
    """Bring a FOLDER to what a CHANNEL points at, for a program that serves its format; see docs/deploying.md."""
    only_with("hook_seconds", "with --hook", hook is not None)
    if every is not None and not 0.1 <= every <= 86400:
        raise UsageError(f"{every:g} is not between 0.1 and 86400", where="--follow", advice="Give seconds.")
    wanted = Wanted(Hook(hook, hook_seconds) if hook else None, **how)

    def look(how: Wanted) -> Deployed:
        with session.open(writer=False) as lab:
            return lab.deploy(channel, folder, how)

    def shown(found: Deployed) -> None:
        session.give(found, _deployed_page(found))

    with ending_on_request(TERMINATED if every is None else 0):
        if every is None:
            shown(look(wanted))
        else:
            # What is in force was read whole when it was put there, and once more by the first look.
            hows = chain([wanted], repeat(wanted._replace(glance=True)))
            follow(lambda: look(next(hows)), every, shown, lambda error: _told(session, error))


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (publish, pull, deploy):
        group.add_command(verb)


def _published_page(found: Published) -> Page:
    rows = [f"{c.channel} -> {c.artifact.sha256}, {c.artifact.size} bytes" for c in found.channels]
    return pages.lines(
        *(rows or ["no channel offers anything"]),
        *(f"left out: {why}" for why in found.left_out),
        f"snapshot {found.version}, until {found.expires}: {found.files} files written to {found.folder}",
        f"hand over once, by a way of its own: {found.root} (root {found.root_sha256})",
    )


def _pulled_page(found: Pulled) -> Page:
    words = {
        "installed": f"{found.channel} -> {found.file}",
        "refreshed": f"the same {found.channel}, under a newer snapshot: {found.file}",
        "unchanged": f"nothing new: {found.file}",
    }
    return pages.lines(
        *found.notes,
        words[found.outcome],
        f"sha256 {found.artifact}, {found.size} bytes, by {found.moved_by}",
        f"snapshot {found.version} of {found.entries} entries, until {found.expires}; root {found.root_version}",
    )


def _deployed_page(found: Deployed) -> Page:
    words = "deployed" if found.outcome == "deployed" else "nothing new"
    return pages.lines(
        *(f"hook: {line}" for line in found.said),
        f"{words}: {found.channel} -> {found.folder}/current -> releases/{found.release}",
        f"{found.name}, sha256 {found.artifact}",
        *(f"removed: releases/{name}" for name in found.removed),
    )


def _told(session: Session, error: StudbookError) -> None:
    session.progress.say(f"studbook: {error}")
    session.progress.say(f"  what to do: {error.advice}")
