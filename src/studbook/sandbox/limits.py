"""What a worker does to itself before it opens anything foreign."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from msgspec import Struct

__all__ = ["Limits", "confine"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OPEN_FILES = 64
_SMALLEST_FILE = 1 << 20


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worker may use.

    Attributes:
        seconds: Processor seconds; wall time is limited to ten times as many.
        memory_bytes: Address space in bytes.
        file_bytes: Largest file it may write, in bytes; never below 1 MiB, which its answer needs.
    """

    seconds: int
    memory_bytes: int
    file_bytes: int


def confine(limits: Limits) -> tuple[str, ...]:
    """Put every measure this system offers in force, and name them.

    Hard limits cannot be raised again by the process that set them.

    Returns:
        The measures, sorted. The caller adds those of the process it was started as.

    Raises:
        OSError: if a measure that exists here is refused; nothing runs then.
    """
    reached = []
    for name, kind, value in (
        ("limit-cpu-seconds", resource.RLIMIT_CPU, limits.seconds),
        ("limit-address-space", resource.RLIMIT_AS, limits.memory_bytes),
        ("limit-file-size", resource.RLIMIT_FSIZE, max(limits.file_bytes, _SMALLEST_FILE)),
        ("limit-open-files", resource.RLIMIT_NOFILE, _OPEN_FILES),
        ("limit-core-dump", resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(kind, (value, value))
        except ValueError as error:
            raise OSError(f"{name} was refused: {error}") from error
        reached.append(name)
    # A write beyond the limit then fails with an error instead of killing the worker without a word.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        for name, option, value in (
            ("dies-with-lab", _PR_SET_PDEATHSIG, int(signal.SIGKILL)),
            ("no-new-privileges", _PR_SET_NO_NEW_PRIVS, 1),
        ):
            if libc.prctl(option, value, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"{name} was refused")
            reached.append(name)
    if not any("KEY" in name.upper() for name in os.environ):
        reached.append("no-keys")
    return tuple(sorted(reached))
