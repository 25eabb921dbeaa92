"""A decision as a record, and the same decision derived again from it."""

from __future__ import annotations

import re
from typing import NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.records import Header, RouteCandidate, RouteRecord, replace
from studbook.records.routes import How
from studbook.runtime.routing.router import Candidate, Decision, Router, RouteRequest, decide, request_sha256
from studbook.runtime.routing.rules import first_rule
from studbook.runtime.routing.running import Run, answer_sha256

__all__ = ["ZERO", "Replayed", "arranged", "finished", "replay", "route_record"]

ZERO = "0" * 64
"""What the first line of the first segment follows."""
_LONGEST_PROMPT = 65536
# What no record can hold: control characters, line separators and direction overrides.
_UNKEPT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Replayed(NamedTuple):
    """What a replay came to.

    Attributes:
        depth: ``prompt`` where scores were computed again from the prompt, ``scores`` where the recorded ones were taken.
        selected: The revision that is chosen, or None.
    """

    depth: str
    selected: str | None


def route_record(
    header: Header,
    router: Router,
    request: RouteRequest,
    decision: Decision,
    *,
    keep_prompt: bool,
    partition: str | None = None,
) -> RouteRecord:
    """A decision as a record that nothing was run for yet; the log gives it its place.

    Args:
        header: The header of the record.
        router: Who decided.
        request: What was asked.
        decision: What was decided.
        keep_prompt: Whether the record holds the prompt; one that no record can hold is left out in any case.
        partition: Digest of the expert partition the candidates come from.
    """
    prompt = request.prompt
    kept = keep_prompt and len(prompt) <= _LONGEST_PROMPT and not _UNKEPT.search(prompt)
    return RouteRecord(
        header=header,
        sequence=0,
        previous=ZERO,
        state=router.known.digest,
        threshold=router.threshold_digest,
        request=request_sha256(prompt),
        prompt=prompt if kept else None,
        budget=request.budget,
        permissions=tuple(sorted(set(request.permissions))),
        held=request.held,
        candidates=decision.candidates,
        how=decision.how,
        rule=decision.rule,
        selected=decision.selected,
        margin=decision.margin,
        ties=decision.ties,
        reason=decision.reason,
        steps=(),
        estimated=decision.estimated,
        observed=None,
        outcome="failed" if decision.selected is None else "routed",
        failure=decision.reason if decision.selected is None else None,
        answer=None,
        fallback=decision.fallback,
        partition=partition,
        evidence=None,
    )


def finished(record: RouteRecord, run: Run) -> RouteRecord:
    """The record with what became of it: every model that ran, what it cost, and the answer or the failure."""
    failed = run.text is None
    found: RouteRecord = replace(
        record,
        steps=run.steps,
        observed=run.cost,
        outcome="failed" if failed else "answered",
        failure=run.reason if failed else None,
        answer=None if run.text is None else answer_sha256(run.text),
    )
    return found


def arranged(record: RouteRecord, how: How, run: Run, estimated: int, evidence: str | None = None) -> RouteRecord:
    """The record of a request that several models answered: who spoke in the end, and why.

    Args:
        record: The decision that came before; its choice is replaced by the arrangement's.
        how: ``cascade``, ``pipeline``, ``committee`` or ``stack``.
        run: What the arrangement came to.
        estimated: Decoded bytes it was expected to have active.
        evidence: Digest of the record that allowed models side by side.
    """
    changes = {"how": how, "selected": run.selected, "reason": run.reason, "estimated": estimated, "evidence": evidence}
    found: RouteRecord = replace(finished(record, run), **changes)
    return found


def replay(record: RouteRecord, router: Router, prompt: str | None = None) -> Replayed:
    """Derive a choice again from its record and the router's state.

    Where the prompt is at hand, in the record or given, scores and rule are computed from it and must be those that were
    recorded, bit for bit; the choice always is. A router whose sentence encoder is not open computes the rule alone.

    Args:
        record: The record of one specialist's choice.
        router: The state and threshold it names. Scores of a sentence encoder come out alike on the machine that wrote
            them; another one may differ in a few, which is then said.
        prompt: The prompt, where the record does not hold it.

    Raises:
        DigestDiffers: if state, threshold or prompt are others (``route.replay-state``, ``route.replay-prompt``), or the
            choice, its scores or its reason come out otherwise (``route.replay``).
        OutOfOrder: if several models answered: their choice follows from what they said; ``route.replay-kind``.
    """
    if record.how not in ("rule", "ngrams", "sentences", "fallback", "refused"):
        text = f"a {record.how} is decided by what its models say, which a record of the choice does not hold"
        raise OutOfOrder(
            text, reason="route.replay-kind", advice="Run the request again, greedily, on the same revisions."
        )
    if (record.state, record.threshold) != (router.known.digest, router.threshold_digest):
        advice = "Open the state and the threshold that the record names."
        raise DigestDiffers("was decided with another state or threshold", reason="route.replay-state", advice=advice)
    text_asked = prompt if prompt is not None else record.prompt
    if text_asked is not None and request_sha256(text_asked) != record.request:
        advice = "Give the prompt as it was asked."
        raise DigestDiffers("is not the prompt of this record", reason="route.replay-prompt", advice=advice)
    if record.rule is not None and record.rule >= len(router.known.state.rules):
        text, advice = f"names rule {record.rule}, and there is none", "The record was changed; verify the log."
        raise DigestDiffers(text, where=f"route {record.sequence}", reason="route.replay", advice=advice)
    fit = [_candidate(c) for c in record.candidates]
    request = RouteRequest(text_asked or "", held=record.held)
    if text_asked is not None and router.reads:
        found, depth = router.route(request, fit), "prompt"
    else:
        scored = {c.id: c.score for c in record.candidates if c.score is not None}
        rule = record.rule if text_asked is None else first_rule(router.known.state.rules, text_asked)
        found, depth = decide(router, request, fit, scored, rule), "scores"
    if depth == "prompt" and router.encoder is not None:
        _same_scores(record, found)
    _same(record, found)
    return Replayed(depth, found.selected)


def _candidate(told: RouteCandidate) -> Candidate:
    """A candidate as it stood: what was excluded stays so, for the reason that was given."""
    return Candidate(told.id, told.revision, told.clusters, told.cost, told.excluded is None, told.excluded or "")


def _same_scores(record: RouteRecord, found: Decision) -> None:
    """Scores of a sentence encoder, the one thing here that another machine may compute otherwise, are told by name."""
    pairs = zip(record.candidates, found.candidates, strict=True)
    if others := [f"{told.id} {new.score!r} and not {told.score!r}" for told, new in pairs if told.score != new.score]:
        raise DigestDiffers(
            f"scores come out otherwise: {', '.join(others)}",
            where=f"route {record.sequence}",
            reason="route.replay",
            advice=f"It was decided on {record.header.environment}. Replay it there, or from the recorded scores, without "
            "the encoder; if it is the same machine, the record was changed.",
        )


def _same(record: RouteRecord, found: Decision) -> None:
    for field in ("candidates", "how", "rule", "selected", "margin", "ties", "reason", "estimated", "fallback"):
        if getattr(record, field) != getattr(found, field):
            raise DigestDiffers(
                f"{field} is {getattr(found, field)!r} when derived again, and the record says otherwise",
                where=f"route {record.sequence}",
                reason="route.replay",
                advice="The record was changed, or was not written by this router; verify the log.",
            )
