"""The filter of system calls: a program for the kernel's classic BPF machine, written out here and loaded once.

It refuses what is not on the list of `syscalls` with "operation not permitted", and ends a worker that makes a call for
which there is no harmless reason, or one by another machine's numbers (32-bit, x32). Arguments are looked at where the call
alone does not decide: only threads are made, only the worker itself is signalled, nothing is cut that is not open for
writing, no file gets a set-user bit, nobody's limits change.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/{seccomp,filter,bpf_common}.h.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from studbook.sandbox.libc import MACHINE, prctl
from studbook.sandbox.syscalls import ABSENT, ALLOWED, CHECKED, KILLED, NEWEST, Numbers

__all__ = ["Test", "allow_only", "filtered", "program", "rules"]

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06
# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64, in the order of `Numbers`.
_ARCHITECTURES = (0xC000003E, 0xC00000B7)
_X32 = 0x40000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

# What pthread_create asks for, with glibc and with musl; CLONE_THREAD is the bit that makes it a thread.
_THREAD_FLAGS, _THREAD = 0x7D0F00, 0x00010000
_TRUNCATE_OR_ACCESS = 0o1003
_SPECIAL_BITS = 0o7000
# PR_GET_PDEATHSIG, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS, PR_SET_VMA (names of heaps).
_PRCTL = (2, 15, 16, 21, 39, 0x53564D41)
# TCGETS and TCGETS2 (is it a terminal?), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL = (0x5401, 0x802C542A, 0x541B, 0x5421, 0x5450, 0x5451)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; no owner of signals, no lease, no notice of others' files.
_FCNTL = (0, 1, 2, 3, 4, 1030)


class Test(NamedTuple):
    """A condition on one argument of a call.

    Attributes:
        argument: Which one, from 0.
        mask: Which of its bits count; beyond 32 bits the upper ones that count must be 0.
        values: What those bits may be, each below 2^32.
    """

    argument: int
    mask: int
    values: tuple[int, ...]


def rules(process: int) -> Mapping[str, tuple[Test, ...]]:
    """Every call of `CHECKED`, and what must hold of its arguments.

    Args:
        process: The worker's own id, the only one it may signal.
    """
    opening = (0, 1, 2, 0o1001, 0o1002)
    return {
        "open": (Test(1, _TRUNCATE_OR_ACCESS, opening), Test(2, _SPECIAL_BITS, (0,))),
        "openat": (Test(2, _TRUNCATE_OR_ACCESS, opening), Test(3, _SPECIAL_BITS, (0,))),
        "mkdir": (Test(1, _SPECIAL_BITS, (0,)),),
        "mkdirat": (Test(2, _SPECIAL_BITS, (0,)),),
        # Not to replace is all a rename may be told.
        "renameat2": (Test(4, 0xFFFFFFFF, (0, 1)),),
        "clone": (Test(0, (1 << 64) - 1 & ~_THREAD_FLAGS | _THREAD, (_THREAD,)),),
        "prctl": (Test(0, 0xFFFFFFFF, _PRCTL),),
        "ioctl": (Test(1, 0xFFFFFFFF, _IOCTL),),
        "fcntl": (Test(1, 0xFFFFFFFF, _FCNTL),),
        # Its own limits may be read.
        "prlimit64": (Test(0, 0xFFFFFFFF, (0, process)), Test(2, (1 << 64) - 1, (0,))),
        "kill": (Test(0, 0xFFFFFFFF, (process,)),),
        "tgkill": (Test(0, 0xFFFFFFFF, (process,)),),
    }


def program(process: int, machine: int) -> bytes:
    """The filter for one worker: instructions of 8 bytes each.

    Args:
        process: The worker's own id.
        machine: Column of `Numbers`: 0 for x86-64, 1 for 64-bit Arm.
    """
    head = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *(_when(_AT_LEAST, _X32, _KILL) if machine == 0 else ()),
        *_when(_ABOVE, NEWEST, _ERRNO | errno.ENOSYS),
    ]
    body: list[bytes] = []
    for table, answer in ((ALLOWED, _ALLOW), (KILLED, _KILL), (ABSENT, _ERRNO | errno.ENOSYS)):
        for number in _numbers(table, machine):
            body += _when(_EQUAL, number, answer)
    for name, tests in rules(process).items():
        number_here = CHECKED[name][machine]
        if number_here is not None:
            block = [part for test in tests for part in _test(test)] + [_instruction(_RETURN, _ALLOW)]
            body += [_instruction(_EQUAL, number_here, 0, len(block)), *block]
    return b"".join([*head, *body, _instruction(_RETURN, _ERRNO | errno.EPERM)])


def allow_only(process: int) -> None:
    """Put the filter in force for this process, for good. ``no_new_privs`` must be set; there must be one thread.

    Raises:
        OSError: if the kernel refuses it; nothing may run then.
    """
    if MACHINE is None:
        raise OSError(errno.ENOSYS, "no filter is known for this machine")
    code = program(process, MACHINE)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count of 16 bits, padding, a pointer.
    block = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(block))


def filtered() -> bool:
    """Whether a filter is in force for this process, as the kernel says."""
    try:
        return prctl(_PR_GET_SECCOMP) == _MODE_FILTER
    except OSError:
        return False


def _numbers(table: Numbers, machine: int) -> Iterator[int]:
    yield from (number for pair in table.values() if (number := pair[machine]) is not None)


def _instruction(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


def _when(code: int, value: int, answer: int) -> Sequence[bytes]:
    return _instruction(code, value, 0, 1), _instruction(_RETURN, answer)


def _test(test: Test) -> list[bytes]:
    """Go on where the argument is as it must be; refuse otherwise."""
    place = _ARGUMENTS + 8 * test.argument
    refuse = _instruction(_RETURN, _ERRNO | errno.EPERM)
    made = []
    if upper := test.mask >> 32:
        made += [_instruction(_LOAD, place + 4), _instruction(_AND, upper), _instruction(_EQUAL, 0, 1, 0), refuse]
    made += [_instruction(_LOAD, place), _instruction(_AND, test.mask & 0xFFFFFFFF)]
    count = len(test.values)
    made += [_instruction(_EQUAL, value, count - i, 0) for i, value in enumerate(test.values)]
    return [*made, refuse]
