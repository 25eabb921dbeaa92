"""Progress on standard error: a bar on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from studbook.errors import printable

__all__ = ["Shown"]

T = TypeVar("T")


class Shown:
    """Shows the lab's steps on standard error, so that standard output stays the result."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def track(self, title: str, items: Collection[T], /) -> Iterator[T]:
        """Pass items through, showing how many are done."""
        return self.count(title, items, len(items))

    def count(self, title: str, items: Iterable[T], total: int, /) -> Iterator[T]:
        """The same for results that arrive one by one."""
        if total == 0:
            yield from items
        elif self._console.is_terminal:
            yield from self._bar(title, items, total)
        else:
            yield from self._lines(title, items, total)

    @contextmanager
    def measure(self, title: str, total: int, /) -> Iterator[Callable[[int], None]]:
        """A step measured in bytes: a bar with a rate on a terminal, two lines elsewhere."""
        if self._console.is_terminal and total:
            columns = (TextColumn("{task.description:<36}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            with RichProgress(*columns, TimeElapsedColumn(), console=self._console) as bar:
                task = bar.add_task(escape(printable(title)), total=total)
                yield lambda done: bar.advance(task, done)
        else:
            self.say(f"{title}: {total / 1e6:,.0f} MB to do")
            started = time.monotonic()
            yield lambda _: None
            self.say(f"{title}: done in {time.monotonic() - started:.1f} s")

    def say(self, line: str) -> None:
        """One line for the reader."""
        self._console.print(printable(line), markup=False, highlight=False)

    def _bar(self, title: str, items: Iterable[T], total: int) -> Iterator[T]:
        columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(escape(printable(title)), total=total)
            for item in items:
                yield item
                bar.advance(task)

    def _lines(self, title: str, items: Iterable[T], total: int) -> Iterator[T]:
        self.say(f"{title}: {total} to do")
        started = time.monotonic()
        yield from items
        self.say(f"{title}: {total} done in {time.monotonic() - started:.1f} s")
