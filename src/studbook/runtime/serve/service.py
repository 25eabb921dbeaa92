"""The served models as one thing that answers: requests to the dispatcher, works to the pool, outcomes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from studbook.errors import OutOfOrder, UsageError
from studbook.runtime.serve.dispatch import Dispatcher, Plan
from studbook.runtime.serve.metrics import Metrics
from studbook.runtime.serve.pool import Pool, stopping
from studbook.runtime.serve.requests import Asked, Finished, Limits, Model, Text, Wanted
from studbook.runtime.serve.runs import Run

__all__ = ["SERVED", "Answer", "Arrangement", "Service"]

SERVED = "champion"
"""The name under which clients ask, whatever is served."""


class Arrangement(NamedTuple):
    """What is served.

    Attributes:
        models: Every model that the dispatcher may name; the first is the one that clients see.
        dispatcher: Who decides.
    """

    models: tuple[Model, ...]
    dispatcher: Dispatcher


class Answer(NamedTuple):
    """An answer as it comes.

    Attributes:
        revision: The model that answers.
        events: Parts of the text, and then how it ended.
    """

    revision: str
    events: AsyncGenerator[Text | Finished, None]


class Service:
    """Answers requests with the models of an arrangement; lives in one event loop.

    Args:
        limits: The limits.

    Attributes:
        limits: The limits.
        metrics: What is counted.
        stopping: Whether no more requests are taken.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.stopping = False
        self._pool = Pool(limits)
        self._arrangement: Arrangement | None = None
        self._arranging = asyncio.Lock()
        self._number = 0
        self._beside: set[asyncio.Task[None]] = set()

    @property
    def model(self) -> Model:
        """The model that clients see."""
        return self._arranged.models[0]

    @property
    def load(self) -> tuple[int, int]:
        """Requests that wait, and works that are written now."""
        return self._pool.waiting, self._pool.running

    def check_model(self, name: str) -> None:
        """Whether clients may ask for a model by this name.

        Raises:
            UsageError: if they may not.
        """
        if name not in (SERVED, self.model.name, self.model.revision):
            advice = f"Ask for {SERVED!r}; GET /v1/models lists what is served."
            raise UsageError(f"{name!r} is not served here", where="model", reason="serve.model", advice=advice)

    async def arrange(self, wanted: Arrangement) -> None:
        """Serve this from now on; requests that run or wait are finished by the models they were dispatched to.

        Raises:
            StudbookError: if a model does not load; what was served before goes on then.
        """
        async with self._arranging:
            held = {m.revision for m in self._arrangement.models} if self._arrangement else set()
            fresh = [m for m in wanted.models if m.revision not in held]
            try:
                for model in fresh:
                    await self._load(model)
            except BaseException:
                for model in fresh:
                    self._pool.forget(model.revision)
                raise
            self._arrangement = wanted
            for revision in held - {m.revision for m in wanted.models}:
                self._pool.forget(revision)

    def answer(self, wanted: Wanted, *, parts: bool) -> Answer:
        """Begin to answer; the request is queued before this returns.

        Args:
            wanted: What is wanted.
            parts: Whether its text is wanted as it grows.

        Raises:
            OverBudget: if the queue is full; ``serve.full``.
            OutOfOrder: if the server stops.
        """
        if self.stopping:
            raise stopping()
        asked, dispatcher = Asked(self._number, wanted), self._arranged.dispatcher
        plan = dispatcher.dispatch(asked)
        run = Run(self._pool, plan.answering, wanted, parts=parts)
        self._pool.submit(run.work)
        self._number += 1
        return Answer(plan.answering, self._follow(asked, dispatcher, plan, run))

    def abandon(self) -> None:
        """End everything that waits or runs."""
        self._pool.abandon(stopping())

    async def close(self) -> None:
        """End everything, tell the dispatcher how it went, and give all memory back."""
        self.stopping = True
        await asyncio.to_thread(self._pool.stop)
        while self._beside:
            await asyncio.gather(*self._beside)

    async def _follow(
        self, asked: Asked, dispatcher: Dispatcher, plan: Plan, run: Run
    ) -> AsyncGenerator[Text | Finished, None]:
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    yield event
        finally:
            task = asyncio.create_task(self._run_beside(asked, dispatcher, plan, run))
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)

    async def _run_beside(self, asked: Asked, dispatcher: Dispatcher, plan: Plan, run: Run) -> None:
        runs = [Run(self._pool, a.revision, a.wanted or asked.wanted, aside=a) for a in plan.asides]
        queued = [each for each in runs if self._pool.beside(each.work)]
        for each in runs:
            if each in queued:
                await each.finish()
            else:
                each.drop()
            self.metrics.count("asides", each.outcome.failure or "done")
        dispatcher.observe(asked, run.outcome, tuple(each.outcome for each in runs))

    async def _load(self, model: Model) -> None:
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Exception | None] = asyncio.Queue()

        def done(error: Exception | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, error)

        self._pool.load(model, done)
        errors = [await told.get() for _ in range(self.limits.workers)]
        if found := next((error for error in errors if error), None):
            raise found

    @property
    def _arranged(self) -> Arrangement:
        if self._arrangement is None:
            raise OutOfOrder("nothing is served yet", reason="serve.stopping", advice="Ask again in a moment.")
        return self._arrangement
