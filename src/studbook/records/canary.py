"""Trials on the request path: the plan before the run, what was seen, and who stopped it or let it go on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, Name, Record, Text, Zone
from studbook.records.release import Deployment

__all__ = [
    "Answered",
    "CanaryLimits",
    "CanaryPlan",
    "CanarySegment",
    "CanaryStep",
    "Detection",
    "Halt",
    "Observation",
    "Resumption",
]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Rate = Annotated[float, Meta(gt=0.0, lt=1.0)]


class CanaryStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a trial.

    Attributes:
        share: Share of the requests that the candidate answers; 0 in shadow, where every answer is thrown away.
        requests: Requests the candidate has to have answered, or mirrored, before the next step; counted from the first.
        probes: Probes it has to have answered by then.
    """

    share: Annotated[float, Meta(ge=0.0, le=0.5)]
    requests: Count
    probes: Count


class CanaryLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a trial pauses whatever was seen, and is not resumed.

    Attributes:
        requests: Requests the candidate answered, or mirrored.
        seconds: Seconds of serving since the trial began.
        tokens: Tokens the candidate wrote.
    """

    requests: Number
    seconds: Number
    tokens: Number


class Detection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a candidate that fails too often will have been found out, simulated before the run.

    Attributes:
        failing: Share of its answers that fail in the simulation.
        simulations: How many runs.
        seed: Their seed.
        half: Requests it answered until half of them were rolled back; null where fewer were within the limit.
        most: The same for nine of ten.
        found: Share of them rolled back within the limit.
    """

    failing: Rate
    simulations: Annotated[int, Meta(ge=100, le=10_000)]
    seed: Count
    half: Number | None
    most: Number | None
    found: Share


class CanaryPlan(Record, frozen=True, kw_only=True, tag="canary-plan/1"):
    """What a trial in shadow or canary does and when it ends, registered before it begins.

    Attributes:
        channel: The channel it is for.
        candidate: Digest of the model.
        champion: Digest of the model it stands beside.
        deployment: What works together with the candidate.
        readiness: Digest of the ReadinessRecord that was current.
        suite: Digest of the SuiteManifest of the probes.
        salt: 64 random hex digits, so that nobody knows beforehand which request falls into the cohort.
        steps: One after the other; in shadow one with the share 0.
        limits: Where it pauses for good.
        alpha: Chance, at most, that a candidate that is not worse is ever rolled back.
        allowed: Share of answers to requests that may fail.
        margin: How much lower the share of right answers may be than the champion's.
        slow: Milliseconds that 99 of 100 answers take at most.
        window: Requests of the candidate after which slowness is looked for anew.
        disagreement: Share of paired answers that may differ while both are right or both are wrong.
        patience: Seconds without an observation after which it pauses.
        page: Failures in a short time, above what is allowed, that call a person; see `studbook.statistics.upper_sums`.
        probes: Chance that a request is followed by a probe.
        critical: Labels of the probes that are looked at by themselves too, sorted.
        detection: When a failing candidate will have been found out.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    channel: Literal["shadow", "canary"]
    candidate: Digest
    champion: Digest
    deployment: Deployment
    readiness: Digest
    suite: Digest
    salt: Digest
    steps: Annotated[tuple[CanaryStep, ...], Meta(min_length=1, max_length=20)]
    limits: CanaryLimits
    alpha: Annotated[float, Meta(gt=0.0, le=0.05)]
    allowed: Rate
    margin: Annotated[float, Meta(gt=0.0, le=0.5)]
    slow: Number
    window: Number
    disagreement: Rate
    patience: Number
    page: Annotated[float, Meta(gt=0.0, le=1000.0)]
    probes: Share
    critical: tuple[Name, ...]
    detection: Detection

    def subjects(self) -> tuple[str, ...]:
        """The candidate and the champion."""
        return (self.candidate, self.champion)

    def references(self) -> tuple[str, ...]:
        """Readiness, suite, and what is deployed with the candidate."""
        return (self.readiness, self.suite, *self.deployment.records)


class Answered(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """How one model answered; never what.

    Attributes:
        right: A probe's expected answer, or an answer to a request without error and within its contract.
        broken: Whether it broke an invariant that may never be broken.
        milliseconds: How long it took.
        tokens: How many it wrote.
    """

    right: bool
    broken: bool
    milliseconds: Count
    tokens: Count


class Observation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One request or probe that was answered.

    Attributes:
        number: Of the request, as the server counts them; a probe has the number of the request it follows.
        moment: When it arrived, in milliseconds of serving since the trial began.
        step: The step of the trial when it arrived, from 0.
        kind: ``champion`` and ``canary`` were answered by one of them, ``mirror`` and ``probe`` by both.
        candidate: How the candidate answered, or null.
        champion: How the champion answered, or null.
        differs: Whether the two answers differ; false where there is one.
        label: The label of the probe's items; null for a request.
    """

    number: Count
    moment: Count
    step: Count
    kind: Literal["champion", "canary", "mirror", "probe"]
    candidate: Answered | None
    champion: Answered | None
    differs: bool
    label: Name | None


class CanarySegment(Record, frozen=True, kw_only=True, tag="canary-segment/1"):
    """A part of what a trial saw.

    Attributes:
        plan: Digest of the CanaryPlan.
        part: Counts up by one, from 0.
        previous: Digest of the segment before; null for the first.
        observations: In the order of their arrival.
        until: How far it looked, in milliseconds of serving since the trial began; behind the last observation there were
            none until then.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    plan: Digest
    part: Count
    previous: Digest | None
    observations: Annotated[tuple[Observation, ...], Meta(max_length=100_000)]
    until: Count

    def references(self) -> tuple[str, ...]:
        """The plan, and the segment before."""
        return tuple(d for d in (self.plan, self.previous) if d)


class Halt(Record, frozen=True, kw_only=True, tag="halt/1"):
    """Something stops at once; anybody may do that, and it takes a person to go on.

    Attributes:
        act: ``pause`` a trial, ``abort`` it, or ``stop`` everything: no request is answered until a person resumes.
        plan: Digest of the CanaryPlan; null for a stop.
        evidence: Digest of the newest segment of the trial; null where there is none.
        raised_by: A person, or ``controller``.
        code: The reason's code, such as ``canary.evidence``.
        reason: Why, in words.
        serial: Counts the halts of the lab, from 0.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    act: Literal["pause", "abort", "stop"]
    plan: Digest | None
    evidence: Digest | None
    raised_by: Name
    code: Name
    reason: Text
    serial: Count

    def references(self) -> tuple[str, ...]:
        """The plan and the segment."""
        return tuple(d for d in (self.plan, self.evidence) if d)


class Resumption(Record, frozen=True, kw_only=True, tag="resumption/1"):
    """A person lets go on what was paused or stopped.

    Attributes:
        halt: Digest of the Halt.
        resumed_by: The person.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    halt: Digest
    resumed_by: Name
    reason: Text

    def references(self) -> tuple[str, ...]:
        """The halt."""
        return (self.halt,)
