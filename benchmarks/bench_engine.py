"""Tokens a second of one small model: the engine beside transformers, plain torch, numpy and llama.cpp, and in a browser.

A seeded model of 3.3 million parameters writes greedily after a short prompt, and is fed whole sequences whose logits are
all wanted, as scoring does. One thread, every way in a process of its own, in alternation; loading is shown by itself. Of
several repetitions in a process the fastest counts, which a busy machine disturbs least; of the rounds the median. In a
browser the engine runs on a page of its own beside wllama (llama.cpp compiled for browsers), a pinned package.

Every way has to write the same tokens; where one does not, the table says how many it shares.

    python benchmarks/bench_engine.py --peer PYTHON [--own PYTHON] [--browser PYTHON] [--rounds 5] [--write docs/proof]

The peer's interpreter has torch, transformers and xllamacpp, the browser's playwright; this one has the extra ``gguf``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import string
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from clocks import fastest, peak_mib, spent
from llama import export

from studbook.exchange.gguf import to_gguf
from studbook.models.engine import ENGINE_SHA256, Engine, engine_bytes
from studbook.models.forward import Forward
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.models.stored import Dtype
from studbook.models.tokenizers import BOS, PAD, ByteTokenizer
from studbook.records import canonical

HERE = Path(__file__).resolve()
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SHAPE = SlmShape(260, 256, 4, 8, 8, 32, 704, 512, 10_000.0, 1e-5, False)
PROMPT, NEW, ROWS, LONG = 16, 256, 32, 128
REPEATS = 5
ADDRESSES = 4 << 30
OWN = ("engine", "engine-q8_0", "engine-q4_0", "engine-worker", "numpy")
PEERS = ("transformers", "torch", "llama")
WORDS = {
    "engine": "the engine, wasmtime, f32",
    "engine-q8_0": "the engine, the same model in q8_0",
    "engine-q4_0": "the engine, the same model in q4_0",
    "engine-worker": "the engine as workers run it, f32",
    "numpy": "Studbook's numpy decoder",
    "transformers": "transformers, `generate`",
    "torch": "plain torch, written by hand",
    "llama": "llama.cpp (xllamacpp), f32",
    "chromium": "the engine, Chromium, f32",
    "wllama": "wllama (llama.cpp), Chromium, f32",
}
# Who is compared with whom, by which clock, and how far ahead it has to be.
WANTED = (
    ("engine", "transformers", "a_cpu_second", 5.0),
    ("engine", "torch", "a_cpu_second", None),
    ("engine", "numpy", "a_cpu_second", None),
    ("engine", "llama", "a_cpu_second", 0.5),
    ("chromium", "wllama", "a_second", 3.0),
)


def build(folder: Path) -> None:
    """The model in every form, and the job."""
    random = np.random.default_rng(20_261)
    values = {}
    for spec in SHAPE.tensors():
        spread = 1.0 if len(spec.dims) == 1 else 0.6 / np.sqrt(spec.dims[-1])
        noise = random.standard_normal(spec.dims).astype(np.float32)
        values[spec.name] = (1 + 0.1 * noise if len(spec.dims) == 1 else noise * np.float32(spread)).astype(np.float32)
    # It writes letters and signs, and no halves of characters, which a peer cannot tell of.
    values["output.weight"][[*range(32), *range(127, SHAPE.vocab_size)]] = 0
    for dtype in Dtype:
        (folder / f"model-{dtype}.slm").write_bytes(write_slm(SHAPE, ByteTokenizer(), values, dtype))
    model = read_slm(folder / "model-f32.slm")
    # Letters and spaces: one of the peers takes text alone.
    texts = ["".join(row) for row in random.choice([*string.ascii_lowercase, " "], (ROWS, LONG - 1))]
    rows = [[BOS, *text.encode()] for text in texts]
    job = {"prompt": rows[0][:PROMPT], "new": NEW, "rows": rows, "context": SHAPE.max_context, "repeats": REPEATS}
    (folder / "job.json").write_text(json.dumps({**job, "texts": [texts[0][: PROMPT - 1], *texts]}))
    export(model, folder / "checkpoint", np.array(rows[:2]))
    (folder / "model.gguf").write_bytes(to_gguf(model))


# -- Studbook's own ways -----------------------------------------------------------------------------------------------


def child(way: str, folder: Path) -> None:
    """One of Studbook's ways, in a process of its own."""
    job = json.loads((folder / "job.json").read_text())
    rows = job["rows"]
    worker = way == "engine-worker"
    if worker:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    dtype = next((name for name in Dtype if way.endswith(name)), Dtype.F32)
    data = (folder / f"model-{dtype}.slm").read_bytes()
    pairs = [(row[:1], row[1:]) for row in rows]
    runner: Any = Forward(parse_slm(data)) if way == "numpy" else Engine(data, fuel=worker)
    ready = spent()
    written, decode = fastest(lambda: runner.decode([job["prompt"]], job["new"], stop=PAD), job["repeats"])
    scores, score = fastest(lambda: runner.score(pairs), job["repeats"])
    told = {"start": ready, "decode": decode, "score": score, "fed": int(scores.fed.sum())}
    told |= {"ids": [int(i) for i in written.ids[0]], "peak_mib": peak_mib(), "versions": versions()}
    print(json.dumps(told))


def versions() -> dict[str, str]:
    """What the ways of this process are made of."""
    return {name: version(name) for name in ("numpy", "wasmtime")}


# -- measuring ---------------------------------------------------------------------------------------------------------


def told(command: list[str]) -> dict[str, Any]:
    """What a process says; its first reading of the clocks counts from its own start."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}\n{done.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def gather(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ways in alternation; medians over the rounds."""
    build(folder)
    commands = {way: [arguments.own, str(HERE), "--child", way, "--folder", str(folder)] for way in OWN}
    for way in PEERS if arguments.peer else ():
        commands[way] = [arguments.peer, str(HERE.with_name("engine_peer.py")), way, str(folder)]
    if arguments.browser:
        commands["browser"] = [arguments.browser, str(HERE.with_name("engine_browser.py")), str(folder)]
    said: dict[str, list[dict[str, Any]]] = {}
    for turn in range(arguments.rounds):
        for way, command in commands.items():
            found = told(command)
            for name, row in found.items() if way == "browser" else [(way, found)]:
                said.setdefault(name, []).append(row)
                rates = [f"{NEW / seconds:6.0f}" for seconds in row["decode"] if seconds]
                print(f"round {turn + 1}: {name:14} {' '.join(rates)} tokens a CPU and a wall second", file=sys.stderr)
    first = said["engine"][0]["ids"]
    return {
        "rounds": arguments.rounds,
        "ways": {name: _row(rows, first) for name, rows in said.items()},
        "versions": {k: v for rows in said.values() for k, v in rows[0]["versions"].items()},
        "engine": {"sha256": ENGINE_SHA256, "bytes": len(engine_bytes())},
        "parameters": SHAPE.parameter_count,
        "machine": {
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
    }


def _row(rows: list[dict[str, Any]], first: list[int]) -> dict[str, Any]:
    same = next((i for i, (a, b) in enumerate(zip(first, rows[0]["ids"], strict=False)) if a != b), None)

    def rates(clock: int) -> dict[str, float] | None:
        if rows[0]["decode"][clock] is None:
            return None
        writing = median(NEW / row["decode"][clock] for row in rows)
        return {"writing": writing, "feeding": median(row["fed"] / row["score"][clock] for row in rows)}

    return {
        "a_cpu_second": rates(0),
        "a_second": rates(1),
        "start_s": median(row["start"][0] for row in rows),
        "peak_mib": median(row["peak_mib"] for row in rows) if rows[0]["peak_mib"] else None,
        "assets": rows[0].get("assets"),
        "same_tokens": min(len(first), len(rows[0]["ids"])) if same is None else same,
    }


def report(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    ways, machine = found["ways"], found["machine"]
    lines = [
        "# The engine",
        "",
        f"Written by `benchmarks/bench_engine.py`: a seeded model of {found['parameters'] / 1e6:.1f} million parameters "
        f"writes {NEW} tokens greedily after {PROMPT}, and is fed {ROWS} rows of {LONG} with the logits of every position; "
        f"one thread, the fastest of {REPEATS} repetitions in a process, medians of {found['rounds']} rounds in "
        f"alternation. {machine['architecture']}, {machine['processors']} processors, Python {machine['python']}; "
        + ", ".join(f"{name} {number}" for name, number in sorted(found["versions"].items()))
        + ".",
        "",
        "| way | writing, tokens a CPU s | a s | feeding, tokens a CPU s | a s | start, s | memory, MiB | same tokens |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way, row in ways.items():
        cells = [
            (row[clock] or {}).get(work) for work in ("writing", "feeding") for clock in ("a_cpu_second", "a_second")
        ]
        told = " | ".join("" if cell is None else f"{cell:,.0f}" for cell in (*cells,))
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(f"| {WORDS[way]} | {told} | {row['start_s']:.2f} | {peak} | {row['same_tokens']} |")
    lines += ["", *_ratios(ways), "", _assets(found)]
    lines += [
        "",
        "Start is the CPU time of a process until its model is ready, imports and loading included; in a browser the time "
        "from the page's first line, and memory what the model's WebAssembly has. Wall seconds of llama.cpp and wllama are "
        "those of their own clocks: writing without the prompt. Both compute, when fed, the logits of the last position "
        "alone. The quantised models write other tokens, being other models. In a worker addresses are scarce, so every "
        "access to memory is checked, and what is done is counted as fuel.",
    ]
    return "\n".join(lines) + "\n"


def _ratios(ways: dict[str, Any]) -> list[str]:
    out = []
    for own, peer, clock, wanted in WANTED:
        if own in ways and peer in ways:
            ratio = ways[own][clock]["writing"] / ways[peer][clock]["writing"]
            verdict = f"; at least {wanted:g} wanted{'' if ratio >= wanted else ', MISSED'}" if wanted else ""
            out.append(f"* writing, {WORDS[own]} over {WORDS[peer]}: {ratio:.2f}{verdict}")
    return [*out, "", "Ratios are of CPU seconds, in the browser of wall seconds."]


def _assets(found: dict[str, Any]) -> str:
    ways = found["ways"]
    told = f"engine.wasm has {found['engine']['bytes']:,} bytes"
    if "wllama" in ways:
        told += f"; what a page of wllama fetches beside the model has {ways['wllama']['assets']:,}"
    return told + "."


def main() -> None:
    """Run the benchmark, or one of Studbook's own ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="an interpreter that has torch, transformers and xllamacpp")
    parser.add_argument("--own", default=sys.executable, help="an interpreter that has Studbook [this one]")
    parser.add_argument("--browser", help="an interpreter that has playwright; Chromium and npm must be there too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="folder for engine.json and engine.md")
    parser.add_argument("--child", choices=OWN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.folder)
    with tempfile.TemporaryDirectory() as folder:
        found = gather(arguments, Path(folder))
    print(report(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "engine.md").write_text(report(found), encoding="utf-8")
        (arguments.write / "engine.json").write_bytes(canonical(found) + b"\n")
    return None


if __name__ == "__main__":
    main()
