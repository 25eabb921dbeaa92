"""Trials on a running server: who answers a request, what runs beside it, and what the trials are told of both."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from itertools import chain
from typing import Literal, NamedTuple

from studbook.errors import StudbookError
from studbook.lab.canaries import Canaries
from studbook.lab.desk import Desk
from studbook.lab.runs import Run, Ticket
from studbook.lab.ways import Chosen, Ways
from studbook.records import Answered
from studbook.runtime.serve.dispatch import Aside, Outcome, Plan
from studbook.runtime.serve.requests import Asked, Model, Wanted
from studbook.runtime.serve.runs import NARROW

__all__ = ["TrialDispatcher"]

_OnTrial = Literal["canary", "shadow"]
_CHANNELS: tuple[_OnTrial, ...] = ("canary", "shadow")

# Nothing follows from a request whose client went away, nor from what was never run: there was no room, or no model.
_NOBODYS = frozenset(("serve.cancelled", "serve.stopping", "serve.dropped", "serve.gone"))
_BROKEN = frozenset(("serve.broken", "engine.non-finite"))


class _Trial(NamedTuple):
    """A trial that runs, and the channel whose deployment is on trial."""

    channel: _OnTrial
    run: Run
    plan: str


class _Part(NamedTuple):
    """What one trial has to do with one request, and where its runs lie among those beside the answer."""

    run: Run
    ticket: Ticket
    first: int


class _Taken(NamedTuple):
    """One request that was dispatched: the channel that answers, whom it chose, and the trials it belongs to."""

    channel: str
    chosen: Chosen
    parts: list[_Part]


class TrialDispatcher:
    """Lets the trials in canary and shadow decide which channel answers, and its deployment which model; see `Way`.

    What it decides by is looked up when it is made: `dispatch` reads memory, and `stale` says when another one is due.
    `answered` and `observe` write, so they belong to the one thread that does.

    Args:
        desk: The lab.
        canaries: Its trials.
        ways: Makes the way within each channel.

    Attributes:
        champion: Digest of the champion.
        own: Digests of the models that stand in the channels themselves.
    """

    def __init__(self, desk: Desk, canaries: Canaries, ways: Ways) -> None:
        self.champion = desk.champion()
        self._ways = {"champion": ways.way(self.champion, desk.channels()["champion"].deployment)}
        self._runs: dict[_OnTrial, Run] = {}
        for channel in _CHANNELS:
            # Where the lab is not ready nothing is mirrored, and a trial that cannot be replayed takes nobody down.
            with suppress(StudbookError):
                self._runs[channel] = canaries.run(channel)
        self._trials = [_Trial(channel, run, run.going) for channel, run in self._runs.items() if run.going]
        for found in self._trials:
            assert found.run.trial is not None
            plan = found.run.trial.plan
            try:
                self._ways[found.channel] = ways.way(plan.candidate, plan.deployment)
            except StudbookError as error:
                found.run.fail(error)
        self._trials = [found for found in self._trials if found.channel in self._ways]
        self.own = {way.own for way in self._ways.values()}
        self._held: dict[int, _Taken] = {}

    def models(self) -> tuple[Model, ...]:
        """Every model that may be asked, each once, the champion first."""
        found: dict[str, Model] = {}
        ways = [way.models() for way in self._ways.values()]
        # A channel's own model is needed, also where a package of the same file is only a spare.
        for model in (*(models[0] for models in ways), *chain.from_iterable(ways)):
            found.setdefault(model.revision, model)
        return tuple(found.values())

    def hold(self, revisions: Collection[str]) -> None:
        """Say which of the models are in memory; the others are chosen by nobody."""
        for way in self._ways.values():
            way.hold(revisions)

    def stale(self) -> bool:
        """Whether a trial began, went on, halted or ended since this was made."""
        going = [_Trial(channel, run, run.going) for channel, run in self._runs.items() if run.going]
        return going != self._trials

    def lost(self, revision: str, error: Exception) -> None:
        """Pause the trials of a candidate that cannot be asked; writes the ledger."""
        for found in self._trials:
            if self._ways[found.channel].own == revision:
                found.run.fail(error)

    def dispatch(self, asked: Asked) -> Plan:
        """The champion or the model in canary; beside the champion the model in shadow, and probes to both."""
        champion = chosen = self._choose("champion", asked)
        # A package that fails is stood in for by the channel's own model.
        answering, instead = "champion", self.champion if chosen.revision != self.champion else ""
        parts: list[_Part] = []
        asides: list[Aside] = []
        for channel, run, plan in self._trials:
            # What the model in canary says is compared with nothing in shadow.
            ticket = run.take(plan) if answering == "champion" else None
            if ticket is None:
                continue
            parts.append(_Part(run, ticket, len(asides)))
            if ticket.kind == "canary":
                answering, chosen, instead = channel, self._choose(channel, asked), champion.revision
            elif ticket.kind == "mirror":
                asides.append(Aside(self._choose(channel, asked).revision))
            asides += self._probes(channel, asked, ticket)
        self._held[asked.number] = _Taken(answering, chosen, parts)
        return Plan(chosen.revision, tuple(asides), instead)

    def answered(self, asked: Asked, answer: Outcome) -> None:
        """Enter which way the request went; writes the route log."""
        taken = self._held[asked.number]
        self._ways[taken.channel].ended(taken.chosen, answer)

    def observe(self, asked: Asked, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        """Tell every trial that the request belongs to; writes the ledger."""
        failed = []
        for part in self._held.pop(asked.number).parts:
            try:
                _tell(part.run, part.ticket, answer, asides[part.first :])
            except Exception as error:
                # The other trial waits for its own part.
                failed.append(error)
        if failed:
            raise failed[0]

    def _choose(self, channel: str, asked: Asked) -> Chosen:
        """The model that answers a request within the deployment of a channel."""
        return self._ways[channel].choose(asked)

    def _probes(self, channel: _OnTrial, asked: Asked, ticket: Ticket) -> list[Aside]:
        """The probe that follows a request, to the candidate and then to the champion."""
        if (item := ticket.probe) is None:
            return []
        # A few tokens more than the right answer has bytes: who goes on is wrong.
        wanted = Wanted(item.prompt, most=len(item.expected.encode()) + 2)
        probe = Asked(asked.number, wanted)
        both = (self._choose(channel, probe), self._choose("champion", probe))
        return [Aside(chosen.revision, wanted, item.expected) for chosen in both]


def _tell(run: Run, ticket: Ticket, answer: Outcome, beside: tuple[Outcome, ...]) -> None:
    """Tell a trial how a request went, and the probe after it."""
    own = beside[0] if ticket.kind == "mirror" else answer
    if answer.failure in _NOBODYS | NARROW or own.failure in _NOBODYS:
        run.drop(ticket)
        return
    if ticket.kind == "mirror":
        run.answered(ticket, _seen(own), _seen(answer), differs=own.digest != answer.digest)
        beside = beside[1:]
    elif ticket.kind == "canary":
        run.answered(ticket, candidate=_seen(answer))
    else:
        run.answered(ticket, champion=_seen(answer))
    if ticket.probe is not None:
        _probed(run, ticket, beside[0], beside[1])


def _probed(run: Run, ticket: Ticket, candidate: Outcome, champion: Outcome) -> None:
    if champion.failure or candidate.failure in _NOBODYS:
        # Nothing was learned about the candidate: the champion could not be asked, or there was no room.
        run.drop(ticket)
        return
    pair = [_seen(o, right=bool(o.right)) for o in (candidate, champion)]
    run.probed(ticket, pair[0], pair[1], differs=candidate.digest != champion.digest)


def _seen(outcome: Outcome, *, right: bool = True) -> Answered:
    return Answered(
        right=right and not outcome.failure,
        broken=outcome.failure in _BROKEN,
        milliseconds=round(outcome.seconds * 1000),
        tokens=outcome.tokens,
    )
