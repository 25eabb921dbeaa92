"""Does a search on development items find a merge whose worst skill is better on items it never saw?

On the shipped founders, four scales and a budget of 85 recipes: CMA-ES, M2N2 and random search, several seeds each,
through `studbook search`. Winners and uniform soup then answer fresh items, drawn by the founders' own generator under a
seed of this study from a split that neither training nor search ever saw. Nothing is chosen on those items.

The claim is that a winner's worst skill beats the soup's worst skill. With s the soup's worst skill, it holds if the
winner's every skill k beats the soup's accuracy on s, so the smallest of the seven one-sided 95 % lower bounds is a bound
of the difference: paired on the items of s itself, Newcombe's for two proportions elsewhere (intersection-union, no
correction needed).

    python benchmarks/studies/search.py [--seeds 1 2 3 4 5] [--evaluations 85] [--items 1000] [--out docs/proof]

Needs the extra ``search``; about 20 s of one core a search.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studbook.lab import Lab
from studbook.lab.founding import read_policy
from studbook.lab.search import Request
from studbook.models.forward import Forward
from studbook.models.slm import Slm
from studbook.records import SearchReceipt, canonical
from studbook.statistics import paired_bounds, paired_counts, unpaired_bounds

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES / "founders"))

import skills  # noqa: E402

PARENTS = ("rev-srt", "cap-rot", "dup-odd", "brk")
METHODS = ("cma", "m2n2", "random")
CLUSTER, PERSON, ALPHA = "srt", "study", 0.05
# Neither a suite's seed nor a founder's; the split is one that no search and no training reads.
SEED, SPLIT = 77_001, "selection"


class Answers(NamedTuple):
    """Right and wrong by skill, one character an item."""

    bits: dict[str, str]

    def share(self, skill: str) -> float:
        """Accuracy on one skill, 0..1."""
        return self.bits[skill].count("1") / len(self.bits[skill])

    @property
    def worst(self) -> str:
        """The skill with the lowest accuracy."""
        return min(self.bits, key=self.share)

    @property
    def mean(self) -> float:
        """Unweighted mean over the skills, 0..1."""
        return float(np.mean([self.share(skill) for skill in self.bits]))


def fresh_items(count: int) -> dict[str, list[skills.Row]]:
    """Distinct prompts of every skill under this study's own seed."""
    rows = {}
    for skill in skills.SKILLS:
        draws = skills.seeded(SEED, "search-study", skill)
        rows[skill] = list(skills.rows_of_skill(draws, skill, SPLIT, count))
    return rows


def answers(model: Slm, items: dict[str, list[skills.Row]]) -> Answers:
    """What a model answers exactly."""
    forward, encode = Forward(model), model.tokenizer.encode
    bits = {}
    for skill, rows in items.items():
        pairs = [(encode(r.prompt, bos=True, eos=False), encode(r.expected, bos=False, eos=True)) for r in rows]
        bits[skill] = "".join("1" if right else "0" for right in forward.score(pairs).exact)
    return Answers(bits)


def lower_bound(child: Answers, soup: Answers) -> float:
    """Lower bound of (worst skill of the child) - (worst skill of the soup); see the head of this file."""
    target = soup.worst
    bounds = []
    for skill, bits in child.bits.items():
        if skill == target:
            bounds.append(paired_bounds(*paired_counts(bits, soup.bits[target]), ALPHA).lower)
        else:
            other = soup.bits[target]
            bounds.append(unpaired_bounds(bits.count("1"), len(bits), other.count("1"), len(other), ALPHA).lower)
    return min(bounds)


def found_lab(folder: Path) -> Path:
    """A lab with the shipped founders, approved, and the shipped suites."""
    place = folder / "lab"
    Lab.init(place, PERSON, policy=read_policy(EXAMPLES / "founders" / "policy.json", PERSON))
    with Lab(place) as lab:
        for name in ("base", *PARENTS):
            lab.register(EXAMPLES / "founders" / name)
            lab.approve(name, PERSON, reason="study")
        lab.suites.freeze([EXAMPLES / "suites"], PERSON)
        lab.release("base", "champion", PERSON, "study")
    return place


def run(seeds: Sequence[int], evaluations: int, items: dict[str, list[skills.Row]]) -> dict[str, Any]:
    """Every search, and what its winner does on the fresh items."""
    with tempfile.TemporaryDirectory() as folder, Lab(found_lab(Path(folder))) as lab:
        share = [1.0 / len(PARENTS)] * len(PARENTS)
        soup_artifact = lab.breed(CLUSTER, {"operator": "blend/1", "weights": share}, PARENTS)
        soup = answers(lab.desk.model(soup_artifact), items)
        alone = {name: answers(lab.desk.model(lab.desk.find_model(name)), items) for name in PARENTS}
        best = max(alone, key=lambda name: alone[name].share(alone[name].worst))
        rows, early = [], 0.0
        for method in METHODS:
            for seed in seeds:
                found = lab.search(CLUSTER, Request(method=method, evaluations=evaluations, seed=seed, parents=PARENTS))  # type: ignore[arg-type]
                record = found.record
                early = record.evaluated[0].objective_ppm / 1e6
                child = answers(lab.desk.model(record.artifact), items)
                rows.append(row(method, seed, record, child, soup, alone[best]))
                print({k: v for k, v in rows[-1].items() if k != "skills"}, flush=True)
    soup_row = {"development_worst": early, "heldout_worst": soup.share(soup.worst), "worst_skill": soup.worst}
    soup_row |= {"heldout_mean": soup.mean, "skills": {s: soup.share(s) for s in soup.bits}}
    parents = {
        n: {"heldout_worst": a.share(a.worst), "worst_skill": a.worst, "heldout_mean": a.mean} for n, a in alone.items()
    }
    return {"soup": soup_row, "parents": parents, "best_parent": best, "searches": rows}


def row(
    method: str, seed: int, record: SearchReceipt, child: Answers, soup: Answers, parent: Answers
) -> dict[str, Any]:
    """One search's figures; ``parent`` is the one with the best worst skill."""
    worst, ppm = child.share(child.worst), record.evaluated[record.best].objective_ppm
    return {
        "method": method,
        "seed": seed,
        "recipe": record.recipe,
        "development_worst": ppm / 1e6,
        "heldout_worst": worst,
        "worst_skill": child.worst,
        "gap": ppm / 1e6 - worst,
        "gain": worst - soup.share(soup.worst),
        "lower_bound": lower_bound(child, soup),
        "gain_over_parent": worst - parent.share(parent.worst),
        "lower_bound_parent": lower_bound(child, parent),
        "heldout_mean": child.mean,
        "heldout_mean_parent": parent.mean,
        "skills": {s: child.share(s) for s in child.bits},
    }


def report(found: dict[str, Any], evaluations: int, count: int) -> str:
    """The tables as Markdown."""
    soup, parent = found["soup"], found["parents"][found["best_parent"]]
    lines = [
        "# Search: the worst skill, before and after, on items the search never saw",
        "",
        f"Written by `benchmarks/studies/search.py`. Shipped founders, four parents, four scales, {evaluations} recipes a "
        f"search (the uniform soup is the first of them), objective: the worst of seven skills on 200 development items "
        f"each. Held-out: {count:,} fresh items a skill (generator seed {SEED}, split {SPLIT}). Machine: "
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}.",
        "",
        f"The uniform soup: worst skill {100 * soup['development_worst']:.1f} % on development, "
        f"{100 * soup['heldout_worst']:.1f} % held out ({soup['worst_skill']}), joint mean "
        f"{100 * soup['heldout_mean']:.1f} % held out. The parent with the best worst skill, {found['best_parent']}: "
        f"{100 * parent['heldout_worst']:.1f} % held out ({parent['worst_skill']}), joint mean "
        f"{100 * parent['heldout_mean']:.1f} %.",
        "",
        "Percent right; gains in points. The lower bound is one-sided, 95 %, of winner's worst skill minus soup's worst.",
        "",
        "| method | seed | scales | worst, development | worst, held out | gap | gain over the soup | lower bound | "
        "over the best parent | joint mean, held out |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in found["searches"]:
        scales = ", ".join(f"{s:.3f}" for s in r["recipe"].get("scales", r["recipe"].get("weights", [])))
        lines.append(
            f"| {r['method']} | {r['seed']} | {scales} | {100 * r['development_worst']:.1f} | "
            f"{100 * r['heldout_worst']:.1f} ({r['worst_skill']}) | {100 * r['gap']:.1f} | {100 * r['gain']:+.1f} | "
            f"{100 * r['lower_bound']:+.1f} | {100 * r['gain_over_parent']:+.1f} (from "
            f"{100 * r['lower_bound_parent']:+.1f}) | {100 * r['heldout_mean']:.1f} |"
        )
    lines += ["", "| method | mean gain held out | smallest lower bound | mean gap | joint mean against the soup's |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for method in METHODS:
        own = [r for r in found["searches"] if r["method"] == method]
        gain, gap = (100 * float(np.mean([r[key] for r in own])) for key in ("gain", "gap"))
        least = 100 * min(r["lower_bound"] for r in own)
        joint = 100 * (float(np.mean([r["heldout_mean"] for r in own])) - soup["heldout_mean"])
        lines.append(f"| {method} | {gain:+.1f} | {least:+.1f} | {gap:.1f} | {joint:+.1f} |")
    lines += ["", "The gap is what a search learns about its 200 items a skill and nothing else: the figure of the held-out "
              "column is the one to believe. A better worst skill is bought with a little of the others; the joint mean "
              "says how much. A parent by itself may have a better worst skill than the soup; over that parent a search "
              "on the worst skill alone gains little there, and more in the joint mean."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study, print its tables and write them; 1 if a CMA winner's bound is not above zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--evaluations", type=int, default=85)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    told = parser.parse_args()
    found = run(told.seeds, told.evaluations, fresh_items(told.items))
    words = report(found, told.evaluations, told.items)
    print(words)
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / "search.md").write_text(words, encoding="utf-8")
    settings = {"seeds": told.seeds, "evaluations": told.evaluations, "items": told.items, "item_seed": SEED}
    (told.out / "search.json").write_bytes(canonical({**settings, **found}) + b"\n")
    sys.exit(0 if all(r["lower_bound"] > 0 for r in found["searches"] if r["method"] == "cma") else 1)


if __name__ == "__main__":
    main()
