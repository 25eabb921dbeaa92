"""Who works next: what runs beside answers waits for answers that wait, and for nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from studbook.errors import OverBudget
from studbook.runtime.serve import pool as pools
from studbook.runtime.serve.pool import Pool
from studbook.runtime.serve.requests import Finished, Limits, Text, Wanted
from studbook.runtime.serve.runs import Run


class Single:
    """A resident set with one copy of everything."""

    def __init__(self) -> None:
        self._lock, self._leased = threading.Lock(), set[str]()

    @contextmanager
    def lease(self, name: str) -> Iterator[Any]:
        with self._lock:
            if name in self._leased:
                raise OverBudget("the one copy is leased")
            self._leased.add(name)
        try:
            yield SimpleNamespace(use=SimpleNamespace(sessions=4))
        finally:
            with self._lock:
                self._leased.remove(name)


class Writing:
    """A work that writes until something has happened, or ten thousand tokens."""

    def __init__(self, revision: str, until: threading.Event, *, aside: bool = False) -> None:
        self.revision, self.aside, self.line, self.left = revision, aside, None, 10_000
        self.begun, self.ended, self._until = threading.Event(), threading.Event(), until

    def due(self) -> None: ...
    def close(self) -> None: ...
    def cancel(self, error: Exception) -> None: ...

    def begin(self, *_: object) -> None:
        self.begun.set()

    def take(self) -> bool:
        self.left -= 1
        if self._until.is_set() or not self.left:
            self.ended.set()
        return self.ended.is_set()


def test_what_runs_beside_starts_when_the_last_waiting_answer_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "step", lambda _: time.sleep(0.001))
    pool = Pool(Limits(workers=2), Single())  # type: ignore[arg-type]
    held = {
        n: SimpleNamespace(name=n, model=SimpleNamespace(revision=n), installed=SimpleNamespace(copies=1)) for n in "ab"
    }
    for each in held.values():
        each.tokenizer = None
    pool.serve(held)  # type: ignore[arg-type]
    never = threading.Event()
    never.set()
    beside = Writing("b", never, aside=True)
    first, second = Writing("a", beside.begun), Writing("a", beside.begun)
    pool.submit(first)  # type: ignore[arg-type]
    first.begun.wait()
    # One worker has the only copy; the other one finds an answer waiting that it cannot write, and sleeps.
    with pool._changed:
        pool.submit(second)  # type: ignore[arg-type]
        assert pool.beside(beside)  # type: ignore[arg-type]
    for each in (first, second, beside):
        each.ended.wait()
    pool.stop()
    assert min(first.left, second.left) > 0


def test_a_client_that_reads_slowly_makes_no_model_slow() -> None:
    async def read() -> float:
        pool = SimpleNamespace(limits=Limits(), cancel=None)
        run = Run(pool, "a", Wanted("hello"), parts=True)  # type: ignore[arg-type]
        for event in (Text("a"), Finished("b", "stop", 1, 2, "d" * 64)):
            run.work.deliver(event)
        written = time.monotonic() - run.work.began
        async for _ in run.events():
            time.sleep(0.01)
        assert not run.outcome.failure
        return run.outcome.seconds - written

    assert asyncio.run(read()) <= 0
