"""Trials of the lab: plans, runs, their state, and the acts that halt them or let them go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from msgspec import Struct

from studbook.lab import halting
from studbook.lab.canary_plans import register_plan
from studbook.lab.desk import Desk
from studbook.lab.pending import Signed
from studbook.lab.runs import Clock, Run, monotonic
from studbook.lab.trials import open_stop, trial
from studbook.records import CanaryPlan, Halt, Resumption

__all__ = ["Canaries", "TrialState"]

_CHANNELS: tuple[Literal["shadow", "canary"], ...] = ("shadow", "canary")


class TrialState(Struct, frozen=True):
    """Where a trial stands.

    Attributes:
        channel: Its channel.
        candidate: Name of the model.
        plan: Digest of its plan.
        step: The step, from 0.
        share: Share of the requests that the candidate answers now.
        requests: Requests it answered.
        probes: Probes it answered.
        failures: Answers of it that failed.
        ready: Whether it was found ready.
        halted: Why it does not run, or empty.
    """

    channel: str
    candidate: str
    plan: str
    step: int
    share: float
    requests: int
    probes: int
    failures: int
    ready: bool
    halted: str


class Canaries:
    """Trials in shadow and canary.

    Args:
        desk: The lab.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._runs: dict[str, Run] = {}

    def plan(
        self, channel: Literal["shadow", "canary"], settings: Mapping[str, Any] | None = None
    ) -> tuple[str, CanaryPlan]:
        """Register the plan of a trial of what stands in shadow; see `studbook.lab.canary_plans.register_plan`."""
        with self.settled():
            return register_plan(self._desk, channel, settings)

    def run(self, channel: Literal["shadow", "canary"], clock: Clock = monotonic) -> Run:
        """The running trial of a channel, for whoever serves requests; one for each channel.

        Raises:
            OutOfOrder: in shadow, if the lab is not ready; ``order.readiness``.
        """
        if channel not in self._runs:
            self._runs[channel] = Run(self._desk, channel, clock)
        return self._runs[channel]

    def state(self) -> tuple[TrialState, ...]:
        """Where every trial stands, as far as it is written."""
        found = (trial(self._desk, channel) for channel in _CHANNELS)
        return tuple(
            TrialState(
                channel=t.channel,
                candidate=self._desk.name_of(t.plan.candidate),
                plan=t.digest,
                step=t.controller.step,
                share=t.controller.share,
                requests=t.controller.requests,
                probes=t.controller.probes,
                failures=t.controller.failures,
                ready=t.controller.ready,
                halted=t.controller.halted,
            )
            for t in found
            if t is not None
        )

    def stopped(self) -> bool:
        """Whether everything is stopped: then no request is answered."""
        return open_stop(self._desk) is not None

    def pause(self, reason: str = "", person: str = "") -> Halt:
        """Pause the trial that runs."""
        with self.settled():
            return halting.pause(self._desk, reason, person)

    def abort(self, reason: str = "", person: str = "") -> Halt:
        """End the trial that there is, and take its candidate out of the channel."""
        with self.settled():
            return halting.abort(self._desk, reason, person)

    def stop(self, reason: str = "", person: str = "") -> Halt:
        """Stop everything at once."""
        with self.settled():
            return halting.stop(self._desk, reason, person)

    def resume(self, person: str, reason: str = "") -> Resumption | Signed:
        """Let go on what is halted, by a person's key."""
        with self.settled():
            return halting.resume(self._desk, person, reason)

    def look(self) -> None:
        """Have every running trial look at its clock, and write what waited long enough."""
        for run in self._runs.values():
            run.look()

    def flush(self) -> None:
        """Write what running trials saw and did not write yet."""
        for run in self._runs.values():
            run.flush()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Around what moves channels or halts trials: what was seen is written before, and runs take notice after."""
        self.flush()
        try:
            yield
        finally:
            for run in self._runs.values():
                run.reload()
