"""What every channel points at, and what it may go back to: a replay of every move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, get_args

from studbook.records import ChampionPromotion, Deployment, Record, ReleaseRecord, RollbackRecord, RollbackSet
from studbook.records.release import Channel

__all__ = ["ALONE", "ChannelState", "MoveFault", "channel_history", "channel_state", "move_faults", "ways_back"]

Moves = Iterable[tuple[str, Record | None]]
_Move = ReleaseRecord | ChampionPromotion | RollbackRecord
ALONE = Deployment(package=None, router=None, thresholds=None, stack=(), cache=None)
"""A model that is served by itself, or no model."""


class ChannelState(NamedTuple):
    """What a channel points at.

    Attributes:
        artifact: Digest, or None when it is empty.
        record: Digest of the last move of this channel, or None.
        way_back: What a rollback would restore, or None when nothing was ever released.
        deployment: What works together with it.
    """

    artifact: str | None
    record: str | None
    way_back: RollbackSet | None
    deployment: Deployment = ALONE

    @property
    def back(self) -> RollbackSet:
        """What has to be put back to come here again."""
        return RollbackSet(artifact=self.artifact, record=self.record, deployment=self.deployment)


class MoveFault(NamedTuple):
    """Why a signed move moved nothing.

    Attributes:
        reason: ``order.channel`` or ``order.rollback``.
        field: Its field that does not hold.
        words: The same in words.
        void_below: Whether it was in order until a move it names was voided, so that what names it was in order too.
    """

    reason: str
    field: str
    words: str
    void_below: bool = False


class _Replay(NamedTuple):
    state: dict[str, ChannelState]
    history: dict[str, ChannelState]
    faults: dict[str, MoveFault]


def channel_state(moves: Moves) -> dict[str, ChannelState]:
    """Replay every move of the ledger; one that does not follow moved nothing, see `move_faults`.

    Args:
        moves: Digest and record of every ReleaseRecord, ChampionPromotion and RollbackRecord, oldest first. None for a
            void one: it moved nothing, and what follows it starts from the state before it.

    Returns:
        The state of ``shadow``, ``canary`` and ``champion``.
    """
    return _replayed(moves).state


def channel_history(moves: Moves, channel: str) -> list[ChannelState]:
    """Every state a channel was in, oldest first; a void move, and one that does not follow, made none.

    Args:
        moves: As `channel_state` takes them.
        channel: The channel.
    """
    held = list(moves)
    found = _replayed(held).history
    return [found[d] for d, move in held if d in found and move is not None and _channel_of(move) == channel]


def ways_back(moves: Moves, channel: str) -> tuple[RollbackSet, ...]:
    """Every state of a channel that a rollback may restore, newest first.

    They are the states the channel really had and that no rollback undid: each names the one before it. So every
    rollback shortens the way back, and none goes forward again; that takes a release or a promotion.

    Args:
        moves: As `channel_state` takes them.
        channel: The channel.
    """
    found = _replayed(moves)
    return _ways(channel, found.state[channel], found.history)


def move_faults(moves: Moves) -> dict[str, MoveFault]:
    """The moves that moved nothing although they are well signed: digest -> why.

    A move has to start from the state that the moves before it left (``order.channel``), and a rollback has to restore
    a state on its channel's way back (``order.rollback``). What does not is passed over and not refused, or whoever
    forged one move would keep everybody from opening the lab to throw the stolen key out.

    Args:
        moves: As `channel_state` takes them.
    """
    return _replayed(moves).faults


def _replayed(moves: Moves) -> _Replay:
    """The channels now, the state that every move left its channel in, and the moves that left none."""
    found = _Replay(dict.fromkeys(get_args(Channel), ChannelState(None, None, None)), {}, {})
    void: set[str] = set()
    for digest, move in moves:
        if move is None:
            void.add(digest)
        elif isinstance(move, _Move):
            after = _moved(digest, move, found, void)
            if isinstance(after, ChannelState):
                found.history[digest] = found.state[_channel_of(move)] = after
                continue
            found.faults[digest] = after
            # An honest move may name it: when that was made, this one was in order.
            if after.void_below:
                void.add(digest)
    return found


def _moved(digest: str, move: _Move, found: _Replay, void: set[str]) -> ChannelState | MoveFault:
    if isinstance(move, RollbackRecord):
        return _rolled_back(digest, move, found, void)
    return _released(digest, move, found, void)


def _released(
    digest: str, move: ReleaseRecord | ChampionPromotion, found: _Replay, void: set[str]
) -> ChannelState | MoveFault:
    """The state a release leaves its channel in, or why it leaves none."""
    state = found.state[_channel_of(move)]
    if move.rollback.record not in void:
        if move.rollback.record != state.record:
            return MoveFault("order.channel", "rollback", "does not start from the state before it")
        if move.rollback != state.back:
            return MoveFault("order.rollback", "rollback", "names a way back that was never there")
    return ChannelState(move.artifact, digest, state.back, move.deployment)


def _rolled_back(digest: str, move: RollbackRecord, found: _Replay, void: set[str]) -> ChannelState | MoveFault:
    """The state a rollback leaves its channel in, or why it leaves none."""
    state = found.state[move.channel]
    if move.undone != state.record and move.undone not in void:
        return MoveFault("order.channel", "undone", "does not start from the state before it")
    way = RollbackSet(artifact=move.artifact, record=move.restored, deployment=move.deployment)
    if way not in _ways(move.channel, state, found.history):
        words = "restores what was never there, or was undone"
        return MoveFault("order.rollback", "restored", words, move.undone in void or move.restored in void)
    before = found.history[move.restored].way_back if move.restored else None
    return ChannelState(move.artifact, digest, before, move.deployment)


def _channel_of(move: Record) -> Channel:
    return move.channel if isinstance(move, ReleaseRecord | RollbackRecord) else "champion"


def _ways(channel: str, state: ChannelState, history: Mapping[str, ChannelState]) -> tuple[RollbackSet, ...]:
    """What the way back of a state leads through; a champion is never taken away without another in its place."""
    found, back = [], state.way_back
    while back is not None:
        if back.artifact is not None or channel != "champion":
            found.append(back)
        back = history[back.record].way_back if back.record else None
    return tuple(found)
