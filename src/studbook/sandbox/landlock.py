"""Landlock: a process gives up every file, TCP port and neighbour that is not named, for good and without root.

Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h, interface versions 1 to 7. Each
version adds something that can be given up; what a kernel does not know is left out of the request. Version 7 adds only
flags for the audit log, which stay at their defaults.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from studbook.sandbox.libc import MACHINE, number_of, syscall
from studbook.sandbox.syscalls import OWN

__all__ = ["Grants", "give_up", "version"]

_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << n for n in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << n for n in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = (1 << n for n in range(13, 16))
_BIND_TCP, _CONNECT_TCP = 1, 2
_ABSTRACT_UNIX, _SIGNAL = 1, 2
# Rights over files by the version that brought them: the first 13, then one each.
_FIRST = (1 << 13) - 1
_FILE_RIGHTS = _WRITE_FILE | _READ_FILE | _TRUNCATE
_OWN_RIGHTS = _FILE_RIGHTS | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
_NET_VERSION, _SCOPE_VERSION = 4, 6


class Grants(NamedTuple):
    """What a process keeps.

    Attributes:
        own: Folder in which it may read, make, change and remove files and folders; never links, sockets or devices.
        trees: Folders it may read with everything below.
        files: Single files it may read; folders among them are not granted.
        devices: Single devices it may read and write.
    """

    own: Path
    trees: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()


def version() -> int:
    """The kernel's interface version; 0 where there is no Landlock, or it is switched off."""
    if MACHINE is None:
        return 0
    try:
        return syscall(number_of("landlock_create_ruleset", OWN), None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def give_up(grants: Grants) -> tuple[str, ...]:
    """Keep what is granted and give up everything else this kernel's Landlock knows. ``no_new_privs`` must be set.

    What is granted but does not exist is passed over: opening it fails all the same. Links are not followed to their
    target in ``files``: a link is no input.

    Returns:
        The measures that are in force, sorted; empty where there is no Landlock.

    Raises:
        OSError: if the kernel refuses; nothing may run then.
    """
    found = version()
    if not found:
        return ()
    handled = _handled(found)
    ruleset = _ruleset(found, handled)
    try:
        for path, rights, follow in _rules(grants):
            _add(ruleset, path, rights & handled, follow)
        syscall(number_of("landlock_restrict_self", OWN), ruleset, 0)
    finally:
        os.close(ruleset)
    return _measures(found) if _holds() else ()


def _handled(found: int) -> int:
    """Every right over files that this version knows."""
    return _FIRST | (_REFER if found >= 2 else 0) | (_TRUNCATE if found >= 3 else 0) | (_IOCTL_DEV if found >= 5 else 0)


def _ruleset(found: int, handled: int) -> int:
    net = _BIND_TCP | _CONNECT_TCP
    attributes = struct.pack("<QQQ", handled, net, _ABSTRACT_UNIX | _SIGNAL)
    size = 24 if found >= _SCOPE_VERSION else 16 if found >= _NET_VERSION else 8
    return syscall(number_of("landlock_create_ruleset", OWN), ctypes.c_char_p(attributes), size, 0)


def _rules(grants: Grants) -> Iterator[tuple[Path, int, bool]]:
    yield grants.own, _OWN_RIGHTS, True
    yield from ((path, _READ_FILE | _READ_DIR, True) for path in grants.trees)
    yield from ((path, _READ_FILE, False) for path in grants.files)
    yield from ((path, _READ_FILE | _WRITE_FILE, True) for path in grants.devices)


def _add(ruleset: int, path: Path, rights: int, follow: bool) -> None:
    """One rule, for the very file that the path names now."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        mode = os.fstat(handle).st_mode
        if not follow and not stat.S_ISREG(mode):
            return
        if not stat.S_ISDIR(mode):
            rights &= _FILE_RIGHTS
        rule = ctypes.c_char_p(struct.pack("<Qi", rights, handle))
        syscall(number_of("landlock_add_rule", OWN), ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)


def _holds() -> bool:
    """Whether the root folder, which is never granted, can no longer be listed."""
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except PermissionError:
        return True
    return False


def _measures(found: int) -> tuple[str, ...]:
    known: Iterable[tuple[int, str]] = (
        (1, "landlock-files"),
        (3, "landlock-truncate"),
        (4, "landlock-tcp"),
        (5, "landlock-devices"),
        (6, "landlock-neighbours"),
    )
    return tuple(sorted(name for least, name in known if found >= least))
