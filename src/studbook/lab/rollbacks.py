"""Going back: to the state before the last move, or to an earlier one that still stands; needs no person's key.

What a channel may go back to was admitted or installed first, was not revoked or withdrawn since, and its bytes are
here and sound. The bytes are looked at when a rollback is asked for; the rest is looked at again by `verify`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from studbook.errors import DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.lab.admissions import admitted_to_channels
from studbook.lab.channels import sync_aliases
from studbook.lab.desk import Desk
from studbook.lab.words import plain_text
from studbook.models.slm import parse_slm
from studbook.records import ChampionPromotion, RollbackRecord, RollbackSet
from studbook.release import roll_back

__all__ = ["NOTHING", "Hindrance", "check_rollback", "hindrance", "leave", "rollback"]

NOTHING = "nothing"
"""What ``--to`` calls the state of a channel that points at no model."""


class Hindrance(Struct, frozen=True):
    """Why a channel cannot go back to a model.

    Attributes:
        reason: ``rollback.admitted``, ``rollback.revoked``, ``rollback.missing`` or ``rollback.damaged``.
        words: The same in words, behind the model's name.
    """

    reason: str
    words: str


def rollback(desk: Desk, channel: str, reason: str, to: str | None = None) -> RollbackRecord:
    """Undo the last move of a channel, or go further back along the way it came.

    Args:
        desk: The lab.
        channel: The channel.
        reason: Why, for the record.
        to: Name or digest of the model to go back to, or ``nothing`` to empty shadow or canary; the state before
            the last move by default.

    Raises:
        OutOfOrder: if there is nothing to undo; ``order.rollback``. If the model never stood there, or was undone;
            ``rollback.never``, ``rollback.undone``. If it was never admitted, or was revoked; ``rollback.admitted``,
            ``rollback.revoked``. The advice names the next one that can be restored.
        DigestDiffers: if its bytes are gone or damaged; ``rollback.missing``, ``rollback.damaged``.
        UsageError: if there is no such channel or model.
    """
    channels = desk.channels()
    if channel not in channels:
        raise UsageError(f"no channel {channel!r}", advice=f"Channels: {', '.join(sorted(channels))}.")
    ways = desk.ways_back(channel)
    target = None if to is None else _named(desk, channel, ways, to)
    record = roll_back(desk.header, channel, channels[channel], plain_text(reason, "--reason"), target)
    way = _way(record)
    if record.artifact is not None and (found := hindrance(desk, way)):
        kind = DigestDiffers if found.reason in ("rollback.missing", "rollback.damaged") else OutOfOrder
        rest = ways[ways.index(way) + 1 :]
        raise kind(
            f"{desk.name_of(record.artifact)} {found.words}",
            where=f"the way back of {channel}",
            advice=_next(desk, channel, rest, found, record.artifact),
            reason=found.reason,
        )
    desk.workspace.commit(record)
    sync_aliases(desk)
    return record


def leave(desk: Desk, channel: Literal["shadow", "canary"], reason: str) -> RollbackRecord:
    """Take a channel back to the newest state before that still stands, or empty it."""
    way = next(way for way in desk.ways_back(channel) if hindrance(desk, way) is None)
    record = roll_back(desk.header, channel, desk.channels()[channel], reason, way)
    desk.workspace.commit(record)
    sync_aliases(desk)
    return record


def hindrance(desk: Desk, way: RollbackSet, *, bytes_too: bool = True) -> Hindrance | None:
    """Why a channel may not go back to a state; None where nothing stands against it.

    Args:
        desk: The lab, at any position.
        way: The state: a model and the move that put it there, or an empty channel.
        bytes_too: Whether its bytes are looked at; what they were at an earlier position nobody can tell.
    """
    artifact = way.artifact
    if artifact is None:
        return None
    admitted = {a.artifact for _, a in admitted_to_channels(desk)}
    admitted |= {p.artifact for _, p in desk.unrevoked(ChampionPromotion) if p.basis == "first"}
    if artifact not in admitted:
        return Hindrance(
            "rollback.admitted", "has no admission to a channel that stands, nor was it installed as the first champion"
        )
    if why := desk.revoked(artifact):
        return Hindrance("rollback.revoked", why)
    if gone := desk.taken_back().intersection(_moves(desk, way.record)):
        return Hindrance("rollback.revoked", f"was put there by record {min(gone)[:16]}..., which was revoked")
    if gone := desk.taken_back().intersection(way.deployment.records):
        return Hindrance("rollback.revoked", f"was deployed with record {min(gone)[:16]}..., which was revoked")
    if missing := [d for d in way.deployment.stack if bytes_too and not desk.workspace.blob_path(d).is_file()]:
        return Hindrance("rollback.missing", f"is not here whole: adapter package {missing[0][:16]}... is gone")
    if not bytes_too:
        return None
    path = desk.workspace.blob_path(artifact)
    if not path.is_symlink() and not path.exists():
        return Hindrance("rollback.missing", "is not here: its bytes are gone")
    try:
        parse_slm(desk.workspace.blob(artifact), where=f"model {artifact[:16]}")
    except (StudbookError, OSError):
        return Hindrance("rollback.damaged", "is damaged: its bytes are not those that were released")
    return None


def check_rollback(desk: Desk, record: RollbackRecord) -> None:
    """A rollback restores what its channel really was, and nothing that was never admitted or was revoked by then.

    Args:
        desk: The lab as it was before the record.
        record: The rollback.

    Raises:
        OutOfOrder: naming what does not hold; ``order.rollback``, ``rollback.admitted`` or ``rollback.revoked``.
    """
    where = "rollback-record: restored"
    way = _way(record)
    if way not in desk.ways_back(record.channel):
        text = f"restores what never was {record.channel}, or was undone"
        raise OutOfOrder(text, where=where, reason="order.rollback")
    if record.artifact is not None and (found := hindrance(desk, way, bytes_too=False)):
        text = f"restores {desk.name_of(record.artifact)}, which {found.words}"
        raise OutOfOrder(text, where=where, reason=found.reason)


def _way(record: RollbackRecord) -> RollbackSet:
    return RollbackSet(artifact=record.artifact, record=record.restored, deployment=record.deployment)


def _moves(desk: Desk, record: str | None) -> Iterator[str]:
    """The move that made a state, and where that was a rollback, the moves it goes back to."""
    while record is not None:
        yield record
        entry = desk.workspace.entry(record)
        back = entry is not None and entry.record_kind == RollbackRecord.kind()
        record = desk.workspace.get(record, RollbackRecord).restored if back else None


def _named(desk: Desk, channel: str, ways: Sequence[RollbackSet], to: str) -> RollbackSet:
    """The newest state on the way back that holds a model."""
    artifact = None if to == NOTHING else desk.find_model(to)
    for way in ways:
        if way.artifact == artifact and artifact != desk.channels()[channel].artifact:
            return way
    called = "nothing" if artifact is None else desk.name_of(artifact)
    if artifact == desk.channels()[channel].artifact:
        raise OutOfOrder(f"{channel} is {called} already", where="--to", reason="rollback.same")
    advice = _restorable(desk, channel, ways)
    if any(state.artifact == artifact for state in desk.history(channel)):
        again = f"A release puts it there again: studbook release {called} --to {channel}"
        person = " --as NAME" if channel == "champion" else ""
        raise OutOfOrder(
            f"{called} was undone, and a rollback never goes forward",
            where="--to",
            advice=f"{again}{person}. {advice}",
            reason="rollback.undone",
        )
    raise OutOfOrder(f"{called} never was {channel}", where="--to", advice=advice, reason="rollback.never")


def _next(desk: Desk, channel: str, rest: Sequence[RollbackSet], found: Hindrance, artifact: str) -> str:
    """What to do instead: the next state that can be restored, and what would mend this one."""
    told = _restorable(desk, channel, rest)
    if found.reason not in ("rollback.missing", "rollback.damaged"):
        return told
    bred = any(c.artifact.sha256 == artifact for _, c in desk.candidates())
    mend = (
        f"studbook reproduce {artifact[:12]} --restore brings it back."
        if bred
        else "Registering its file again, or a backup, brings it back."
    )
    return f"{told} {mend}"


def _restorable(desk: Desk, channel: str, ways: Sequence[RollbackSet]) -> str:
    """The newest of some states that can be restored, with the command that does it."""
    for way in ways:
        if way.artifact is None:
            return f"The next one back is an empty channel: studbook rollback {channel} --to {NOTHING}"
        if hindrance(desk, way) is None:
            called = desk.name_of(way.artifact)
            return f"The next one back that stands is {called}: studbook rollback {channel} --to {way.artifact[:12]}"
    return "Nothing further back can be restored."
