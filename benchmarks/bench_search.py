"""Evaluations a CPU second: candidates in memory against the loop that writes, loads and evaluates every candidate.

Search tools commonly write each candidate's file, start a process that loads it, and evaluate it there. This does the
same work three ways on the shipped founders and the same development items, one core each, in alternation:

* ``in memory``: the search's own worker, eight recipes a batch; what `studbook search` does;
* ``write and load``: the file is written, synced, read back and checked, in one new interpreter that stays;
* ``fresh process``: the file is written and synced, and a new interpreter loads and evaluates it.

All three must give the same answers item by item. CPU seconds are user and system time of all processes, their start
included: the first two start one interpreter each.

    python benchmarks/bench_search.py [--recipes 64] [--rounds 3] [--write docs/proof]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from studbook.breeding.operators import decode_operator
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import as_inputs
from studbook.evaluation.score_worker import work as score
from studbook.evaluation.suites import items_sha256
from studbook.models.slm import read_slm, write_slm
from studbook.population import Draws, make_space, recipe
from studbook.population.genomes import random_genome
from studbook.records import canonical
from studbook.sandbox import Limits, end_workers, run_worker

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PARENTS = ("rev-srt", "cap-rot", "dup-odd", "brk")
SUITES = sorted((EXAMPLES / "suites" / "development").glob("development-???/items.jsonl"))
LIMITS = Limits(seconds=600, memory_bytes=8 << 30, file_bytes=256 << 20)
BATCH = 8

Answers = list[list[str]]


def model(name: str) -> Path:
    """File of a shipped founder."""
    return EXAMPLES / "founders" / name / f"{name}.slm"


def recipes(count: int) -> list[dict[str, Any]]:
    """Random points of the space of four scales."""
    space, draws = make_space("scales", len(PARENTS), {}), Draws(1, "bench")
    return [recipe(space, random_genome(space, draws)) for _ in range(count)]


def in_memory(operators: list[dict[str, Any]], folder: Path) -> Answers:
    """As the search does it; the worker server starts and ends inside the measurement."""
    named = [[str(model(n)), read_slm(model(n)).sha256] for n in ("base", *PARENTS)]
    suites = [[str(path), items_sha256(path.read_bytes())] for path in SUITES]
    found: Answers = []
    for start in range(0, len(operators), BATCH):
        place = folder / f"batch-{start}"
        place.mkdir()
        job = {"base": named[0], "parents": named[1:], "suites": suites, "relative_delta": 100.0}
        job["operators"] = operators[start : start + BATCH]
        reads = [path for path, _ in (*named, *suites)]
        answer = run_worker("studbook.lab.search_worker", job, place, LIMITS, reads).value
        found += [outcome["correct"] for outcome in answer["outcomes"]]
    end_workers()
    return found


def write_and_load(operators: list[dict[str, Any]], folder: Path) -> Answers:
    """One new process that writes every candidate, reads it back and evaluates it."""
    answers: Answers = _told("--loop", str(len(operators)), str(folder))
    return answers


def loop(count: int, folder: Path) -> Answers:
    """What that process does."""
    return _each(recipes(count), folder, lambda path, sha256: evaluate(path, sha256))


def fresh_process(operators: list[dict[str, Any]], folder: Path) -> Answers:
    """A new interpreter for every candidate."""
    return _each(operators, folder, lambda path, sha256: _told("--evaluate", str(path), sha256))


def _told(*arguments: str) -> Any:
    """What this script prints in a new interpreter."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def _each(operators: list[dict[str, Any]], folder: Path, run: Callable[[Path, str], list[str]]) -> Answers:
    base, *parents = (read_slm(model(name)) for name in ("base", *PARENTS))
    inputs, found = as_inputs(base, parents), []
    for number, record in enumerate(operators):
        path = folder / f"{number}.slm"
        data = write_slm(base.shape, base.tokenizer, compute(decode_operator(record), inputs))
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        found.append(run(path, items_sha256(data)))
        path.unlink()
    return found


def evaluate(path: Path, sha256: str) -> list[str]:
    """Correctness of one file on all suites, one character an item."""
    suites = [{"path": str(p), "scorer": "exact-match", "limit": 12, "said": None} for p in SUITES]
    job = {"model": str(path), "sha256": sha256, "suites": suites}
    found = score(job, path.parent)["suites"]
    return ["".join("1" if right else "0" for right in suite["correct"]) for suite in found]


def measured(way: Callable[..., Answers], operators: list[dict[str, Any]]) -> tuple[float, float, Answers]:
    """CPU seconds, wall seconds and answers of one way."""
    with tempfile.TemporaryDirectory() as folder:
        before, started = _cpu(), time.perf_counter()
        found = way(operators, Path(folder))
        return _cpu() - before, time.perf_counter() - started, found


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


WAYS: dict[str, Callable[..., Answers]] = {
    "in memory": in_memory,
    "write and load": write_and_load,
    "fresh process": fresh_process,
}


def bench(count: int, rounds: int) -> dict[str, Any]:
    """All ways in alternation; medians over the rounds."""
    operators = recipes(count)
    with tempfile.TemporaryDirectory() as folder:
        loop(1, Path(folder))  # compiles and reads what the ways share
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    seen: set[str] = set()
    for _ in range(rounds):
        for name, way in WAYS.items():
            cpu, wall, answers = measured(way, operators)
            times[name].append((cpu, wall))
            seen.add(json.dumps(answers))
    assert len(seen) == 1, "the ways do not answer alike"
    rows = {}
    for name, found in times.items():
        cpu, wall = median(c for c, _ in found), median(w for _, w in found)
        rows[name] = {"cpu_seconds": cpu, "wall_seconds": wall, "evaluations_a_cpu_second": count / cpu}
    items = sum(path.read_bytes().count(b"\n") for path in SUITES)
    return {"recipes": count, "rounds": rounds, "items": items, "rows": rows}


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = found["rows"]
    slowest = rows["fresh process"]["evaluations_a_cpu_second"]
    lines = [
        "# Evaluations a CPU second",
        "",
        f"Written by `benchmarks/bench_search.py`: {found['recipes']} recipes over four founders, {found['items']:,} items "
        f"each, median of {found['rounds']} rounds in alternation, all ways with the same answers item by item. "
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}, numpy {np.__version__}.",
        "",
        "| way | evaluations a CPU second | CPU s an evaluation | against a fresh process |",
        "|---|---:|---:|---:|",
    ]
    for name, row in rows.items():
        rate = row["evaluations_a_cpu_second"]
        lines.append(f"| {name} | {rate:.2f} | {1 / rate:.3f} | {rate / slowest:.1f}x |")
    lines += [
        "",
        "What is saved is the start of a process for every candidate. The evaluation itself is the same in all three and "
        "bounds them. The first two start one interpreter each. The first row pays for its confined workers and for the "
        "bound on every recipe's change, and leaves no files behind; its workers make the allocator keep what is freed, "
        "which a process that does not ask for it gives back and faults in again for every pass.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark, or evaluate one file for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="folder for search_speed.json and search_speed.md")
    parser.add_argument("--evaluate", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--loop", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.evaluate:
        print(json.dumps(evaluate(Path(told.evaluate[0]), told.evaluate[1])))
        return
    if told.loop:
        print(json.dumps(loop(int(told.loop[0]), Path(told.loop[1]))))
        return
    found = bench(told.recipes, told.rounds)
    words = report(found)
    print(words)
    if told.write:
        told.write.mkdir(parents=True, exist_ok=True)
        (told.write / "search_speed.md").write_text(words, encoding="utf-8")
        (told.write / "search_speed.json").write_bytes(canonical(found) + b"\n")


if __name__ == "__main__":
    main()
