"""Pause, abort, stop and resume: to stop is anybody's act and takes effect at once, to go on is a person's."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from studbook.errors import OutOfOrder, StudbookError
from studbook.lab.desk import Desk
from studbook.lab.halts import CONTROLLER, check_halt, check_resumption
from studbook.lab.pending import Signed, sign
from studbook.lab.rollbacks import leave
from studbook.lab.trials import Trial, open_stop, trial
from studbook.lab.words import plain_name, plain_text
from studbook.records import Halt, Resumption
from studbook.release import CONVICTED

__all__ = ["abort", "finish_halts", "halt", "pause", "resume", "resumption", "stop"]

_CHANNELS: tuple[Literal["canary", "shadow"], ...] = ("canary", "shadow")


def pause(desk: Desk, reason: str = "", person: str = "") -> Halt:
    """Pause the trial that runs, in canary before shadow: its candidate answers nobody until a person resumes.

    Raises:
        OutOfOrder: if none runs; ``order.trial``.
    """
    return halt(desk, _running(desk), "pause", "person.pause", reason, person)


def abort(desk: Desk, reason: str = "", person: str = "") -> Halt:
    """End the trial that there is, in canary before shadow, and take its candidate out of the channel.

    Raises:
        OutOfOrder: if there is none; ``order.trial``.
    """
    return halt(desk, _running(desk, halted=True), "abort", "person.abort", reason, person)


def stop(desk: Desk, reason: str = "", person: str = "") -> Halt:
    """Stop everything: shadow and canary are emptied, nothing is released or promoted, and no request is answered.

    Raises:
        OutOfOrder: if everything is stopped already; ``order.stopped``.
    """
    if open_stop(desk):
        raise OutOfOrder("everything is stopped already", where="halt", reason="order.stopped")
    return halt(desk, None, "stop", "person.stop", reason, person)


def halt(
    desk: Desk, found: Trial | None, act: Literal["pause", "abort", "stop"], code: str, reason: str, person: str = ""
) -> Halt:
    """Record a halt, and after an abort or a stop empty what it speaks of.

    Args:
        desk: The lab.
        found: The trial; None for a stop.
        act: What is done.
        code: Why, for programs.
        reason: Why, for people.
        person: Who did it; the lab's owner by default, or `CONTROLLER`.
    """
    record = Halt(
        header=desk.header,
        act=act,
        plan=found.digest if found else None,
        evidence=found.segments[-1] if found and found.segments else None,
        raised_by=plain_name(person or desk.header.owner, "--as"),
        code=code,
        reason=plain_text(reason, "--reason"),
        serial=len(list(desk.all(Halt))),
    )
    check_halt(desk, record)
    desk.workspace.commit(record)
    finish_halts(desk)
    return record


def resume(desk: Desk, person: str, reason: str = "") -> Resumption | Signed:
    """A person lets go on what is stopped, or else the trial that is paused.

    Raises:
        OutOfOrder: if nothing is halted, or what is halted does not go on; ``canary.resume``.
        NotAuthorised: if the person's key is not at hand.
    """
    signed = sign(desk, record := resumption(desk, person, reason), person)
    return record if signed.committed else signed


def resumption(desk: Desk, person: str, reason: str = "") -> Resumption:
    """What a person signs to let go on what is stopped, or else the trial that is paused.

    Raises:
        OutOfOrder: if nothing is halted, or what is halted does not go on; ``canary.resume``.
    """
    halts = [open_stop(desk), *(found.halt for c in _CHANNELS if (found := trial(desk, c)))]
    open_halt = next((h for h in halts if h is not None), None)
    if open_halt is None:
        raise OutOfOrder("nothing is halted", where="halt", reason="canary.resume")
    record = Resumption(
        header=desk.header,
        halt=open_halt[0],
        resumed_by=plain_name(person, "--as"),
        reason=plain_text(reason, "--reason"),
    )
    check_resumption(desk, record)
    return record


def finish_halts(desk: Desk) -> None:
    """Record what a controller found, and empty what a halt speaks of; a crash may have come between.

    Where a key for that is not at hand nothing happens: whoever has it does this when they open the lab. A trial that
    cannot be replayed keeps nobody from opening it; `verify` names it.
    """
    for channel in _CHANNELS:
        with suppress(StudbookError):
            _raise_again(desk, channel)
            if (why := _to_leave(desk, channel)) is not None:
                leave(desk, channel, why)


def _running(desk: Desk, *, halted: bool = False) -> Trial:
    for channel in _CHANNELS:
        found = trial(desk, channel)
        if found and (halted or not found.halt):
            return found
    advice = "Register a plan first: studbook plan"
    raise OutOfOrder("no trial runs", where="shadow and canary", advice=advice, reason="order.trial")


def _raise_again(desk: Desk, channel: Literal["canary", "shadow"]) -> None:
    """Record the halt of a trial whose last segment shows it and whose process died before it said so."""
    found = trial(desk, channel)
    if found is not None and found.controller.halted and found.halt is None:
        act: Literal["abort", "pause"] = "abort" if found.controller.halted in CONVICTED else "pause"
        halt(desk, found, act, found.controller.halted, "found in what was seen before a crash", CONTROLLER)


def _to_leave(desk: Desk, channel: Literal["canary", "shadow"]) -> str | None:
    """Why a channel has to be left, if a halt that came after its last move says so."""
    state = desk.channels()[channel]
    entry = desk.workspace.entry(state.record) if state.record and state.artifact else None
    found = trial(desk, channel) if entry else None
    for digest, record in reversed(list(desk.all(Halt))):
        raised = desk.workspace.entry(digest)
        if entry is None or raised is None or raised.sequence < entry.sequence:
            return None
        if record.act == "stop" or (record.act == "abort" and found and record.plan == found.digest):
            return f"{record.code}: {record.reason}"[:4000]
    return None
