"""The cascade: a cheap model first, a dearer one only where its calibrated confidence is too low; bounded in every way.

After the last stage, the last escalation or the budget, the answer with the highest confidence that was seen is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studbook.errors import DigestDiffers, StudbookError, UsageError
from studbook.records import RouteThreshold
from studbook.runtime.routing.running import Account, Answer, Limits, Run, Runner
from studbook.runtime.routing.thresholds import confidence

__all__ = ["MAX_STAGES", "CascadePlan", "CascadeStage", "cascade", "check_cascade"]

MAX_STAGES = 8
"""Most models of one cascade."""


class CascadeStage(NamedTuple):
    """One model of a cascade.

    Attributes:
        revision: Its package's revision.
        artifact: Digest of its model, which the threshold is bound to.
        threshold: When its answer stands; the last stage may have one too, so that answers can be compared.
    """

    revision: str
    artifact: str
    threshold: RouteThreshold


class CascadePlan(NamedTuple):
    """Who is asked in which order, and how far it may go.

    Attributes:
        stages: Cheapest first.
        escalations: Most steps from one stage to the next.
        answer_tokens: Most tokens of one answer.
        limits: What all answers together may take.
        held: Revision whose answer to this conversation stood last; it keeps it down to its threshold's lower end.
    """

    stages: Sequence[CascadeStage]
    escalations: int
    answer_tokens: int
    limits: Limits
    held: str | None = None


def check_cascade(plan: CascadePlan, engine: str) -> None:
    """Refuse a plan without bounds, or with a threshold that was measured with something else.

    Raises:
        UsageError: for no stages or too many, a stage twice, or bounds that are none; ``route.cascade``.
        DigestDiffers: for a threshold of another engine or model; ``route.threshold``.
    """
    count = len({stage.revision for stage in plan.stages})
    if not 1 <= count == len(plan.stages) <= MAX_STAGES:
        text = f"{len(plan.stages)} stages; 1 to {MAX_STAGES}, each revision once"
        raise UsageError(text, reason="route.cascade", advice="Name each model once, the cheapest first.")
    if plan.escalations < 0 or plan.answer_tokens < 1 or plan.limits.tokens < 1:
        text = "a bound is missing: escalations from 0, tokens from 1"
        raise UsageError(text, reason="route.cascade", advice="Say how far the cascade may go.")
    for number, stage in enumerate(plan.stages):
        bound = stage.threshold.purpose, stage.threshold.engine, stage.threshold.model
        if bound != ("confidence", engine, stage.artifact):
            raise DigestDiffers(
                "its threshold was measured with another engine or model",
                where=f"cascade stage {number}",
                reason="route.threshold",
                advice="Calibrate this model's confidence again with the engine in force.",
            )


def cascade(plan: CascadePlan, prompt: str, runner: Runner, bytes_of: Mapping[str, int]) -> Run:
    """Ask one model after another until an answer stands.

    Args:
        plan: Stages and bounds.
        prompt: The text.
        runner: Who asks.
        bytes_of: Revision -> decoded bytes.

    Returns:
        The answer that stood, or the best that was seen; without any, ``reason`` is that of the last failure.

    Raises:
        StudbookError: as `check_cascade`.
    """
    check_cascade(plan, runner.engine)
    account = Account(runner, plan.limits, bytes_of)
    best: tuple[float, str, str] | None = None
    reason = "route.escalations"
    for stage in plan.stages[: plan.escalations + 1]:
        if account.spent:
            reason = "route.budget"
            break
        found = account.ask(stage.revision, prompt, plan.answer_tokens)
        if isinstance(found, StudbookError):
            continue
        sure = confidence(stage.threshold, found.mean_logprob)
        if _stands(stage, sure, plan.held):
            account.note(stage.revision, found, sure, "route.accepted")
            return account.close(found.text, stage.revision, "route.accepted")
        account.note(stage.revision, found, sure, "route.unsure")
        best = _better(best, sure, stage.revision, found)
    if best is None:
        return account.close(None, None, account.steps[-1].reason if account.steps else reason)
    return account.close(best[2], best[1], "route.best-seen" if reason == "route.escalations" else reason)


def _stands(stage: CascadeStage, sure: float, held: str | None) -> bool:
    return sure >= (stage.threshold.low if stage.revision == held else stage.threshold.value)


def _better(best: tuple[float, str, str] | None, sure: float, revision: str, found: Answer) -> tuple[float, str, str]:
    """The surer of two answers; the later, dearer one where both are as sure."""
    return best if best is not None and best[0] > sure else (sure, revision, found.text)
