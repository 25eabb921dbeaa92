"""A trial while it runs: who answers which request, what was seen in the order of arrival, and the halt that follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock, RLock
from typing import Literal, NamedTuple

from studbook.errors import StudbookError
from studbook.evaluation.items import Item
from studbook.evaluation.suites import known_items
from studbook.lab.desk import Desk
from studbook.lab.halting import finish_halts, halt
from studbook.lab.halts import CONTROLLER
from studbook.lab.trials import Trial, current_readiness, trial
from studbook.records import Answered, CanaryPlan, CanarySegment, Observation, SuiteManifest
from studbook.release import Verdict, drawn, in_cohort, probe_after

__all__ = ["Clock", "Run", "Ticket", "monotonic"]

Clock = Callable[[], int]
"""Milliseconds by a clock that never goes back."""
# What a crash may lose: so many observations, of so many milliseconds. A verdict is always written at once.
_FLUSH, _LAG = 64, 1000


class Ticket(NamedTuple):
    """One request that belongs to a trial.

    Attributes:
        number: Its number.
        moment: When it arrived, in milliseconds of serving since the trial began.
        step: The step then.
        kind: Who answers: ``champion``, ``canary``, or both where it is a ``mirror``.
        probe: The item that both are asked afterwards, or None.
        candidate: Who is on trial.
    """

    number: int
    moment: int
    step: int
    kind: Literal["champion", "canary", "mirror"]
    probe: Item | None
    candidate: str


class _Posted(NamedTuple):
    """What a request has to know of the trial, as the controller left it."""

    digest: str
    plan: CanaryPlan
    items: tuple[Item, ...]
    step: int
    share: float
    moment: int


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
    it, and every answer has to come or be dropped in the end. `take` and `going` look at memory alone and never wait for
    the ledger; everything else may write it.

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
        self._desk, self._channel, self._clock = desk, channel, clock
        # Held while the ledger is written; the gate only while numbers are looked up.
        self._lock, self._gate = RLock(), Lock()
        self.trial: Trial | None = None
        self._posted: _Posted | None = None
        self._unwritten: list[Observation] = []
        self._owed = False
        self.reload()

    def reload(self) -> None:
        """Begin again from what the ledger says, if that is not what is known; what was not written is forgotten then."""
        with self._lock:
            found = trial(self._desk, self._channel)
            if self._known(found):
                return
            self._owed = False
            with self._gate:
                self._open: dict[int, _Open] = {}
                self._unwritten = []
                self.trial, self._posted = found, None
                self._items: tuple[Item, ...] = ()
                if found is None:
                    return
                suite = self._desk.workspace.get(found.plan.suite, SuiteManifest)
                self._items = tuple(known_items(self._desk.workspace.blob(suite.items.sha256)))
                self._segments = list(found.segments)
                self._next = found.controller.number + 1
                # Time in which nothing was served does not count.
                self._zero = self._clock() - found.controller.moment
            self._post()

    @property
    def going(self) -> str:
        """Digest of the plan that requests belong to now; empty where they belong to none."""
        posted = self._posted
        return posted.digest if posted else ""

    def take(self, plan: str | None = None) -> Ticket | None:
        """Number a request and say who answers; None while nothing is on trial.

        Args:
            plan: Digest of the plan it has to belong to; whichever is on trial by default.
        """
        with self._gate:
            posted = self._posted
            if posted is None or plan not in (None, posted.digest):
                return None
            number, digest = self._next, posted.digest
            self._next += 1
            inside = in_cohort(digest, number, posted.share)
            kind: Literal["champion", "canary", "mirror"] = "canary" if inside else "champion"
            asked = probe_after(digest, number, posted.plan.probes)
            item = posted.items[drawn(digest, number, len(posted.items))] if asked else None
            moment = max(self._clock() - self._zero, posted.moment)
            mirrored = "mirror" if self._channel == "shadow" else kind
            ticket = Ticket(number, moment, posted.step, mirrored, item, posted.plan.candidate)
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
            if held := self._held(ticket):
                held.left = 0
                self._settle()

    def fail(self, error: Exception) -> None:
        """Say that something could not be looked at: the trial pauses, for nobody knows what was missed."""
        with self._lock:
            if self.going:
                self._stop("pause", "canary.analysis", f"{type(error).__name__}: {error}"[:1000])

    def look(self) -> None:
        """Look at the clock: a trial that sees nothing for too long pauses, and what was seen is written after a second.

        Where the ledger refused what it was given the trial stands still; it is tried again here.
        """
        with self._lock:
            if self._owed:
                self.flush()
                finish_halts(self._desk)
                self.reload()
            found = self.trial
            if found is None or not self.going:
                return
            with self._gate:
                now = self._clock() - self._zero
                oldest = next((o.ticket.moment for o in self._open.values()), now)
            self._act(found.controller.wait(max(oldest, found.controller.moment)))
            if self._unwritten and now - self._first >= _LAG:
                self.flush()
                self._check_ready()

    def flush(self) -> None:
        """Write what was seen and not written yet."""
        with self._lock:
            found = self.trial
            if found is None or not self._unwritten:
                return
            self._write(found)

    def _known(self, found: Trial | None) -> bool:
        """Whether the ledger holds what is known here, and the trial goes on: then open requests stay open."""
        here = self.trial
        if here is None or found is None or self._unwritten or not self.going:
            return False
        return (found.digest, found.segments, found.halt) == (here.digest, tuple(self._segments), None)

    def _post(self) -> None:
        """Let requests know where the controller stands."""
        found = self.trial
        if found is None or found.controller.halted:
            self._posted = None
            return
        controller = found.controller
        self._posted = _Posted(
            found.digest, found.plan, self._items, controller.step, controller.share, controller.moment
        )

    def _held(self, ticket: Ticket) -> _Open | None:
        """The open request of this very ticket: after a reload another one may have its number."""
        with self._gate:
            held = self._open.get(ticket.number)
            return held if held is not None and held.ticket is ticket else None

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
            held = self._held(ticket)
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
                with self._gate:
                    self._open = {n: o for n, o in self._open.items() if n >= ticket.number}
            self._settle()

    def _settle(self) -> None:
        """Feed what is answered whole, up to the first that is not."""
        while (held := self._whole()) is not None:
            for seen in held.seen:
                self._feed(seen)

    def _whole(self) -> _Open | None:
        """The oldest open request, which is open no longer, if it is answered whole."""
        with self._gate:
            number = next(iter(self._open), None)
            if number is None or self._posted is None or self._open[number].left:
                return None
            return self._open.pop(number)

    def _feed(self, seen: Observation) -> None:
        found = self.trial
        if found is None or not self.going:
            return
        try:
            verdict = found.controller.observe(seen)
        except StudbookError as error:
            self.fail(error)
            return
        if not self._unwritten:
            self._first = self._clock() - self._zero
        self._unwritten.append(seen)
        self._act(verdict)

    def _act(self, verdict: Verdict) -> None:
        self._post()
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
        self._posted, self._owed = None, True
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
        try:
            self._segments.append(self._desk.workspace.commit(segment))
        except BaseException:
            # Nobody is on trial while nothing of it can be kept.
            self._posted, self._owed = None, True
            raise
        self._unwritten = []
