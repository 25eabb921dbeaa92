"""Several texts written side by side, a token at a time: each gets the tokens it would get alone, all cost one pass."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from studbook.errors import UsageError
from studbook.models.engine.host import Session
from studbook.models.sampling import Sampling

__all__ = ["MOST_LINES", "Line", "begin", "step"]

MOST_LINES: Final = 32
"""Most texts that one step moves on."""
# Session, token, top_k, finite, temperature, top_p, state of the generator.
_LINE = struct.Struct("<i3I2dQ")


class Line:
    """One text that is being written; made by `begin`, moved on by `step`.

    Attributes:
        session: Keys and values of everything before `token`.
        sampling: How to pick.
        token: The token picked last; before the first step the prompt's last.
        finite: Whether all logits so far were.
    """

    def __init__(self, session: Session, sampling: Sampling) -> None:
        self.session, self.sampling = session, sampling
        self.token, self.finite, self.state = 0, True, sampling.seed


def begin(session: Session, ids: Sequence[int], sampling: Sampling) -> Line:
    """Feed a prompt but for its last token, which goes in with the first step.

    Args:
        session: An empty session, or one to write on in.
        ids: At least one token id.
        sampling: How to pick; its seed starts the generator.

    Raises:
        UsageError: if there is no token, or as `Session.feed`.
        OverBudget: if it does not fit the memory.
    """
    if not ids:
        raise UsageError("no token to begin with", reason="engine.context", advice="Begin with the start token.")
    line = Line(session, sampling)
    *before, line.token = ids
    if before:
        session.feed(before)
    return line


def step(lines: Sequence[Line]) -> None:
    """Feed each line's token and pick its next one; if one is refused, no line has moved.

    Args:
        lines: 1 to 32 lines of one engine, each with a session of its own.

    Raises:
        UsageError: if they are not, a session is full, or a token is outside the vocabulary.
        OverBudget: if it does not fit the memory.
    """
    instances = {id(line.session.door[0]) for line in lines}
    if len(instances) != 1 or len(lines) > MOST_LINES:
        advice = f"Step 1 to {MOST_LINES} lines of one engine at a time."
        raise UsageError(f"{len(lines)} lines of {len(instances)} engines", reason="engine.lines", advice=advice)
    instance = lines[0].session.door[0]
    packed = b"".join(_packed(line) for line in lines)
    with instance.holding(packed) as block:
        instance.call("sb_step", block, len(lines))
        found = instance.read(block, len(packed))
    for line, (_, token, _, finite, _, _, state) in zip(lines, _LINE.iter_unpack(found), strict=True):
        line.token, line.finite, line.state = token, bool(finite), state


def _packed(line: Line) -> bytes:
    how = line.sampling
    return _LINE.pack(line.session.door[1], line.token, how.top_k, line.finite, how.temperature, how.top_p, line.state)
