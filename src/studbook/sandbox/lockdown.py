"""What a worker gives up of its own accord before it opens anything foreign: network, capabilities, files, system calls.

Nothing here needs root. A measure that this system does not offer is left out and not reported; one that it offers and
then refuses is an error. Every measure is looked up afterwards, in the process itself, before it is reported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from pathlib import Path

from studbook.sandbox.landlock import Grants, give_up
from studbook.sandbox.libc import MACHINE, number_of, syscall
from studbook.sandbox.places import DEVICES, FILES
from studbook.sandbox.seccomp import allow_only, filtered
from studbook.sandbox.syscalls import ALLOWED, KILLED, OWN

__all__ = ["THREADS_MOST", "lock_down", "own_network"]

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAPABILITY_VERSION = 0x20080522
_NETWORK = Path("/proc/self/ns/net")
THREADS_MOST = 512
# Not permitted, no room for one more, not built in: then it goes without.
_NOT_HERE = (errno.EPERM, errno.ENOSPC, errno.EINVAL, errno.EUSERS, errno.ENOSYS, errno.EACCES, errno.ENOMEM)


def own_network() -> tuple[str, ...]:
    """Move into an empty network of its own where an ordinary user may make one, with its own count of threads.

    Must come before `lock_down`. The system calls are filtered anyway: this is a second wall, and no policy needs it.

    Returns:
        The measures reached, sorted.
    """
    if MACHINE is None:
        return ()
    before = _network()
    user = os.getuid()
    try:
        syscall(number_of("unshare", KILLED), _CLONE_NEWUSER | _CLONE_NEWNET)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return ()
    reached = ["own-network"] if before and _network() != before else []
    # The count is this worker's alone only in a user namespace of its own; the system's user 0 is never counted.
    if user != 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (THREADS_MOST, THREADS_MOST))
        reached.append("limit-threads")
    return tuple(sorted(reached))


def lock_down(own: Path, reads: tuple[Path, ...], trees: tuple[Path, ...]) -> tuple[str, ...]:
    """Give up capabilities, every file that is not named, and every system call that is not on the list; for good.

    The process must have one thread and ``no_new_privs``.

    Args:
        own: The one folder in which it may write.
        reads: The input files of its job.
        trees: Folders of code and libraries.

    Returns:
        The measures in force, sorted.

    Raises:
        OSError: if the system offers a measure and refuses it; nothing may run then.
    """
    if MACHINE is None:
        return ()
    reached = ["no-capabilities"] if _drop_capabilities() else []
    reached += give_up(Grants(own=own, trees=trees, files=(*reads, *FILES), devices=DEVICES))
    allow_only(os.getpid())
    if filtered() and _refuses_sockets():
        reached.append("seccomp")
    return tuple(sorted(reached))


def _network() -> int:
    try:
        return _NETWORK.stat().st_ino
    except OSError:
        return 0


def _drop_capabilities() -> bool:
    """Whether none is left, of those that work and those that could be taken up again."""
    head = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    empty = bytes(24)
    syscall(number_of("capset", OWN), ctypes.c_char_p(head), ctypes.c_char_p(empty))
    left = ctypes.create_string_buffer(b"\xff" * 24, 24)
    syscall(number_of("capget", ALLOWED), ctypes.c_char_p(head), left)
    return left.raw == empty


def _refuses_sockets() -> bool:
    """Whether a call that is not on the list is really refused."""
    try:
        os.close(syscall(number_of("socket", OWN), 1, 1, 0))
    except OSError as error:
        return error.errno == errno.EPERM
    return False
