"""A trial while it runs: who answers which request, what was seen in the order of arrival, and the halt that follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock
from typing import Literal, NamedTuple

from studbook.errors import StudbookError
from studbook.evaluation.items import Item
from studbook.evaluation.suites import known_items
from studbook.lab.desk import Desk
from studbook.lab.halting import halt
from studbook.lab.halts import CONTROLLER
from studbook.lab.trials import Trial, current_readiness, trial
from studbook.records import Answered, CanarySegment, Observation, SuiteManifest
from studbook.release import Verdict, drawn, in_cohort, probe_after

__all__ = ["Clock", "Run", "Ticket", "monotonic"]

Clock = Callable[[], int]
"""Milliseconds by a clock that never goes back."""
# Observations that a crash may lose; a verdict is always written at once.
_FLUSH = 64


class Ticket(NamedTuple):
    """One request that belongs to a trial.

    Attributes:
        number: Its number.
        moment: When it arrived, in milliseconds of serving since the trial began.
        step: The step then.
        kind: Who answers: ``champion``, ``canary``, or both where it is a ``mirror``.
        probe: The item that both are asked afterwards, or None.
    """

    number: int
    moment: int
    step: int
    kind: Literal["champion", "canary", "mirror"]
    probe: Item | None


class _Open:
    """A request that is not answered whole yet."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket, self.left = ticket, 2 if ticket.probe else 1
        self.seen: list[Observation] = []


def monotonic() -> int:
    """Milliseconds of this machine's monotonic clock."""
    return time.monotonic_ns() // 1_000_000


class Run:
    """The running trial of a channel; may be used by several threads.

    Observations enter the controller in the order in which their requests arrived, so a slow answer holds those behind
    it, and every answer has to come or be dropped in the end.

    Args:
        desk: The lab, opened for writing.
        channel: The channel.
        clock: Its clock; the machine's by default.

    Raises:
        OutOfOrder: in shadow, if the lab is not ready: nothing is mirrored then; ``order.readiness``.
    """

    def __init__(self, desk: Desk, channel: Literal["shadow", "canary"], clock: Clock = monotonic) -> None:
        if channel == "shadow":
            current_readiness(desk)
        self._desk, self._channel, self._clock, self._lock = desk, channel, clock, RLock()
        self.reload()

    def reload(self) -> None:
        """Begin again from what the ledger says; what was not written is forgotten."""
        with self._lock:
            self._open: dict[int, _Open] = {}
            self._unwritten: list[Observation] = []
            self.trial = found = trial(self._desk, self._channel)
            if found is None:
                return
            suite = self._desk.workspace.get(found.plan.suite, SuiteManifest)
            self._items = known_items(self._desk.workspace.blob(suite.items.sha256))
            self._segments = list(found.segments)
            self._next = found.controller.number + 1
            # Time in which nothing was served does not count.
            self._zero = self._clock() - found.controller.moment

    @property
    def going(self) -> bool:
        """Whether requests belong to it now."""
        return self.trial is not None and not self.trial.controller.halted

    def take(self) -> Ticket | None:
        """Number a request and say who answers; None while nothing is on trial."""
        with self._lock:
            found = self.trial
            if found is None or not self.going:
                return None
            number, digest, plan = self._next, found.digest, found.plan
            self._next += 1
            inside = in_cohort(digest, number, found.controller.share)
            kind: Literal["champion", "canary", "mirror"] = "canary" if inside else "champion"
            asked = probe_after(digest, number, plan.probes)
            item = self._items[drawn(digest, number, len(self._items))] if asked else None
            moment = max(self._clock() - self._zero, found.controller.moment)
            mirrored = "mirror" if self._channel == "shadow" else kind
            ticket = Ticket(number, moment, found.controller.step, mirrored, item)
            self._open[number] = _Open(ticket)
            return ticket

    def answered(
        self,
        ticket: Ticket,
        candidate: Answered | None = None,
        champion: Answered | None = None,
        *,
        differs: bool = False,
    ) -> None:
        """Say how a request was answered."""
        self._take_in(ticket, ticket.kind, candidate, champion, differs, None)

    def probed(self, ticket: Ticket, candidate: Answered, champion: Answered, *, differs: bool) -> None:
        """Say how both answered the probe that followed a request."""
        assert ticket.probe is not None
        self._take_in(ticket, "probe", candidate, champion, differs, ticket.probe.cluster)

    def drop(self, ticket: Ticket) -> None:
        """Say that a request, or else its probe, will not be answered; what was said of it before stays."""
        with self._lock:
            if held := self._open.get(ticket.number):
                held.left = 0
                self._settle()

    def fail(self, error: Exception) -> None:
        """Say that something could not be looked at: the trial pauses, for nobody knows what was missed."""
        with self._lock:
            if self.going:
                self._stop("pause", "canary.analysis", f"{type(error).__name__}: {error}"[:1000])

    def look(self) -> None:
        """Look at the clock; a trial that sees nothing for too long pauses."""
        with self._lock:
            found = self.trial
            if found is None or not self.going:
                return
            oldest = min((o.ticket.moment for o in self._open.values()), default=self._clock() - self._zero)
            self._act(found.controller.wait(max(oldest, found.controller.moment)))

    def flush(self) -> None:
        """Write what was seen and not written yet."""
        with self._lock:
            found = self.trial
            if found is None or not self._unwritten:
                return
            self._write(found)

    def _take_in(
        self,
        ticket: Ticket,
        kind: Literal["champion", "canary", "mirror", "probe"],
        candidate: Answered | None,
        champion: Answered | None,
        differs: bool,
        label: str | None,
    ) -> None:
        with self._lock:
            held = self._open.get(ticket.number)
            if held is None:
                return
            made = Observation(
                number=ticket.number,
                moment=ticket.moment,
                step=ticket.step,
                kind=kind,
                candidate=candidate,
                champion=champion,
                differs=differs,
                label=label,
            )
            held.seen = sorted([*held.seen, made], key=lambda seen: seen.kind == "probe")
            held.left -= 1
            if candidate is not None and candidate.broken:
                # This does not wait for anybody.
                held.left = 0
                self._open = {n: o for n, o in self._open.items() if n >= ticket.number}
            self._settle()

    def _settle(self) -> None:
        """Feed what is answered whole, up to the first that is not."""
        for number, held in sorted(self._open.items()):
            if held.left or not self.going:
                return
            del self._open[number]
            for seen in held.seen:
                self._feed(seen)

    def _feed(self, seen: Observation) -> None:
        found = self.trial
        if found is None or not self.going:
            return
        try:
            verdict = found.controller.observe(seen)
        except StudbookError as error:
            self.fail(error)
            return
        self._unwritten.append(seen)
        self._act(verdict)

    def _act(self, verdict: Verdict) -> None:
        if verdict.action == "roll-back":
            self._stop("abort", verdict.code, verdict.words)
        elif verdict.action == "pause":
            self._stop("pause", verdict.code, verdict.words)
        elif verdict.action in ("step", "promote-ready") or len(self._unwritten) >= _FLUSH:
            self.flush()
            self._check_ready()

    def _check_ready(self) -> None:
        try:
            if self._channel == "shadow":
                current_readiness(self._desk)
        except StudbookError as error:
            self._stop("pause", "canary.readiness", error.message)

    def _stop(self, act: Literal["pause", "abort"], code: str, words: str) -> None:
        found = self.trial
        assert found is not None
        if self._unwritten or found.controller.halted:
            self._write(found)
        halt(self._desk, trial(self._desk, self._channel), act, code, words, CONTROLLER)
        self.reload()

    def _write(self, found: Trial) -> None:
        segment = CanarySegment(
            header=self._desk.header,
            plan=found.digest,
            part=len(self._segments),
            previous=self._segments[-1] if self._segments else None,
            observations=tuple(self._unwritten),
            until=found.controller.moment,
        )
        self._segments.append(self._desk.workspace.commit(segment))
        self._unwritten = []
