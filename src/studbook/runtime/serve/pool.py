"""Threads that run models: each has every served model in a memory of its own and writes many texts side by side.

While the engine computes, Python's lock is free, so as many models run at once as there are workers. Works that answer come
first; what runs beside them (mirrors and probes) takes a line only where nothing else waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from studbook.errors import OutOfOrder, OverBudget, StudbookError
from studbook.models.engine import MOST_LINES, Engine, step
from studbook.models.slm import parse_slm
from studbook.models.tokenizers import Tokenizer
from studbook.runtime.serve.requests import Failed, Limits, Model
from studbook.runtime.serve.work import Work

__all__ = ["Pool", "stopping"]


class _Loaded(NamedTuple):
    engine: Engine
    tokenizer: Tokenizer


class _Order(NamedTuple):
    """A model that every worker shall load, between two tokens."""

    model: Model
    done: Callable[[Exception | None], None]


class Pool:
    """Workers and the queues they take from; its methods may be called from any thread.

    Args:
        limits: The limits.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._asides: deque[Work] = deque()
        self._running: set[Work] = set()
        self._leaving: set[str] = set()
        self._stopped = False
        self._workers = [_Worker(self) for _ in range(limits.workers)]

    @property
    def waiting(self) -> int:
        """Works that answer and wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Works that are written now, those beside answers included."""
        return len(self._running)

    def submit(self, work: Work) -> None:
        """Queue an answer.

        Raises:
            OverBudget: if the queue is full; ``serve.full``.
            OutOfOrder: if the pool stopped; ``serve.stopping``.
        """
        with self._changed:
            if self._stopped:
                raise stopping()
            if len(self._waiting) >= self.limits.waiting:
                message = f"{self.limits.waiting} requests wait already"
                raise OverBudget(message, reason="serve.full", advice="Ask again in a moment.")
            self._waiting.append(work)
            self._changed.notify_all()

    def beside(self, work: Work) -> bool:
        """Queue a work beside the answers; False, and nothing happens, where too many wait."""
        with self._changed:
            if self._stopped or len(self._asides) >= self.limits.asides:
                return False
            self._asides.append(work)
            self._changed.notify_all()
            return True

    def load(self, model: Model, done: Callable[[Exception | None], None]) -> None:
        """Have every worker load a model; what is served goes on meanwhile.

        Args:
            model: The model.
            done: Called once by every worker, with what went wrong or None.
        """
        with self._changed:
            self._leaving.discard(model.revision)
            for worker in self._workers:
                worker.orders.append(_Order(model, done))
            self._changed.notify_all()

    def forget(self, revision: str) -> None:
        """Have every worker give a model's memory back as soon as nothing that runs or waits needs it."""
        with self._changed:
            self._leaving.add(revision)
            self._changed.notify_all()

    def abandon(self, error: StudbookError) -> None:
        """End everything that waits or runs, with this error."""
        with self._changed:
            for work in (*self._waiting, *self._asides, *self._running):
                work.cancel(error)
            self._changed.notify_all()

    def stop(self) -> None:
        """End everything and every thread; returns when all memory was given back."""
        with self._changed:
            self._stopped = True
        self.abandon(stopping())
        for worker in self._workers:
            worker.join()

    def next_for(self, worker: _Worker, free: int) -> tuple[list[_Order], list[Work]]:
        """What a worker does next: orders, and at most so many works; waits where it has nothing else to do."""
        with self._changed:
            while not (self._stopped or worker.orders or worker.works or self._waiting or self._asides):
                worker.release(self._leaving)
                self._changed.wait()
            worker.release(self._leaving - {work.revision for work in (*self._waiting, *self._asides)})
            orders, worker.orders = worker.orders, []
            taken = [work for queue in (self._waiting, self._asides) for work in queue if work.due()]
            for work in taken:
                (self._asides if work.aside else self._waiting).remove(work)
            # Nobody takes more than the one who has least.
            others = min((len(w.works) for w in self._workers if w is not worker), default=free)
            while free and self._waiting and len(worker.works) + len(taken) <= others:
                taken.append(self._waiting.popleft())
                free -= 1
            if free and self._asides and not self._waiting:
                taken.append(self._asides.popleft())
            self._running.update(taken)
            return orders, taken

    def put_back(self, work: Work) -> None:
        """A work for which there was no room yet is the next to be taken."""
        with self._changed:
            self._running.discard(work)
            (self._asides if work.aside else self._waiting).appendleft(work)

    def cancel(self, work: Work, error: StudbookError) -> None:
        """Have a work end at its next token, or now where it waits."""
        with self._changed:
            work.cancel(error)
            self._changed.notify_all()

    def over(self, work: Work) -> None:
        """A work has ended."""
        with self._changed:
            self._running.discard(work)

    @property
    def emptied(self) -> bool:
        """Whether the workers shall end, and nothing waits for them."""
        return self._stopped and not self._waiting and not self._asides


class _Worker(threading.Thread):
    """One thread with its engines."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(name="studbook-worker", daemon=True)
        self.orders: list[_Order] = []
        self.works: list[Work] = []
        self._pool = pool
        self._held: dict[str, _Loaded] = {}
        self._lines = min(pool.limits.parallel, MOST_LINES)
        # No more than fitted at once, until one of them has ended.
        self._tight = False
        self.start()

    def run(self) -> None:
        """Until the pool stops: begin what is new, write a token of everything."""
        try:
            while self.works or not self._pool.emptied:
                free = 0 if self._tight else self._lines - len(self.works)
                orders, taken = self._pool.next_for(self, free)
                for order in orders:
                    self._obey(order)
                for work in taken:
                    self._begin(work)
                self._write()
        finally:
            for loaded in self._held.values():
                loaded.engine.close()

    def release(self, leaving: set[str]) -> None:
        """Give the memory of models back that nobody needs and none of its works."""
        for revision in (leaving & self._held.keys()) - {work.revision for work in self.works}:
            self._held.pop(revision).engine.close()

    def _load(self, model: Model) -> None:
        if model.revision not in self._held:
            tokenizer = parse_slm(model.data, where=model.name).tokenizer
            engine = Engine(model.data, memory_limit=self._pool.limits.memory_bytes, where=model.name)
            self._held[model.revision] = _Loaded(engine, tokenizer)

    def _obey(self, order: _Order) -> None:
        try:
            self._load(order.model)
        except Exception as error:
            order.done(error)
        else:
            order.done(None)

    def _begin(self, work: Work) -> None:
        self.works.append(work)
        loaded = self._held.get(work.revision)
        if error := work.due():
            self._end(work, error)
        elif loaded is None:
            self._end(work, OutOfOrder("the model is served no longer", reason="serve.gone", advice="Ask again."))
        else:
            try:
                work.begin(loaded.engine, loaded.tokenizer)
            except OverBudget as error:
                if len(self.works) == 1:
                    self._end(work, error)
                else:
                    self._tight = True
                    self.works.remove(work)
                    self._pool.put_back(work)
            except Exception as error:
                self._end(work, error)

    def _write(self) -> None:
        """One token of every work."""
        for work in list(self.works):
            if error := work.due():
                self._end(work, error)
        for revision in {work.revision for work in self.works}:
            works = [work for work in self.works if work.revision == revision]
            try:
                step([work.line for work in works if work.line])
            except Exception as error:
                for work in works:
                    self._end(work, error)
            else:
                for work in works:
                    self._take(work)

    def _take(self, work: Work) -> None:
        try:
            ended = work.take()
        except Exception as error:
            self._end(work, error)
        else:
            if ended:
                self._end(work, None)

    def _end(self, work: Work, error: Exception | None) -> None:
        self.works.remove(work)
        with suppress(StudbookError):
            work.close()
        self._tight = False
        self._pool.over(work)
        if error is not None:
            work.deliver(Failed(error))


def stopping() -> OutOfOrder:
    """Why nothing is answered any longer."""
    return OutOfOrder("the server is stopping", reason="serve.stopping", advice="Ask again when it runs.")
