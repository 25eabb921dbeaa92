"""How far workers are shut in: the measures there are, and two named sets of them for policies to demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

__all__ = ["KERNEL", "LEVELS", "MEASURES", "PORTABLE", "level_of"]

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
# What a kernel or a user may lack beside these; a worker names each that it reached.
_MORE = (
    "clean-environment",
    "dies-with-lab",
    "landlock-devices",
    "landlock-neighbours",
    "landlock-tcp",
    "landlock-truncate",
    "limit-core-dump",
    "limit-file-size",
    "limit-open-files",
    "limit-threads",
    "no-capabilities",
    "own-network",
)
MEASURES = frozenset((*KERNEL, *_MORE))
"""Every measure that a worker of this version can name; a policy can demand no other."""


def level_of(measures: Iterable[str]) -> str:
    """The strictest level that some measures reach: ``kernel``, ``portable`` or ``none``."""
    reached = set(measures)
    return next((name for name, needed in LEVELS.items() if reached.issuperset(needed)), "none")
