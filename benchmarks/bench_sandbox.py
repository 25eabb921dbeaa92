"""What does it cost to start a worker: shut in, with limits only, and beside a fresh interpreter that does nothing?

Four ways in alternation, in one run on one machine. A worker is timed from the lab's call to its checked answer; it does
nothing in between. The worker server has the breeding modules loaded, as in a lab: numpy, numba, the operators. *Limits
only* is the same server without Landlock, the filter of system calls, the empty network and the dropped capabilities; it
exists nowhere but here. All times are wall times.

    python benchmarks/bench_sandbox.py [--rounds 60] [--write docs/proof]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from studbook.errors import StudbookError
from studbook.sandbox import Limits, client, level_of, run_worker

LIMITS = Limits(seconds=30, memory_bytes=4 << 30, file_bytes=1 << 20)
DOES_NOTHING = "studbook.lab.doctor_worker"
LOADED = "studbook.breeding.worker"
LIMITS_ONLY = "server.lock_down = server.own_network = lambda *_: ()"


class Way(NamedTuple):
    """One way to start something, and what it took."""

    name: str
    start: Callable[[], object]
    walls: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--write", type=Path, help="folder for sandbox.json and sandbox.md")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    print(page(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "sandbox.json").write_text(json.dumps(found, indent=2) + "\n")
        (arguments.write / "sandbox.md").write_text(page(found))


def measure(rounds: int) -> dict[str, Any]:
    """Every way, one after the other, so many times."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder), "") as locked,
        server(Path(folder), LIMITS_ONLY) as limited,
    ):
        measures = answer(locked, Path(folder)).isolation
        ways = [
            Way("fresh interpreter", lambda: fresh("pass"), []),
            Way("fresh interpreter with the breeding modules", lambda: fresh(f"import {LOADED}"), []),
            Way("worker, limits only", lambda: answer(limited, Path(folder)), []),
            Way("worker", lambda: answer(locked, Path(folder)), []),
        ]
        for _ in range(rounds):
            for way in ways:
                began = time.perf_counter()
                way.start()
                way.walls.append(time.perf_counter() - began)
    rows = [{"way": w.name, "median_ms": 1e3 * median(w.walls), "quickest_ms": 1e3 * min(w.walls)} for w in ways]
    return {"rounds": rounds, "rows": rows, "measures": list(measures), "level": level_of(measures), "machine": facts()}


@contextmanager
def server(folder: Path, before: str) -> Iterator[client._Server]:
    """A worker server with the breeding modules loaded."""
    launcher = folder / f"python-{len(before)}"
    launcher.write_text(f"#!{sys.executable} -IB\nfrom studbook.sandbox import server\n{before}\nserver.main()\n")
    launcher.chmod(0o755)
    own, sys.executable = sys.executable, str(launcher)
    try:
        made = client._Server()
    finally:
        sys.executable = own
    # Its job is empty: all that is wanted is that the module is there.
    with suppress(StudbookError):
        answer(made, folder, LOADED)
    yield made
    made.close()


def answer(held: client._Server, folder: Path, module: str = DOES_NOTHING) -> client.Answer:
    client._current[:] = [held]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return run_worker(module, {}, Path(place), LIMITS)


def fresh(code: str) -> None:
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def facts() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "user": "root" if os.getuid() == 0 else "an ordinary user",
    }


def page(found: dict[str, Any]) -> str:
    """The figures in words."""
    facts_ = found["machine"]
    lines = [
        "# Starting a worker",
        "",
        f"Written by `benchmarks/bench_sandbox.py`: {found['rounds']} rounds in alternation, wall times, run by "
        f"{facts_['user']}. {facts_['machine']}, {facts_['processors']} processors, Linux {facts_['kernel']}, "
        f"Python {facts_['python']}.",
        "",
        "| way | median ms | quickest ms |",
        "|---|---:|---:|",
        *(f"| {row['way']} | {row['median_ms']:.1f} | {row['quickest_ms']:.1f} |" for row in found["rows"]),
        "",
        f"Level reached: {found['level']}. Measures: {', '.join(found['measures'])}.",
        "",
        "A worker is timed from the lab's call to its checked answer. The server has numpy, numba and the operators loaded, "
        "so most of a worker's time is copying that process.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
