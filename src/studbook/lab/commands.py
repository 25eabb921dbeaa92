"""What another terminal may have a running server do to the lab: the verbs that move channels, as commands.

The server needs no person's key for any of them. What takes one is proposed here, signed in the other terminal, and comes
back as an envelope that is checked like any other. What was done is told by its digest: whoever asked reads the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from studbook.errors import RecordRefused
from studbook.lab.channels import accept_signed, promotion, propose
from studbook.lab.moves import Moves
from studbook.lab.pending import Signed
from studbook.records import Record, digest
from studbook.seal import Signer

__all__ = ["Commands", "Entering", "Halting", "Planning", "Proposing", "Releasing", "Rolling"]

_W = TypeVar("_W", bound=Struct)


class Halting(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``pause``, ``abort`` and ``halt``.

    Attributes:
        reason: Why.
        person: Who says so; the lab's owner by default.
    """

    reason: str = ""
    person: str = ""


class Rolling(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``rollback``, as of `studbook.lab.rollbacks.rollback`.

    Attributes:
        channel: The channel.
        reason: Why.
        to: What to go back to; the state before the last move by default.
    """

    channel: str
    reason: str = ""
    to: str | None = None


class Releasing(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``release``, as of `studbook.lab.channels.release`.

    Attributes:
        name: The candidate.
        stage: Where to.
        reason: Why.
        router: Digest of the router's state, where it enters its first channel.
        thresholds: The same of the thresholds.
    """

    name: str
    stage: Literal["shadow", "canary"]
    reason: str = ""
    router: str | None = None
    thresholds: str | None = None


class Planning(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``plan``.

    Attributes:
        channel: The channel.
        settings: What differs from the usual.
    """

    channel: Literal["shadow", "canary"]
    settings: dict[str, Any] | None = None


class Proposing(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``propose``.

    Attributes:
        name: The candidate.
        person: Who will sign its promotion.
        key: The public key they will sign with, in hexadecimal.
    """

    name: str
    person: str
    key: str


class Entering(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``enter``.

    Attributes:
        envelope: A signed promotion or resumption.
    """

    envelope: str


class Commands:
    """The commands of a lab that is served.

    Args:
        moves: The verbs of the lab.
    """

    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """Every command by its name; ``stop`` is the server's own, so the lab's is called ``halt``."""
        return {
            "abort": self._abort,
            "enter": self._enter,
            "halt": self._halt,
            "pause": self._pause,
            "plan": self._plan,
            "propose": self._propose,
            "release": self._release,
            "rollback": self._rollback,
            "trials": self._trials,
        }

    def _pause(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Halting)
        return _told(self._moves.pause(words.reason, words.person))

    def _abort(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Halting)
        return _told(self._moves.abort(words.reason, words.person))

    def _halt(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Halting)
        return _told(self._moves.stop(words.reason, words.person))

    def _rollback(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Rolling)
        return _told(self._moves.rollback(words.channel, words.reason, words.to))

    def _release(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Releasing)
        beside = {"router": words.router, "thresholds": words.thresholds}
        made = self._moves.release(words.name, words.stage, None, words.reason, **beside)
        assert not isinstance(made, Signed), "only a promotion to champion waits for people"
        return _told(made)

    def _plan(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Planning)
        return _told(self._moves.plan(words.channel, words.settings))

    def _trials(self, arguments: Mapping[str, Any]) -> list[Any]:
        self._moves.canaries.flush()
        return [msgspec.to_builtins(state) for state in self._moves.trials()]

    def _propose(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words, desk = _read(arguments, Proposing), self._moves.desk
        # Evidence of the trial is cited as far as it is written.
        self._moves.canaries.flush()
        template = propose(desk, words.name, Signer(words.key, words.person))
        # Refused where a gate is open, before anything is written.
        promotion(desk, template, words.person, "")
        return {"record": desk.workspace.commit(template)}

    def _enter(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        words = _read(arguments, Entering)
        with self._moves.canaries.settled():
            found = accept_signed(self._moves.desk, words.envelope.encode())
        return {"record": found.digest, "committed": found.committed, "waiting": found.waiting}


def _told(record: Record) -> dict[str, Any]:
    return {"record": digest(record)}


def _read(arguments: Mapping[str, Any], kind: type[_W]) -> _W:
    try:
        return msgspec.convert(arguments, kind)
    except msgspec.ValidationError as error:
        advice = "Use a terminal with the same version of studbook as the server."
        raise RecordRefused(str(error), where="the command", reason="control.arguments", advice=advice) from error
