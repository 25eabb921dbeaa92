"""Ctrl-C while the program is still being loaded, and a request to end while it waits for nothing but the next look."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "TERMINATED", "ending_on_request", "leaving_at_once"]

INTERRUPTED = 130
"""Exit code of a command that was interrupted: 128 and the number of SIGINT, as shells count."""

TERMINATED = 143
"""The same of one that SIGTERM ended before it was done."""


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """While this lasts, Ctrl-C ends the process with one line: nothing was begun, so nothing has to be cleaned up.

    An exception would not do: a library that is half imported may make anything of it. Where somebody else minds the
    signal, or outside the main thread, nothing is changed.
    """
    mine = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (mine and threading.current_thread() is threading.main_thread()):
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ending_on_request(code: int) -> Iterator[None]:
    """While this lasts, SIGTERM ends the command like an error, so that what was begun is taken back first.

    Args:
        code: Its exit code then.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(code)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"studbook: interrupted before anything was done\n")
    os._exit(INTERRUPTED)
