"""The local pool: a few workers at a time, results in the order they were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["available_cores", "in_order"]

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Processors this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """Apply ``work`` to all items, a few at a time; results come in the items' order, whatever finished first.

    Args:
        work: Called in threads; it starts a worker process and waits for it.
        items: What to work on.
        workers: How many at a time; the available cores by default.

    Raises:
        Exception: the first one that ``work`` raised, in the items' order; later items not yet started are dropped.
    """
    with ThreadPoolExecutor(max_workers=workers or available_cores()) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
