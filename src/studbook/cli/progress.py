"""Progress on standard error: a bar on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

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

    def say(self, line: str) -> None:
        """One line for the reader."""
        self._console.print(line, markup=False, highlight=False)

    def _bar(self, title: str, items: Iterable[T], total: int) -> Iterator[T]:
        columns = (TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(title, total=total)
            for item in items:
                yield item
                bar.advance(task)

    def _lines(self, title: str, items: Iterable[T], total: int) -> Iterator[T]:
        self.say(f"{title}: {total} to do")
        started = time.monotonic()
        yield from items
        self.say(f"{title}: {total} done in {time.monotonic() - started:.1f} s")
