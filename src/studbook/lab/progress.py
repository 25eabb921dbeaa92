"""How long work reports itself: named steps, shown by whoever calls the lab."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Progress", "Silent"]

T = TypeVar("T")


class Progress(Protocol):
    """Where steps are shown."""

    def track(self, _title: str, items: Collection[T], /) -> Iterator[T]:
        """Pass items through, showing how many are done."""

    def count(self, _title: str, items: Iterable[T], _total: int, /) -> Iterator[T]:
        """The same for results that arrive one by one."""

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

    def say(self, line: str) -> None:
        """Do nothing."""
