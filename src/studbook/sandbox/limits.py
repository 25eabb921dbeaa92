"""What a worker does to itself before it opens anything foreign."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from msgspec import Struct

__all__ = ["ENVIRONMENT", "THREADS", "Limits", "confine", "surroundings"]

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
# A checkpoint keeps every shard of every parent open.
_OPEN_FILES = 1024
_SMALLEST_FILE = 1 << 20
_BESIDE = 64 << 20
_DESCRIPTORS = Path("/proc/self/fd")
_SECRETS = ("KEY", "SECRET", "TOKEN", "PASSW", "CREDENTIAL")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Every name a worker's environment may hold.
ENVIRONMENT = frozenset({"PATH", "LC_ALL", "HOME", "TMPDIR", "NUMBA_CACHE_DIR", *THREADS})


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worker may use.

    Attributes:
        seconds: Processor seconds; wall time is limited to ten times as many.
        memory_bytes: Address space in bytes.
        file_bytes: Largest file it may write, in bytes; never below 1 MiB, which its answer needs.
        folder_bytes: All its files together, in bytes; 0 stands for twice the largest file and 64 MiB beside it.
        files: How many files and folders it may leave.
        demands: Measures that must be in force before it begins; without one of them it does not run.
    """

    seconds: int
    memory_bytes: int
    file_bytes: int
    folder_bytes: int = 0
    files: int = 4096
    demands: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """All its files together, in bytes."""
        return self.folder_bytes or 2 * max(self.file_bytes, _SMALLEST_FILE) + _BESIDE


def confine(limits: Limits) -> tuple[str, ...]:
    """Put every limit this system offers in force, and name those that are, as the system itself says.

    Hard limits cannot be raised again by the process that set them.

    Returns:
        The measures, sorted. `surroundings` names those of the process it was started as.

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
        # Where whoever started the lab allows less already, less it is.
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except ValueError as error:
            raise OSError(f"{name} was refused: {error}") from error
        if resource.getrlimit(kind) == (value, value):
            reached.append(name)
    # A write beyond the limit then fails with an error instead of killing the worker without a word.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if sys.platform == "linux":
        reached += _process_controls()
    return tuple(sorted(reached))


def surroundings(parent: int, told: int = 2) -> tuple[str, ...]:
    """What holds of the process itself, each looked up now: who started it, session, open files, environment.

    Args:
        parent: The process that must have started this one.
        told: The last descriptor that may be open.

    Returns:
        The measures, sorted; one that cannot be looked up here is not among them.
    """
    names = set(os.environ)
    found = {
        "own-process": os.getppid() == parent != os.getpid(),
        "own-session": os.getsid(0) == os.getpid(),
        "closed-descriptors": _closed_above(told),
        "clean-environment": names <= ENVIRONMENT,
        "no-keys-in-environment": not any(word in name.upper() for name in names for word in _SECRETS),
    }
    return tuple(sorted(name for name, holds in found.items() if holds))


def _closed_above(last: int) -> bool:
    if not _DESCRIPTORS.is_dir():
        return False
    # The listing's own descriptor is in the list and closed again by now.
    return not [path for path in list(_DESCRIPTORS.iterdir()) if int(path.name) > last and os.path.lexists(path)]


def _process_controls() -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    for name, option, value in (
        ("dies-with-lab", _PR_SET_PDEATHSIG, int(signal.SIGKILL)),
        ("no-new-privileges", _PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"{name} was refused")
    at_death = ctypes.c_int(0)
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(at_death), 0, 0, 0)
    found = {
        "dies-with-lab": at_death.value == signal.SIGKILL,
        "no-new-privileges": libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
    }
    return [name for name, holds in found.items() if holds]
