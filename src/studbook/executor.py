"""The local pool: a few workers at a time, results in the order they were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from studbook.sandbox import end_workers

__all__ = ["available_cores", "in_order", "stop"]

T = TypeVar("T")
R = TypeVar("R")
# Seconds between two looks at whether everything has ended.
_GLANCE = 0.05
_open: dict[int, list[Future[Any]]] = {}


def available_cores() -> int:
    """Processors this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """Apply ``work`` to all items, a few at a time; results come in the items' order, whatever finished first.

    When it is interrupted, or given up before its end, the workers that still run are ended at once.

    Args:
        work: Called in threads; it starts a worker process and waits for it.
        items: What to work on.
        workers: How many at a time; the available cores by default.

    Raises:
        Exception: the first one that ``work`` raised, in the items' order; later items not yet started are dropped.
    """
    futures: list[Future[R]] = []
    with ThreadPoolExecutor(max_workers=workers or available_cores()) as pool:
        _open[id(futures)] = futures
        try:
            for item in items:
                # One by one: an interruption must find what was submitted.
                futures.append(pool.submit(work, item))
            for future in futures:
                yield future.result()
        except Exception:
            _drop(futures)
            raise
        except BaseException:
            # Leaving the pool waits for its threads: minutes, if their workers went on.
            stop()
            raise
        finally:
            del _open[id(futures)]


def stop() -> None:
    """Drop what has not started anywhere in this process and end the workers that run; returns when all have ended."""
    futures = [future for group in list(_open.values()) for future in group]
    _drop(futures)
    # A thread that was about to start its worker does so after the first time.
    while wait(futures, timeout=_GLANCE).not_done:
        end_workers()


def _drop(futures: Sequence[Future[Any]]) -> None:
    for future in futures:
        future.cancel()
