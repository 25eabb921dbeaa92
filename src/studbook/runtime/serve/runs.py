"""One run of a model, seen from the event loop: its events as they come, and how it went."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

from studbook.errors import OutOfOrder, StudbookError
from studbook.runtime.serve.dispatch import Aside, Outcome
from studbook.runtime.serve.pool import Pool
from studbook.runtime.serve.requests import Failed, Finished, Text, Wanted
from studbook.runtime.serve.work import Event, Work

__all__ = ["NARROW", "Run"]

NARROW = frozenset(("serve.context", "engine.id"))
"""Failures that are the client's where no model can answer, and the model's where another one can."""


class Run:
    """One run of a model.

    Args:
        pool: Where it runs.
        revision: The model.
        wanted: What it shall write.
        parts: Whether the text is wanted as it grows.
        aside: What it is, where it runs beside an answer.

    Attributes:
        work: What the pool knows of it.
        outcome: How it went; a failure until it has ended.
    """

    def __init__(
        self, pool: Pool, revision: str, wanted: Wanted, *, parts: bool = False, aside: Aside | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[Event, float]] = asyncio.Queue()
        self._pool, self._aside = pool, aside

        def deliver(event: Event) -> None:
            # The loop may have ended when the last workers do.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._queue.put_nowait, (event, time.monotonic()))

        self.work = Work(revision, wanted, pool.limits, deliver, parts=parts, aside=aside is not None)
        self.outcome = Outcome(revision, 0.0, failure="serve.cancelled")
        self._said = hashlib.sha256()

    async def events(self) -> AsyncGenerator[Text | Finished, None]:
        """Parts of the text, and then how it ended; whoever leaves before that cancels the run.

        Raises:
            StudbookError: if it failed.
        """
        event: Event | None = None
        try:
            while not isinstance(event, Finished):
                event, at = await self._queue.get()
                self._look(event, at - self.work.began)
                if isinstance(event, Failed):
                    raise event.error
                yield event
        finally:
            if not isinstance(event, Finished | Failed):
                self._pool.cancel(self.work, OutOfOrder("the client is gone", reason="serve.cancelled"))

    async def finish(self) -> None:
        """Wait until it has ended, whichever way."""
        with suppress(Exception):
            async for _ in self.events():
                pass

    def drop(self) -> None:
        """It was never queued."""
        self.outcome = self.outcome._replace(failure="serve.dropped")

    def stood_in(self) -> None:
        """Another model answers in its place: what it called the client's fault is its own."""
        if self.outcome.failure in NARROW:
            self.outcome = self.outcome._replace(failure="serve.narrow")

    def _look(self, event: Event, seconds: float) -> None:
        if isinstance(event, Text | Finished):
            self._said.update(event.text.encode())
        if isinstance(event, Failed):
            error = event.error
            failure = error.reason if isinstance(error, StudbookError) else type(error).__name__
            self.outcome = self.outcome._replace(seconds=seconds, failure=failure)
        elif isinstance(event, Finished):
            expected = self._aside.expected if self._aside else None
            right = None if expected is None else event.reason == "stop" and event.text == expected
            self.outcome = Outcome(
                self.work.revision,
                seconds,
                event.tokens,
                event.digest,
                right,
                said=self._said.hexdigest(),
                prompt_tokens=event.prompt_tokens,
            )
