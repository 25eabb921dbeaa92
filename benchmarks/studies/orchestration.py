"""Is a routed set of four specialists better than one champion of the same size, and what do the other arrangements give?

Prompts of four skills in a clean split, which names the skill, and a hard one, which misspells it, leaves it out for two
solved cases, or misleads (see ``examples/founders/routing.py``). Router, margin and confidences are fitted on the
development split; everything is measured on the sealed one, which no model was trained on and no choice here was made on.
All answers are the engine's own, greedy. Writes ``docs/proof/orchestration.json``, ``.md`` and ``_cascade.svg``.

    python benchmarks/studies/orchestration.py --models build/specialists

Needs the extra ``train`` unless the models lie there already; about fifteen minutes on one idle core.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from arrangements import adapters_row, committee_rows, pipeline_rows
from lines import chart
from specialists import CHAMPION, LONG, LONGER, SINGLE, Bred, breed_all, routing

from studbook.environment import environment_class
from studbook.errors import StudbookError, TokenizerRefused
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.records import Header, RouteRule, RouteThreshold, replace
from studbook.runtime.routing import Candidate, Router, RouteRequest
from studbook.runtime.routing.cascade import CascadePlan, CascadeStage, cascade
from studbook.runtime.routing.running import Answer, EngineRunner, Limits
from studbook.runtime.routing.state import learn_state, open_state
from studbook.runtime.routing.thresholds import confidence_threshold, margin_threshold
from studbook.statistics import mcnemar, paired_bounds

ROOT = Path(__file__).resolve().parents[2]
RULED, ROUTED, GUARDED = "rules, else the champion", "n-grams", "rules, then n-grams with a margin, else the champion"
LATE = f"rules, then n-grams with a margin among late specialists, else {LONG}"
SEED, EACH, FITTED, TOKENS = 2027, 100, 75, 12
HEADER = Header(source="study", version="1", environment=environment_class(), owner="study")
RULES = tuple(RouteRule(text=f"{skill} ", place="start", cluster=skill) for skill in routing.ROUTED)
Row = Any
Table = Mapping[str, Answer]


class Asked:
    """A runner that asks the engines once a model and prompt, and remembers: greedy answers never change."""

    def __init__(self, models: Mapping[str, Bred]) -> None:
        names = [name for name in models if "adapter" not in name]
        self._runner = EngineRunner(
            {name: Engine(models[name].path.read_bytes(), fuel=True) for name in names}, fuel=True
        )
        self._told: dict[tuple[str, str, int], Answer | StudbookError] = {}

    @property
    def engine(self) -> str:
        return self._runner.engine

    def run(self, revision: str, prompt: str, limits: Limits) -> Answer:
        key = revision, prompt, limits.tokens
        if key not in self._told:
            try:
                self._told[key] = self._runner.run(revision, prompt, limits)
            except StudbookError as error:
                self._told[key] = error
        found = self._told[key]
        if isinstance(found, StudbookError):
            raise found
        return found

    def answer(self, name: str, row: Row) -> Answer | None:
        """What a model says; None where it wrote bytes that are no text."""
        try:
            return self.run(name, row.prompt, Limits(TOKENS))
        except TokenizerRefused:
            return None

    def right(self, name: str, row: Row) -> bool:
        found = self.answer(name, row)
        return found is not None and bool(found.text == row.expected)


class Split(NamedTuple):
    clean: list[Row]
    hard: list[Row]


def drawn(split: str, each: int) -> Split:
    """Rows of one split: ``each`` a skill and hard family, and as many clean ones in all."""
    hard = [row for skill in routing.ROUTED for row in routing.hard_rows(SEED, split, skill, each)]
    clean = [row for skill in routing.ROUTED for row in routing.rows(SEED, split, "clean", skill, 3 * each)]
    return Split(clean, hard)


def modules(models: Mapping[str, Bred], decoded: int, suffix: str, ready: str) -> tuple[Candidate, ...]:
    """Four specialists, and the one model that stands ready."""
    names = [f"{skill}{suffix}" for skill in routing.ROUTED]
    four = tuple(Candidate(n, models[n].sha256, (s,), decoded) for n, s in zip(names, routing.ROUTED, strict=True))
    return (*four, Candidate(ready, models[ready].sha256, routing.ROUTED, decoded))


def learnt(fitted: Split) -> tuple[dict[str, list[str]], list[Row]]:
    """Labelled prompts to learn centroids from, and the other half of the rows to calibrate on."""
    rows = [*fitted.clean, *fitted.hard]
    examples = {skill: [row.prompt for row in rows[::2] if row.skill == skill] for skill in routing.ROUTED}
    return examples, rows[1::2]


def guarded(fitted: Split, offered: Sequence[Candidate], wanted: float) -> Router:
    """Rules, then n-grams with the margin from which on that share of choices was right; else the last one offered."""
    examples, kept = learnt(fitted)
    both = open_state(*learn_state(HEADER, examples, RULES, offered[-1].id))
    free = Router(both)
    margins, right = [], []
    for row in kept:
        found = free.route(RouteRequest(row.prompt), offered)
        if found.how == "ngrams" and found.margin is not None:
            margins.append(found.margin)
            right.append(skill_of(name_of(offered, found.selected)) == row.skill)
    return Router(both, margin_threshold(HEADER, margins, right, wanted, encoder=both.digest))


def name_of(offered: Sequence[Candidate], revision: str | None) -> str:
    return next(m.id for m in offered if m.revision == revision)


def skill_of(name: str) -> str:
    return name.removesuffix("-late")


def choosers(
    fitted: Split, early: Sequence[Candidate], late: Sequence[Candidate]
) -> tuple[dict[str, Callable[[Row], str]], Router]:
    """How each row of the table chooses a model for a prompt; and the router that has n-grams alone."""
    draw = random.Random(SEED).random
    alone = Router(open_state(*learn_state(HEADER, learnt(fitted)[0])))
    rules = Router(open_state(*learn_state(HEADER, {}, RULES, CHAMPION)))
    return {
        "random specialist (floor)": lambda row: routing.ROUTED[int(draw() * len(routing.ROUTED))],
        "oracle specialist (ceiling)": lambda row: str(row.skill),
        RULED: partial(routed, rules, early),
        ROUTED: partial(routed, alone, early[:-1]),
        GUARDED: partial(routed, guarded(fitted, early, 0.95), early),
        "oracle late specialist (ceiling)": lambda row: f"{row.skill}-late",
        LATE: partial(routed, guarded(fitted, late, 0.99), late),
        **{f"{single} alone": partial(always, single) for single in (CHAMPION, SINGLE, LONG, LONGER)},
    }, alone


def routed(router: Router, offered: Sequence[Candidate], row: Row) -> str:
    return name_of(offered, router.route(RouteRequest(row.prompt), offered).selected)


def always(name: str, row: Row) -> str:
    return name


def measured(asked: Asked, chosen: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> dict[str, Any]:
    """Every way to choose on the same rows: share right, wrong routes, the fallback's share, and results a row."""
    found = {}
    for name, choose in chosen.items():
        picks = [choose(row) for row in rows]
        hits = [asked.right(pick, row) for pick, row in zip(picks, rows, strict=True)]
        sent = [(skill_of(pick), row.skill) for pick, row in zip(picks, rows, strict=True)]
        sent = [(skill, wanted) for skill, wanted in sent if skill in routing.ROUTED]
        found[name] = {
            "right": round(sum(hits) / len(hits), 4),
            "families": {
                family: round(share([h for h, r in zip(hits, rows, strict=True) if r.perturbation == family]), 4)
                for family in dict.fromkeys(row.perturbation for row in rows)
            },
            "wrong_routes": round(sum(skill != wanted for skill, wanted in sent) / len(rows), 4),
            "fallback": round(1 - len(sent) / len(rows), 4),
            "hits": "".join("01"[hit] for hit in hits),
        }
    return found


def share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def against(mine: str, other: str) -> dict[str, float]:
    """Paired difference with its one-sided 95 % bounds, and the exact one-sided p of McNemar's test."""
    wins = sum(a > b for a, b in zip(mine, other, strict=True))
    losses = sum(a < b for a, b in zip(mine, other, strict=True))
    bounds = paired_bounds(wins, losses, len(mine), 0.05)
    return {
        "difference": round(bounds.value, 4),
        "lower": round(bounds.lower, 4),
        "upper": round(bounds.upper, 4),
        "wins": wins,
        "losses": losses,
        "p": mcnemar(wins, losses),
    }


def confidences(asked: Asked, models: Mapping[str, Bred], rows: Sequence[Row]) -> dict[str, RouteThreshold]:
    """A calibrated confidence a model, on every development row: also on those of other skills."""
    found = {}
    for name in (CHAMPION, SINGLE, LONG, *routing.ROUTED, *(f"{skill}-late" for skill in routing.ROUTED)):
        answers = [asked.answer(name, row) for row in rows]
        kept = [(a.mean_logprob, a.text == r.expected) for a, r in zip(answers, rows, strict=True) if a is not None]
        scores, right = [s for s, _ in kept if s is not None], [bool(r) for s, r in kept if s is not None]
        found[name] = confidence_threshold(HEADER, scores, right, 0.5, engine=ENGINE_SHA256, model=models[name].sha256)
    return found


def ranked(router: Router, offered: Sequence[Candidate], prompt: str) -> list[str]:
    """The specialists, likest first."""
    told = {c.id: c.score or 0.0 for c in router.route(RouteRequest(prompt), offered).candidates}
    return sorted(routing.ROUTED, key=lambda name: (-told[name], name))


def cascades(
    asked: Asked,
    models: Mapping[str, Bred],
    thresholds: Mapping[str, RouteThreshold],
    order: Callable[[Row], Sequence[str]],
    rows: Sequence[Row],
    decoded: int,
) -> list[dict[str, float]]:
    """Quality and cost of one order of models, for every share of right answers that is asked for."""
    points = []
    for wanted in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.01):
        hits, calls, fuel = 0, 0, 0
        for row in rows:
            stages = [
                CascadeStage(name, models[name].sha256, replace(thresholds[name], value=wanted)) for name in order(row)
            ]
            plan = CascadePlan(stages, len(stages) - 1, TOKENS, Limits(TOKENS * len(stages)))
            run = cascade(plan, row.prompt, asked, dict.fromkeys(models, decoded))
            hits += run.text == row.expected
            calls += len(run.steps)
            fuel += run.cost.fuel or 0
        points.append(
            {
                "asked": wanted,
                "right": round(hits / len(rows), 4),
                "calls": round(calls / len(rows), 4),
                "escalated": round(calls / len(rows) - 1, 4),
                "megafuel": round(fuel / len(rows) / 1e6, 3),
            }
        )
    return points


def study(folder: Path) -> dict[str, Any]:
    models = breed_all(folder)
    asked = Asked(models)
    with Engine(models[CHAMPION].path.read_bytes()) as engine:
        decoded = engine.facts.decoded_bytes
    early, late = modules(models, decoded, "", CHAMPION), modules(models, decoded, "-late", LONG)
    fitted, judged = drawn("development", FITTED), drawn("sealed", EACH)
    chosen, alone = choosers(fitted, early, late)
    clean, hard = (measured(asked, chosen, rows) for rows in judged)
    thresholds = confidences(asked, models, [*fitted.clean, *fitted.hard])
    four = early[:-1]
    orders: dict[str, Callable[[Row], Sequence[str]]] = {
        "champion, then the routed specialist": lambda row: (CHAMPION, ranked(alone, four, row.prompt)[0]),
        "specialists in the router's order": lambda row: ranked(alone, four, row.prompt)[:3],
        "one model, then the one of all steps": lambda row: (SINGLE, LONG),
        "late specialist, then all steps": lambda row: (
            f"{ranked(alone, four, row.prompt)[0]}-late",
            LONG,
        ),
    }
    curves = {name: cascades(asked, models, thresholds, order, judged.hard, decoded) for name, order in orders.items()}
    return {
        "environment": environment_class(),
        "engine": ENGINE_SHA256,
        "decoded_bytes": decoded,
        "models": {name: bred.sha256 for name, bred in models.items()},
        "items": {"clean": len(judged.clean), "hard": len(judged.hard)},
        "fitted": len(fitted.clean) + len(fitted.hard),
        "clean": clean,
        "hard": hard,
        "paired": {
            f"{mine} against {other} alone, {split}": against(rows[mine]["hits"], rows[f"{other} alone"]["hits"])
            for split, rows in (("hard", hard), ("clean", clean))
            for mine, others in ((ROUTED, (CHAMPION, SINGLE, LONG)), (LATE, (LONG, LONGER)))
            for other in others
        },
        "cascades": curves,
        "committees": committee_rows(asked, models, judged.hard, decoded),
        "pipelines": pipeline_rows(asked, SEED),
        "adapters": adapters_row(models, alone, four, judged.hard),
    }


def text(record: Mapping[str, Any]) -> str:
    """The page of a record."""
    items, bytes_ = record["items"], record["decoded_bytes"]
    lines = [
        "# Orchestration: four specialists against one champion",
        "",
        f"Written by `benchmarks/studies/orchestration.py` in `{record['environment']}`. {items['clean']:,} clean and "
        f"{items['hard']:,} hard prompts of the sealed split; {record['fitted']:,} of the development split fitted router, "
        f"margin and confidences. Every model decodes to {bytes_:,} bytes, so one specialist at a time has exactly as "
        "many active as one model alone. *single* was fine-tuned from the champion on the rows of all four skills with the "
        f"steps of one specialist, *{LONG}* with the steps of all four together. *Late* specialists were bred from that "
        f"strongest single model, and *{LONGER}* took the steps of one of them on all rows. No choice was fitted on these "
        "prompts; the late set was added after the figures of the first set on them had been seen.",
        "",
        "| who answers | clean | hard | "
        + " | ".join(routing.HARD)
        + " | wrong routes, hard | not to a specialist, hard |",
        "|---|" + "---:|" * (4 + len(routing.HARD)),
    ]
    for name, row in record["hard"].items():
        parts = [f"{row['families'][family]:.1%}" for family in routing.HARD]
        clean = f"{record['clean'][name]['right']:.1%}"
        routes = (f"{row['wrong_routes']:.1%}", f"{row['fallback']:.1%}") if "alone" not in name else ("-", "-")
        hard = f"{row['right']:.1%}"
        lines.append(f"| {name} | {' | '.join([clean, hard, *parts, *routes])} |")
    lines += [
        "",
        "## Paired on the same prompts",
        "",
        "| | difference | one-sided 95 % bounds | p (McNemar) |",
        "|---|---:|---|---:|",
    ]
    for name, row in record["paired"].items():
        bounds = f"{row['lower']:+.1%} to {row['upper']:+.1%}"
        lines.append(f"| {name} | {row['difference']:+.1%} | {bounds} | {row['p']:.2g} |")
    return "\n".join([*lines, *verdict(record), *arrangements(record)]) + "\n"


def verdict(record: Mapping[str, Any]) -> list[str]:
    """Who is shown to be ahead on the hard split, in the words of the figures."""

    def word(mine: str, other: str) -> str:
        row = record["paired"][f"{mine} against {other} alone, hard"]
        return "ahead of" if row["lower"] > 0 else "BEHIND" if row["upper"] < 0 else "not shown to differ from"

    return [
        "",
        f"On the hard split the four routed by n-grams are {word(ROUTED, CHAMPION)} the champion that is deployed, "
        f"{word(ROUTED, SINGLE)} one model with a specialist's steps on all rows, and {word(ROUTED, LONG)} one model with "
        "all their steps and rows together: where joint training is to be had, it is the first thing to do.",
        "",
        f"With that strongest single model as the champion, and late specialists bred from it, the routed set is "
        f"{word(LATE, LONG)} it, and {word(LATE, LONGER)} the same model given a specialist's steps on all rows.",
    ]


def arrangements(record: Mapping[str, Any]) -> list[str]:
    """Cascades, committees, pipelines and adapters as tables."""
    lines = ["", "## Cascades on the hard split", "", "![quality over calls](orchestration_cascade.svg)", ""]
    lines += [
        "| order | share right asked for | right | calls a request | escalated | fuel, millions |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, points in record["cascades"].items():
        for p in points:
            if p["asked"] in (0.0, 0.2, 0.5, 0.8, 1.01):
                cells = f"{p['right']:.1%} | {p['calls']:.2f} | {p['escalated']:.2f} | {p['megafuel']:.1f}"
                lines.append(f"| {name} | {min(p['asked'], 1.0):.0%} | {cells} |")
    lines += [
        "",
        "## Committees on the hard split",
        "",
        "| members | right | active bytes | fuel, millions |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {', '.join(c['members'])} | {c['right']:.1%} | {c['active_bytes']:,} | {c['megafuel']:.1f} |"
        for c in record["committees"]
    ]
    lines += [
        "",
        "## Pipelines, clean prompts",
        "",
        "| stages | by | right | stopped by a schema or a failure |",
        "|---|---|---:|---:|",
    ]
    lines += [f"| {p['stages']} | {p['by']} | {p['right']:.1%} | {p['stopped']:.1%} |" for p in record["pipelines"]]
    a = record["adapters"]
    sizes = " to ".join(f"{f(a['package_bytes'].values()):,}" for f in (min, max))
    lines += [
        "",
        "## Adapters on one resident champion, hard split",
        "",
        f"Rank-8 packages of {sizes} bytes beside a model of {a['model_bytes']:,}: {a['right']['oracle']:.1%} right when "
        f"the oracle says which to apply, {a['right']['n-grams']:.1%} when n-grams do. Applying one takes "
        f"{a['applying_ms']} ms (median, here).",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT / "build" / "specialists")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "proof")
    options = parser.parse_args()
    record = study(options.models)
    (options.out / "orchestration.json").write_text(
        json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    (options.out / "orchestration.md").write_text(text(record), encoding="utf-8")
    lines = {
        name: sorted({(100 * p["calls"], p["right"]) for p in points}) for name, points in record["cascades"].items()
    }
    low = math.floor(10 * min(y for line in lines.values() for _, y in line)) / 10
    title = "Cascades on the hard split: share right over model calls"
    (options.out / "orchestration_cascade.svg").write_bytes(
        chart(title, "calls of a model per 100 requests", lines, low, 1.0)
    )


if __name__ == "__main__":
    main()
