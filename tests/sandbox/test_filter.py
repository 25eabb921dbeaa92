"""The filter's program, run by a small machine of our own: what it answers for every call, on both processors."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.sandbox.seccomp import program, rules
from studbook.sandbox.syscalls import ABSENT, ALLOWED, CHECKED, KILLED, NEWEST, Numbers

PROCESS = 4711
ARCHITECTURES = (0xC000003E, 0xC00000B7)
KILL, ALLOW = 0x80000000, 0x7FFF0000
NOT_PERMITTED, NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
MACHINES = (0, 1)
PROGRAMS = [program(PROCESS, machine) for machine in MACHINES]
THREAD = 0x3D0F00

Arguments = tuple[int, ...]
words = st.integers(0, (1 << 64) - 1)


def answer(machine: int, number: int, arguments: Arguments = (), architecture: int | None = None) -> int:
    """Run the program as the kernel does: 32-bit words, forward jumps only, an end within the program."""
    code = PROGRAMS[machine]
    arch = ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    place = accumulator = 0
    for _ in range(len(code) // 8):
        kind, yes, no, k = struct.unpack_from("<HBBI", code, place * 8)
        place += 1
        if kind == 0x06:
            return k
        if kind == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif kind == 0x54:
            accumulator &= k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[kind]
            place += yes if holds else no
    raise AssertionError("the program does not end")


def numbers(table: Numbers, machine: int) -> Iterator[int]:
    return (pair[machine] for pair in table.values() if pair[machine] is not None)  # type: ignore[misc]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_kernel_takes_programs_of_this_length(machine: int) -> None:
    assert len(PROGRAMS[machine]) % 8 == 0
    assert len(PROGRAMS[machine]) // 8 <= 4096


@pytest.mark.parametrize("machine", MACHINES)
def test_no_call_stands_in_two_lists_and_no_number_stands_twice(machine: int) -> None:
    tables = (ALLOWED, CHECKED, ABSENT, KILLED)
    found = [n for table in tables for n in numbers(table, machine)]
    assert len(found) == len(set(found))
    assert max(found) <= NEWEST
    assert set(rules(PROCESS)) == set(CHECKED)


@given(st.sampled_from(MACHINES), st.integers(0, (1 << 32) - 1), st.tuples(*[words] * 6))
def test_a_call_on_no_list_is_refused_whatever_its_arguments(machine: int, number: int, arguments: Arguments) -> None:
    listed = {n for table in (ALLOWED, CHECKED, ABSENT, KILLED) for n in numbers(table, machine)}
    if number in listed:
        return
    if machine == 0 and number >= 0x40000000:
        assert answer(machine, number, arguments) == KILL, "x32"
    elif number > NEWEST:
        assert answer(machine, number, arguments) == NO_SUCH_CALL
    else:
        assert answer(machine, number, arguments) == NOT_PERMITTED


@given(st.sampled_from(MACHINES), st.tuples(*[words] * 6), st.data())
def test_the_lists_are_answered_as_they_say(machine: int, arguments: Arguments, data: st.DataObject) -> None:
    for table, wanted in ((ALLOWED, ALLOW), (KILLED, KILL), (ABSENT, NO_SUCH_CALL)):
        number = data.draw(st.sampled_from(sorted(numbers(table, machine))))
        assert answer(machine, number, arguments) == wanted


@given(st.sampled_from(MACHINES), st.integers(0, 500), st.integers(0, (1 << 32) - 1))
def test_calls_by_another_processors_numbers_end_the_worker(machine: int, number: int, architecture: int) -> None:
    if architecture != ARCHITECTURES[machine]:
        assert answer(machine, number, (), architecture) == KILL


@given(st.sampled_from(MACHINES), st.sampled_from(sorted(CHECKED)), st.tuples(*[words] * 6))
def test_a_checked_call_passes_exactly_when_every_condition_holds(
    machine: int, name: str, arguments: Arguments
) -> None:
    number = CHECKED[name][machine]
    if number is not None:
        holds = all(arguments[t.argument] & t.mask in t.values for t in rules(PROCESS)[name])
        assert answer(machine, number, arguments) == (ALLOW if holds else NOT_PERMITTED)


@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [
        ("clone", (THREAD,), True),
        ("clone", (0x7D0F00,), True),
        ("clone", (17,), False),
        ("clone", (0x4111,), False),
        ("clone", (THREAD & ~0x10000,), False),
        ("clone", (THREAD | 0x10000000,), False),
        ("clone", (THREAD | 1 << 33,), False),
        ("openat", (0, 0, 0o2000000), True),
        ("openat", (0, 0, 0o1101, 0o666), True),
        ("openat", (0, 0, 0o1000), False),
        ("openat", (0, 0, 0o1003), False),
        ("openat", (0, 0, 0o101, 0o4755), False),
        ("openat", (0, 0, 0o101, 0o2755), False),
        ("mkdirat", (0, 0, 0o1777), False),
        ("renameat2", (0, 0, 0, 0, 1), True),
        ("renameat2", (0, 0, 0, 0, 4), False),
        ("prctl", (38, 1), False),
        ("prctl", (22, 2), False),
        ("prctl", (15,), True),
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),
        ("fcntl", (0, 8, 1), False),
        ("fcntl", (0, 1030, 3), True),
        ("prlimit64", (0, 9, 0, 1), True),
        ("prlimit64", (0, 9, 1 << 40, 0), False),
        ("prlimit64", (1, 9, 0, 1), False),
        ("kill", (PROCESS, 9), True),
        ("kill", (1, 9), False),
        ("kill", (0, 9), False),
        ("kill", ((1 << 32) - PROCESS, 9), False),
        ("tgkill", (PROCESS, 99, 6), True),
        ("tgkill", (1, 1, 6), False),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_what_the_conditions_mean(machine: int, name: str, arguments: Arguments, passes: bool) -> None:
    number = CHECKED[name][machine]
    assert number is not None
    assert answer(machine, number, arguments) == (ALLOW if passes else NOT_PERMITTED)


@pytest.mark.parametrize(
    "name",
    ["execve", "execveat", "fork", "vfork", "socket", "socketpair", "memfd_create", "link", "linkat", "symlink",
     "symlinkat", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "setxattr", "utimensat",
     "truncate", "shmget", "msgget", "semget", "mq_open", "tkill", "rt_sigqueueinfo", "capset", "seccomp",
     "landlock_restrict_self", "sched_setaffinity", "setpriority", "flock", "inotify_init1"],
)  # fmt: skip
def test_what_could_reach_out_of_the_folder_is_on_no_list(name: str) -> None:
    assert not any(name in table for table in (ALLOWED, CHECKED, ABSENT, KILLED))
