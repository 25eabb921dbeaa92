"""Halts and resumptions, held against the lab they enter: what is halted, who said so, and whether it may go on."""

from __future__ import annotations

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.trials import open_stop, replay_trial, trial
from studbook.records import Halt, Resumption
from studbook.release import CONVICTED, FINAL

__all__ = ["CONTROLLER", "check_halt", "check_resumption"]

CONTROLLER = "controller"
"""Who raised a halt that no person did."""
# What the controller may find that no observation shows.
_UNSEEN = frozenset(("canary.analysis", "canary.readiness"))


def check_halt(desk: Desk, record: Halt) -> None:
    """A halt speaks of a trial that runs and of the newest thing it saw; what the controller found is found again.

    Args:
        desk: The lab as it is before the halt.
        record: The halt.

    Raises:
        DigestDiffers: naming the field; ``canary.halt``.
    """
    facts: dict[str, tuple[object, object]] = {
        "serial": (record.serial, len(list(desk.all(Halt)))),
        "plan": (record.plan is None, record.act == "stop"),
    }
    if record.plan is not None:
        found = replay_trial(desk, record.plan)
        here = trial(desk, found.channel)
        facts["plan"] = (record.plan, here.digest if here else None)
        facts["evidence"] = (record.evidence, found.segments[-1] if found.segments else None)
        if record.raised_by == CONTROLLER and record.code not in _UNSEEN:
            facts["code"] = (record.code, found.controller.halted)
        worse = record.code in CONVICTED
        facts["act"] = (record.act == "abort", worse if record.raised_by == CONTROLLER else record.act == "abort")
    require("halt", facts, "canary.halt")


def check_resumption(desk: Desk, record: Resumption) -> None:
    """What is resumed stands, and may go on.

    Args:
        desk: The lab as it is before the resumption.
        record: The resumption.

    Raises:
        OutOfOrder: if it does not go on; ``canary.resume``.
        DigestDiffers: if it is not what is halted, because it was resumed already or another one came; ``canary.halt``.
    """
    held = desk.workspace.get(record.halt, Halt)
    if held.act == "abort" or held.code in FINAL:
        advice = "Register another plan: studbook plan"
        raise OutOfOrder("is over, and does not go on", where="resumption: halt", advice=advice, reason="canary.resume")
    standing = open_stop(desk) if held.plan is None else replay_trial(desk, held.plan).halt
    if standing is None or standing[0] != record.halt:
        advice = "Look what is halted now: studbook log --kind halt/1"
        raise DigestDiffers("is not what is halted", where="resumption: halt", advice=advice, reason="canary.halt")
