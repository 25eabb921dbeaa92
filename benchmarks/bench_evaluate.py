"""Items scored a CPU second: Studbook's scoring worker beside lm-eval-harness and beside a loop written by hand.

The shipped founders answer the shipped development items, true answer and end token fed, exactly the same work in every
way. The founders' network is a Llama with other names and another order of rows, so each is written as a checkpoint of
that family; that its logits are the same is checked to 1e-4 before anything is timed. The ways, each in a process of its
own with one thread, in alternation:

* ``studbook``: the scoring worker's own function, which reads and hashes model and items each time;
* ``task``: a whole run of lm-eval-harness with its transformers model (`HFLM`), loaded already: requests, model, metric;
* ``generate``: its model alone judging exact matches as its tasks do, by letting the model write; ``feed``: its model's
  log-likelihoods of the known answers, at its default of one item a batch and at larger batches that somebody would have
  to choose; loading and making requests are not counted;
* ``loop``: batches by hand over transformers, in Studbook's batches of equal lengths and padded to the longest, of which
  the faster counts; loading is not counted.

Every way has to give the same verdicts item by item. CPU seconds are user and system time of a pass over all founders and
items; a first one is not counted.

    python benchmarks/bench_evaluate.py --peer PYTHON_WITH_LM_EVAL [--own PYTHON] [--rounds 5] [--passes 3]
        [--write docs/proof]
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
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from llama import export

from studbook.evaluation.score_worker import work
from studbook.evaluation.suites import known_items
from studbook.models.slm import read_slm
from studbook.records import canonical

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
HERE = Path(__file__).resolve()
EXAMPLES = HERE.parents[1] / "examples"
FOUNDERS = ("brk", "cap-rot", "dup-odd", "rev-srt")
SUITES = sorted((EXAMPLES / "suites" / "development").glob("development-???/items.jsonl"))
TASK, GENERATE, DEFAULT, CHOSEN = "task-128", "generate-128", "feed-1", ("feed-32", "feed-128", "feed-512")
LOOPS = ("equal", "padded")
CLOSE = 1e-4
WANTED = 5


def model_path(name: str) -> Path:
    """File of a shipped founder."""
    return EXAMPLES / "founders" / name / f"{name}.slm"


def build(folder: Path) -> int:
    """Checkpoints and items for the peers; how many items a pass over all founders scores."""
    items = [item for path in SUITES for item in known_items(path.read_bytes(), path)]
    (folder / "items.json").write_text(json.dumps([[item.prompt, item.expected] for item in items]))
    sequences = np.random.default_rng(1).integers(0, 260, (8, 64))
    for name in FOUNDERS:
        export(read_slm(model_path(name)), folder / name, sequences)
    return len(items) * len(FOUNDERS)


# -- measuring ---------------------------------------------------------------------------------------------------------


def child(folder: Path, passes: int) -> None:
    """Studbook's passes, in a process of its own."""
    named = {name: read_slm(model_path(name)).sha256 for name in FOUNDERS}
    found: list[Any] = []
    spent = []
    for _ in range(passes + 1):
        begun = time.process_time()
        found = [work(job(name, sha256), folder) for name, sha256 in named.items()]
        spent.append(time.process_time() - begun)
    flat = [[[v for suite in f["suites"] for v in suite[key]] for key in ("correct", "loglik")] for f in found]
    print(json.dumps({"cpu_s": spent[1:], "found": flat, "far": 0.0, "versions": {"numpy": np.__version__}}))


def job(name: str, sha256: str) -> dict[str, Any]:
    """What the scoring worker is asked for."""
    suites = [{"path": str(path), "scorer": "exact-match", "limit": 12, "said": None} for path in SUITES]
    return {"model": str(model_path(name)), "sha256": sha256, "suites": suites}


def told(arguments: argparse.Namespace, folder: Path, way: str) -> dict[str, Any]:
    """What a process says that scores one way."""
    passes = str(1 if way in (TASK, GENERATE, DEFAULT) else arguments.passes)
    peer = [arguments.peer, str(HERE.with_name("evaluate_peer.py")), way, str(folder), passes]
    own = [arguments.own, str(HERE), "--child", str(folder), "--passes", passes]
    command = own if way == "studbook" else peer
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def gather(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ways in alternation; medians over rounds and passes."""
    count = build(folder)
    ways = ("studbook", TASK, GENERATE, DEFAULT, *CHOSEN, *LOOPS)
    spent: dict[str, list[float]] = {way: [] for way in ways}
    verdicts, versions, far, apart = set(), {}, 0.0, 0.0
    expected: list[Any] = []
    for turn in range(arguments.rounds):
        for way in ways:
            said = told(arguments, folder, way)
            spent[way] += said["cpu_s"]
            versions |= said["versions"]
            verdicts.add(json.dumps([right for right, _ in said["found"]]))
            far = max(far, said["far"])
            if way != GENERATE:
                logliks = np.array([loglik for _, loglik in said["found"]])
                expected = expected if len(expected) else logliks
                apart = max(apart, float(np.abs(logliks - expected).max()))
            print(f"round {turn + 1}: {way:10} {count / median(said['cpu_s']):9.0f} items a CPU s", file=sys.stderr)
    assert far < CLOSE, f"the exported checkpoints are other models: logits differ by {far}"
    assert len(verdicts) == 1, "the ways do not judge alike"
    return {
        "items": count,
        "rounds": arguments.rounds,
        "passes": arguments.passes,
        "items_a_cpu_second": {way: count / median(times) for way, times in spent.items()},
        "largest_logit_difference": far,
        "largest_loglik_difference": apart,
        "versions": versions,
        "machine": {
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
    }


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    rates, machine = found["items_a_cpu_second"], found["machine"]
    best, loop = max(CHOSEN, key=rates.__getitem__), max(LOOPS, key=rates.__getitem__)
    words = {way: f"harness's model, known answers, {way.partition('-')[2]} a batch" for way in CHOSEN}
    words |= {"studbook": "Studbook's scoring worker", "equal": "loop by hand, equal lengths"}
    words |= {
        "padded": "loop by hand, padded to the longest",
        DEFAULT: "harness's model, known answers, 1 a batch (its default)",
    }
    words[TASK] = "harness, a whole run, known answers, 128 a batch"
    words[GENERATE] = "harness's model, exact match by writing, 128 a batch"
    ratio = {way: rates["studbook"] / rate for way, rate in rates.items()}
    lines = [
        "# Scoring",
        "",
        f"Written by `benchmarks/bench_evaluate.py`: {len(FOUNDERS)} founders over {found['items'] // len(FOUNDERS):,} "
        f"development items, true answer fed, one thread, medians of {found['rounds']} rounds of {found['passes']} passes "
        f"in alternation. {machine['architecture']}, {machine['processors']} processors, Python {machine['python']}; "
        + ", ".join(f"{name} {number}" for name, number in sorted(found["versions"].items()))
        + ".",
        "",
        "| way | items a CPU second | Studbook against it |",
        "|---|---:|---:|",
        *(f"| {words[way]} | {rate:,.0f} | {ratio[way]:.2f}x |" for way, rate in rates.items()),
        "",
        f"Wanted were 5x against the harness and 1x against the loop. Against a whole run of the harness it is "
        f"{said(ratio[TASK])}; against its model alone {said(ratio[DEFAULT])} with the default batch, "
        f"{said(ratio[GENERATE])} where it writes answers, and {said(ratio[best])} at the best batch found by trying; "
        f"against the better loop {ratio[loop]:.2f}x.",
        "",
        f"All {found['items']:,} verdicts are the same in every way; "
        f"log-likelihoods differ by at most {found['largest_loglik_difference']:.1e} nats, logits of the exported "
        f"checkpoints by at most {found['largest_logit_difference']:.1e}.",
        "",
        "Studbook's row reads and hashes model and items in every pass, encodes, and computes Brier scores too. The other "
        "rows have their models loaded. Feeding known answers is one pass an item, writing them one a token.",
    ]
    return "\n".join(lines) + "\n"


def said(ratio: float) -> str:
    """A ratio against the harness, and whether it misses what was wanted."""
    return f"{ratio:.1f}x" if ratio >= WANTED else f"{ratio:.1f}x (misses {WANTED}x)"


def main() -> None:
    """Run the benchmark, or Studbook's part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="an interpreter that has lm-eval-harness, transformers and torch")
    parser.add_argument("--own", default=sys.executable, help="an interpreter that has Studbook [this one]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--write", type=Path, help="folder for evaluate.json and evaluate.md")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.passes)
    if not arguments.peer:
        parser.error("--peer is needed: there is nothing to compare with")
    with tempfile.TemporaryDirectory() as folder:
        found = gather(arguments, Path(folder))
    print(report(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "evaluate.md").write_text(report(found), encoding="utf-8")
        (arguments.write / "evaluate.json").write_bytes(canonical(found) + b"\n")
    return None


if __name__ == "__main__":
    main()
