"""Which model answers a request, what runs beside it, and who is told how both went.

What runs beside an answer has no way to the client: it comes back as an `Outcome`, which holds no text, and goes to the
dispatcher alone.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from studbook.runtime.serve.requests import Asked, Wanted

__all__ = ["Aside", "Champion", "Dispatcher", "Outcome", "Plan"]


class Aside(NamedTuple):
    """A run beside an answer.

    Attributes:
        revision: The model that runs.
        wanted: What it shall write; None for what the request wants.
        expected: The text that would be right; None where nobody knows.
    """

    revision: str
    wanted: Wanted | None = None
    expected: str | None = None


class Plan(NamedTuple):
    """What is done for a request.

    Attributes:
        answering: Revision of the model that answers.
        asides: What runs beside it, after the answer.
        instead: Revision of the model that answers where the first one fails before it wrote anything; empty for none.
    """

    answering: str
    asides: tuple[Aside, ...] = ()
    instead: str = ""


class Outcome(NamedTuple):
    """How a run went; never what it wrote.

    Attributes:
        revision: The model that ran.
        seconds: How long it took; waiting included where a client waited, and not how slowly it read.
        tokens: How many it wrote.
        digest: SHA-256 of the tokens; empty where it failed.
        right: Whether it wrote what was expected; None where nobody knows.
        failure: Reason code of its failure; empty where there was none.
        said: SHA-256 of the text; empty where it failed.
        prompt_tokens: Tokens it read; 0 where it failed.
    """

    revision: str
    seconds: float
    tokens: int = 0
    digest: str = ""
    right: bool | None = None
    failure: str = ""
    said: str = ""
    prompt_tokens: int = 0


class Dispatcher(Protocol):
    """Decides for every request."""

    def dispatch(self, asked: Asked) -> Plan:
        """Who answers, and what runs beside; called in the server's own thread, so it must be quick and must not wait."""

    def answered(self, asked: Asked, answer: Outcome) -> None:
        """How the answer went: called once for every request that was queued, in the house's thread.

        No client is told that its answer is whole before this returns; if it raises, that is logged, and told all the same.
        The answer is that of the model that was asked
        first, also where another one had to answer instead.
        """

    def observe(self, asked: Asked, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        """How all of it went: called once for every request that was dispatched, when it has ended, in the same thread."""


class Champion:
    """One model answers everything.

    Args:
        revision: The model.
    """

    def __init__(self, revision: str) -> None:
        self.revision = revision

    def dispatch(self, asked: Asked) -> Plan:
        """The one model, and nothing beside."""
        return Plan(self.revision)

    def answered(self, asked: Asked, answer: Outcome) -> None:
        """Nothing is kept of it."""

    def observe(self, asked: Asked, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        """Nothing follows from it."""
