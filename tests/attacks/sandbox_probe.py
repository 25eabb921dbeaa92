"""What a hostile worker would try. Every act does its harm and comes back, or fails with the error it met.

The same acts run without the sandbox, forked from `sandbox_driver`, and as a worker. Only the standard library is used.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
ACTS: dict[str, Callable[[Job, Path], object]] = {}
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, NEWNET = 0x20000, 0x10000000, 0x40000000
# Numbers that x86-64 and 64-bit Arm share.
IO_URING_SETUP, PIDFD_OPEN, PIDFD_SEND_SIGNAL = 425, 434, 424


def act(function: Callable[[Job, Path], object]) -> Callable[[Job, Path], object]:
    ACTS[function.__name__] = function
    return function


def work(job: Job, folder: Path) -> dict[str, Any]:
    """One act; a worker's entry."""
    ACTS[job["act"]](job, folder)
    return {"done": True}


def need(done: object, words: str = "it had no effect") -> None:
    if not done:
        raise OSError(0, words)


def call(number: int, *arguments: object) -> int:
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# What a worker has to be able to do: if one of these fails within, the others prove nothing.


@act
def may_read_its_input(job: Job, folder: Path) -> None:
    need(Path(job["input"]).read_text() == "input")


@act
def may_write_in_its_folder(job: Job, folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "file").write_text("x")
    (folder / "new" / "file").rename(folder / "new" / "other")


@act
def may_start_a_thread(job: Job, folder: Path) -> None:
    done: list[int] = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join()
    need(done)


@act
def may_signal_itself(job: Job, folder: Path) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


# Reading


@act
def read_a_secret(job: Job, folder: Path) -> None:
    need(Path(job["secret"]).read_text() == "secret")


@act
def list_the_lab(job: Job, folder: Path) -> None:
    need(list(Path(job["lab"]).iterdir()))


@act
def read_through_a_link_in_its_folder(job: Job, folder: Path) -> None:
    need((folder / "way out").read_text() == "secret")


@act
def read_through_a_folder_link(job: Job, folder: Path) -> None:
    need((folder / "up" / "secret").read_text() == "secret")


@act
def read_through_dots(job: Job, folder: Path) -> None:
    need((folder / ".." / "lab" / "secret").read_text() == "secret")


@act
def read_through_the_root_of_proc(job: Job, folder: Path) -> None:
    need(Path(f"/proc/self/root{job['secret']}").read_text() == "secret")


@act
def list_the_folders_above(job: Job, folder: Path) -> None:
    need(list(folder.parent.iterdir()) and list(Path("/").iterdir()))


@act
def read_the_labs_environment(job: Job, folder: Path) -> None:
    need(b"PROBE_SECRET" in Path(f"/proc/{job['lab_process']}/environ").read_bytes())


@act
def read_the_parents_environment(job: Job, folder: Path) -> None:
    need(Path(f"/proc/{os.getppid()}/environ").read_bytes())


@act
def read_the_labs_memory(job: Job, folder: Path) -> None:
    os.close(os.open(f"/proc/{job['lab_process']}/mem", os.O_RDONLY))


@act
def trace_the_lab(job: Job, folder: Path) -> None:
    # PTRACE_SEIZE stops nobody.
    checked(libc.ptrace(0x4206, job["victim"], None, None))


@act
def copy_from_anothers_memory(job: Job, folder: Path) -> None:
    there = int(Path(f"/proc/{job['victim']}/maps").read_text().split("-")[0], 16)
    into = ctypes.create_string_buffer(4)
    ours = struct.pack("QQ", ctypes.addressof(into), 4)
    checked(libc.process_vm_readv(job["victim"], ours, 1, struct.pack("QQ", there, 4), 1, 0))
    need(into.raw == b"\x7fELF")


# Writing


@act
def write_outside(job: Job, folder: Path) -> None:
    (Path(job["lab"]) / "planted").write_text("x")


@act
def change_a_file_outside(job: Job, folder: Path) -> None:
    with Path(job["prey"]).open("r+b") as file:
        file.write(b"x")


@act
def cut_a_file_outside(job: Job, folder: Path) -> None:
    os.truncate(job["prey"], 1)


@act
def cut_a_file_outside_while_opening_it(job: Job, folder: Path) -> None:
    os.close(os.open(job["prey"], os.O_RDONLY | os.O_TRUNC))


@act
def delete_outside(job: Job, folder: Path) -> None:
    Path(job["prey"]).unlink()


@act
def open_up_a_file_outside(job: Job, folder: Path) -> None:
    Path(job["prey"]).chmod(0o777)


@act
def open_up_its_own_input(job: Job, folder: Path) -> None:
    handle = os.open(job["input"], os.O_RDONLY)
    os.fchmod(handle, 0o777)


@act
def write_its_own_input(job: Job, folder: Path) -> None:
    os.close(os.open(job["input"], os.O_RDWR))


@act
def age_a_file_outside(job: Job, folder: Path) -> None:
    os.utime(job["prey"], (1, 1))


@act
def mark_a_file_outside(job: Job, folder: Path) -> None:
    os.setxattr(job["prey"], "user.probe", b"x")


@act
def link_a_secret_in(job: Job, folder: Path) -> None:
    os.link(job["secret"], folder / "taken")


@act
def link_a_file_out(job: Job, folder: Path) -> None:
    (folder / "mine").write_text("x")
    os.link(folder / "mine", Path(job["lab"]) / "linked")


@act
def move_a_file_out(job: Job, folder: Path) -> None:
    (folder / "mine").write_text("x")
    (folder / "mine").rename(Path(job["lab"]) / "moved")


@act
def leave_a_symbolic_link(job: Job, folder: Path) -> None:
    (folder / "link").symlink_to(job["secret"])


@act
def leave_a_fifo(job: Job, folder: Path) -> None:
    os.mkfifo(folder / "fifo")


@act
def leave_a_device(job: Job, folder: Path) -> None:
    os.mknod(folder / "device", 0o600 | stat.S_IFBLK, os.makedev(7, 0))


@act
def leave_a_set_user_file(job: Job, folder: Path) -> None:
    os.close(os.open(folder / "tool", os.O_CREAT | os.O_WRONLY, 0o4755))
    need((folder / "tool").stat().st_mode & stat.S_ISUID)


@act
def write_a_file_of_2_gib(job: Job, folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.seek((2 << 30) - 1)
        file.write(b"x")


# The network and the neighbours


@act
def connect_by_tcp(job: Job, folder: Path) -> None:
    socket.create_connection(("127.0.0.1", job["tcp"]), 5).close()


@act
def listen_by_tcp(job: Job, folder: Path) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


@act
def send_by_udp(job: Job, folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("127.0.0.1", job["udp"]))


@act
def connect_to_a_path_socket(job: Job, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(job["door"])


@act
def connect_to_an_abstract_socket(job: Job, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("\0" + job["abstract"])


@act
def ask_the_kernel_for_routes(job: Job, folder: Path) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


@act
def signal_another(job: Job, folder: Path) -> None:
    os.kill(job["victim"], signal.SIGCONT)


@act
def signal_another_by_descriptor(job: Job, folder: Path) -> None:
    handle = call(PIDFD_OPEN, ctypes.c_long(job["victim"]), ctypes.c_long(0))
    call(PIDFD_SEND_SIGNAL, ctypes.c_long(handle), ctypes.c_long(int(signal.SIGCONT)), None, ctypes.c_long(0))


@act
def signal_the_server(job: Job, folder: Path) -> None:
    os.kill(os.getppid(), 0)


@act
def slow_another_down(job: Job, folder: Path) -> None:
    os.setpriority(os.PRIO_PROCESS, job["victim"], 19)


@act
def share_memory_with_others(job: Job, folder: Path) -> None:
    # IPC_PRIVATE, and removed again.
    number = checked(libc.shmget(0, 4096, 0o1600))
    libc.shmctl(number, 0, None)


# Processes


@act
def start_a_program(job: Job, folder: Path) -> None:
    if os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {}):
        os.wait()


@act
def become_a_program(job: Job, folder: Path) -> None:
    os.execv("/bin/sh", ["sh", "-c", f"echo > '{folder}/became'"])


@act
def run_a_program_from_memory(job: Job, folder: Path) -> None:
    handle = os.memfd_create("probe")
    os.write(handle, Path("/bin/sh").read_bytes())
    os.execve(handle, ["sh", "-c", f"echo > '{folder}/became'"], {})


@act
def bomb_with_forks(job: Job, folder: Path) -> None:
    children = []
    for _ in range(50):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@act
def leave_a_process_behind(job: Job, folder: Path) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1)
        os._exit(0)
    os.wait()


@act
def allocate_1_gib(job: Job, folder: Path) -> None:
    need(len(bytearray(1 << 30)) == 1 << 30)


@act
def leave_a_core_dump(job: Job, folder: Path) -> None:
    need(resource.getrlimit(resource.RLIMIT_CORE)[1] != 0)


# The kernel


@act
def make_a_user_namespace(job: Job, folder: Path) -> None:
    checked(libc.unshare(NEWUSER))


@act
def mount_something(job: Job, folder: Path) -> None:
    checked(libc.unshare(NEWNS if os.geteuid() == 0 else NEWUSER | NEWNS))
    # MS_REC | MS_PRIVATE: nothing of it is seen outside.
    checked(libc.mount(None, b"/", None, 0x44000, None))
    checked(libc.mount(b"none", bytes(folder), b"tmpfs", 0, None))


@act
def change_the_root(job: Job, folder: Path) -> None:
    checked(libc.unshare(0 if os.geteuid() == 0 else NEWUSER))
    os.chroot(folder)


@act
def queue_work_in_the_kernel(job: Job, folder: Path) -> None:
    os.close(call(IO_URING_SETUP, ctypes.c_long(1), ctypes.create_string_buffer(120)))


@act
def make_memory_that_is_a_file(job: Job, folder: Path) -> None:
    os.close(os.memfd_create("probe"))


@act
def watch_the_files_of_others(job: Job, folder: Path) -> None:
    handle = checked(libc.inotify_init1(0))
    checked(libc.inotify_add_watch(handle, os.fsencode(job["lab"]), 0xFFF))
