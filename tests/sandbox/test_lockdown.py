"""A worker in a running server: what it can still do, what it cannot, and what the lab believes of what it says."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studbook.errors import BytesLie, OutsideAllowlist, OverBudget, StudbookError
from studbook.sandbox import Answer, Limits, client, landlock
from studbook.sandbox.libc import MACHINE

pytestmark = pytest.mark.skipif(
    MACHINE is None or landlock.version() < 6, reason="needs Linux with Landlock version 6 on x86-64 or 64-bit Arm"
)
Run = Callable[..., Answer]
LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)
KERNEL = {"landlock-files", "landlock-neighbours", "landlock-tcp", "landlock-truncate", "no-capabilities", "seccomp"}
SOURCE = """
import ctypes, json, mmap, os, shutil, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

def work(job, folder):
    return globals()[job["act"]](job, folder)

def lives(job, folder):
    with ThreadPoolExecutor(8) as pool:
        squares = list(pool.map(lambda n: n * n, range(100)))
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    with open(folder / "a", "r+b") as file:
        file.truncate(3)
    os.rename(folder / "a", folder / "b")
    with tempfile.NamedTemporaryFile() as kept:
        kept.write(b"x")
    shutil.rmtree(folder / "deep")
    executable = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    executable.close()
    with open(os.devnull, "w") as nothing:
        nothing.write("x")
    return {"squares": sum(squares), "b": (folder / "b").read_text(), "random": len(os.urandom(8)),
            "files": sorted(p.name for p in folder.iterdir()), "status": Path("/proc/self/status").read_text()[:5],
            "cpus": len(os.sched_getaffinity(0))}

def reads(job, folder):
    return {"text": Path(job["path"]).read_text()}

def dies(job, folder):
    ctypes.CDLL(None).ptrace(16, 1, 0, 0)
    return {}

def forges(job, folder):
    (folder / "result.json").write_text(json.dumps({"answer": {}, "isolation": ["own-planet"]}))
    os._exit(0)

def answers(job, folder):
    (folder / "result.json").write_text(job["text"])
    os._exit(0)

def links(job, folder):
    os.symlink("/etc/passwd", folder / "result.json")
    os._exit(0)

def begins(job, folder):
    (folder / "began").touch()
    return {}

def floods(job, folder):
    for number in range(200_000):
        (folder / str(number)).touch()
    return {}

def fills(job, folder):
    for number in range(10_000):
        (folder / str(number)).write_bytes(os.urandom(1 << 20))
    return {}

def holds(job, folder):
    parts = []
    for _ in range(3):
        if os.fork() == 0:
            parts.append(bytearray(os.urandom(1 << 20)) * 300)
            time.sleep(60)
    time.sleep(60)
    return {}

def abandons(job, folder):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            (folder / "pid").write_text(str(os.getpid()))
            time.sleep(60)
        os._exit(0)
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        time.sleep(0.01)
    if job["sleep"]:
        time.sleep(60)
    return {}

def spins(job, folder):
    # Small stacks, or the address space is used up first.
    threading.stack_size(1 << 16)
    lock = threading.Lock()
    lock.acquire()
    for _ in range(2000):
        threading.Thread(target=lock.acquire, daemon=True).start()
    time.sleep(60)
    return {}
"""


def test_what_a_worker_needs_still_works(run: Run, tmp_path: Path) -> None:
    answer = run("lives")
    assert answer.value == {
        "squares": sum(n * n for n in range(100)),
        "b": "123",
        "random": 8,
        "files": ["b", "noise.txt"],
        "status": "Name:",
        "cpus": len(os.sched_getaffinity(0)),
    }
    assert set(answer.isolation) >= KERNEL


def test_only_the_files_that_the_lab_names_can_be_read(run: Run, tmp_path: Path) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    named.write_text("input")
    other.write_text("suite")
    assert run("reads", path=str(named), reads=(named,)).value == {"text": "input"}
    (tmp_path / "reads").rename(tmp_path / "earlier")
    with pytest.raises(StudbookError, match="Permission denied") as caught:
        run("reads", path=str(other), reads=(named,))
    assert caught.value.where == str(other)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_a_link_is_no_input(run: Run, tmp_path: Path, kind: str) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "suite").write_text("secret")
    (tmp_path / "link").symlink_to(store / "suite")
    given = store if kind == "folder" else tmp_path / "link"
    with pytest.raises(StudbookError, match="Permission denied"):
        run("reads", path=str(store / "suite"), reads=(given,))


def test_a_call_without_any_harmless_reason_ends_the_worker(run: Run) -> None:
    with pytest.raises(StudbookError, match="what no worker may do") as caught:
        run("dies")
    assert caught.value.reason == "sandbox.syscall"


def test_the_measures_are_those_the_worker_named_before_it_opened_anything(run: Run) -> None:
    answer = run("forges")
    assert answer.value == {}
    assert "own-planet" not in answer.isolation
    assert set(answer.isolation) >= KERNEL


@pytest.mark.parametrize(
    "text",
    ["", "[]", "nonsense", "null", '{"answer": 3}', '{"error": "no"}', "[" * 100_000, '{"answer": ', "\ud800".encode(
        "utf-8", "surrogatepass").decode("latin-1")],
    ids=["empty", "list", "words", "null", "number", "error", "nested", "cut", "latin"],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_typed_error(run: Run, text: str) -> None:
    with pytest.raises(BytesLie, match="not an answer") as caught:
        run("answers", text=text)
    assert caught.value.reason == "sandbox.answer"


def test_a_forged_error_cannot_drive_a_terminal(run: Run) -> None:
    told = {"type": "UsageError", "message": "\x1b[2J gone", "where": "\x07", "advice": 3}
    with pytest.raises(StudbookError) as caught:
        run("answers", text=json.dumps({"error": told}))
    assert str(caught.value).isprintable()


def test_a_link_where_the_answer_should_be_is_refused(run_portably: Run) -> None:
    # Only where the kernel does not keep links from being made.
    with pytest.raises(BytesLie, match="symbolic link"):
        run_portably("links")


def test_a_demand_that_cannot_be_met_stops_the_worker_before_it_begins(run_portably: Run, tmp_path: Path) -> None:
    limits = Limits(
        seconds=20, memory_bytes=4 << 30, file_bytes=0, demands=("landlock-files", "own-session", "seccomp")
    )
    with pytest.raises(OutsideAllowlist, match=r"does not offer landlock-files, seccomp, .* nothing has run") as caught:
        run_portably("begins", limits)
    assert caught.value.reason == "policy.isolation"
    assert "minimum_isolation" in caught.value.where
    assert not (tmp_path / "begins" / "began").exists()


def test_a_demand_that_is_met_lets_it_begin(run: Run, tmp_path: Path) -> None:
    limits = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=0, demands=tuple(sorted(KERNEL)))
    run("begins", limits)
    assert (tmp_path / "begins" / "began").exists()


@pytest.mark.parametrize(
    ("act", "limits", "words"),
    [
        ("floods", LIMITS, "more than 4096 files"),
        ("fills", Limits(seconds=20, memory_bytes=4 << 30, file_bytes=2 << 20, folder_bytes=64 << 20), "files took"),
        ("spins", LIMITS, "threads; 512 are allowed"),
    ],
)
def test_what_no_limit_of_the_kernel_covers_is_watched(run: Run, act: str, limits: Limits, words: str) -> None:
    with pytest.raises(OverBudget, match=words):
        run(act, limits)


def test_the_memory_of_everything_a_worker_started_is_counted_together(run_portably: Run) -> None:
    limits = Limits(seconds=20, memory_bytes=700 << 20, file_bytes=0)
    with pytest.raises(OverBudget, match="of memory; 734003200 are allowed"):
        run_portably("holds", limits)


@pytest.mark.parametrize("sleep", [False, True])
def test_a_process_that_was_left_behind_twice_removed_is_ended(
    open_: client._Server, tmp_path: Path, sleep: bool
) -> None:
    # Only where the kernel does not keep processes from being made.
    limits = {"seconds": 20, "memory_bytes": 4 << 30, "file_bytes": 0, "demands": []}
    request = {"module": "inmate", "job": {"act": "abandons", "sleep": sleep}, "folder": str(tmp_path)}
    ended = open_.run({**request, "limits": limits, "reads": []}, 1.0)
    assert ended.get("timed_out", False) is sleep
    assert ended["code"] == (-signal.SIGKILL if sleep else 0)
    assert gone(int((tmp_path / "pid").read_text()))


def gone(process: int) -> bool:
    for _ in range(200):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False
