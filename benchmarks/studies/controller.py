"""Does the structural controller serve drifting demand better than what does not look at routes?

Seven clusters, ten modules of different size and quality, and room for about four of them. Demand drifts: every few windows
another cluster becomes busy. A request is answered by the best active module of its cluster, or by a general one that is
always there. Every policy sees the same demand and the same noisy probes:

* **fixed**: the best set for the demand of the first window, never changed;
* **random**: a random module activated every window, a random one dropped where there is no room;
* **cost alone**: the cheapest modules that fit, whatever is asked;
* **controller**: `studbook.runtime.controller`, as it stands;
* **hindsight**: the best set for each window's own demand, free to change everything (a ceiling, not a policy).

Figures are simulated; the qualities of modules are drawn, not measured. Writes ``docs/proof/controller.json`` and ``.md``.

    python benchmarks/studies/controller.py
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from studbook.runtime.controller import Change, ClusterUse, ControllerRule, ModuleUse, Window, control

ROOT = Path(__file__).resolve().parents[2]
CLUSTERS = tuple("abcdefg")
WINDOWS, REQUESTS, PROBES, RUNS, DRIFT = 60, 500, 20, 200, 8
BUDGET, GENERAL = 400, 0.55
RULE = ControllerRule(budget=BUDGET)


class Kind(NamedTuple):
    """A module as the simulation knows it: bytes, and the share it gets right of every cluster it may answer."""

    cost: int
    right: Mapping[str, float]


class World(NamedTuple):
    """One run: modules and the demand of every window, shares of requests a cluster."""

    modules: Mapping[str, Kind]
    demand: Sequence[Mapping[str, float]]


def world(seed: int) -> World:
    """One module a cluster, three more that are better, worse or broader, and demand that drifts."""
    draw = random.Random(seed)
    modules = {f"m-{c}": Kind(int(60 + 80 * draw.random()), {c: 0.75 + 0.2 * draw.random()}) for c in CLUSTERS}
    better, worse, *pair = (CLUSTERS[int(draw.random() * 7)] for _ in range(4))
    modules["better"] = Kind(
        modules[f"m-{better}"].cost, {better: min(0.99, modules[f"m-{better}"].right[better] + 0.15)}
    )
    modules["worse"] = Kind(modules[f"m-{worse}"].cost, {worse: 0.5})
    modules["broad"] = Kind(140, {c: 0.6 + 0.3 * draw.random() for c in dict.fromkeys(pair)})
    demand, weights = [], {c: draw.random() ** 3 for c in CLUSTERS}
    for window in range(WINDOWS):
        if window % DRIFT == DRIFT - 1:
            weights = {c: draw.random() ** 3 for c in CLUSTERS}
        total = sum(weights.values())
        demand.append({c: w / total for c, w in weights.items()})
    return World(modules, demand)


def quality(active: frozenset[str], cluster: str, world: World) -> float:
    return max((world.modules[m].right.get(cluster, 0.0) for m in active), default=0.0) or GENERAL


def served(active: frozenset[str], window: int, world: World) -> float:
    """Share of requests answered right; a module worse than the general one is still the one that is asked."""
    return sum(share * quality(active, c, world) for c, share in world.demand[window].items())


def fits(names: Sequence[str], world: World) -> bool:
    return sum(world.modules[m].cost for m in names) <= BUDGET


def best_set(window: int, world: World) -> frozenset[str]:
    """The best set that fits, by looking at all of them."""
    sets = (frozenset(s) for size in range(7) for s in combinations(sorted(world.modules), size) if fits(s, world))
    return max(sets, key=lambda s: (served(s, window, world), -len(s), sorted(s)))


def seen(active: frozenset[str], installed: Sequence[str], window: int, world: World, draw: random.Random) -> Window:
    """What a host's log and probes say of a window: drawn requests, and a few labelled probes a module and cluster."""
    shares = world.demand[window]
    asked = Counter(draw.choices(list(shares), list(shares.values()), k=REQUESTS))
    sent: dict[tuple[str, str], int] = {}
    for cluster, count in asked.items():
        fit = [m for m in installed if cluster in world.modules[m].right]
        if fit:
            sent[min(fit, key=lambda m: (m not in active, world.modules[m].cost, m)), cluster] = count

    def use(name: str, cluster: str, right: float) -> ClusterUse:
        hits = sum(draw.random() < right for _ in range(PROBES))
        return ClusterUse(cluster, sent.get((name, cluster), 0), PROBES, hits)

    uses = [
        ModuleUse(m, world.modules[m].cost, m in active, tuple(use(m, c, r) for c, r in world.modules[m].right.items()))
        for m in installed
    ]
    return Window(REQUESTS, tuple(uses))


def controlled(world: World, seed: int, start: frozenset[str]) -> tuple[list[frozenset[str]], Counter[str]]:
    """The active set of every window, and how often each act was taken for which reason."""
    draw, active, installed = random.Random(f"probes/{seed}"), start, sorted(world.modules)
    windows: list[Window] = []
    sets, acts = [], Counter[str]()
    for number in range(WINDOWS):
        sets.append(active)
        last = seen(active, installed, number, world, draw)
        changes = control([*windows, last], RULE)
        acts.update(f"{c.act}: {c.reason.removeprefix('controller.')}" for c in changes)
        active, installed = carried_out(changes, active, installed)
        changed = tuple(n for c in changes for n in (c.module, c.other) if n)
        windows.append(last._replace(changed=changed))
    return sets, acts


def carried_out(
    changes: Sequence[Change], active: frozenset[str], installed: list[str]
) -> tuple[frozenset[str], list[str]]:
    """What a host does of it here and now; merging and splitting would breed, which takes longer than this."""
    for c in changes:
        if c.act == "activate":
            active = active | {c.module}
        elif c.act == "deactivate":
            active = active - {c.module}
        elif c.act == "replace":
            active = active - {c.module} | {c.other}
        elif c.act == "retire":
            active, installed = active - {c.module}, [m for m in installed if m != c.module]
    return active, installed


def at_random(world: World, seed: int, start: frozenset[str]) -> list[frozenset[str]]:
    draw, active, sets = random.Random(f"random/{seed}"), start, []
    for _ in range(WINDOWS):
        sets.append(active)
        active = active | {draw.choice(sorted(world.modules))}
        while not fits(sorted(active), world):
            active = active - {draw.choice(sorted(active))}
    return sets


def cheapest(world: World) -> frozenset[str]:
    chosen: list[str] = []
    for name in sorted(world.modules, key=lambda m: (world.modules[m].cost, m)):
        if fits([*chosen, name], world):
            chosen.append(name)
    return frozenset(chosen)


def run(seed: int) -> tuple[dict[str, dict[str, float]], Counter[str]]:
    """Every policy in one world: share right, bytes decoded anew, changes."""
    place = world(seed)
    start = best_set(0, place)
    sets, acts = controlled(place, seed, start)
    policies: dict[str, list[frozenset[str]]] = {
        "fixed": [start] * WINDOWS,
        "random": at_random(place, seed, start),
        "cost alone": [cheapest(place)] * WINDOWS,
        "controller": sets,
        "hindsight": [best_set(window, place) for window in range(WINDOWS)],
    }
    return {name: told(found, place) for name, found in policies.items()}, acts


def told(sets: Sequence[frozenset[str]], place: World) -> dict[str, float]:
    pairs = list(pairwise(sets))
    loaded = sum(place.modules[m].cost for before, after in pairs for m in after - before)
    most = max(sum(place.modules[m].cost for m in names) for names in sets)
    return {
        "right": statistics.fmean(served(names, number, place) for number, names in enumerate(sets)),
        "changes": sum(len(before ^ after) for before, after in pairs) / WINDOWS,
        "loaded": loaded / WINDOWS,
        "most": most,
    }


def study(runs: int) -> dict[str, Any]:
    found = [run(seed) for seed in range(runs)]
    acts = sum((a for _, a in found), Counter[str]())
    rows = {}
    for name in found[0][0]:
        each = [r[name] for r, _ in found]
        gain = [r["controller"]["right"] - r[name]["right"] for r, _ in found]
        spread = 1.645 * statistics.stdev(gain) / math.sqrt(runs)
        rows[name] = {
            "right": round(statistics.fmean(e["right"] for e in each), 4),
            "changes": round(statistics.fmean(e["changes"] for e in each), 3),
            "loaded": round(statistics.fmean(e["loaded"] for e in each), 1),
            "most": max(e["most"] for e in each),
            "controller_ahead": round(statistics.fmean(gain), 4),
            "controller_ahead_lower": round(statistics.fmean(gain) - spread, 4),
        }
    return {"runs": runs, "windows": WINDOWS, "budget": BUDGET, "rows": rows, "acts": dict(acts.most_common())}


def text(record: Mapping[str, Any]) -> str:
    lines = [
        "# The structural controller under drifting demand",
        "",
        f"Written by `benchmarks/studies/controller.py`. {record['runs']} simulated runs of {record['windows']} windows; "
        f"modules' qualities are drawn, demand changes every {DRIFT} windows, {record['budget']} units of bytes are "
        "allowed. *Ahead* is the controller's lead in share right, paired over runs, with its one-sided 95 % lower bound.",
        "",
        "| policy | right | changes a window | bytes decoded a window | most bytes active | controller ahead |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, r in record["rows"].items():
        ahead = "-" if name == "controller" else f"{r['controller_ahead']:+.1%} ({r['controller_ahead_lower']:+.1%})"
        lines.append(f"| {name} | {r['right']:.1%} | {r['changes']:.2f} | {r['loaded']:.0f} | {r['most']} | {ahead} |")
    beaten = [n for n in ("fixed", "random", "cost alone") if record["rows"][n]["controller_ahead_lower"] > 0]
    missed = [n for n in ("fixed", "random", "cost alone") if n not in beaten]
    lines += ["", f"Ahead of: {', '.join(beaten) or 'none'}. Not shown to be ahead of: {', '.join(missed) or 'none'}."]
    lines += ["", "What it said, over all runs:", "", "| act and reason | times |", "|---|---:|"]
    lines += [f"| {name} | {count:,} |" for name, count in record["acts"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    options = parser.parse_args()
    record = study(options.runs)
    (options.out / "controller.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (options.out / "controller.md").write_text(text(record), encoding="utf-8")
    print(text(record))


if __name__ == "__main__":
    main()
