"""The verbs about the policy: read it, compare two of them, sign the next one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from studbook.cli import pages
from studbook.cli.session import Session

__all__ = ["policy"]


@click.group()
def policy() -> None:
    """What a round may not decide for itself."""


@policy.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this new file instead.")
@click.pass_obj
def show(session: Session, output: Path | None) -> None:
    """Print the policy in force as people edit it; what the lab fills in is left out."""
    with session.open(writer=False) as lab:
        fields = lab.policies.show(output)
    told = f"wrote {output}; next: edit it, add 1 to policy_version, studbook policy diff current {output}"
    session.give(fields, pages.line(told if output else json.dumps(fields, indent=2, ensure_ascii=False)))


@policy.command()
@click.argument("first")
@click.argument("second")
@click.pass_obj
def diff(session: Session, first: str, second: str) -> None:
    """Say what changed between two policies: each a file, a version number, or the word current."""
    with session.open(writer=False) as lab:
        changes = lab.policies.diff(first, second)
    told = [f"{change.field}: {change.what}" for change in changes] or ["no difference"]
    session.give(changes, pages.lines(*told))


@policy.command()
@click.argument("name")
@click.option("--as", "person", required=True, help="Who signs; their key is needed.")
@click.pass_obj
def route(session: Session, name: str, person: str) -> None:
    """Sign the policy again with an operator routed, NAME being its tag or a model it made: its outputs may be published."""
    with session.open() as lab:
        found = lab.policies.route(name, person)
    session.give(found, pages.signed(found))


@policy.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "person", required=True, help="Who signs; their key is needed.")
@click.pass_obj
def sign(session: Session, file: Path, person: str) -> None:
    """Sign FILE as the next policy: the whole of it, one version on; every decision under the old one is stale then."""
    with session.open() as lab:
        found = lab.policies.sign(file, person)
    session.give(found, pages.signed(found))
