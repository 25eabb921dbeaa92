"""The few calls into the C library that Python has no name for; Linux only."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

from studbook.sandbox.syscalls import Numbers

__all__ = ["MACHINE", "number_of", "prctl", "syscall"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _machine() -> int | None:
    """0 for x86-64, 1 for 64-bit Arm: the place of a number in `Numbers`; None where the tables do not hold."""
    known = {"x86_64": 0, "aarch64": 1}
    plain = sys.platform == "linux" and sys.maxsize > 1 << 32 and sys.byteorder == "little"
    return known.get(platform.machine()) if plain else None


# Which column of the tables is this machine's, or None.
MACHINE = _machine()


def number_of(name: str, table: Numbers) -> int:
    """A system call's number on this machine.

    Raises:
        OSError: if this machine does not have it.
    """
    number = table[name][MACHINE] if MACHINE is not None else None
    if number is None:
        raise OSError(38, f"{name} is not known on this machine")
    return number


def syscall(number: int, *arguments: object) -> int:
    """One system call; integers are passed as 64 bits.

    Raises:
        OSError: with the error number that the kernel answered.
    """
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def prctl(option: int, *arguments: object) -> int:
    """``prctl(2)``; missing arguments are 0.

    Raises:
        OSError: with the error number that the kernel answered.
    """
    passed = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    passed += [ctypes.c_ulong(0)] * (4 - len(passed))
    result: int = _libc.prctl(ctypes.c_int(option), *passed)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
