"""The verbs about keys: every one is a person's act, and every one ends in a record that the owners sign."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from studbook.cli import pages
from studbook.cli.session import Session
from studbook.errors import UsageError
from studbook.seal import read_passphrase

__all__ = ["key"]

_PERSON = click.option("--as", "person", required=True, help="Who does it; their key signs.")
_PUBLIC = click.option("--public", help="The new public key, 64 hex digits, made elsewhere [made here].")
_LOCK = click.option("--lock-with", type=click.Path(path_type=Path), help="File (mode 600): passphrase of the new key.")


@click.group()
def key() -> None:
    """Who may sign what."""


@key.command()
@click.argument("owner")
@click.option("--kind", "kinds", multiple=True, required=True, help="A kind of record it shall sign, as policy/1.")
@_PUBLIC
@_LOCK
@_PERSON
@click.pass_obj
def new(session: Session, /, owner: str, kinds: Sequence[str], lock_with: Path | None, **how: Any) -> None:
    """List a key of OWNER for some kinds of record; root/1 makes them an owner of the lab."""
    with session.open() as lab:
        found = lab.keys.new(owner, kinds, passphrase=_lock(lock_with), **how)
    session.give(found, pages.signed(found))


@key.command()
@click.argument("old", required=False)
@click.option("--owner", help="Who owns the new key [the owner of the old one].")
@click.option("--needs", multiple=True, metavar="KIND=PEOPLE", help="How many people a kind of record takes.")
@click.option("--until", default="", help="Last day of the new root, YYYY-MM-DD [two years from now].")
@_PUBLIC
@_LOCK
@_PERSON
@click.pass_obj
def rotate(session: Session, /, old: str | None, needs: Sequence[str], lock_with: Path | None, **how: Any) -> None:
    """Sign the next root: a later end, and a new key in place of OLD (its path in the ring, or its first digits)."""
    with session.open() as lab:
        found = lab.keys.rotate(key=old, needs=_people(needs), passphrase=_lock(lock_with), **how)
    session.give(found, pages.signed(found))


@key.command()
@click.argument("what")
@click.option("--reason", default="", help="Why.")
@click.option("--since", type=click.IntRange(0), help="Ledger entry from which on a stolen key does not count [now].")
@_PERSON
@click.pass_obj
def revoke(session: Session, /, **how: Any) -> None:
    """Say that a key, an artifact or a record counts no longer; never undone."""
    with session.open() as lab:
        found = lab.keys.revoke(**how)
    session.give(found, pages.signed(found))


@key.command()
@click.argument("lost")
@click.option("--drop", is_flag=True, help="Put no key in its place.")
@_PUBLIC
@_LOCK
@_PERSON
@click.pass_obj
def recover(session: Session, /, lost: str, lock_with: Path | None, **how: Any) -> None:
    """After a root key was lost or stolen: a root without it, signed by the owners who remain."""
    with session.open() as lab:
        found = lab.keys.recover(lost, passphrase=_lock(lock_with), **how)
    session.give(found, pages.signed(found))


def _lock(path: Path | None) -> bytes | None:
    return read_passphrase(path) if path else None


def _people(words: Sequence[str]) -> dict[str, int]:
    found = {}
    for word in words:
        kind, _, number = word.partition("=")
        if not number.isascii() or not number.isdigit():
            raise UsageError(
                f"{word!r} is not KIND=PEOPLE", where="--needs", advice="As in --needs champion-promotion/1=2"
            )
        found[kind] = int(number[:4])
    return found
