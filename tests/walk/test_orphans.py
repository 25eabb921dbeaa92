"""When a lab is killed in the middle of a round, its workers end with it and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab_fixtures import CLUSTER, Place, problems, run_cli


def descendants(process: int) -> set[int]:
    found: set[int] = set()
    pending = [process]
    while pending:
        for task in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            children = {int(word) for word in task.read_text().split()} - found
            found |= children
            pending += children
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition, seconds: float = 30.0) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_workers_end_with_a_lab_that_is_killed(new_lab: Place) -> None:
    command = [sys.executable, "-m", "studbook", "--lab", str(new_lab.path), "--keys", str(new_lab.keys)]
    started = subprocess.Popen(
        [*command, "round", CLUSTER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    seen: set[int] = set()

    def working() -> bool:
        seen.update(descendants(started.pid))
        return len(seen) > 3

    assert wait_for(working), "no worker was ever seen"
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert wait_for(lambda: all(gone(p) for p in seen)), [p for p in seen if not gone(p)]
    ended = run_cli(new_lab, "round", CLUSTER)
    assert ended.returncode == 0, ended.stderr
    assert problems(new_lab) == []
