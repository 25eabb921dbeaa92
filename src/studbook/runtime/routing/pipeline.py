"""The pipeline: what one model writes is what the next one reads; checked when planned, stopped at the first failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from studbook.errors import StudbookError, UsageError
from studbook.records import JsonObject
from studbook.runtime.routing.running import Account, Limits, Run, Runner
from studbook.runtime.schemas import feeds
from studbook.schemas import check_schema, fits

__all__ = ["MAX_STAGES", "PipelinePlan", "PipelineStage", "check_pipeline", "pipeline"]

MAX_STAGES = 8
"""Most models of one pipeline."""
_PLACE = "{}"
_LONGEST_FRAME = 1000


class PipelineStage(NamedTuple):
    """One model of a pipeline.

    Attributes:
        revision: Its package's revision.
        input: JSON Schema of the text it is given.
        output: JSON Schema of the text it writes.
        frame: Its prompt, with ``{}`` once, where the text goes.
        tokens: Most tokens it may write.
    """

    revision: str
    input: JsonObject
    output: JsonObject
    frame: str = _PLACE
    tokens: int = 64


class PipelinePlan(NamedTuple):
    """Models in order.

    Attributes:
        stages: The first is given the request.
        limits: What all of them together may take.
    """

    stages: Sequence[PipelineStage]
    limits: Limits


def check_pipeline(plan: PipelinePlan) -> None:
    """Refuse a plan before anything runs: too long, no schemas, or a stage that writes what the next may not read.

    Raises:
        UsageError: ``route.pipeline`` for its form, ``route.types`` for a pair of stages that do not fit.
        RecordRefused: if a schema is none.
    """
    if not 1 <= len(plan.stages) <= MAX_STAGES or plan.limits.tokens < 1:
        text = f"{len(plan.stages)} stages; 1 to {MAX_STAGES}, and at least one token"
        raise UsageError(text, reason="route.pipeline", advice="Name the models in order and a budget of tokens.")
    for number, stage in enumerate(plan.stages):
        where = f"pipeline stage {number}"
        check_schema(stage.input, f"{where}: input")
        check_schema(stage.output, f"{where}: output")
        if stage.frame.count(_PLACE) != 1 or len(stage.frame) > _LONGEST_FRAME or stage.tokens < 1:
            text = "its frame does not hold {} once, is too long, or it may write nothing"
            raise UsageError(
                text, where=where, reason="route.pipeline", advice="Write the prompt with {} for the text."
            )
    for number, (before, after) in enumerate(zip(plan.stages, plan.stages[1:], strict=False), 1):
        if why := feeds(before.output, after.input):
            advice = "Put a stage between them, or state both schemas in the same words."
            raise UsageError(why, where=f"pipeline stage {number}: input", reason="route.types", advice=advice)


def pipeline(plan: PipelinePlan, prompt: str, runner: Runner, bytes_of: Mapping[str, int]) -> Run:
    """Ask every model in order; the last one's text is the answer.

    Args:
        plan: Stages and budget.
        prompt: The request, which the first input schema has to allow.
        runner: Who asks.
        bytes_of: Revision -> decoded bytes.

    Returns:
        The answer, or none with the reason of the failure: ``route.input``, ``route.output``, ``route.budget``, or that
        of the model.

    Raises:
        StudbookError: as `check_pipeline`.
    """
    check_pipeline(plan)
    account = Account(runner, plan.limits, bytes_of)
    text = prompt
    if not fits(plan.stages[0].input, text):
        return account.close(None, None, "route.input")
    for stage in plan.stages:
        if account.spent:
            return account.close(None, None, "route.budget")
        found = account.ask(stage.revision, stage.frame.replace(_PLACE, text), stage.tokens)
        if isinstance(found, StudbookError):
            return account.close(None, None, found.reason)
        if not fits(stage.output, found.text):
            account.note(stage.revision, found, None, "route.output")
            return account.close(None, None, "route.output")
        account.note(stage.revision, found, None, "route.passed")
        text = found.text
    return account.close(text, plan.stages[-1].revision, "route.passed")
