"""Tokens a second of a small model behind HTTP, 32 clients at once: what `studbook serve` runs beside llama.cpp's server.

The seeded model of bench_engine.py, 3.3 million parameters in f32, writes 64 tokens greedily after 16. Both servers have
the same number of threads, and each a process of its own; the clients have another. The first load of a server is not
counted; of the rounds the median. Seconds on the wall are those of a machine that may do other things, so CPU seconds stand
beside them.

    python benchmarks/bench_serve.py [--own PYTHON] [--peer PYTHON] [--threads 1] [--rounds 5] [--write docs/proof]

The peer's interpreter has xllamacpp; this one and Studbook's have the extra ``gguf``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench_engine import build
from clocks import spent

from studbook.records import Header, canonical
from studbook.runtime.arenas import Arena, Budgets
from studbook.runtime.handles import Artifact, Artifacts
from studbook.runtime.resident import ResidentSet
from studbook.runtime.serve import Access, Address, Arrangement, Champion, Limits, Model, ask, serve

HERE = Path(__file__).resolve()
CLIENTS, REQUESTS, TOKENS, CONTEXT = 32, 256, 64, 512
WAYS = ("studbook", "llama")
WORDS = {"studbook": "`studbook serve`", "llama": "llama.cpp's server (xllamacpp)"}
WANTED = 0.5


class House:
    """One model for everything."""

    def __init__(self, path: Path) -> None:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.model = Model(sha256, "bench", Artifact(sha256, path.stat().st_size, path))

    def residents(self, budgets: Budgets) -> ResidentSet:
        header = Header(source="studbook", version="0", environment="benchmark", owner="benchmark")
        return ResidentSet(budgets, {"host": Arena("host", budgets.host.total)}, Artifacts(), header)

    def arrange(self) -> Arrangement:
        return Arrangement((self.model,), Champion(self.model.revision))

    def commands(self) -> dict[str, Any]:
        return {}


def load(host: str, port: str, folder: Path) -> list[str]:
    """The command that asks a server."""
    words = (host, port, CLIENTS, REQUESTS, TOKENS, folder / "job.json", "champion")
    return [sys.executable, str(HERE.with_name("serve_client.py")), *map(str, words)]


def child(folder: Path, threads: int) -> None:
    """Studbook's server, in a process of its own."""
    told: list[dict[str, Any]] = []

    def measure(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(2):
            before = spent()[0]
            done = subprocess.run(load(host, port, folder), capture_output=True, text=True, check=True)
            told.append(json.loads(done.stdout) | {"cpu": spent()[0] - before})
        ask(folder, "stop")

    limits = Limits(workers=threads, parallel=-(-CLIENTS // threads))
    ready = lambda url: threading.Thread(target=measure, args=(url,)).start()  # noqa: E731
    house, access = House(folder / "model-f32.slm"), Access("127.0.0.1", None)
    serve(house, Address(port=0), limits, access, folder, ready)
    print(json.dumps(told[-1]))


def gather(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both in alternation; medians over the rounds."""
    build(folder)
    threads = str(arguments.threads)
    own = [arguments.own, str(HERE), "--child", "--folder", str(folder), "--threads", threads]
    peer = [arguments.peer, str(HERE.with_name("serve_peer.py")), str(folder / "model.gguf"), threads]
    peer += [str(CLIENTS), str(CONTEXT), *load("HOST", "PORT", folder)]
    said: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(arguments.rounds):
        for way, command in zip(WAYS, (own, peer), strict=True):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-4000:])
            said[way].append(json.loads(done.stdout.splitlines()[-1]))
            row = _row(said[way][-1:])
            print(f"round {turn + 1}: {way:9} {row['a_second']:6.0f} {row['a_cpu_second']:6.0f}", file=sys.stderr)
    return {
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "ways": {way: _row(rows) for way, rows in said.items()},
        "versions": {"xllamacpp": said["llama"][0]["version"]},
        "machine": {
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
    }


def _row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    cuts = [quantiles(row["latencies"], n=100) for row in rows]
    statuses = {code for row in rows for code in row["statuses"]}
    return {
        "a_second": median(row["tokens"] / row["seconds"] for row in rows),
        "a_cpu_second": median(row["tokens"] / row["cpu"] for row in rows),
        "p50_s": median(cut[49] for cut in cuts),
        "p99_s": median(cut[98] for cut in cuts),
        "statuses": {code: sum(row["statuses"].get(code, 0) for row in rows) for code in sorted(statuses)},
    }


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    machine, ways = found["machine"], found["ways"]
    lines = [
        "# Serving",
        "",
        f"Written by `benchmarks/bench_serve.py`: {CLIENTS} clients on loopback ask {REQUESTS} times for {TOKENS} tokens of "
        f"a model of 3.3 million parameters; {found['threads']} thread(s) a server, medians of {found['rounds']} rounds in "
        f"alternation. {machine['architecture']}, {machine['processors']} processors, Python {machine['python']}; xllamacpp "
        f"{found['versions']['xllamacpp']}.",
        "",
        "| server | tokens a s | tokens a CPU s | p50, s | p99, s | answers by status |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for way, row in ways.items():
        told = ", ".join(f"{code}: {count}" for code, count in row["statuses"].items())
        figures = f"{row['a_second']:,.0f} | {row['a_cpu_second']:,.0f} | {row['p50_s']:.2f} | {row['p99_s']:.2f}"
        lines.append(f"| {WORDS[way]} | {figures} | {told} |")
    lines.append("")
    for clock, words in (("a_second", "a second"), ("a_cpu_second", "a CPU second")):
        ratio = ways["studbook"][clock] / ways["llama"][clock]
        missed = "" if ratio >= WANTED else ", MISSED"
        lines.append(f"* tokens {words}, Studbook over llama.cpp: {ratio:.2f}; at least {WANTED:g} wanted{missed}")
    lines += [
        "",
        "CPU seconds are those of the server's process, its HTTP and the prompts included; latency is a whole answer's.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark, build its model, or be Studbook's server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own", default=sys.executable, help="an interpreter that has Studbook [this one]")
    parser.add_argument("--peer", default=sys.executable, help="an interpreter that has xllamacpp [this one]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="folder for serve.json and serve.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.folder, arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = gather(arguments, Path(folder))
    print(report(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "serve.md").write_text(report(found), encoding="utf-8")
        (arguments.write / "serve.json").write_bytes(canonical(found) + b"\n")
    return None


if __name__ == "__main__":
    main()
