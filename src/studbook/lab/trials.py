"""The trial that runs in a channel, replayed from the ledger: its plan, what it saw, and who stopped it or let it go on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder, StudbookError
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.stages import standing
from studbook.records import (
    AdmissionRecord,
    CanaryPlan,
    CanarySegment,
    CandidateManifest,
    ChampionPromotion,
    EvaluatorChange,
    Gate,
    Halt,
    Policy,
    PromotionTemplate,
    ReadinessRecord,
    Record,
    ReleaseRecord,
    Resumption,
    Revocation,
    RollbackRecord,
    Root,
    SuitesLock,
    Tombstone,
)
from studbook.release import FINAL, Controller, gate

__all__ = [
    "PLAN",
    "Trial",
    "check_segment",
    "current_readiness",
    "open_stop",
    "replay_trial",
    "require_going",
    "trial",
    "trial_gate",
]

PLAN = "plan"
"""The gate before canary that a plan settles."""


# What a record of readiness speaks about and cannot foresee.
_UPSETS = frozenset(
    kind.kind()
    for kind in (
        CandidateManifest,
        ChampionPromotion,
        EvaluatorChange,
        Policy,
        Revocation,
        RollbackRecord,
        Root,
        SuitesLock,
        Tombstone,
    )
)


class Trial(NamedTuple):
    """A trial as the ledger tells it.

    Attributes:
        channel: Where it runs.
        digest: Digest of its plan.
        plan: The plan.
        controller: After everything that was seen.
        segments: Digests of its segments, oldest first.
        halt: Digest and record of the halt that stands, or None.
    """

    channel: Literal["shadow", "canary"]
    digest: str
    plan: CanaryPlan
    controller: Controller
    segments: tuple[str, ...]
    halt: tuple[str, Halt] | None


def trial(desk: Desk, channel: Literal["shadow", "canary"]) -> Trial | None:
    """The trial of what a channel points at; None where it has no plan, or is the champion by now.

    Raises:
        StudbookError: any of its kinds, if what it saw is not in order.
    """
    state = desk.channels()[channel]
    if state.artifact is None or state.record is None or state.artifact == desk.channels()["champion"].artifact:
        return None
    found = _of_canary(desk, state.record) if channel == "canary" else _of_shadow(desk, state.record, state.artifact)
    return replay_trial(desk, found) if found else None


def replay_trial(desk: Desk, digest: str) -> Trial:
    """A trial from its plan on, whether its channel still points there or not.

    Raises:
        StudbookError: any of its kinds, if what it saw is not in order.
    """
    plan = desk.workspace.get(digest, CanaryPlan)
    controller, segments, halt = Controller(plan, digest), [], None
    for named, record in _papers(desk):
        if isinstance(record, CanarySegment) and record.plan == digest:
            for seen in record.observations:
                controller.observe(seen)
            controller.wait(record.until)
            segments.append(named)
        elif isinstance(record, Halt) and record.plan == digest:
            controller.halt(record.code)
            halt = named, record
        elif isinstance(record, Resumption) and halt and record.halt == halt[0]:
            controller.resume()
            halt = None
    return Trial(plan.channel, digest, plan, controller, tuple(segments), halt)


def trial_gate(desk: Desk, artifact: str) -> Gate:
    """Whether the trial of a candidate in canary found it ready, and nothing came after."""
    state = desk.channels()["canary"]
    try:
        found = trial(desk, "canary") if state.artifact == artifact else None
    except StudbookError as error:
        return gate("trial", False, state.record, "release", f"cannot be replayed: {error.message}")
    if found is None:
        return gate("trial", None, None, "release", "has no trial in canary")
    if standing(desk, artifact) != state.record:
        return gate("trial", None, state.record, "release", "moved since its trial; a new one takes a new plan")
    controller, evidence = found.controller, found.segments[-1] if found.segments else found.digest
    seen = f"{controller.requests} requests and {controller.probes} probes at step {controller.step}"
    if controller.halted and controller.halted not in FINAL:
        return gate("trial", False, evidence, "release", f"is halted after {seen}: {controller.halted}")
    if not controller.ready:
        return gate("trial", None, None, "release", f"is not ready after {seen}")
    return gate("trial", True, evidence, "release", f"found it ready after {seen}")


def open_stop(desk: Desk) -> tuple[str, Halt] | None:
    """The stop of everything that stands, or None."""
    resumed = {r.halt for _, r in desk.all(Resumption)}
    return next(((d, h) for d, h in desk.all(Halt) if h.act == "stop" and d not in resumed), None)


def require_going(desk: Desk) -> None:
    """Refuse while everything is stopped.

    Raises:
        OutOfOrder: ``order.stopped``.
    """
    if found := open_stop(desk):
        raise OutOfOrder(
            f"everything was stopped by {found[1].raised_by}: {found[1].reason or found[1].code}",
            where="halt",
            advice="A person lets it go on: studbook resume --as NAME. Rollbacks are possible meanwhile.",
            reason="order.stopped",
        )


def current_readiness(desk: Desk) -> str:
    """Digest of the newest record of readiness, if the lab was ready and is still what it speaks about.

    It is not after another candidate, champion, policy, root of keys, judge, revocation or withdrawal.

    Raises:
        OutOfOrder: ``order.readiness``.
    """
    found = list(desk.unrevoked(ReadinessRecord))
    advice = "Run the exit criteria again: studbook ready"
    if not found or not found[-1][1].ready:
        text = "the lab was not found ready" if found else "nobody looked whether the lab is ready"
        raise OutOfOrder(text, where="readiness", advice=advice, reason="order.readiness")
    digest, record = found[-1]
    upset = next((e for e in desk.entries()[record.entries :] if e.record_kind in _UPSETS), None)
    if upset is not None:
        text = f"the lab was ready, and {upset.record_kind} came after"
        raise OutOfOrder(text, where="readiness", advice=advice, reason="order.readiness")
    return digest


def check_segment(desk: Desk, record: CanarySegment) -> None:
    """A segment follows the one before it, of a trial that runs, and its observations are in order.

    Args:
        desk: The lab as it was before the segment.
        record: The segment.

    Raises:
        DigestDiffers: if it does not; ``canary.segment``.
        OutOfOrder: naming the observation that is not the next one.
    """
    plan = desk.workspace.get(record.plan, CanaryPlan)
    found = trial(desk, plan.channel)
    if found is None or found.digest != record.plan or found.halt is not None:
        advice = "Look who holds the key that signed it; take what it says for nothing."
        raise DigestDiffers(
            "is of no trial that runs", where="canary-segment: plan", advice=advice, reason="canary.segment"
        )
    last = found.segments[-1] if found.segments else None
    require(
        "canary-segment",
        {"part": (record.part, len(found.segments)), "previous": (record.previous, last)},
        "canary.segment",
    )
    for seen in record.observations:
        found.controller.observe(seen)
    found.controller.wait(record.until)


def _of_canary(desk: Desk, move: str) -> str | None:
    """The plan that a release to canary was let in with; of a state that a rollback put back, none."""
    entry = desk.workspace.entry(move)
    if entry is None or entry.record_kind != ReleaseRecord.kind():
        return None
    admission = desk.workspace.get(desk.workspace.get(move, ReleaseRecord).admission, AdmissionRecord)
    template = desk.workspace.get(admission.template, PromotionTemplate)
    return next((g.evidence for g in template.gates if g.name == PLAN), None)


def _of_shadow(desk: Desk, move: str, artifact: str) -> str | None:
    """The newest plan for shadow that was registered since a candidate stands there."""
    since = desk.workspace.entry(move)
    assert since is not None
    found = None
    for digest, plan in desk.unrevoked(CanaryPlan):
        entry = desk.workspace.entry(digest)
        if entry and entry.sequence > since.sequence and (plan.channel, plan.candidate) == ("shadow", artifact):
            found = digest
    return found


def _papers(desk: Desk) -> list[tuple[str, Record]]:
    """Every segment, halt and resumption, in the order of the ledger."""
    kinds: dict[str, type[Record]] = {k.kind(): k for k in (CanarySegment, Halt, Resumption)}
    held = (e for e in desk.entries() if e.record_kind in kinds and not desk.workspace.void(e))
    return [(e.record, desk.workspace.get(e.record, kinds[e.record_kind])) for e in held]
