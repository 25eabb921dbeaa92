"""Trials on a running server: who answers a request, what runs beside it, and what the trials are told of both."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, NamedTuple

from studbook.errors import StudbookError
from studbook.lab.canaries import Canaries
from studbook.lab.desk import Desk
from studbook.lab.runs import Run, Ticket
from studbook.records import Answered
from studbook.runtime.serve.dispatch import Aside, Outcome, Plan
from studbook.runtime.serve.requests import Asked, Wanted

__all__ = ["TrialDispatcher"]

_OnTrial = Literal["canary", "shadow"]

# Nothing follows from a request whose client went away, nor from what was never run: there was no room, or no model.
_NOBODYS = frozenset(("serve.cancelled", "serve.stopping", "serve.dropped", "serve.gone"))
# What a client asked for and no model could have answered.
_CLIENTS = frozenset(("serve.context", "engine.id"))
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


class TrialDispatcher:
    """Lets the trials in canary and shadow decide; the champion answers where none does.

    What it decides by is looked up when it is made: `dispatch` reads memory, and `stale` says when another one is due.
    `observe` writes the ledger, so it belongs to the one thread that does.

    Args:
        desk: The lab.
        canaries: Its trials.

    Attributes:
        champion: Digest of the champion.
    """

    def __init__(self, desk: Desk, canaries: Canaries) -> None:
        self.champion = desk.champion()
        self._runs: dict[_OnTrial, Run] = {"canary": canaries.run("canary")}
        # Where the lab is not ready nothing is mirrored.
        with suppress(StudbookError):
            self._runs["shadow"] = canaries.run("shadow")
        self._trials = [_Trial(channel, run, run.going) for channel, run in self._runs.items() if run.going]
        self._revisions: dict[str, str] = {"champion": self.champion}
        self._revisions |= {found.channel: _candidate(found.run) for found in self._trials}
        self._held: dict[int, list[_Part]] = {}

    def models(self) -> tuple[str, ...]:
        """Digests of every model that may be asked, the champion first."""
        return tuple(dict.fromkeys(self._revisions.values()))

    def stale(self) -> bool:
        """Whether a trial began, went on, halted or ended since this was made."""
        going = [_Trial(channel, run, run.going) for channel, run in self._runs.items() if run.going]
        return going != self._trials

    def lost(self, revision: str, error: Exception) -> None:
        """Pause the trials of a candidate that cannot be asked; writes the ledger."""
        for found in self._trials:
            if self._revisions[found.channel] == revision:
                found.run.fail(error)

    def dispatch(self, asked: Asked) -> Plan:
        """The champion or the model in canary; beside the champion the model in shadow, and probes to both."""
        champion = answering = self._answering("champion", asked)
        instead = ""
        parts: list[_Part] = []
        asides: list[Aside] = []
        for channel, run, plan in self._trials:
            # What the model in canary says is compared with nothing in shadow.
            ticket = run.take(plan) if answering == champion else None
            if ticket is None:
                continue
            parts.append(_Part(run, ticket, len(asides)))
            if ticket.kind == "canary":
                answering, instead = self._answering(channel, asked), champion
            elif ticket.kind == "mirror":
                asides.append(Aside(self._answering(channel, asked)))
            asides += self._probes(channel, asked, ticket)
        self._held[asked.number] = parts
        return Plan(answering, tuple(asides), instead)

    def observe(self, asked: Asked, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        """Tell every trial that the request belongs to; writes the ledger."""
        for part in self._held.pop(asked.number, ()):
            _tell(part.run, part.ticket, answer, asides[part.first :])

    def _answering(self, channel: str, asked: Asked) -> str:
        """The model that answers a request within the deployment of a channel."""
        return self._revisions[channel]

    def _probes(self, channel: _OnTrial, asked: Asked, ticket: Ticket) -> list[Aside]:
        """The probe that follows a request, to the candidate and then to the champion."""
        if (item := ticket.probe) is None:
            return []
        # A few tokens more than the right answer has bytes: who goes on is wrong.
        wanted = Wanted(item.prompt, most=len(item.expected.encode()) + 2)
        probe = Asked(asked.number, wanted)
        both = (self._answering(channel, probe), self._answering("champion", probe))
        return [Aside(revision, wanted, item.expected) for revision in both]


def _candidate(run: Run) -> str:
    assert run.trial is not None
    return run.trial.plan.candidate


def _tell(run: Run, ticket: Ticket, answer: Outcome, beside: tuple[Outcome, ...]) -> None:
    """Tell a trial how a request went, and the probe after it."""
    own = beside[0] if ticket.kind == "mirror" else answer
    if answer.failure in _NOBODYS | _CLIENTS or own.failure in _NOBODYS:
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
