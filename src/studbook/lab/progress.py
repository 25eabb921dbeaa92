"""How long work reports itself: named steps, shown by whoever calls the lab."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

__all__ = ["Progress", "Silent"]

T = TypeVar("T")


class Progress(Protocol):
    """Where steps are shown."""

    def track(self, _title: str, items: Collection[T], /) -> Iterator[T]:
        """Pass items through, showing how many are done."""

    def count(self, _title: str, items: Iterable[T], _total: int, /) -> Iterator[T]:
        """The same for results that arrive one by one."""

    def measure(self, _title: str, _total: int, /) -> AbstractContextManager[Callable[[int], None]]:
        """A step measured in bytes: what it gives is called with every number of bytes that were done."""

    def say(self, line: str) -> None:
        """One line for the reader."""


class Silent:
    """Shows nothing."""

    def track(self, _title: str, items: Collection[T], /) -> Iterator[T]:
        """Pass items through."""
        return iter(items)

    def count(self, _title: str, items: Iterable[T], _total: int, /) -> Iterator[T]:
        """Pass items through."""
        return iter(items)

    def measure(self, _title: str, _total: int, /) -> AbstractContextManager[Callable[[int], None]]:
        """Count for nobody."""
        return nullcontext(lambda _: None)

    def say(self, line: str) -> None:
        """Do nothing."""
