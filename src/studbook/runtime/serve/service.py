"""The served models as one thing that answers: requests to the dispatcher, works to the pool, outcomes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from studbook.errors import OutOfOrder, StudbookError, UsageError
from studbook.runtime.serve.dispatch import Dispatcher, Outcome, Plan
from studbook.runtime.serve.metrics import Metrics
from studbook.runtime.serve.pool import Pool, stopping
from studbook.runtime.serve.problems import problem
from studbook.runtime.serve.requests import Asked, Finished, Limits, Model, Text, Wanted
from studbook.runtime.serve.runs import Run

__all__ = ["SERVED", "Answer", "Arrangement", "Service", "Tell"]

SERVED = "champion"
"""The name under which clients ask, whatever is served."""
Tell = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Has something done in the house's thread, in the order in which it was told."""
_LOG = logging.getLogger("studbook.serve")


def _open() -> str:
    return ""


class Arrangement(NamedTuple):
    """What is served.

    Attributes:
        models: Every model that the dispatcher may name; the first is the one that clients see.
        dispatcher: Who decides.
        closed: Why no request is answered now; empty where they are. Asked in the event loop, so it must be quick.
    """

    models: tuple[Model, ...]
    dispatcher: Dispatcher
    closed: Callable[[], str] = _open


class Answer:
    """One request that was taken.

    Args:
        asked: The request.
        plan: What is done for it.
        run: The run of the model that answers.
        again: Has another model answer; None where it cannot.
        ended: Called once, when it has ended.

    Attributes:
        revision: The model that answers; final with the first event.
    """

    def __init__(
        self, asked: Asked, plan: Plan, run: Run, again: Callable[[str], Run | None], ended: Callable[[Run], None]
    ) -> None:
        self.revision = plan.answering
        self._asked, self._plan, self._run, self._again, self._ended = asked, plan, run, again, ended

    async def events(self) -> AsyncGenerator[Text | Finished, None]:
        """Parts of the text, and then how it ended; whoever leaves before that cancels it.

        Raises:
            StudbookError: if it failed.
        """
        begun = False
        try:
            async with aclosing(self._run.events()) as events:
                async for event in events:
                    begun = True
                    yield event
        except Exception as error:
            second = None if begun else self._instead(error)
            if second is None:
                raise
            async with aclosing(second.events()) as events:
                async for event in events:
                    yield event
        finally:
            self._ended(self._run)

    def _instead(self, error: Exception) -> Run | None:
        """A run of the model that answers where the first one fails by its own fault."""
        if not self._plan.instead or problem(error).status not in (500, 503):
            return None
        second = self._again(self._plan.instead)
        self.revision = self._plan.instead if second else self.revision
        return second


class Service:
    """Answers requests with the models of an arrangement; lives in one event loop.

    Args:
        limits: The limits.
        tell: How the dispatcher is told how requests went.

    Attributes:
        limits: The limits.
        metrics: What is counted.
        stopping: Whether no more requests are taken.
    """

    def __init__(self, limits: Limits, tell: Tell) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.stopping = False
        self._tell = tell
        self._pool = Pool(limits)
        self._arrangement: Arrangement | None = None
        self._number = 0
        self._after: set[asyncio.Task[None]] = set()

    @property
    def model(self) -> Model:
        """The model that clients see."""
        return self._arranged.models[0]

    @property
    def load(self) -> tuple[int, int]:
        """Requests that wait, and works that are written now."""
        return self._pool.waiting, self._pool.running

    @property
    def closed(self) -> str:
        """Why no request is answered now; empty where they are."""
        return self._arranged.closed()

    def check_model(self, name: str) -> None:
        """Whether clients may ask for a model by this name.

        Raises:
            UsageError: if they may not.
        """
        if name not in (SERVED, self.model.name, self.model.revision):
            advice = f"Ask for {SERVED!r}; GET /v1/models lists what is served."
            raise UsageError(f"{name!r} is not served here", where="model", reason="serve.model", advice=advice)

    async def arrange(self, wanted: Arrangement) -> Mapping[str, Exception]:
        """Serve this from now on; requests that run or wait are finished by the models they were dispatched to.

        Returns:
            What the models beyond the first that do not load are refused with, by revision. Where there is one, what was
            served before goes on.

        Raises:
            StudbookError: if the first model does not load; what was served before goes on then.
        """
        held = {m.revision for m in self._arrangement.models} if self._arrangement else set()
        fresh = [m for m in wanted.models if m.revision not in held]
        refused: dict[str, Exception] = {}
        try:
            for model in fresh:
                if (error := await self._load(model)) is None:
                    continue
                if model.revision == wanted.models[0].revision:
                    raise error
                refused[model.revision] = error
        except BaseException:
            self._forget({m.revision for m in fresh})
            raise
        if refused:
            self._forget({m.revision for m in fresh})
            return refused
        self._arrangement = wanted
        self._forget(held - {m.revision for m in wanted.models})
        return {}

    def answer(self, wanted: Wanted, *, parts: bool) -> Answer:
        """Begin to answer; the request is queued before this returns.

        Args:
            wanted: What is wanted.
            parts: Whether its text is wanted as it grows.

        Raises:
            OverBudget: if the queue is full; ``serve.full``.
            OutOfOrder: if the server stops, or everything is stopped; ``serve.stopping``, ``serve.stopped``.
        """
        if self.stopping:
            raise stopping()
        if why := self.closed:
            advice = "Ask again later: a person has to let it go on."
            raise OutOfOrder(why, reason="serve.stopped", advice=advice)
        asked, dispatcher = Asked(self._number, wanted), self._arranged.dispatcher
        self._number += 1
        plan = dispatcher.dispatch(asked)
        run = Run(self._pool, plan.answering, wanted, parts=parts)
        try:
            self._pool.submit(run.work)
        except StudbookError:
            run.drop()
            dropped = tuple(Outcome(aside.revision, 0.0, failure="serve.dropped") for aside in plan.asides)
            self._follow(self._observe(partial(dispatcher.observe, asked, run.outcome, dropped)))
            raise
        return Answer(
            asked,
            plan,
            run,
            again=lambda revision: self._again(revision, wanted, parts=parts),
            ended=lambda first: self._follow(self._run_beside(asked, dispatcher, plan, first)),
        )

    def abandon(self) -> None:
        """End everything that waits or runs."""
        self._pool.abandon(stopping())

    async def close(self) -> None:
        """End everything, tell the dispatcher how it went, and give all memory back."""
        self.stopping = True
        await asyncio.to_thread(self._pool.stop)
        while self._after:
            await asyncio.gather(*self._after)

    def _again(self, revision: str, wanted: Wanted, *, parts: bool) -> Run | None:
        run = Run(self._pool, revision, wanted, parts=parts)
        try:
            self._pool.submit(run.work)
        except StudbookError:
            return None
        return run

    def _follow(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._after.add(task)
        task.add_done_callback(self._after.discard)

    async def _run_beside(self, asked: Asked, dispatcher: Dispatcher, plan: Plan, run: Run) -> None:
        runs = [Run(self._pool, a.revision, a.wanted or asked.wanted, aside=a) for a in plan.asides]
        queued = [each for each in runs if self._pool.beside(each.work)]
        for each in runs:
            if each in queued:
                await each.finish()
            else:
                each.drop()
            self.metrics.count("asides", each.outcome.failure or "done")
        await self._observe(partial(dispatcher.observe, asked, run.outcome, tuple(each.outcome for each in runs)))

    async def _observe(self, told: Callable[[], None]) -> None:
        try:
            await self._tell(told)
        except Exception:
            # The answer was given; what is told of it has its own way to be noticed.
            _LOG.exception("how a request went could not be told")

    def _forget(self, revisions: set[str]) -> None:
        for revision in revisions:
            self._pool.forget(revision)

    async def _load(self, model: Model) -> Exception | None:
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Exception | None] = asyncio.Queue()

        def done(error: Exception | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, error)

        self._pool.load(model, done)
        errors = [await told.get() for _ in range(self.limits.workers)]
        return next((error for error in errors if error), None)

    @property
    def _arranged(self) -> Arrangement:
        if self._arrangement is None:
            raise OutOfOrder("nothing is served yet", reason="serve.stopping", advice="Ask again in a moment.")
        return self._arrangement
