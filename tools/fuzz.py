"""Drive every reader of foreign bytes by coverage (atheris, libFuzzer), each in a process of its own.

    tools/fuzz.py [--budget 30] [--jobs N] [READER ...]

Prints inputs tried, edges reached and findings, and exits with 1 if there is one. What was found lies as bytes in
``build/fuzz/READER``; once mended it belongs into ``tests/fuzz/regressions/READER``. The corpus stays there too, so a
later run goes on where this one stopped. Runs in the environment of the extra ``train``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from studbook.executor import available_cores

ROOT = Path(__file__).resolve().parents[1]
GUIDED = ROOT / "tests" / "fuzz" / "guided.py"
# What one input may take before it counts as a hang, and all inputs of one reader together, in seconds and MiB.
HANG, MEMORY = 10, 2048
LONGEST = 16_384
# What imports, compiling and reading the corpus again may take beside the time asked for, in seconds.
LONGEST_START = 240
_EDGES = re.compile(r"^#\d+\s+(?:INITED|NEW|REDUCE|pulse|DONE|RELOAD)\s+cov: (\d+)", re.MULTILINE)
_UNITS = re.compile(r"^stat::number_of_executed_units: (\d+)", re.MULTILINE)
_FOUND = ("finding-*", "crash-*", "timeout-*", "oom-*")


class Outcome(NamedTuple):
    """What one run came to.

    Attributes:
        name: The reader.
        inputs: Inputs tried; 0 where the run did not say.
        first: Edges reached by the corpus.
        last: Edges reached at the end.
        findings: Files with inputs that did what they must not.
        trouble: Why the run itself failed; empty where it did not.
    """

    name: str
    inputs: int
    first: int
    last: int
    findings: tuple[Path, ...]
    trouble: str


def readers() -> list[str]:
    """Names of the table of harnesses, without loading it."""
    tree = ast.parse((GUIDED.parent / "harnesses.py").read_text(encoding="utf-8"))
    tables = [n for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "HARNESSES"]
    assert len(tables) == 1
    assert isinstance(tables[0].value, ast.Dict)
    return [ast.literal_eval(key) for key in tables[0].value.keys if key is not None]


class Driver:
    """A process that reads the sources for coverage once, and drives one reader after the other in forks of itself.

    Args:
        log: Where it says what it reads, and why it ended if it did.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[str] | None = None

    def drive(self, name: str, folder: Path, seconds: int) -> int | None:
        """Drive a reader; its exit status, or None if it or the driver itself did not come to an end."""
        if self.process is None:
            command = [sys.executable, str(GUIDED)]
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
        process = self.process
        options = [
            f"-max_total_time={seconds}", f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}",
            f"-artifact_prefix={folder}/", "-print_final_stats=1",
        ]  # fmt: skip
        late = threading.Timer(seconds + LONGEST_START, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps([name, str(folder), *options]) + "\n")
                process.stdin.flush()
            status = process.stdout.readline()
        finally:
            late.cancel()
        if status:
            return int(status)
        self.close()
        return None

    def close(self) -> None:
        """End the process and whatever it started."""
        if self.process is not None:
            with suppress(ProcessLookupError, BrokenPipeError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None


def run(driver: Driver, name: str, seconds: int) -> Outcome:
    """Drive one reader and read what it says of itself."""
    folder = ROOT / "build" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in _FOUND:
        for old in folder.glob(pattern):
            old.unlink()
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    code = driver.drive(name, folder, seconds)
    trouble = f"did not end within {seconds + LONGEST_START} s; see {driver.log.name}" if code is None else ""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    edges = [int(number) for number in _EDGES.findall(text)] or [0]
    units = [int(number) for number in _UNITS.findall(text)] or [0]
    found = sorted(p for pattern in _FOUND for p in folder.glob(pattern) if p.suffix != ".txt")
    if not trouble and not found and (code or not units[-1]):
        trouble = f"ended with {code}; see {log.relative_to(ROOT)}"
    return Outcome(name, units[-1], edges[0], edges[-1], tuple(found), trouble)


def outcomes(names: Sequence[str], seconds: int, jobs: int) -> Iterator[Outcome]:
    """What every reader came to, in order; ``jobs`` of them at once."""
    idle: queue.SimpleQueue[Driver] = queue.SimpleQueue()
    drivers = [Driver(ROOT / "build" / "fuzz" / f"driver-{n}.txt") for n in range(jobs)]
    for driver in drivers:
        idle.put(driver)

    def one(name: str) -> Outcome:
        driver = idle.get()
        try:
            return run(driver, name, seconds)
        finally:
            idle.put(driver)

    try:
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, names)
    finally:
        for driver in drivers:
            driver.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Drive every reader by coverage.")
    parser.add_argument("--budget", type=int, default=30, help="seconds for every reader (30)")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="readers at once (one a processor)")
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(readers()))
    asked = parser.parse_args()
    if asked.budget < 1 or asked.jobs < 1:
        parser.error("--budget and --jobs are at least 1")
    if unknown := set(asked.readers) - set(readers()):
        parser.error(f"no such reader: {', '.join(sorted(unknown))}")
    if find_spec("atheris") is None:
        print(
            "atheris is not here: run this with the environment of the extra train, on Linux and x86-64",
            file=sys.stderr,
        )
        return 2
    started, bad, names = time.monotonic(), 0, asked.readers or readers()
    for one in outcomes(names, asked.budget, asked.jobs):
        bad += bool(one.findings or one.trouble)
        print(f"{one.name:20} {one.inputs:>9} inputs  edges {one.first:>5} -> {one.last:<5} {one.trouble}", flush=True)
        for path in one.findings:
            print(f"  finding: {path.relative_to(ROOT)}", flush=True)
    print(f"{time.monotonic() - started:.0f} s, {bad} readers with findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
