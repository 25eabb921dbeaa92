"""Do the operators that train help, and is it the teachers, or only more training?

From the shipped founders: the four specialists distilled into one student beside their uniform blend and beside the same
steps on the same rows without any teacher; and the base fine-tuned on its worst skill with and without rehearsal, with
an adapter beside it. Every child is bred in a locked-down worker. Development items only: nothing here is a promotion.
Writes ``docs/proof/trained.json`` and ``docs/proof/trained.md``.

    python benchmarks/studies/trained.py

Needs the extra ``train``; about two minutes on one idle core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studbook.breeding.operators import AdapterTrain, AnyOperator, Blend, Distil, FineTune
from studbook.breeding.template import operator_fields
from studbook.environment import training_environment
from studbook.models.forward import Forward
from studbook.models.slm import Slm, read_slm
from studbook.sandbox import Limits, run_worker
from studbook.tensors.contract import CONTRACT_SHA256

ROOT = Path(__file__).resolve().parents[2]
FOUNDERS = ROOT / "examples" / "founders"
SKILLS = ("rev", "srt", "cap", "rot", "dup", "odd", "brk")
SLICES = {skill: FOUNDERS / "data" / f"{skill}.jsonl" for skill in SKILLS}
DIGESTS = {skill: hashlib.sha256(path.read_bytes()).hexdigest() for skill, path in SLICES.items()}
PARENTS = ("rev-srt", "cap-rot", "dup-odd", "brk")
CLUSTER = "srt"
OTHERS = tuple(DIGESTS[s] for s in SKILLS if s != CLUSTER)
LIMITS = Limits(seconds=600, memory_bytes=4 << 30, file_bytes=16 << 20)


def recipe(seed: int, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "steps": 60,
        "rate": 1e-3,
        "batch": 96,
        "seed": seed,
        "reach": 0.5,
        "rehearsal": 6 / 7,
        "data": (DIGESTS[CLUSTER],),
        "rehearsed": OTHERS,
    }
    return fields | changes


def children(seed: int) -> dict[str, tuple[AnyOperator, Sequence[str]]]:
    """What is bred, from which founders."""
    adapter = {"rank": 8, "alpha": 16.0, "targets": ("layers.*.w?.weight",), "licence": "CC0-1.0"}
    tune = {"steps": 40, "rehearsal": 0.5}
    return {
        "uniform blend": (Blend(weights=(0.25,) * 4), PARENTS),
        "distil": (Distil(**recipe(seed), imitation=0.5, temperature=2.0), PARENTS),
        "same rows, no teachers": (FineTune(**recipe(seed)), ("base",)),
        f"fine-tune {CLUSTER}": (FineTune(**recipe(seed, **tune)), ("base",)),
        f"fine-tune {CLUSTER}, no rehearsal": (
            FineTune(**recipe(seed, steps=40, rehearsal=0.0, rehearsed=())),
            ("base",),
        ),
        f"adapter {CLUSTER}": (AdapterTrain(**recipe(seed, **tune, rate=5e-3), **adapter), ("base",)),
    }


def breed(operator: AnyOperator, parents: Sequence[str], folder: Path) -> Slm:
    folder.mkdir()
    paths = [FOUNDERS / name / f"{name}.slm" for name in ("base", *parents)]
    named = [[str(path), read_slm(path).sha256] for path in paths]
    slices = {d: str(path) for d, path in zip(DIGESTS.values(), SLICES.values(), strict=True) if d in operator.slices()}
    job = {
        "base": named[0],
        "parents": named[1:],
        "operator": operator_fields(operator),
        "numeric_contract": CONTRACT_SHA256,
        "output_bytes": LIMITS.file_bytes,
        "threads": 1,
        "chunk": 1 << 20,
        "slices": slices,
    }
    run_worker(operator.worker, job, folder, LIMITS, [*paths, *slices.values()])
    return read_slm(folder / "candidate.slm")


def shares(model: Slm) -> dict[str, float]:
    """Share of development items answered exactly, by skill."""
    found = {}
    encode = model.tokenizer.encode
    for skill in SKILLS:
        path = ROOT / "examples" / "suites" / "development" / f"development-{skill}" / "items.jsonl"
        items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [(encode(i["prompt"], bos=True, eos=False), encode(i["expected"], bos=False, eos=True)) for i in items]
        found[skill] = round(float(Forward(model).score(pairs).exact.mean()), 4)
    return {**found, "mean": round(sum(found.values()) / len(found), 4), "worst": min(found.values())}


def study(seed: int) -> list[dict[str, Any]]:
    rows = []
    for name in ("base", *PARENTS, "ceiling"):
        rows.append({"model": name, **shares(read_slm(FOUNDERS / name / f"{name}.slm"))})
    with tempfile.TemporaryDirectory() as folder:
        for place, (name, (operator, parents)) in enumerate(children(seed).items()):
            child = breed(operator, parents, Path(folder) / str(place))
            rows.append({"model": name, "sha256": child.sha256, "operator": operator_fields(operator), **shares(child)})
            print(rows[-1]["model"], rows[-1]["mean"], rows[-1]["worst"], flush=True)
    return rows


def text(rows: Sequence[dict[str, Any]], seed: int) -> str:
    lines = [
        "# Operators that train",
        "",
        "Written by `python benchmarks/studies/trained.py`. Exact on the recorded environment only: "
        f"`{training_environment()}`.",
        "",
        f"Share of 200 development items a skill answered exactly; seed {seed}. One seed and free items: this shows that "
        "the operators do something, not that a child should be promoted. `same rows, no teachers` takes distil's steps "
        "on distil's rows: the difference between the two is what the teachers gave.",
        "",
        f"| model | {' | '.join(SKILLS)} | mean | worst |",
        "|---|" + "---:|" * (len(SKILLS) + 2),
    ]
    lines += [f"| {row['model']} | {' | '.join(f'{row[k]:.3f}' for k in (*SKILLS, 'mean', 'worst'))} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    options = parser.parse_args()
    rows = study(options.seed)
    record = {"environment": training_environment(), "seed": options.seed, "cluster": CLUSTER, "rows": rows}
    (options.out / "trained.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (options.out / "trained.md").write_text(text(rows, options.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
