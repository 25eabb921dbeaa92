"""How a model is asked, and the account every arrangement of several models keeps while it asks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from studbook.errors import StudbookError, UsageError
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.models.sampling import GREEDY
from studbook.models.tokenizers import EOS
from studbook.records import RouteCost, RouteStep

__all__ = ["Account", "Answer", "EngineRunner", "Limits", "Run", "Runner", "active_bytes", "answer_sha256"]


class Limits(NamedTuple):
    """What one call, or a whole arrangement of calls, may take.

    Attributes:
        tokens: Most tokens written.
        fuel: Most fuel burnt; None where it is not counted.
    """

    tokens: int
    fuel: int | None = None


class Answer(NamedTuple):
    """What a model said.

    Attributes:
        text: Its answer.
        ids: The tokens it wrote, an end token included.
        mean_logprob: Mean natural log-probability of these tokens; None where there is none.
        tokens: How many it wrote.
        fuel: Fuel burnt; None where it was not counted.
        prompt_tokens: Tokens it read.
    """

    text: str
    ids: tuple[int, ...]
    mean_logprob: float | None
    tokens: int
    fuel: int | None
    prompt_tokens: int = 0


class Runner(Protocol):
    """Whatever asks models: engines side by side, or the modules of a resident set."""

    @property
    def engine(self) -> str:
        """Digest of the engine that runs them."""
        ...

    def run(self, revision: str, prompt: str, limits: Limits) -> Answer:
        """Ask the model of a package once, greedily.

        Raises:
            StudbookError: any of its kinds, if it cannot answer.
        """
        ...


class Run(NamedTuple):
    """What an arrangement of models came to.

    Attributes:
        text: The answer; None where there is none.
        selected: Revision whose answer it is; None where there is none.
        reason: Why it ended so.
        steps: Everyone that was asked, in order.
        cost: What all of it took.
    """

    text: str | None
    selected: str | None
    reason: str
    steps: tuple[RouteStep, ...]
    cost: RouteCost


class Account:
    """Asks models one after another within one budget, and writes down every step.

    Args:
        runner: Who asks them.
        limits: What all of them together may take.
        bytes_of: Revision -> decoded bytes it has active.
    """

    def __init__(self, runner: Runner, limits: Limits, bytes_of: Mapping[str, int]) -> None:
        self._runner, self._limits, self._bytes = runner, limits, bytes_of
        self.steps: list[RouteStep] = []
        self._tokens = self._prompt_tokens = self._fuel = 0
        self._counted = True

    @property
    def spent(self) -> bool:
        """Whether nothing is left of the budget."""
        used_up = self._limits.fuel is not None and self._fuel >= self._limits.fuel
        return self._tokens >= self._limits.tokens or used_up

    def ask(self, revision: str, prompt: str, tokens: int) -> Answer | StudbookError:
        """Ask one model for at most so many tokens, and at most what is left; an error of ours is returned, not raised.

        Fuel is looked at between two models: a call is bounded by its tokens.
        """
        left = None if self._limits.fuel is None else max(0, self._limits.fuel - self._fuel)
        try:
            found = self._runner.run(revision, prompt, Limits(min(tokens, self._limits.tokens - self._tokens), left))
        except StudbookError as error:
            self.note(revision, None, None, error.reason)
            return error
        self._tokens += found.tokens
        self._prompt_tokens += found.prompt_tokens
        self._counted = self._counted and found.fuel is not None
        self._fuel += found.fuel or 0
        return found

    def note(self, revision: str, answer: Answer | None, confidence: float | None, reason: str) -> None:
        """Write down how a step ended."""
        self.steps.append(
            RouteStep(
                revision=revision,
                answer=answer_sha256(answer.text) if answer else None,
                mean_logprob=answer.mean_logprob if answer else None,
                confidence=confidence,
                tokens=answer.tokens if answer else 0,
                fuel=answer.fuel if answer else None,
                reason=reason,
            )
        )

    def close(self, text: str | None, selected: str | None, reason: str, active: int | None = None) -> Run:
        """The whole of it.

        Args:
            text: The answer.
            selected: Whose it is.
            reason: Why it ended so.
            active: Decoded bytes active at once; the largest of those that were asked by default.
        """
        most = max((self._bytes.get(step.revision, 0) for step in self.steps), default=0)
        cost = RouteCost(
            active_bytes=most if active is None else active,
            prompt_tokens=self._prompt_tokens,
            tokens=self._tokens,
            fuel=self._fuel if self._counted and self.steps else None,
        )
        return Run(text, selected, reason, tuple(self.steps), cost)


class EngineRunner:
    """Asks models that lie open in engines, one engine a revision; not for several threads at once.

    Args:
        engines: Revision -> its engine.
        fuel: Whether the engines count fuel.
    """

    def __init__(self, engines: Mapping[str, Engine], *, fuel: bool = False) -> None:
        self._engines, self._metered = dict(engines), fuel

    @property
    def engine(self) -> str:
        """Digest of the engine."""
        return ENGINE_SHA256

    def run(self, revision: str, prompt: str, limits: Limits) -> Answer:
        """See `Runner.run`; the log-probability is that of the written tokens, scored by the same engine.

        Raises:
            UsageError: if there is no engine for it (``route.revision``), or the prompt is longer than its context.
            BytesLie: if what it wrote is no text.
        """
        engine = self._engines.get(revision)
        if engine is None:
            advice = "Activate its package first."
            raise UsageError(
                "no engine holds this revision", where=revision[:16], reason="route.revision", advice=advice
            )
        before = engine.fuel_used if self._metered else None
        ids = engine.encode(prompt, bos=True, eos=False)
        written = engine.generate([ids], limits.tokens, GREEDY, EOS)[0]
        mean = float(engine.score([(ids, written)]).loglik[0]) / len(written) if written else None
        fuel = engine.fuel_used - before if before is not None else None
        return Answer(engine.decode_text(written), tuple(written), mean, len(written), fuel, len(ids))


def answer_sha256(text: str) -> str:
    """SHA-256 of an answer in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def active_bytes(revisions: Sequence[str], bytes_of: Mapping[str, int]) -> int:
    """Decoded bytes of several revisions together, each counted once."""
    return sum(bytes_of.get(revision, 0) for revision in dict.fromkeys(revisions))
