"""Requests on their way to champion, canary and shadow; what a mirrored model says reaches nobody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from studbook.errors import OutOfOrder, StudbookError
from studbook.lab.canaries import Canaries
from studbook.lab.desk import Desk
from studbook.lab.runs import Clock, Run, Ticket, monotonic
from studbook.lab.trials import require_going
from studbook.records import Answered

__all__ = ["Answer", "Reply", "Traffic"]


class Reply(NamedTuple):
    """What a model answered.

    Attributes:
        text: The answer.
        right: Whether it came without an error and is within its contract.
        broken: Whether it broke an invariant that may never be broken.
        milliseconds: How long it took.
        tokens: How many were written.
    """

    text: str
    right: bool
    broken: bool
    milliseconds: int
    tokens: int


Answer = Callable[[str, str], Reply]
"""Asks a model, by its artifact's digest, a prompt; may raise a `StudbookError`, which counts as an answer that failed."""


class Traffic:
    """One request after the other, each answered by one model and seen by the trials there are.

    Args:
        desk: The lab.
        canaries: Its trials.
        answer: How a model is asked.
        clock: The clock of the trials.
    """

    def __init__(self, desk: Desk, canaries: Canaries, answer: Answer, clock: Clock = monotonic) -> None:
        self._desk, self._answer = desk, answer
        self._canary = canaries.run("canary", clock)
        self._shadow: Run | None = None
        with suppress(OutOfOrder):
            self._shadow = canaries.run("shadow", clock)

    def complete(self, prompt: str) -> Reply:
        """Answer a request.

        Raises:
            OutOfOrder: while everything is stopped, or if there is no champion.
            StudbookError: if the champion fails.
        """
        require_going(self._desk)
        ticket = self._canary.take()
        reply = self._first(ticket, prompt) if ticket else self._answer(self._desk.champion(), prompt)
        self._mirror(prompt, reply)
        return reply

    def _first(self, ticket: Ticket, prompt: str) -> Reply:
        """Have a request answered by whom the trial in canary says; a failure of the candidate is mended by the champion."""
        run, champion = self._canary, self._desk.champion()
        assert run.trial is not None
        candidate = run.trial.plan.candidate
        if ticket.kind == "champion":
            reply = self._answer(champion, prompt)
            run.answered(ticket, champion=_seen(reply))
        else:
            reply = self._try(candidate, prompt)
            run.answered(ticket, candidate=_seen(reply))
            if not reply.right:
                reply = self._answer(champion, prompt)
        self._probe(run, ticket, candidate, champion)
        return reply

    def _mirror(self, prompt: str, given: Reply) -> None:
        """Let shadow answer what was answered already; its answer is compared and forgotten."""
        run = self._shadow
        ticket = run.take() if run else None
        if run is None or ticket is None or run.trial is None:
            return
        candidate = run.trial.plan.candidate
        own = self._try(candidate, prompt)
        run.answered(ticket, _seen(own), _seen(given), differs=own.text != given.text)
        self._probe(run, ticket, candidate, self._desk.champion())

    def _probe(self, run: Run, ticket: Ticket, candidate: str, champion: str) -> None:
        item = ticket.probe
        if item is None or not run.going:
            return
        try:
            one, other = self._try(candidate, item.prompt), self._answer(champion, item.prompt)
        except StudbookError as error:
            # The champion could not be asked: nothing was learned about the candidate.
            run.fail(error)
            return
        pair = [_seen(r._replace(right=r.right and r.text == item.expected)) for r in (one, other)]
        run.probed(ticket, pair[0], pair[1], differs=one.text != other.text)

    def _try(self, artifact: str, prompt: str) -> Reply:
        try:
            return self._answer(artifact, prompt)
        except StudbookError:
            return Reply("", right=False, broken=False, milliseconds=0, tokens=0)


def _seen(reply: Reply) -> Answered:
    return Answered(right=reply.right, broken=reply.broken, milliseconds=reply.milliseconds, tokens=reply.tokens)
