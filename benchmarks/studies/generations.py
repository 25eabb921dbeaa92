"""Does breeding keep improving? Three generations from founders of several seeds, judged on sealed items at the end.

For every seed: the founders (base and four specialists; trained by `examples/founders/train.py`, or the shipped ones), a
new lab, the shipped suites, and `studbook evolve` with a person who promotes every winner. Then champion and founders
answer the sealed suites once, outside the lab. Claimed is, for every seed, the lower bound of the champion's joint mean over
that of the founder with the best joint mean; worst skills and the joint-training ceiling stand beside it.

    python benchmarks/studies/generations.py [--seeds 1 2 3] [--generations 3] [--out docs/proof]

Needs the extras ``search`` and ``train``. ``--work FOLDER`` keeps families and labs, and a run that was cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from studbook.lab import Lab
from studbook.lab.evolving import Plan
from studbook.lab.founding import read_policy
from studbook.lab.generation_pages import tell, told
from studbook.models.forward import Forward
from studbook.models.slm import Slm
from studbook.records import canonical
from studbook.statistics import paired_counts, stratified_bounds

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES / "founders"))

import recipe  # noqa: E402
import shipping  # noqa: E402
import skills  # noqa: E402
import train  # noqa: E402

PERSON, ALPHA, SHIPPED = "study", 0.05, train.SHIPPED_SEED
PARENTS = tuple(plan.name for plan in recipe.SPECIALISTS)
SOURCES = ("cma-mean", "fine-tune")
EVALUATIONS, SIZE = 60, 4
Bits = dict[str, str]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def family(seed: int, folder: Path) -> Path:
    """The founders' folders of a seed: the shipped ones, or trained now unless an earlier run did."""
    if seed == SHIPPED:
        return EXAMPLES / "founders"
    if not (folder / "done").exists():
        # The data manifests name slices that are the same for every seed.
        slices = {f"data/{path.name}": path.read_bytes() for path in (shipping.HERE / "data").glob("*.jsonl")}
        for path, data in (shipping.family_files(recipe.train_family(seed, say)) | slices).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        (folder / "done").touch()
    return folder


def found_lab(founders: Path, folder: Path) -> Path:
    """A lab with these founders, approved, the shipped suites, and admitted descendants allowed as parents."""
    place, ready = folder / "lab", folder / "ready"
    if ready.exists():
        return place
    for name in ("lab", "lab.keys", "lab.witness"):
        shutil.rmtree(folder / name, ignore_errors=True)
    policy = json.loads((EXAMPLES / "founders" / "policy.json").read_bytes())
    policy |= {"population": {"descendants": "admitted"}, "name": "generations-study"}
    written = folder / "policy.json"
    written.write_text(json.dumps(policy), encoding="utf-8")
    Lab.init(place, PERSON, policy=read_policy(written, PERSON))
    with Lab(place) as lab:
        for name in ("base", *PARENTS, "ceiling"):
            lab.register(founders / name)
        for name in ("base", *PARENTS):
            lab.approve(name, PERSON, reason="study")
        lab.suites.freeze([EXAMPLES / "suites"], PERSON)
        lab.release("base", "champion", PERSON, "study")
    ready.touch()
    return place


def sealed(model: Slm) -> Bits:
    """What a model answers exactly on the sealed task suites, one character an item."""
    forward, encode = Forward(model), model.tokenizer.encode
    found = {}
    for skill in skills.SKILLS:
        path = EXAMPLES / "suites" / "sealed" / f"sealed-{skill}" / "items.jsonl"
        items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [(encode(i["prompt"], bos=True, eos=False), encode(i["expected"], bos=False, eos=True)) for i in items]
        found[skill] = "".join("1" if right else "0" for right in forward.score(pairs).exact)
    return found


def shares(bits: Bits) -> dict[str, float]:
    """Share of right answers a skill, 0..1."""
    return {skill: row.count("1") / len(row) for skill, row in bits.items()}


def mean(bits: Bits) -> float:
    """Unweighted mean over the skills, 0..1."""
    return sum(shares(bits).values()) / len(bits)


def study(seed: int, generations: int, work: Path) -> dict[str, Any]:
    """Breed one family and measure it, unless an earlier run did."""
    folder = work / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{generations}-generations.json"
    if written.exists():
        known: dict[str, Any] = json.loads(written.read_bytes())
        return known
    founders = family(seed, folder / "family")
    began = time.monotonic()
    with Lab(found_lab(founders, folder)) as lab:
        plan = Plan(generations, EVALUATIONS, SOURCES, "niches", SIZE, seed, "ceiling")
        found = lab.evolve(plan, PERSON, folder / "pages")
        seconds = time.monotonic() - began
        rows = [told(lab.desk, record) for _, record in found.generations]
        models = {name: lab.desk.find_model(name) for name in ("base", *PARENTS, "ceiling")}
        models["champion"] = found.champion
        answers = {name: sealed(lab.desk.model(artifact)) for name, artifact in models.items()}
        verified = lab.verify().ok
    best = max(("base", *PARENTS), key=lambda name: mean(answers[name]))
    strata = [paired_counts(answers["champion"][s], answers[best][s]) for s in skills.SKILLS]
    worst = {name: min(shares(bits).values()) for name, bits in answers.items()}
    measured = {
        "seed": seed,
        "best_founder": best,
        "gain": stratified_bounds(strata, ALPHA)._asdict(),
        "mean": {name: round(mean(bits), 6) for name, bits in answers.items()},
        "worst": {name: round(value, 6) for name, value in worst.items()},
        "worst_gain": round(worst["champion"] - max(worst[n] for n in ("base", *PARENTS)), 6),
        "skills": {name: shares(bits) for name, bits in answers.items()},
        "seconds": round(seconds, 1),
        "verified": verified,
        "stopped": found.waiting,
        "generations": msgspec.to_builtins(rows),
        "page": tell(rows),
    }
    written.write_bytes(canonical(measured))
    return measured


def report(studies: Sequence[dict[str, Any]]) -> str:
    """The whole study as Markdown."""
    lines = [
        "# Generations: champion of the last one against the best founder",
        "",
        f"Written by `benchmarks/studies/generations.py`. Sources of recipes: {', '.join(SOURCES)}; {EVALUATIONS} recipes",
        f"a search; {SIZE} parents. Sealed suites, 7,000 items; gains are paired, with one-sided 95 % lower bounds.",
        "The best founder is the one with the best joint mean on these very items, which favours it.",
        "",
        "| seed | best founder | champion | gain | lower bound | worst skill | best founder's | gain | ceiling | s |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in studies:
        best, gain = one["best_founder"], one["gain"]
        founders = max(value for name, value in one["worst"].items() if name not in ("champion", "ceiling"))
        lines.append(
            f"| {one['seed']} | {best} {one['mean'][best]:.1%} | {one['mean']['champion']:.1%} | {gain['value']:+.1%} | "
            f"{gain['lower']:+.1%} | {one['worst']['champion']:.1%} | {founders:.1%} | {one['worst_gain']:+.1%} | "
            f"{one['mean']['ceiling']:.1%} | {one['seconds']:.0f} |"
        )
    for one in studies:
        lines += ["", f"# Seed {one['seed']}", "", f"Verified: {one['verified']}. {one['stopped']}".strip(), ""]
        lines += [line.replace("## ", "### ") if line.startswith("## ") else line for line in one["page"]]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--work", type=Path, help="Folder that keeps families and labs [a temporary one].")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        studies = []
        for seed in given.seeds:
            studies.append(study(seed, given.generations, work))
            say(f"seed {seed}: {studies[-1]['gain']}, worst {studies[-1]['worst_gain']:+.3f}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "generations.md").write_text(report(studies), encoding="utf-8")
    (given.out / "generations.json").write_bytes(canonical({"studies": studies}) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
