"""The served models as one thing that answers: requests to the dispatcher, works to the pool, outcomes back."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from studbook.errors import OutOfOrder, StudbookError, UsageError
from studbook.runtime.serve.dispatch import Dispatcher, Outcome, Plan
from studbook.runtime.serve.metrics import Metrics
from studbook.runtime.serve.pool import Pool, stopping
from studbook.runtime.serve.problems import problem
from studbook.runtime.serve.requests import Asked, Finished, Limits, Model, Text, Wanted
from studbook.runtime.serve.runs import NARROW, Run
from studbook.runtime.serve.stock import Stock

__all__ = ["SERVED", "Answer", "Arrangement", "Service", "Tell"]

SERVED = "champion"
"""The name under which clients ask, whatever is served."""
Tell = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Has something done in the house's thread, in the order in which it was told."""
_LOG = logging.getLogger("studbook.serve")


def _open() -> str:
    return ""


def _unheard(_: Collection[str]) -> None: ...


class Arrangement(NamedTuple):
    """What is served.

    Attributes:
        models: Every model that the dispatcher may name; the first is the one that clients see.
        dispatcher: Who decides.
        closed: Why no request is answered now; empty where they are. Asked in the event loop, so it must be quick.
        hold: Told which of the models are in memory, before the dispatcher is asked; the others are not to be named.
    """

    models: tuple[Model, ...]
    dispatcher: Dispatcher
    closed: Callable[[], str] = _open
    hold: Callable[[Collection[str]], None] = _unheard


class Answer:
    """One request that was taken.

    Args:
        asked: The request.
        plan: What is done for it.
        run: The run of the model that answers.
        again: Has another model answer; None where it cannot.
        told: Called before it is given whole; returns when what is to be kept of it was kept.
        ended: Called once, when it has ended.

    Attributes:
        revision: The model that answers; final with the first event.
    """

    def __init__(
        self,
        plan: Plan,
        run: Run,
        *,
        again: Callable[[str], Run | None],
        told: Callable[[], Awaitable[None]],
        ended: Callable[[], object],
    ) -> None:
        self.revision = plan.answering
        self._plan, self._run, self._again, self._told, self._ended = plan, run, again, told, ended

    async def events(self) -> AsyncGenerator[Text | Finished, None]:
        """Parts of the text, and then how it ended; whoever leaves before that cancels it.

        Raises:
            StudbookError: if it failed.
        """
        begun = False
        try:
            async with aclosing(self._kept(self._run)) as events:
                async for event in events:
                    begun = True
                    yield event
        except Exception as error:
            second = None if begun else self._instead(error)
            if second is None:
                raise
            async with aclosing(self._kept(second)) as events:
                async for event in events:
                    yield event
        finally:
            self._ended()

    async def _kept(self, run: Run) -> AsyncGenerator[Text | Finished, None]:
        """The events of a run; the last one comes when what is to be kept of it was kept."""
        async with aclosing(run.events()) as events:
            async for event in events:
                if run is not self._run:
                    self._run.stood_in()
                if isinstance(event, Finished):
                    await self._told()
                yield event

    def _instead(self, error: Exception) -> Run | None:
        """A run of the model that answers where the first one fails by its own fault, or is the only one that cannot."""
        narrow = isinstance(error, StudbookError) and error.reason in NARROW
        if not self._plan.instead or not (narrow or problem(error).status in (500, 503)):
            return None
        second = self._again(self._plan.instead)
        self.revision = self._plan.instead if second else self.revision
        return second


class Service:
    """Answers requests with the models of an arrangement; lives in one event loop.

    Args:
        limits: The limits.
        stock: What brings models into memory.
        tell: How what writes records is done in the house's thread: that, and telling the dispatcher how requests went.

    Attributes:
        limits: The limits.
        metrics: What is counted.
        stopping: Whether no more requests are taken.
        absent: Models that were wanted and are not in memory, by revision, with why.
    """

    def __init__(self, limits: Limits, stock: Stock, tell: Tell) -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.stopping = False
        self.absent: Mapping[str, StudbookError] = {}
        self._stock, self._tell = stock, tell
        self._pool = Pool(limits, stock.residents)
        # How many requests that have not ended may name a model.
        self._named = Counter[str]()
        self._arrangement: Arrangement | None = None
        self._number = 0
        self._arranging = asyncio.Lock()
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

    @property
    def memory(self) -> dict[str, Any]:
        """What is in memory, the bytes of it and of the budget, and what stays out: JSON."""
        residents = [
            {
                "model": held.model.name,
                "revision": held.model.revision,
                "copies": held.installed.copies,
                "sessions": held.installed.use.sessions,
                "bytes": held.installed.total,
            }
            for held in self._stock.held().values()
        ]
        absent = {revision: str(error) for revision, error in self.absent.items()}
        return {
            "residents": residents,
            "bytes": self.resident_bytes,
            "budget": self.limits.memory_bytes,
            "absent": absent,
        }

    @property
    def resident_bytes(self) -> int:
        """Bytes of memory that models hold."""
        return self._stock.residents.bytes_held()["host"]

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
            StudbookError: if the first model does not load, or there is no room for it; what was served before goes on then.
        """
        async with self._arranging:
            try:
                absent = await self._tell(partial(self._stock.bring, wanted.models))
            except BaseException:
                await self._tidy()
                raise
            if refused := {
                m.revision: absent[m.revision] for m in wanted.models if m.revision in absent and not m.spare
            }:
                # What came into memory is wanted again at once, without what was refused.
                return refused
            held = self._stock.held()
            wanted.hold(held.keys())
            self._pool.serve(held)
            self._arrangement, self.absent = wanted, absent
            await self._tidy()
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
        self._named.update(_names(plan))
        told = self._once(lambda: dispatcher.answered(asked, run.outcome))
        return Answer(
            plan,
            run,
            again=lambda revision: self._again(revision, wanted, parts=parts),
            told=told,
            ended=lambda: self._follow(self._run_beside(asked, dispatcher, plan, run, told)),
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
        await self._tell(self._stock.close)

    def _again(self, revision: str, wanted: Wanted, *, parts: bool) -> Run | None:
        run = Run(self._pool, revision, wanted, parts=parts)
        try:
            self._pool.submit(run.work)
        except StudbookError:
            return None
        return run

    def _follow(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._after.add(task)
        task.add_done_callback(self._after.discard)
        return task

    def _once(self, told: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        """Tell something once, however often and by whomever it is asked for, and even if the first of them leaves."""
        begun: list[asyncio.Task[None]] = []

        async def tell() -> None:
            if not begun:
                begun.append(self._follow(self._observe(told)))
            await asyncio.shield(begun[0])

        return tell

    async def _run_beside(
        self, asked: Asked, dispatcher: Dispatcher, plan: Plan, run: Run, told: Callable[[], Awaitable[None]]
    ) -> None:
        await told()
        runs = [Run(self._pool, a.revision, a.wanted or asked.wanted, aside=a) for a in plan.asides]
        queued = [each for each in runs if self._pool.beside(each.work)]
        for each in runs:
            if each in queued:
                await each.finish()
            else:
                each.drop()
            self.metrics.count("asides", each.outcome.failure or "done")
        await self._observe(partial(dispatcher.observe, asked, run.outcome, tuple(each.outcome for each in runs)))
        self._named.subtract(_names(plan))
        if self._unneeded():
            async with self._arranging:
                await self._tidy()

    async def _observe(self, told: Callable[[], None]) -> None:
        try:
            await self._tell(told)
        except Exception:
            # The answer was given; what is told of it has its own way to be noticed.
            _LOG.exception("how a request went could not be told")

    def _unneeded(self) -> list[str]:
        """What is in memory, and neither served nor named by a request that has not ended."""
        return [name for name in self._stock.held() if name not in self._served and self._named[name] <= 0]

    async def _tidy(self) -> None:
        """Give up what nothing needs any more, and vouch for what is served once it is all there is."""
        gone = self._unneeded()
        if gone:
            await asyncio.to_thread(self._pool.vacate, gone)
        keep = self._served | self._stock.held().keys() - {*gone}
        settled = bool(self._served) and keep <= self._served
        try:
            await self._tell(partial(self._stock.tidy, keep, settled=settled))
        except StudbookError as error:
            _LOG.error("what is served no longer stays in memory: %s", error)

    @property
    def _served(self) -> set[str]:
        return {model.revision for model in self._arrangement.models} if self._arrangement else set()

    @property
    def _arranged(self) -> Arrangement:
        if self._arrangement is None:
            raise OutOfOrder("nothing is served yet", reason="serve.stopping", advice="Ask again in a moment.")
        return self._arrangement


def _names(plan: Plan) -> set[str]:
    return {plan.answering, *(aside.revision for aside in plan.asides)} | ({plan.instead} if plan.instead else set())
