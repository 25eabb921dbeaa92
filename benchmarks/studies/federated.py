"""Does a federated round of clients that never share a row beat every one of its clients?

Four clients start from the shipped base. Each holds the training slices of its own skills, which no other client has:
disjoint rows, and as far from identically distributed as they can be. In every round each client trains in a locked-down
process that can read its own slices and nothing of the others'; the coordinator gets packages of deltas, holds them to the
base and the norm bound, and averages them. In the first round two more clients ask to take part: one that started
from another model, and one whose change is beyond the bound. Beside the child stand every client training alone for as many
steps, and joint training on all rows for as many steps as all clients together. Children are measured once, on the
selection suites. Writes ``docs/proof/federated.json`` and ``docs/proof/federated.md``.

    python benchmarks/studies/federated.py --seeds 1

Needs the extra ``train``; about two minutes a seed on one idle core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.federation import Client, Gathered, Left, Update, average, gather, run_client
from studbook.breeding.operators import FineTune
from studbook.breeding.operators.bounds import norm
from studbook.breeding.sources import SlmTensors
from studbook.environment import training_environment
from studbook.models.forward import Forward
from studbook.models.slm import Slm, read_slm
from studbook.sandbox import Limits
from studbook.statistics import paired_bounds

ROOT = Path(__file__).resolve().parents[2]
FOUNDERS = ROOT / "examples" / "founders"
SKILLS = ("rev", "srt", "cap", "rot", "dup", "odd", "brk")
HOLDINGS = {"north": ("rev", "srt"), "east": ("cap", "rot"), "south": ("dup", "odd"), "west": ("brk",)}
ROUNDS, STEPS, BATCH, RATE, REACH = 10, 6, 48, 1e-3, 0.25
LIMITS = Limits(seconds=600, memory_bytes=4 << 30, file_bytes=16 << 20)
SLICES = {skill: FOUNDERS / "data" / f"{skill}.jsonl" for skill in SKILLS}
DIGESTS = {skill: hashlib.sha256(path.read_bytes()).hexdigest() for skill, path in SLICES.items()}
LICENCE = "CC0-1.0"
Bits = dict[str, NDArray[np.bool_]]


def recipe(skills: Sequence[str], seed: int, **changes: Any) -> FineTune:
    fields: dict[str, Any] = {
        "steps": STEPS,
        "rate": RATE,
        "batch": BATCH,
        "seed": seed,
        "reach": REACH,
        "rehearsal": 0.0,
        "data": tuple(DIGESTS[s] for s in skills),
        "rehearsed": (),
    }
    return FineTune(**fields | changes)


def client(name: str, base: Path, skills: Sequence[str], seed: int, **changes: Any) -> Client:
    rows = sum(SLICES[s].read_bytes().count(b"\n") for s in skills)
    return Client(name, base, {DIGESTS[s]: SLICES[s] for s in skills}, recipe(skills, seed, **changes), rows)


def run_all(clients: Sequence[Client], folder: Path) -> list[Update | Left]:
    sent = []
    for one in clients:
        place = folder / one.name
        place.mkdir(parents=True)
        sent.append(run_client(one, place, LIMITS, LICENCE))
    return sent


def alone(one: Client, folder: Path) -> Slm:
    """A client's own model, as its worker left it."""
    (sent,) = run_all([one], folder)
    if isinstance(sent, Left):
        raise SystemExit(f"{one.name}: {sent.words}")
    return read_slm(folder / one.name / "candidate.slm")


def bits(model: Slm, role: str) -> Bits:
    """Which items a model answers exactly, by skill."""
    found = {}
    encode = model.tokenizer.encode
    for skill in SKILLS:
        path = ROOT / "examples" / "suites" / role / f"{role}-{skill}" / "items.jsonl"
        items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [(encode(i["prompt"], bos=True, eos=False), encode(i["expected"], bos=False, eos=True)) for i in items]
        found[skill] = np.asarray(Forward(model).score(pairs).exact)
    return found


def shares(found: Bits) -> dict[str, float]:
    each = {skill: round(float(hits.mean()), 4) for skill, hits in found.items()}
    return {**each, "mean": round(sum(each.values()) / len(each), 4), "worst": min(each.values())}


def lower(child: Bits, other: Bits) -> float:
    """Paired one-sided 95 % lower bound of the child's lead over all items."""
    ahead, behind = (np.concatenate([x[s] for s in SKILLS]) for x in (child, other))
    wins, losses = int((ahead & ~behind).sum()), int((behind & ~ahead).sum())
    return round(paired_bounds(wins, losses, len(ahead), 0.05).lower, 4)


def federate(seed: int, folder: Path) -> tuple[Slm, list[Gathered], float]:
    """The child after all rounds, what every round let in, and the norm bound of the last."""
    path = FOUNDERS / "base" / "base.slm"
    gathered = []
    limit = 0.0
    for turn in range(ROUNDS):
        base = read_slm(path)
        source = SlmTensors(base)
        limit = REACH * norm(source, source.names) * (1 + 1e-6)
        clients = [client(name, path, skills, seed * 100 + turn) for name, skills in HOLDINGS.items()]
        if turn == 0:
            other = FOUNDERS / "cap-rot" / "cap-rot.slm"
            clients.append(client("another-base", other, ("rot",), seed, steps=2))
            clients.append(client("too-far", path, ("rot",), seed, steps=5, rate=0.05, reach=4.0))
        found = gather(base, run_all(clients, folder / f"round-{turn}"), limit)
        gathered.append(found)
        path = folder / f"round-{turn}.slm"
        path.write_bytes(average(base, found, clip=limit, limit=limit))
        print(f"seed {seed}, round {turn + 1}: {shares(bits(read_slm(path), 'development'))}", flush=True)
    return read_slm(path), gathered, limit


def study(seed: int) -> dict[str, Any]:
    base = FOUNDERS / "base" / "base.slm"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child, gathered, limit = federate(seed, folder)
        models = {"federated child": child, "base": read_slm(base)}
        for who, skills in HOLDINGS.items():
            models[f"client {who} alone"] = alone(
                client(who, base, skills, seed * 100, steps=ROUNDS * STEPS), folder / "alone"
            )
        joint = client("joint", base, SKILLS, seed * 100, steps=ROUNDS * STEPS * len(HOLDINGS), reach=1.0)
        models["joint training"] = alone(joint, folder)
    scored = {who: bits(model, "selection") for who, model in models.items()}
    rows = [
        {
            "model": who,
            "sha256": models[who].sha256,
            **shares(found),
            "lead": None if who == "federated child" else lower(scored["federated child"], found),
        }
        for who, found in scored.items()
    ]
    return {
        "seed": seed,
        "norm_limit": limit,
        "norms": [dict(zip(g.clients, map(float, g.norms), strict=True)) for g in gathered],
        "left_out": [left._asdict() for g in gathered for left in g.left],
        "rows": rows,
    }


def text(studies: Sequence[Mapping[str, Any]], header: Mapping[str, Any]) -> str:
    lines = [
        "# A federated round",
        "",
        "Written by `python benchmarks/studies/federated.py`. Exact on the recorded environment only: "
        f"`{header['environment']}`.",
        "",
        f"Four clients hold disjoint training slices by skill ({header['holdings']}). {ROUNDS} rounds of {STEPS} local "
        f"steps, {BATCH} rows a step; each client's change is held to {REACH:g} of the base's norm. Items of the selection "
        "suites answered exactly, measured once at the end; `lead` is the paired one-sided 95 % lower bound of the "
        "federated child's lead. A client alone takes as many steps as it did in all rounds; joint training sees all "
        "rows for as many steps as all clients together.",
    ]
    for one in studies:
        lines += ["", f"## Seed {one['seed']}", "", f"| model | {' | '.join(SKILLS)} | mean | worst | lead |"]
        lines.append("|---|" + "---:|" * (len(SKILLS) + 3))
        for row in one["rows"]:
            figures = " | ".join(f"{row[k]:.3f}" for k in (*SKILLS, "mean", "worst"))
            lead = "" if row["lead"] is None else f"{row['lead']:+.3f}"
            lines.append(f"| {row['model']} | {figures} | {lead} |")
        child, base = one["rows"][0], one["rows"][1]
        lost = [f"{s} ({child[s]:.3f} against {base[s]:.3f})" for s in SKILLS if child[s] < base[s]]
        lines += ["", f"Skills on which the child is behind the base it started from: {', '.join(lost) or 'none'}."]
        lines += ["", "Left out in round 1, and the round went on:", ""]
        lines += [f"- `{left['client']}`: {left['words']} (`{left['reason']}`)" for left in one["left_out"]]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    options = parser.parse_args()
    holdings = "; ".join(f"{name}: {', '.join(skills)}" for name, skills in HOLDINGS.items())
    header = {"environment": training_environment(), "holdings": holdings}
    studies = [study(seed) for seed in options.seeds]
    record = {**header, "rounds": ROUNDS, "steps": STEPS, "batch": BATCH, "rate": RATE, "reach": REACH}
    (options.out / "federated.json").write_text(
        json.dumps({**record, "studies": studies}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    (options.out / "federated.md").write_text(text(studies, header), encoding="utf-8")
    worst = min(row["lead"] for one in studies for row in one["rows"] if row["model"].startswith("client"))
    print(f"smallest lead over a client: {worst:+.4f}")
    return 0 if worst > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
