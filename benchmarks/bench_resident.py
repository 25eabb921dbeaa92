"""Five hundred models, fifty in memory, four at work, one budget: is the memory what was predicted, and does it stay so?

Seeded models of three shapes, each stored as f32, q8_0 or q4_0, are installed; requests for them come in from several
threads, popular ones more often. Whatever is asked for and not in memory is activated, and what has to go makes room.
Every hundred requests all pause, and three figures are compared: what the plans say, what the engines say they hold, and
by how much the process has grown since a moment at which it had worked and nothing was active. What grows is memory that
no file stands behind, and is compared with the pages that the plans expect to be written.

    python benchmarks/bench_resident.py [--packages 500] [--active 50] [--parallel 4] [--budget 64000000]
        [--requests 10000] [--write docs/proof]
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import re
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from studbook.errors import OutOfOrder, OverBudget
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.models.shape import SlmShape
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import BOS, ByteTokenizer
from studbook.records import Header, LogitDigest
from studbook.runtime.arenas import Arena, Budgets, Limits
from studbook.runtime.handles import Artifact, Artifacts
from studbook.runtime.installing import Wish, prepare
from studbook.runtime.resident import ResidentSet
from studbook.runtime.residents import Installed

SHAPES = (
    SlmShape(260, 64, 3, 4, 2, 16, 160, 128, 1e4, 1e-5, True),
    SlmShape(260, 48, 4, 4, 4, 12, 128, 96, 1e4, 1e-5, False),
    SlmShape(260, 72, 2, 6, 3, 12, 192, 128, 1e4, 1e-5, True),
)
DTYPES = ("f32", "q8_0", "q4_0")
SMOKE, PROMPT, NEW = 16, 24, 8
PAUSE = 0.001
FIRST = 500
EVERY = 100
# The allocators of several threads fill up slowly: the first half is warming up.
WARM = 0.5
WITHIN = 0.10


class Sample(NamedTuple):
    """Bytes at one pause.

    Attributes:
        requests: Served so far.
        planned: What the plans say the engines hold.
        held: What the engines say.
        expected: What the plans expect to be written.
        grown: Growth of the process since a moment at which nothing was active.
        active: Modules in memory.
    """

    requests: int
    planned: int
    held: int
    expected: int
    grown: int
    active: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packages", type=int, default=500)
    parser.add_argument("--active", type=int, default=50)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--budget", type=int, default=64_000_000)
    parser.add_argument("--staging", type=int, default=1_400_000, help="of the budget, kept free for staging")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--write", type=Path, help="folder for resident.json and resident.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), options)
    print(page(found))
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "resident.json").write_text(json.dumps(found, indent=2) + "\n")
        (options.write / "resident.md").write_text(page(found))


def install(folder: Path, residents: ResidentSet, count: int) -> dict[str, Installed]:
    """Seeded models, each a file of its own."""
    found = {}
    for index in range(count):
        shape, dtype = SHAPES[index % 3], DTYPES[index // 3 % 3]
        random = np.random.default_rng(index)
        values = {
            spec.name: (0.1 * random.standard_normal(spec.dims) + (len(spec.dims) == 1)).astype(np.float32)
            for spec in shape.tensors()
        }
        data = write_slm(shape, ByteTokenizer(), values, dtype)
        sha256 = hashlib.sha256(data).hexdigest()
        path = folder / sha256
        path.write_bytes(data)
        with Engine(data) as engine:
            smoke = LogitDigest(positions=SMOKE, sha256=engine.logit_digest(SMOKE))
        artifact = Artifact(sha256, len(data), path)
        revision = hashlib.sha256(f"{index} {sha256}".encode()).hexdigest()
        package = prepare(f"skill-{index:03}", revision, artifact, smoke=smoke, wish=Wish(text_bytes=256))
        residents.install(package)
        found[package.id] = package
        # Its arithmetic is kept from its first plan on; the soak shall not meet it as growth.
        assert package.demand
    return found


class Load:
    """Requests from several threads, and what became of them."""

    def __init__(self, residents: ResidentSet, names: list[str], seed: int = 20_261) -> None:
        self.residents, self.names = residents, names
        random = np.random.default_rng(seed)
        # Zipf's law: the k-th most popular is asked for in proportion to 1 / k.
        weights = 1 / np.arange(1, len(names) + 1)
        self.draws = random.choice(len(names), size=1 << 16, p=weights / weights.sum())
        self.order = random.permutation(len(names))
        self.seen: Counter[str] = Counter()
        self.waits = np.zeros(1 << 16)
        self.most = self.next = 0
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor()

    def serve(self, count: int, threads: int) -> None:
        """That many requests, then a pause."""
        self.most = self.next + count
        for done in [self.pool.submit(self._work) for _ in range(threads)]:
            done.result()

    def _work(self) -> None:
        while True:
            with self.lock:
                if self.next >= self.most:
                    return
                index, self.next = self.next, self.next + 1
            self._answer(self.names[self.order[self.draws[index % len(self.draws)]]])

    def _answer(self, name: str) -> None:
        while True:
            try:
                with self.residents.lease(name) as module, module.session() as session:
                    ids = module.encode("x" * (PROMPT - 1), eos=False)
                    written, _ = session.write_on([BOS, *ids[1:]], NEW, stop=0)
                    module.decode_text([i for i in written if i < 128])
                    self._count("served", len(written))
                    return
            except OutOfOrder:
                self._activate(name)
            except OverBudget as error:
                self._count(error.reason)
                time.sleep(PAUSE)

    def _activate(self, name: str) -> None:
        began = time.perf_counter()
        try:
            record = self.residents.activate([name])
            self._count("activations", victims=len(record.victims))
            with self.lock:
                self.waits[(self.seen["activations"] - 1) % len(self.waits)] = time.perf_counter() - began
        except OverBudget as error:
            if error.reason != "resident.leased":
                raise
            self._count(error.reason)

    def _count(self, what: str, tokens: int = 0, victims: int = 0) -> None:
        with self.lock:
            self.seen[what] += 1
            self.seen["tokens"] += tokens
            self.seen["victims"] += victims


def soak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Install, then serve, pausing to look at the memory."""
    limits = Limits(total=options.budget, staging=options.staging)
    budgets = Budgets(options.packages, options.active, options.parallel, limits)
    arenas = {"host": Arena("host", limits.total)}
    header = Header(source="benchmark", version="1", environment=platform.platform(), owner="benchmark")
    residents = ResidentSet(budgets, arenas, Artifacts(), header)
    packages = install(folder, residents, options.packages)
    load = Load(residents, list(packages))
    # What the process itself takes once, for code and threads, is no model's: it is spent before the first look.
    load.serve(FIRST, options.parallel)
    for standing in residents.view().active.values():
        residents.evict(standing.installed.revision)
    load.seen.clear()
    load.next, before = 0, grown()
    samples, began, cpu = [], time.perf_counter(), time.process_time()
    while load.next < options.requests:
        load.serve(min(EVERY, options.requests - load.next), options.parallel)
        samples.append(sample(residents, load.next, before))
    return {
        "limits": {name: getattr(options, name) for name in ("packages", "active", "parallel", "budget", "requests")},
        "staging": limits.staging,
        "distinct": len({package.artifact.sha256 for package in packages.values()}),
        "sizes": [min(p.total for p in packages.values()), max(p.total for p in packages.values())],
        "seen": dict(sorted(load.seen.items())),
        "activation_ms": 1e3 * float(np.median(load.waits[: load.seen["activations"]])),
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "growth": growth(samples),
        "samples": [s._asdict() for s in samples],
        "machine": facts(),
    }


def sample(residents: ResidentSet, requests: int, before: int) -> Sample:
    """All figures of a moment at which nobody works."""
    standing = [s.installed for s in residents.view().active.values()]
    engines = [tenant.engine for tenant in residents.arenas["host"]._tenants.values()]
    return Sample(
        requests,
        sum(package.total for package in standing),
        sum(engine.memory_bytes for engine in engines),
        sum(package.copies * package.sizes.resident for package in standing),
        grown() - before,
        len(standing),
    )


def grown() -> int:
    """Memory of this process that no file stands behind, in memory or swapped out, bytes.

    Libraries are left out: what of them counts as this process's own changes with whoever else has them open.
    """
    gc.collect()
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(kib) for kib in re.findall(r"^(?:Anonymous|Swap):\s+(\d+) kB", text, re.MULTILINE))


def growth(samples: list[Sample]) -> dict[str, float]:
    """What the process grows by beyond what is expected, bytes a thousand requests after warming up: least squares.

    The interval is of 95 %, with the residuals' first-order correlation taken into account by a smaller number of looks.
    """
    late = samples[int(WARM * len(samples)) :]
    x: NDArray[np.float64] = np.array([s.requests for s in late], dtype=np.float64)
    y: NDArray[np.float64] = np.array([s.grown - s.expected for s in late], dtype=np.float64)
    slope, start = np.polyfit(x, y, 1)
    rest = y - (slope * x + start)
    again = float(rest[1:] @ rest[:-1] / (rest @ rest)) if rest.any() else 0.0
    looks = max(len(x) * (1 - max(again, 0.0)) / (1 + max(again, 0.0)), 3.0)
    error = float(np.sqrt(rest @ rest / (looks - 2) / (np.var(x) * len(x))))
    return {
        "bytes_a_thousand": 1e3 * float(slope),
        "low": 1e3 * (float(slope) - 1.96 * error),
        "high": 1e3 * (float(slope) + 1.96 * error),
        "requests": float(x[-1] - x[0]),
    }


def facts() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "engine": ENGINE_SHA256,
    }


def page(found: dict[str, Any]) -> str:
    """The figures in words."""
    limits, seen, machine, rise = found["limits"], found["seen"], found["machine"], found["growth"]
    rows = [Sample(**row) for row in found["samples"]]
    off = max(abs(row.grown / row.expected - 1) for row in rows if row.active == max(r.active for r in rows))
    shown = rows[:: max(1, len(rows) // 10)]
    lines = [
        "# The resident set, for a long time",
        "",
        f"Written by `benchmarks/bench_resident.py`: {limits['packages']} packages installed, {found['distinct']} digests, "
        f"{found['sizes'][0]:,} to {found['sizes'][1]:,} bytes each in memory; at most {limits['active']} active, "
        f"{limits['parallel']} leased at a time, {limits['budget']:,} bytes, {found['staging']:,} of them free for staging. "
        f"{machine['machine']}, {machine['processors']} processors, Linux {machine['kernel']}, Python {machine['python']}.",
        "",
        f"{seen['served']:,} requests were served, {seen['tokens']:,} tokens written; {seen['activations']:,} activations "
        f"gave up {seen['victims']:,} modules; median {found['activation_ms']:.0f} ms from asking to active, others' "
        f"transactions included. Refused at once and tried again: {refusals(seen)}.",
        "",
        "| requests | active | planned bytes | held by the engines | expected to be written | process has grown |",
        "|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {r.requests:,} | {r.active} | {r.planned:,} | {r.held:,} | {r.expected:,} | {r.grown:,} |"
            for r in shown
        ),
        "",
        f"* Planned and held differ at {sum(r.planned != r.held for r in rows)} of {len(rows)} looks.",
        f"* Most bytes held at any look: {max(r.held for r in rows):,}, {max(r.held for r in rows) / limits['budget']:.1%} "
        "of the budget.",
        f"* Growth of the process is at most {off:.1%} from what was expected, over all looks with a full set; "
        f"the limit is {WITHIN:.0%}: {'kept' if off <= WITHIN else 'not kept'}.",
        f"* Beyond what is expected, in means of tenths of the soak: {tenths(rows)} bytes.",
        f"* After the first {WARM:.0%} of the requests it grows by {rise['bytes_a_thousand']:,.0f} bytes a thousand "
        f"requests beyond what is expected, 95 % interval {rise['low']:,.0f} to {rise['high']:,.0f}: "
        f"{rise['high'] * rise['requests'] / 1e3 / limits['budget']:.2%} of the budget over the rest of the soak at most.",
    ]
    return "\n".join(lines) + "\n"


def tenths(rows: list[Sample]) -> str:
    """What the process has grown by beyond what is expected, on average over each tenth of the looks."""
    parts = np.array_split(np.array([row.grown - row.expected for row in rows]), 10)
    return ", ".join(f"{part.mean():,.0f}" for part in parts if part.size)


def refusals(seen: dict[str, int]) -> str:
    """Reasons and how often."""
    found = [f"`{name}` {count:,}" for name, count in seen.items() if "." in name]
    return ", ".join(found) or "none"


if __name__ == "__main__":
    main()
