"""What every channel points at, and what it may go back to: a replay of every move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple, get_args

from studbook.errors import OutOfOrder
from studbook.records import ChampionPromotion, Record, ReleaseRecord, RollbackRecord, RollbackSet
from studbook.records.release import Channel

__all__ = ["ChannelState", "channel_history", "channel_state", "ways_back"]

Moves = Iterable[tuple[str, Record | None]]


class ChannelState(NamedTuple):
    """What a channel points at.

    Attributes:
        artifact: Digest, or None when it is empty.
        record: Digest of the last move of this channel, or None.
        way_back: What a rollback would restore, or None when nothing was ever released.
    """

    artifact: str | None
    record: str | None
    way_back: RollbackSet | None


def channel_state(moves: Moves) -> dict[str, ChannelState]:
    """Replay every move of the ledger.

    Args:
        moves: Digest and record of every ReleaseRecord, ChampionPromotion and RollbackRecord, oldest first. None for a
            void one: it moved nothing, and what follows it starts from the state before it.

    Returns:
        The state of ``shadow``, ``canary`` and ``champion``.

    Raises:
        OutOfOrder: if a move does not start from the state the moves before it left (``order.channel``), or a rollback
            restores what is not on its channel's way back (``order.rollback``).
    """
    return _replayed(moves)[0]


def channel_history(moves: Moves, channel: str) -> list[ChannelState]:
    """Every state a channel was in, oldest first; a void move made none.

    Args:
        moves: As `channel_state` takes them.
        channel: The channel.

    Raises:
        OutOfOrder: as `channel_state`.
    """
    held = list(moves)
    found = _replayed(held)[1]
    return [found[digest] for digest, move in held if move is not None and _channel_of(move) == channel]


def ways_back(moves: Moves, channel: str) -> tuple[RollbackSet, ...]:
    """Every state of a channel that a rollback may restore, newest first.

    They are the states the channel really had and that no rollback undid: each names the one before it. So every
    rollback shortens the way back, and none goes forward again; that takes a release or a promotion.

    Args:
        moves: As `channel_state` takes them.
        channel: The channel.

    Raises:
        OutOfOrder: as `channel_state`.
    """
    state, history = _replayed(moves)
    return _ways(channel, state[channel], history)


def _replayed(moves: Moves) -> tuple[dict[str, ChannelState], dict[str, ChannelState]]:
    """The channels now, and the state that every move left its channel in."""
    state: dict[str, ChannelState] = dict.fromkeys(get_args(Channel), ChannelState(None, None, None))
    history: dict[str, ChannelState] = {}
    void: set[str] = set()
    for digest, move in moves:
        if isinstance(move, ReleaseRecord | ChampionPromotion):
            channel = _channel_of(move)
            back = _must_follow(state[channel], move.rollback.record, digest, void)
            if move.rollback != back and move.rollback.record not in void:
                raise OutOfOrder(
                    f"move {digest[:16]}... names a way back that was never there", reason="order.rollback"
                )
            history[digest] = state[channel] = ChannelState(move.artifact, digest, back)
        elif isinstance(move, RollbackRecord):
            _must_follow(state[move.channel], move.undone, digest, void)
            target = RollbackSet(artifact=move.artifact, record=move.restored)
            if target not in _ways(move.channel, state[move.channel], history):
                where = f"rollback-record {digest[:16]}: restored"
                raise OutOfOrder("restores what was never there, or was undone", where=where, reason="order.rollback")
            before = history[move.restored].way_back if move.restored else None
            history[digest] = state[move.channel] = ChannelState(move.artifact, digest, before)
        elif move is None:
            void.add(digest)
    return state, history


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


def _must_follow(state: ChannelState, named: str | None, digest: str, void: Set[str]) -> RollbackSet:
    """The state a move really starts from; it has to name it, or a move after it that counts no longer."""
    if state.record != named and named not in void:
        raise OutOfOrder(f"move {digest[:16]}... does not start from the state before it", reason="order.channel")
    return RollbackSet(artifact=state.artifact, record=state.record)
