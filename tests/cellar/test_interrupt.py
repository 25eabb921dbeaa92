"""Somebody presses Ctrl-C, or gives up: the workers end at once, whatever they were doing, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab_fixtures import CLUSTER, Place, problems, run_cli

# Far less than the minutes that the sleeping workers would be given.
SOON = 3.0
SLEEPER = """
import os, time

def work(job, folder):
    if job["sleep"]:
        time.sleep(600)
    return {"process": os.getpid()}
"""
DRIVER = """
import sys, threading, time
from pathlib import Path
from studbook import sandbox
from studbook.errors import StudbookError
from studbook.executor import in_order
from studbook.sandbox import Limits, client

LIMITS = Limits(seconds=60, memory_bytes=4 << 30, file_bytes=0)
folder = Path(sys.argv[1])
own, sys.executable = sys.executable, str(folder / "python")
client._server()
sys.executable = own

def work(job):
    number, sleep = job
    place = folder / str(number)
    place.mkdir()
    return sandbox.run_worker("sleeper", {"sleep": sleep}, place, LIMITS).value["process"]

def interrupted():
    list(in_order(work, [(n, True) for n in range(9)], workers=3))

def given_up():
    results = in_order(work, [(0, False), *((n, True) for n in range(1, 9))], workers=3)
    assert next(results) > 0
    while not (folder / "2" / "noise.txt").exists():
        time.sleep(0.01)
    results.close()

def alone():
    work((0, True))

def ended():
    errors = []
    def waits():
        try:
            work((0, True))
        except StudbookError as error:
            errors.append(type(error))
    thread = threading.Thread(target=waits)
    thread.start()
    while not (folder / "0" / "noise.txt").exists():
        time.sleep(0.01)
    server = client._current[0].process
    sandbox.end_workers()
    thread.join()
    assert errors == [StudbookError], errors
    assert server.poll() is not None
    sandbox.end_workers()

globals()[sys.argv[2]]()
print("left")
"""


class Driven:
    """A process with sleeping workers."""

    def __init__(self, folder: Path, act: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py"), str(folder), act],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.seen: set[int] = set()

    def end(self) -> tuple[int, str, str]:
        """Its exit code, output and complaints."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.decode(), err.decode()

    def started(self) -> list[str]:
        """Numbers of the jobs that were begun."""
        return sorted(p.name for p in self.folder.iterdir() if p.name.isdigit())


@pytest.fixture
def drive(tmp_path: Path) -> Callable[[str], Driven]:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "driver.py").write_text(DRIVER)
    launcher = tmp_path / "python"
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from studbook.sandbox.server import main; main()"
    launcher.write_text(f"#!{sys.executable} -IB\n{start}\n")
    launcher.chmod(0o755)
    return lambda act: Driven(tmp_path, act)


def below(process: int) -> set[int]:
    """Every process that descends from one."""
    found: set[int] = set()
    pending = [process]
    while pending:
        for task in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            try:
                children = {int(word) for word in task.read_text().split()} - found
            except OSError:
                continue
            found |= children
            pending += children
    return found


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def left_over(processes: Sequence[int]) -> list[int]:
    wait_until(lambda: not any(map(runs, processes)), 1.0)
    return [p for p in processes if runs(p)]


@pytest.mark.parametrize(("act", "workers"), [("interrupted", 3), ("alone", 1)])
def test_an_interruption_ends_sleeping_workers_at_once(drive: Callable[[str], Driven], act: str, workers: int) -> None:
    driven = drive(act)
    # The server, and below it the workers.
    assert wait_until(lambda: len(list(driven.folder.glob("*/noise.txt"))) == workers)
    family = sorted(below(driven.process.pid))
    assert len(family) == workers + 1
    began = time.monotonic()
    os.kill(driven.process.pid, signal.SIGINT)
    code, out, err = driven.end()
    assert time.monotonic() - began < SOON
    assert (code, out) == (-signal.SIGINT, "")
    assert "KeyboardInterrupt" in err
    assert left_over(family) == []
    assert driven.started() == [str(n) for n in range(workers)], "what had not started never does"


def test_giving_up_on_results_ends_the_workers_that_run(drive: Callable[[str], Driven]) -> None:
    began = time.monotonic()
    driven = drive("given_up")
    assert driven.end() == (0, "left\n", "")
    assert time.monotonic() - began < 10 * SOON


def test_ending_the_workers_ends_the_wait_for_them(drive: Callable[[str], Driven]) -> None:
    assert drive("ended").end() == (0, "left\n", "")


def test_an_interrupted_round_leaves_no_process_and_goes_on_later(new_lab: Place) -> None:
    command = [sys.executable, "-m", "studbook", "--lab", str(new_lab.path), "--keys", str(new_lab.keys)]
    started = subprocess.Popen(
        [*command, "round", CLUSTER], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ), text=True
    )
    seen: set[int] = set()

    def working() -> bool:
        seen.update(below(started.pid))
        return len(seen) > 3

    assert wait_until(working), "no worker was ever seen"
    began = time.monotonic()
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert time.monotonic() - began < SOON
    assert started.returncode == 130
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert left_over(sorted(seen)) == []
    ended = run_cli(new_lab, "round", CLUSTER)
    assert ended.returncode == 0, ended.stderr
    assert problems(new_lab) == []
