"""Threads that run models: each works with modules of the resident set that it leases, and writes many texts side by side.

While the engine computes, Python's lock is free, so as many copies run at once as there are workers. A worker leases a
module with the first work that wants it and gives it back with the last; a work for which there is no copy and no session
stays in the queue. Works that answer come first; what runs beside them (mirrors and probes) takes a line only where nothing
else waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple

from studbook.errors import OutOfOrder, OverBudget, StudbookError
from studbook.models.engine import MOST_LINES, step
from studbook.models.tokenizers import Tokenizer
from studbook.runtime.handles import Module
from studbook.runtime.resident import ResidentSet
from studbook.runtime.serve.requests import Failed, Limits
from studbook.runtime.serve.stock import Held
from studbook.runtime.serve.work import Work

__all__ = ["Pool", "stopping"]


class _Seat(NamedTuple):
    """A module that a worker has leased, until the stack is closed."""

    module: Module
    tokenizer: Tokenizer
    lease: ExitStack


class _Order(NamedTuple):
    """What a worker does next: works to begin, and works that have ended before they began."""

    taken: list[Work]
    ended: list[tuple[Work, StudbookError]]


class Pool:
    """Workers and the queues they take from; its methods may be called from any thread.

    Args:
        limits: The limits.
        residents: Where models are leased.
    """

    def __init__(self, limits: Limits, residents: ResidentSet) -> None:
        self.limits, self._residents = limits, residents
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._asides: deque[Work] = deque()
        self._held: Mapping[str, Held] = {}
        self._stopped = False
        self._workers = [_Worker(self) for _ in range(limits.workers)]

    @property
    def waiting(self) -> int:
        """Works that answer and wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Works that are written now, those beside answers included."""
        return sum(len(worker.works) for worker in self._workers)

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

    def serve(self, held: Mapping[str, Held]) -> None:
        """From now on works may ask for these models; what waits for another one is told that it is gone."""
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def vacate(self, revisions: Collection[str]) -> None:
        """Serve these no longer; returns when no worker has a lease on them, which is when what runs on them has ended."""
        with self._changed:
            self.serve({name: held for name, held in self._held.items() if name not in revisions})
            self._changed.wait_for(lambda: not any(w.seats.keys() & {*revisions} for w in self._workers))

    def abandon(self, error: StudbookError) -> None:
        """End everything that waits or runs, with this error."""
        with self._changed:
            for work in (*self._waiting, *self._asides, *(work for w in self._workers for work in w.works)):
                work.cancel(error)
            self._changed.notify_all()

    def stop(self) -> None:
        """End everything and every thread; returns when all leases were given back."""
        with self._changed:
            self._stopped = True
        self.abandon(stopping())
        for worker in self._workers:
            worker.join()

    def cancel(self, work: Work, error: StudbookError) -> None:
        """Have a work end at its next token, or now where it waits."""
        with self._changed:
            work.cancel(error)
            self._changed.notify_all()

    def next_for(self, worker: _Worker) -> _Order | None:
        """What a worker does next; waits, with no lease, where there is nothing to do; None where nothing will ever be."""
        with self._changed:
            while True:
                if worker.leave():
                    self._changed.notify_all()
                order = _Order([], self._ended())
                self._take_for(worker, order)
                if order.taken and self._asides and not self._waiting:
                    # Whoever slept while an answer waited may run something beside now.
                    self._changed.notify_all()
                if worker.works or order.ended:
                    return order
                if self._stopped:
                    return None
                self._changed.wait()

    def over(self, worker: _Worker, work: Work) -> None:
        """A work of a worker has ended."""
        with self._changed:
            worker.works.remove(work)

    def _ended(self) -> list[tuple[Work, StudbookError]]:
        """Take works out of the queues that shall end before they began."""
        found = []
        for queue in (self._waiting, self._asides):
            for work in list(queue):
                if error := work.due() or self._gone(work):
                    queue.remove(work)
                    found.append((work, error))
        return found

    def _gone(self, work: Work) -> StudbookError | None:
        if work.revision in self._held:
            return None
        return OutOfOrder("the model is served no longer", reason="serve.gone", advice="Ask again.")

    def _take_for(self, worker: _Worker, order: _Order) -> None:
        refused: set[str] = set()
        for queue in (self._waiting, self._asides):
            for work in list(queue):
                # One at a time beside answers, and none while one waits.
                if not worker.free or (work.aside and (self._waiting or any(taken.aside for taken in order.taken))):
                    return
                if work.revision in refused:
                    continue
                try:
                    seated = self._seated(worker, work.revision)
                except OutOfOrder as error:
                    queue.remove(work)
                    order.ended.append((work, error))
                    continue
                if not seated:
                    refused.add(work.revision)
                    continue
                queue.remove(work)
                worker.works.append(work)
                order.taken.append(work)

    def _seated(self, worker: _Worker, revision: str) -> bool:
        """Whether a worker takes on a work: it has a session left for it, and nobody who has one too has less to do.

        Raises:
            OutOfOrder: if the model was stopped by a defect.
        """
        held = self._held[revision]
        sitting = [w for w in self._workers if revision in w.seats]
        able = self._workers if len(sitting) < held.installed.copies else sitting
        if worker not in able or not worker.room(revision):
            return False
        if any(len(w.works) < len(worker.works) and w.room(revision) for w in able):
            return False
        return revision in worker.seats or worker.sit(self._residents, held)


class _Worker(threading.Thread):
    """One thread with the modules that it has leased; `works` and `seats` change under the pool's lock alone."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(name="studbook-worker", daemon=True)
        self.works: list[Work] = []
        self.seats: dict[str, _Seat] = {}
        self._pool = pool
        self._lines = min(pool.limits.parallel, MOST_LINES)
        self.start()

    @property
    def free(self) -> int:
        """How many works more it takes."""
        return self._lines - len(self.works)

    def room(self, revision: str) -> bool:
        """Whether it has a line for another work of a model, and a session where it has the model."""
        seat = self.seats.get(revision)
        taken = sum(work.revision == revision for work in self.works)
        return self.free > 0 and (seat is None or taken < seat.module.use.sessions)

    def sit(self, residents: ResidentSet, held: Held) -> bool:
        """Lease a model; False if it cannot be had now.

        Raises:
            OutOfOrder: if it was stopped by a defect.
        """
        lease = ExitStack()
        try:
            module = lease.enter_context(residents.lease(held.name))
        except OverBudget:
            return False
        self.seats[held.model.revision] = _Seat(module, held.tokenizer, lease)
        return True

    def leave(self) -> bool:
        """Give back what none of its works needs; whether there was anything."""
        left = self.seats.keys() - {work.revision for work in self.works}
        for revision in left:
            self.seats.pop(revision).lease.close()
        return bool(left)

    def run(self) -> None:
        """Until the pool stops: begin what is new, write a token of everything."""
        while order := self._pool.next_for(self):
            for work, error in order.ended:
                work.deliver(Failed(error))
            for work in order.taken:
                self._begin(work)
            self._write()

    def _begin(self, work: Work) -> None:
        seat = self.seats[work.revision]
        try:
            work.begin(seat.module, seat.tokenizer)
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
        with suppress(StudbookError):
            work.close()
        self._pool.over(self, work)
        if error is not None:
            work.deliver(Failed(error))


def stopping() -> OutOfOrder:
    """Why nothing is answered any longer."""
    return OutOfOrder("the server is stopping", reason="serve.stopping", advice="Ask again when it runs.")
