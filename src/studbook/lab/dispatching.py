"""Trials on a running server: who answers a request, what runs beside it, and what the trials are told of both."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from studbook.errors import StudbookError
from studbook.lab.canaries import Canaries
from studbook.lab.desk import Desk
from studbook.lab.runs import Run, Ticket
from studbook.records import Answered
from studbook.runtime.serve.dispatch import Aside, Outcome, Plan
from studbook.runtime.serve.requests import Asked, Wanted

__all__ = ["TrialDispatcher"]

# Nothing follows from a request whose client went away, nor from one that the server gave up when it stopped.
_NOBODYS = frozenset(("serve.cancelled", "serve.stopping", "serve.dropped"))


class _Part(NamedTuple):
    """What one trial has to do with one request, and where its runs lie among those beside the answer."""

    run: Run
    ticket: Ticket
    candidate: str
    first: int


class TrialDispatcher:
    """Lets the trials in canary and shadow decide; the champion answers where none does.

    Args:
        desk: The lab.
        canaries: Its trials.
    """

    def __init__(self, desk: Desk, canaries: Canaries) -> None:
        self._desk = desk
        self._runs = [canaries.run("canary")]
        # Where the lab is not ready nothing is mirrored.
        with suppress(StudbookError):
            self._runs.append(canaries.run("shadow"))
        self._held: dict[int, list[_Part]] = {}

    def models(self) -> tuple[str, ...]:
        """Digests of every model that may be asked, the champion first."""
        candidates = (run.trial.plan.candidate for run in self._runs if run.trial is not None)
        return tuple(dict.fromkeys((self._desk.champion(), *candidates)))

    def dispatch(self, asked: Asked) -> Plan:
        """The champion or the model in canary; beside it the model in shadow, and probes to both."""
        # A number comes again where the queue was full.
        self._drop(asked.number)
        champion = answering = self._desk.champion()
        parts: list[_Part] = []
        asides: list[Aside] = []
        for run in self._runs:
            run.look()
            ticket, found = run.take(), run.trial
            if ticket is None or found is None:
                continue
            candidate = found.plan.candidate
            parts.append(_Part(run, ticket, candidate, len(asides)))
            if ticket.kind == "canary":
                answering = candidate
            elif ticket.kind == "mirror":
                asides.append(Aside(candidate))
            if (item := ticket.probe) is not None:
                # A few tokens more than the right answer has bytes: who goes on is wrong.
                wanted = Wanted(item.prompt, most=len(item.expected.encode()) + 2)
                asides += (Aside(model, wanted, item.expected) for model in (candidate, champion))
        self._held[asked.number] = parts
        return Plan(answering, tuple(asides))

    def observe(self, asked: Asked, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        """Tell every trial that the request belongs to."""
        for part in self._held.pop(asked.number, ()):
            self._tell(part, answer, asides[part.first :])

    def _tell(self, part: _Part, answer: Outcome, beside: tuple[Outcome, ...]) -> None:
        run, ticket = part.run, part.ticket
        own = beside[0] if ticket.kind == "mirror" else answer
        if answer.failure in _NOBODYS or own.failure in _NOBODYS:
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
            self._probed(run, ticket, beside[0], beside[1])

    def _probed(self, run: Run, ticket: Ticket, candidate: Outcome, champion: Outcome) -> None:
        if champion.failure or candidate.failure in _NOBODYS:
            # Nothing was learned about the candidate: the champion could not be asked, or there was no room.
            run.drop(ticket)
            return
        pair = [_seen(o, right=bool(o.right)) for o in (candidate, champion)]
        run.probed(ticket, pair[0], pair[1], differs=candidate.digest != champion.digest)

    def _drop(self, number: int) -> None:
        for part in self._held.pop(number, ()):
            part.run.drop(part.ticket)


def _seen(outcome: Outcome, *, right: bool = True) -> Answered:
    return Answered(
        right=right and not outcome.failure,
        broken=False,
        milliseconds=round(outcome.seconds * 1000),
        tokens=outcome.tokens,
    )
