"""How far the linear merge of three parents is from copying the files: CPU seconds of both, in alternation.

The limit reads what the merge reads and overwrites a file of the child's size; the merge overwrites one too. Both take
less than a second, so the few runs that the table of all merges has say little about their ratio. Here are more of
them, each a process of its own with one thread, start excluded, everything in the page cache.

    python benchmarks/bench_copy_limit.py [--own PYTHON] [--size small|large] [--rounds 25] [--write docs/proof]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench_merge import SIZES, Drawn, build, facts, own_run

WAYS = (("linear", "again"), ("copy3", ""))


def gather(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Medians of both, and quartiles of the ratio of neighbouring runs."""
    size = SIZES[arguments.size]
    build(folder, size)
    (folder / "work").mkdir()
    own_run(arguments, folder, "linear", "digests")  # leaves a file to overwrite
    pairs = []
    for _ in range(arguments.rounds):
        pairs.append(tuple(own_run(arguments, folder, what, how)["cpu_s"] for what, how in WAYS))
        print(f"linear {pairs[-1][0]:.2f} s   copy {pairs[-1][1]:.2f} s", file=sys.stderr)
    low, middle, high = quantiles((a / b for a, b in pairs), n=4)
    drawn = Drawn(size)
    return {
        "machine": facts(),
        "parameters": sum(drawn.size(name) for name in drawn.names),
        "rounds": arguments.rounds,
        "linear_cpu_s": median(a for a, _ in pairs),
        "copy_cpu_s": median(b for _, b in pairs),
        "ratio": middle,
        "ratio_quartiles": [low, high],
    }


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, (low, high) = found["machine"], found["ratio_quartiles"]
    return f"""# Linear merge and copying

Three Llama checkpoints of {found["parameters"] / 1e6:.0f} million parameters in bf16 merged over an old file, and a copy
that reads the same and writes as much. {machine["processor"]}, one thread, Python {machine["python"]}, numpy
{machine["numpy"]}, numba {machine["numba"]}; {found["rounds"]} runs of each in alternation, the start excluded.
Made by `benchmarks/bench_copy_limit.py`.

| | CPU s |
|---|---:|
| linear merge | {found["linear_cpu_s"]:.2f} |
| copy | {found["copy_cpu_s"]:.2f} |
| ratio of neighbouring runs, median | {found["ratio"]:.2f} |
| its quartiles | {low:.2f} and {high:.2f} |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--own", default=sys.executable, help="an interpreter that has Studbook [this one]")
    parser.add_argument("--size", default="large", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--write", type=Path, help="folder for copy_limit.json and copy_limit.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = gather(arguments, Path(folder))
    print(page(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "copy_limit.json").write_text(json.dumps(found, indent=2) + "\n")
        (arguments.write / "copy_limit.md").write_text(page(found))


if __name__ == "__main__":
    main()
