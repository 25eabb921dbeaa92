"""Plans of trials: registered before the run, held against the lab, and what has to hold before canary."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

import msgspec

from studbook.errors import OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.frozen import of_role
from studbook.lab.gates import current, manifest_of
from studbook.lab.proposals import proposal_gates
from studbook.lab.stages import approvals_gate, decision_for, hold_gate, standing
from studbook.lab.trials import PLAN, current_readiness, require_going, trial
from studbook.records import CanaryPlan, Detection, Gate, Header, PromotionTemplate, SuiteManifest
from studbook.release import FINAL, ChannelState, gate, simulate_detection, standing_gate

__all__ = ["canary_template", "check_trial_plan", "register_plan"]

_SCORER = "exact-match"
# What people may set; the rest follows from the lab.
_SETTINGS: dict[str, Any] = {
    "steps": [
        {"share": 0.1, "requests": 200, "probes": 20},
        {"share": 0.25, "requests": 600, "probes": 60},
        {"share": 0.5, "requests": 2000, "probes": 200},
    ],
    "limits": {"requests": 6000, "seconds": 7 * 86_400, "tokens": 10_000_000},
    "allowed": 0.02,
    "slow": 2000,
    "window": 250,
    "disagreement": 0.1,
    "patience": 600,
    "page": 7.0,
    "probes": 0.05,
    "critical": [],
}
_SHADOW = {"steps": [{"share": 0.0, "requests": 500, "probes": 50}]}
_FAILING, _SIMULATIONS, _SEED = 2.0, 400, 1


def register_plan(
    desk: Desk, channel: Literal["shadow", "canary"], settings: Mapping[str, Any] | None = None
) -> tuple[str, CanaryPlan]:
    """Register the plan of a trial of what stands in shadow, before it begins.

    Args:
        desk: The lab.
        channel: Where it shall run: mirrored in shadow, or on a cohort in canary.
        settings: What differs from the usual: steps, limits, alpha, allowed, margin, slow, window, disagreement, patience,
            page, probes, critical.

    Returns:
        Its digest and the plan.

    Raises:
        OutOfOrder: if nothing stands in shadow, the lab is not ready, no suite has the role canary, or a trial runs there.
        OverBudget: if it would not find out a failing candidate within its limits; ``canary.power``.
        UsageError: for a setting that there is not, or whose value is not possible.
        DigestDiffers: naming the field that the lab does not carry.
    """
    require_going(desk)
    shadow, policy = desk.channels()["shadow"], desk.policy[1]
    if shadow.artifact is None:
        advice = "Run a round, or release its winner to shadow first."
        raise OutOfOrder("nothing stands in shadow", where="canary-plan", advice=advice, reason="order.shadow")
    chosen = {
        **_SETTINGS,
        **(_SHADOW if channel == "shadow" else {}),
        "alpha": min(0.05, policy.gates.alpha),
        "margin": min(0.05, policy.gates.margin),
    }
    if unknown := sorted(set(settings or {}) - chosen.keys()):
        known = ", ".join(sorted(chosen))
        raise UsageError(f"a plan has no setting {unknown[0]!r}", where="--file", advice=f"Known: {known}.")
    suite = next((s for s in of_role(desk, "canary") if s.manifest.scorer == _SCORER), None)
    if suite is None:
        advice = f"Freeze one with the scorer {_SCORER}: its answers are read from text."
        raise OutOfOrder("no canary suite can be probed with", where="canary-plan: suite", advice=advice)
    plan = _made(desk, channel, shadow, suite.digest, {**chosen, **(settings or {})})
    check_trial_plan(desk, plan)
    return desk.workspace.commit(plan), plan


def _made(desk: Desk, channel: str, shadow: ChannelState, suite: str, chosen: dict[str, Any]) -> CanaryPlan:
    failing = min(0.9, _FAILING * float(chosen["allowed"])) if isinstance(chosen["allowed"], float) else 0.9
    blank = Detection(failing=failing, simulations=_SIMULATIONS, seed=_SEED, half=None, most=None, found=0.0)
    fields = {
        "kind": CanaryPlan.kind(),
        "header": desk.header,
        "channel": channel,
        "candidate": shadow.artifact,
        "champion": desk.champion(),
        "deployment": shadow.deployment,
        "readiness": current_readiness(desk),
        "suite": suite,
        "salt": secrets.token_hex(32),
        "detection": blank,
        **chosen,
    }
    try:
        plan = msgspec.convert(msgspec.to_builtins(fields), CanaryPlan)
    except msgspec.ValidationError as error:
        advice = "Mend the setting; `studbook show` of an earlier plan shows all of them."
        raise UsageError(f"is not a plan: {error}", where="--file", advice=advice, reason="canary.setting") from error
    return msgspec.structs.replace(plan, detection=simulate_detection(plan))


def check_trial_plan(desk: Desk, record: CanaryPlan) -> None:
    """Hold a plan against the lab: its models, readiness, suite and limits, and the detection it registers.

    Args:
        desk: The lab as it is before the plan.
        record: The plan.

    Raises:
        DigestDiffers: naming the field; ``canary.plan``.
        OutOfOrder: if the lab is not ready, or a trial runs in that channel already; ``order.trial``.
        OverBudget: if it would not find out a failing candidate; ``canary.power``.
    """
    channels, policy = desk.channels(), desk.policy[1]
    shadow, suites = channels["shadow"], desk.suites_lock[1].suites
    running = trial(desk, record.channel)
    if (
        channels["canary"].artifact == record.candidate
        if record.channel == "canary"
        else running and not _over(running)
    ):
        advice = "Abort it first: studbook abort"
        raise OutOfOrder("a trial runs there already", where="canary-plan", advice=advice, reason="order.trial")
    probed = desk.workspace.get(record.suite, SuiteManifest)
    facts: dict[str, tuple[object, object]] = {
        "candidate": (record.candidate, shadow.artifact),
        "champion": (record.champion, desk.champion()),
        "deployment": (record.deployment, shadow.deployment),
        "readiness": (record.readiness, current_readiness(desk)),
        "suite": (record.suite in suites and (probed.role, probed.scorer) == ("canary", _SCORER), True),
        "alpha": (record.alpha <= policy.gates.alpha, True),
        "margin": (record.margin <= policy.gates.margin, True),
        "steps": (_steps_hold(record), True),
        "critical": (record.critical, tuple(sorted(set(record.critical)))),
        "detection": (record.detection, simulate_detection(record)),
    }
    require("canary-plan", facts, "canary.plan")
    if record.detection.most is None:
        found = (
            f"a candidate that fails {record.detection.failing:g} would be found out in {record.detection.found:.2f}"
        )
        raise OverBudget(
            f"{found} of trials within {record.limits.requests} requests",
            where="canary-plan: limits.requests",
            advice="Allow more requests: nine of ten have to be found.",
            reason="canary.power",
        )


def canary_template(desk: Desk, header: Header, artifact: str, time: datetime) -> PromotionTemplate:
    """Every gate between shadow and canary.

    Args:
        desk: The lab.
        header: Header of the template.
        artifact: Digest of the candidate.
        time: When, in UTC; how long it was in shadow is counted up to then.

    Raises:
        OutOfOrder: if no decision chose it.
    """
    decision, record = decision_for(desk, artifact)
    channels = desk.channels()
    champion = channels["champion"]
    holds, detail = current(desk, record)
    return PromotionTemplate(
        header=header,
        stage="canary",
        artifact=artifact,
        manifest=manifest_of(record),
        decision=decision,
        gates=(
            standing_gate("shadow", artifact, channels["shadow"]),
            gate("way-back", champion.record is not None, champion.record, "release", "a champion to go back to"),
            gate("decided-against", holds, decision, "decisions", detail),
            _readiness_gate(desk),
            _plan_gate(desk, artifact),
            hold_gate(desk, "canary", artifact, time),
            approvals_gate(desk, "canary", artifact, decision),
            *proposal_gates(desk),
        ),
    )


def _readiness_gate(desk: Desk) -> Gate:
    try:
        return gate("readiness", True, current_readiness(desk), "release", "the five exit criteria hold")
    except StudbookError as error:
        return gate("readiness", None, None, "release", error.message)


def _plan_gate(desk: Desk, artifact: str) -> Gate:
    """Whether a plan was registered since the candidate moved last: no plan serves twice, and none is made up afterwards."""
    moved = desk.workspace.entry(standing(desk, artifact) or "")
    found = [(d, p) for d, p in desk.unrevoked(CanaryPlan) if (p.channel, p.candidate) == ("canary", artifact)]
    digest, plan = found[-1] if found else (None, None)
    entry = desk.workspace.entry(digest) if digest else None
    if plan is None or entry is None or (moved is not None and entry.sequence < moved.sequence):
        return gate(PLAN, None, None, "release", "no plan was registered for it since it moved last")
    channels = desk.channels()
    if (plan.champion, plan.deployment) != (channels["champion"].artifact, channels["shadow"].deployment):
        return gate(PLAN, False, digest, "release", "its plan is beside another champion, or of another deployment")
    return gate(PLAN, True, digest, "release", "its trial has a plan")


def _over(running: Any) -> bool:
    return running.controller.halted in FINAL


def _steps_hold(plan: CanaryPlan) -> bool:
    """Shares and counts rise from step to step and end within the limits; in shadow nobody is answered."""
    steps = plan.steps
    within = steps[-1].requests <= plan.limits.requests
    if plan.channel == "shadow":
        return within and len(steps) == 1 and steps[0].share == 0.0
    rising = all(a.share < b.share and a.requests <= b.requests and a.probes <= b.probes for a, b in pairwise(steps))
    return within and rising and steps[0].share > 0.0
