"""System calls of a worker: which it may make, with which it is ended, and their numbers on x86-64 and 64-bit Arm.

The list was recorded: `tools/syscalls.py` runs the lab's own workers under strace and names every call that they made after
their limits were in force. Beside what was seen stand the calls by which other C libraries do the same (musl, older and
newer glibc), and nothing else. A call that stands nowhere here is refused with "operation not permitted".

Numbers: Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h; a number never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ABSENT", "ALLOWED", "CHECKED", "KILLED", "NEWEST", "OWN", "Numbers"]

# Name -> number on x86-64 and on 64-bit Arm; None where the machine never had the call.
Numbers = Mapping[str, tuple[int, int | None]]

# No call above this number was known when the lists were made: it looks absent, as on the kernel they were made for.
NEWEST = 469

# Calls that every worker may make as it likes. Files by name are Landlock's to judge.
ALLOWED: Numbers = MappingProxyType(
    {
        # memory, and code that was compiled a moment ago
        "brk": (12, 214),
        "mmap": (9, 222),
        "munmap": (11, 215),
        "mremap": (25, 216),
        "mprotect": (10, 226),
        "madvise": (28, 233),
        "membarrier": (324, 283),
        # open descriptors
        "read": (0, 63),
        "readv": (19, 65),
        "pread64": (17, 67),
        "preadv": (295, 69),
        "preadv2": (327, 286),
        "write": (1, 64),
        "writev": (20, 66),
        "pwrite64": (18, 68),
        "pwritev": (296, 70),
        "pwritev2": (328, 287),
        "lseek": (8, 62),
        "close": (3, 57),
        "close_range": (436, 436),
        "dup": (32, 23),
        "dup2": (33, None),
        "dup3": (292, 24),
        "ftruncate": (77, 46),
        "fallocate": (285, 47),
        "fsync": (74, 82),
        "fdatasync": (75, 83),
        "sync_file_range": (277, 84),
        "fadvise64": (221, 223),
        "sendfile": (40, 71),
        "copy_file_range": (326, 285),
        "getdents64": (217, 61),
        "fstat": (5, 80),
        "fstatfs": (138, 44),
        "poll": (7, None),
        "ppoll": (271, 73),
        "select": (23, None),
        "pselect6": (270, 72),
        "pipe": (22, None),
        "pipe2": (293, 59),
        # names: looking at them
        "newfstatat": (262, 79),
        "stat": (4, None),
        "lstat": (6, None),
        "statx": (332, 291),
        "statfs": (137, 43),
        "access": (21, None),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "getcwd": (79, 17),
        # names: taking them away in its own folder
        "rmdir": (84, None),
        "unlink": (87, None),
        "unlinkat": (263, 35),
        "rename": (82, None),
        "renameat": (264, 38),
        # threads and signals of its own
        "futex": (202, 98),
        "set_robust_list": (273, 99),
        "rseq": (334, 293),
        "set_tid_address": (218, 96),
        "exit": (60, 93),
        "exit_group": (231, 94),
        "gettid": (186, 178),
        "getpid": (39, 172),
        "getppid": (110, 173),
        "sched_yield": (24, 124),
        "sched_getaffinity": (204, 123),
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "rt_sigpending": (127, 136),
        "rt_sigtimedwait": (128, 137),
        "sigaltstack": (131, 132),
        "restart_syscall": (219, 128),
        # time
        "nanosleep": (35, 101),
        "clock_nanosleep": (230, 115),
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "gettimeofday": (96, 169),
        "time": (201, None),
        "times": (100, 153),
        # what it is and what there is
        "getuid": (102, 174),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getegid": (108, 177),
        "getgroups": (115, 158),
        "getresuid": (118, 148),
        "getresgid": (120, 150),
        "getpgrp": (111, None),
        "getpgid": (121, 155),
        "getsid": (124, 156),
        "getrlimit": (97, 163),
        "getrusage": (98, 165),
        "uname": (63, 160),
        "sysinfo": (99, 179),
        "getrandom": (318, 278),
        "getcpu": (309, 168),
        "capget": (125, 90),
        "umask": (95, 166),
    }
)

# Calls that are allowed with some arguments only; `seccomp` says which.
CHECKED: Numbers = MappingProxyType(
    {
        "open": (2, None),
        "openat": (257, 56),
        "mkdir": (83, None),
        "mkdirat": (258, 34),
        "renameat2": (316, 276),
        "clone": (56, 220),
        "prctl": (157, 167),
        "ioctl": (16, 29),
        "fcntl": (72, 25),
        "prlimit64": (302, 261),
        "kill": (62, 129),
        "tgkill": (234, 131),
    }
)

# Calls that look as if the kernel did not have them, so that the C library takes the older way, which can be checked.
ABSENT: Numbers = MappingProxyType(
    {
        "clone3": (435, 435),
        "openat2": (437, 437),
    }
)

# Calls that no library makes by chance in a worker: whoever makes one is ended at once.
KILLED: Numbers = MappingProxyType(
    {
        # other processes
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "kcmp": (312, 272),
        "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424),
        "process_madvise": (440, 440),
        # large doors into the kernel
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "keyctl": (250, 219),
        "add_key": (248, 217),
        "request_key": (249, 218),
        # other views of the file system
        "mount": (165, 40),
        "umount2": (166, 39),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "move_mount": (429, 429),
        "open_tree": (428, 428),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "setns": (308, 268),
        "unshare": (272, 97),
        "open_by_handle_at": (304, 265),
        "fanotify_init": (300, 262),
        # the machine
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "reboot": (169, 142),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        "acct": (163, 89),
        "quotactl": (179, 60),
        "syslog": (103, 116),
        "settimeofday": (164, 170),
        "clock_settime": (227, 112),
        "iopl": (172, None),
        "ioperm": (173, None),
        "sethostname": (170, 161),
        "setdomainname": (171, 162),
    }
)

# Calls that lock a worker down; none of them is allowed afterwards.
OWN: Numbers = MappingProxyType(
    {
        "capset": (126, 91),
        "landlock_create_ruleset": (444, 444),
        "landlock_add_rule": (445, 445),
        "landlock_restrict_self": (446, 446),
        "socket": (41, 198),
    }
)
