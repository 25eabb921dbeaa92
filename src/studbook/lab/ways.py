"""Within one channel: which installed package answers a request, or the channel's own model where no router leads.

A way is made of a deployment and looks at the lab once, when it is made: `choose` only computes. Models are keyed by their
file, so packages of one file are one model; nothing that has adapters on it is served.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from studbook.errors import OutOfOrder, StudbookError, TokenizerRefused
from studbook.lab.approvals import require_unrevoked
from studbook.lab.desk import Desk
from studbook.lab.package_host import contents
from studbook.lab.residence import served_model, served_package
from studbook.lab.segments import keep_segments, open_log, open_router
from studbook.lab.specialists import OWN, TASK, Specialists, specialists
from studbook.models.slm import read_slm
from studbook.models.tokenizers import Tokenizer
from studbook.records import Deployment, RouteCost, RouteRecord, RouteStep, replace
from studbook.runtime.routelog import RouteLog
from studbook.runtime.routing.router import Candidate, Router, RouteRequest
from studbook.runtime.routing.rules import REACH
from studbook.runtime.routing.tell import route_record
from studbook.runtime.serve import Asked, Model, Outcome

__all__ = ["Chosen", "Way", "Ways"]


class Chosen(NamedTuple):
    """Who answers a request.

    Attributes:
        revision: The model, as `Way.models` names it.
        record: The decision; None where there is no router.
    """

    revision: str
    record: RouteRecord | None


class Way:
    """Who answers within one channel.

    Args:
        desk: The lab.
        artifact: Digest of the channel's own model.
        deployment: What it is deployed with.
        log: Where decisions are entered; None enters none.
        keep_prompts: Whether the log keeps what was asked.

    Attributes:
        own: Revision of the channel's own model.

    Raises:
        OutOfOrder: if it was revoked, or is deployed with adapters on it (``serve.stack``) or with a router that asks a
            sentence encoder (``serve.encoder``).
        UsageError: if it is no SLM1 model; ``serve.format``.
        StudbookError: any of its kinds, if the model or the router is not here, or not as it was.
    """

    def __init__(
        self, desk: Desk, artifact: str, deployment: Deployment, log: RouteLog | None, *, keep_prompts: bool = False
    ) -> None:
        self._log, self._header, self._keep = log, desk.header, keep_prompts
        self._own, self.own = _own(desk, artifact, deployment), artifact
        self._me = deployment.package or artifact
        self._models = {self.own: self._own}
        self._keys = {self._me: self.own}
        self._router: Router | None = None
        self._partition: str | None = None
        self._candidates: tuple[Candidate, ...] = ()
        if deployment.router is not None:
            self._router = open_router(desk, deployment.router, deployment.thresholds)
            if not self._router.reads:
                text = "its router asks a sentence encoder, and the server runs none"
                advice = "Release it with a router of n-grams: studbook routes learn"
                raise OutOfOrder(text, where=desk.name_of(artifact), advice=advice, reason="serve.encoder")
            fallback = self._router.known.state.fallback
            model = read_slm(self._own.artifact.path)
            self._tokenizer: Tokenizer = model.tokenizer
            self._load(desk, specialists(desk, fallback))
            if fallback == OWN:
                self._candidates += (Candidate(OWN, self._me, (), model.shape.decoded_bytes),)
        self._ready: tuple[Candidate, ...] = self._candidates
        self._costs = {c.revision: c.cost for c in self._candidates}

    def models(self) -> tuple[Model, ...]:
        """Every model that `choose` may name, the channel's own first."""
        return tuple(self._models.values())

    def hold(self, revisions: Collection[str]) -> None:
        """From now on only these models are in memory: what needs another one is left out, until it is held.

        Args:
            revisions: Models as `models` names them; the channel's own answers in any case.
        """
        self._ready = tuple(
            c
            if not c.eligible or c.id == OWN or self._keys[c.revision] in revisions
            else c._replace(eligible=False, why="package.absent")
            for c in self._candidates
        )

    def choose(self, asked: Asked) -> Chosen:
        """Who answers; computes only, and changes nothing.

        Where the router refuses, because what its state names as a fallback may not answer, the channel's own model does.
        """
        router = self._router
        if router is None:
            return Chosen(self.own, None)
        request = RouteRequest(self._text(asked.wanted.prompt), permissions=TASK)
        decision = router.route(request, self._ready)
        record = route_record(
            self._header, router, request, decision, keep_prompt=self._keep, partition=self._partition
        )
        return Chosen(self._keys[decision.selected] if decision.selected else self.own, record)

    def ended(self, chosen: Chosen, outcome: Outcome) -> None:
        """Enter what was chosen and what became of it; it is on disk before this returns.

        Raises:
            StudbookError: if the log is closed, or the disk refuses the line.
        """
        if chosen.record is None or self._log is None:
            return
        ran = chosen.record.selected or self._me
        self._log.append(_finished(chosen.record, ran, outcome, self._costs.get(ran, 0)))

    def _load(self, desk: Desk, standing: Specialists) -> None:
        """Read the packages that may answer; one whose bytes are not those that were installed may not."""
        found: list[Candidate] = []
        for candidate in standing.candidates:
            if held := standing.usable.get(candidate.revision):
                try:
                    contents(desk, held.revision, held.folder)
                except StudbookError as error:
                    found.append(candidate._replace(eligible=False, why=error.reason))
                    continue
                model = served_package(desk, held)
                self._models.setdefault(model.revision, model)
                self._keys[held.revision] = model.revision
            found.append(candidate)
        self._candidates, self._partition = tuple(found), standing.partition

    def _text(self, prompt: str | tuple[int, ...]) -> str:
        """A prompt as text; of many token ids, as much as a router looks at."""
        if isinstance(prompt, str):
            return prompt
        ids = prompt if len(prompt) <= 2 * REACH else prompt[:REACH] + prompt[-REACH:]
        return b"".join(map(self._piece, ids)).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        try:
            return self._tokenizer.piece(token)
        except TokenizerRefused:
            # No model answers it; which one says so does not matter.
            return b"?"


class Ways:
    """Every way of a server, and the one log they share; it is opened when the first router is.

    Args:
        desk: The lab, opened for writing.
        keep_prompts: Whether the log keeps what was asked.
    """

    def __init__(self, desk: Desk, *, keep_prompts: bool = False) -> None:
        self._desk, self._keep = desk, keep_prompts
        self._log: RouteLog | None = None

    def way(self, artifact: str, deployment: Deployment) -> Way:
        """The way within a channel; see `Way`."""
        if deployment.router is not None and self._log is None:
            self._log = open_log(self._desk)
        return Way(self._desk, artifact, deployment, self._log, keep_prompts=self._keep)

    def look(self) -> None:
        """Seal what is due; to be called about once a second."""
        if self._log is not None:
            self._log.tick()

    def close(self) -> None:
        """Seal the log and enter it into the ledger."""
        if self._log is not None:
            self._log.close()
            keep_segments(self._desk)


def _finished(record: RouteRecord, ran: str, outcome: Outcome, active: int) -> RouteRecord:
    answer, failure = outcome.said or None, outcome.failure or None
    step = RouteStep(
        revision=ran,
        answer=answer,
        mean_logprob=None,
        confidence=None,
        tokens=outcome.tokens,
        fuel=None,
        reason=failure or "route.answered",
    )
    cost = RouteCost(active_bytes=active, prompt_tokens=outcome.prompt_tokens, tokens=outcome.tokens, fuel=None)
    outcome_of = "failed" if failure else "answered"
    found: RouteRecord = replace(
        record, steps=(step,), observed=cost, outcome=outcome_of, failure=failure, answer=answer
    )
    return found


def _own(desk: Desk, artifact: str, deployment: Deployment) -> Model:
    require_unrevoked(desk, artifact)
    if deployment.stack:
        text = "is deployed with adapters on it, and files are served as they are"
        advice = "Package it without them and release that: studbook package make"
        raise OutOfOrder(text, where=desk.name_of(artifact), advice=advice, reason="serve.stack")
    states = desk.channels().values()
    moved = next((s.record for s in states if (s.artifact, s.deployment) == (artifact, deployment)), None)
    return served_model(desk, artifact, moved or "")
