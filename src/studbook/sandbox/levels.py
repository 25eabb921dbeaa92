"""How far workers are shut in: two named sets of measures, for policies to demand and machines to be judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

__all__ = ["KERNEL", "LEVELS", "PORTABLE", "level_of"]

# What every POSIX system offers: a process of its own with limits and without keys. It can read what its user can read.
PORTABLE = (
    "limit-address-space",
    "limit-cpu-seconds",
    "no-keys-in-environment",
    "own-process",
    "own-session",
)
# Beside that, the kernel itself keeps files, network and other processes from a worker: Linux with Landlock and seccomp.
KERNEL = tuple(sorted((*PORTABLE, "closed-descriptors", "landlock-files", "no-new-privileges", "seccomp")))
# From the strictest down.
LEVELS: Mapping[str, tuple[str, ...]] = MappingProxyType({"kernel": KERNEL, "portable": PORTABLE})


def level_of(measures: Iterable[str]) -> str:
    """The strictest level that some measures reach: ``kernel``, ``portable`` or ``none``."""
    reached = set(measures)
    return next((name for name, needed in LEVELS.items() if reached.issuperset(needed)), "none")
