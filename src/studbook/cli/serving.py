"""The verbs of the request path: serving the champion, and speaking to a server that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from studbook.cli import pages
from studbook.cli.pages import Page
from studbook.cli.session import Session
from studbook.environment import memory_bytes
from studbook.errors import UsageError
from studbook.lab.serving import Servers, Serving
from studbook.runtime.serve import Address, Limits

__all__ = ["add_to"]

_LIMITS = Limits()
_MIB = 1 << 20


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Its port; 0 is any.")
@click.option("--api-keys", type=click.Path(path_type=Path), help="File of clients' keys; off loopback it has to be.")
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that run models [one a processor, 8 at most].")
@click.option("--memory", type=click.IntRange(1, 1 << 30), help="MiB for all models together [half of what there is].")
@click.option(
    "--waiting", default=_LIMITS.waiting, show_default=True, type=click.IntRange(1, 4096), help="Longest queue."
)
@click.option("--grace", default=_LIMITS.grace_seconds, show_default=True, help="Seconds for answers after a stop.")
@click.option("--keep-prompts", is_flag=True, help="Keep in the route log what was asked, and not its digest alone.")
@click.pass_obj
def serve(
    session: Session,
    host: str,
    port: int,
    api_keys: Path | None,
    workers: int | None,
    memory: int | None,
    waiting: int,
    grace: float,
    keep_prompts: bool,
) -> None:
    """Answer OpenAI's HTTP interface with the champion until told to stop; see docs/serving.md."""
    if not 0 <= grace <= 600:
        raise UsageError(f"{grace:g} is not between 0 and 600", where="--grace", advice="Give seconds.")
    processors = min(8, len(os.sched_getaffinity(0)))
    room = memory << 20 if memory else memory_bytes() // 2
    limits = Limits(workers=workers or processors, memory_bytes=room, waiting=waiting, grace_seconds=grace)
    with session.open() as lab:
        lab.serve(Serving(Address(host, port), api_keys, limits, keep_prompts), _told(session))


@click.group()
def server() -> None:
    """The running server of the lab, from another terminal."""


@server.command()
@click.pass_obj
def status(session: Session) -> None:
    """Say what is served, where, and how much waits."""
    with session.open(writer=False) as lab:
        found = lab.servers.status()
    session.give(found, _status_page(found))


@server.command()
@click.pass_obj
def reload(session: Session) -> None:
    """Have the server look at the channel again; requests that run are finished by the model they began with."""
    with session.open(writer=False) as lab:
        found = lab.servers.reload()
    session.give(found, _status_page(found))


@server.command()
@click.pass_obj
def stop(session: Session) -> None:
    """Have the server finish what it took, and end."""
    with session.open(writer=False) as lab:
        found = lab.servers.stop()
    session.give(found, pages.line(f"stopping: {found['address']}, {found['waiting'] + found['running']} to finish"))


@server.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("name")
@click.pass_obj
def key(session: Session, file: Path, name: str) -> None:
    """Make a key for the client NAME and add its digest to FILE; the key is printed once and kept nowhere."""
    found = Servers.key(file, name)
    session.give({"name": name, "key": found}, pages.line(found))


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    group.add_command(serve)
    group.add_command(server)


def _told(session: Session) -> Any:
    def ready(address: str) -> None:
        session.give(
            {"address": address}, pages.line(f"serving at {address}/v1; stop with Ctrl-C or: studbook server stop")
        )

    return ready


def _status_page(found: Mapping[str, Any]) -> Page:
    state = "stopping" if found["stopping"] else "serving"
    return pages.lines(
        f"{state} {found['model']} ({found['revision'][:16]}) at {found['address']}, process {found['process']}",
        f"{found['running']} answers being written, {found['waiting']} waiting",
        *_memory_lines(found["memory"]),
    )


def _memory_lines(memory: Mapping[str, Any]) -> list[str]:
    return [
        f"{memory['bytes'] / _MIB:,.1f} of {memory['budget'] / _MIB:,.0f} MiB held",
        *(
            f"  {row['model']} ({row['revision'][:16]}): {row['bytes'] / _MIB:,.1f} MiB, "
            f"{row['copies']} x {row['sessions']} sessions"
            for row in memory["residents"]
        ),
        *(f"  not in memory: {revision[:16]}: {why}" for revision, why in memory["absent"].items()),
    ]
