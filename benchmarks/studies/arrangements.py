"""Several models for one request, measured for the orchestration study: committees, pipelines, adapters on one base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from specialists import CHAMPION, LONG, SINGLE, Bred, routing, skills

from studbook.models.engine import Engine
from studbook.records import digest
from studbook.runtime.routing import Candidate, Router, RouteRequest
from studbook.runtime.routing.committee import CommitteePlan, committee
from studbook.runtime.routing.pipeline import PipelinePlan, PipelineStage, pipeline
from studbook.runtime.routing.running import EngineRunner, Limits, Runner
from studbook.runtime.routing.stack import StackPlan, apply_stack

__all__ = ["adapters_row", "committee_rows", "pipeline_rows"]

TOKENS, CHAINS = 12, 300
LETTERS = {"type": "string", "pattern": "^[a-z]{1,12}$"}
CAPITALS = {"type": "string", "pattern": "^[A-Z]{1,12}$"}
# First skill, second skill, and what the second writes. Reversed words are short enough for either.
PAIRS = (("rev", "dup", LETTERS), ("rev", "cap", CAPITALS))


def committee_rows(
    runner: Runner, models: Mapping[str, Bred], rows: Sequence[Any], decoded: int
) -> list[dict[str, Any]]:
    """Committees without any router: everybody is asked, the commonest answer counts."""
    evidence = side_by_side(models)
    bytes_of = dict.fromkeys(models, decoded)
    found = []
    for members in ((*routing.ROUTED, CHAMPION), (*routing.ROUTED, LONG), (CHAMPION, SINGLE, LONG)):
        plan = CommitteePlan(
            members, TOKENS, Limits(TOKENS * len(members)), digest(evidence), int(evidence["parallel"])
        )
        runs = [committee(plan, row.prompt, runner, bytes_of) for row in rows]
        hits = [run.text == row.expected for run, row in zip(runs, rows, strict=True)]
        found.append(
            {
                "members": list(members),
                "right": round(sum(hits) / len(hits), 4),
                "active_bytes": runs[0].cost.active_bytes,
                "megafuel": round(sum(run.cost.fuel or 0 for run in runs) / len(runs) / 1e6, 3),
                "evidence": evidence,
            }
        )
    return found


def side_by_side(models: Mapping[str, Bred]) -> dict[str, int]:
    """What five engines take that are open at once; a committee cites the digest of this."""
    names = (*routing.ROUTED, CHAMPION)
    engines = [Engine(models[name].path.read_bytes()) for name in names]
    taken = sum(engine.memory_bytes for engine in engines)
    for engine in engines:
        engine.close()
    return {"parallel": len(engines), "memory_bytes": taken}


def pipeline_rows(runner: Runner, seed: int) -> list[dict[str, Any]]:
    """Two skills one after the other, by two specialists and by one model asked twice; arguments of the sealed split."""
    found = []
    for first, second, last in PAIRS:
        rng = skills.seeded(seed, "pipeline", first, second)
        drawn = skills.rows_of_skill(rng, first, "sealed", CHAINS)
        cases = [(row.prompt.split(" ")[1].rstrip(">"), skills.answer(second, row.expected)) for row in drawn]
        asked: dict[str, tuple[str, str]] = {
            "specialists": (first, second),
            "champion twice": (CHAMPION, CHAMPION),
            "one model of all steps, twice": (LONG, LONG),
        }
        for name, (one, two) in asked.items():
            stages = (
                PipelineStage(one, LETTERS, LETTERS, f"{first} {{}}>", TOKENS),
                PipelineStage(two, LETTERS, last, f"{second} {{}}>", TOKENS),
            )
            plan = PipelinePlan(stages, Limits(2 * TOKENS))
            runs = [pipeline(plan, text, runner, {}) for text, _ in cases]
            hits = [run.text == wanted for run, (_, wanted) in zip(runs, cases, strict=True)]
            stopped = sum(run.text is None for run in runs)
            found.append(
                {
                    "stages": f"{first}, then {second}",
                    "by": name,
                    "items": len(cases),
                    "right": round(sum(hits) / len(hits), 4),
                    "stopped": round(stopped / len(runs), 4),
                }
            )
    return found


def adapters_row(
    models: Mapping[str, Bred], router: Router, four: Sequence[Candidate], rows: Sequence[Any]
) -> dict[str, Any]:
    """The four skills as rank-8 packages on one resident champion, each applied when the router asks for it."""
    packages = {
        skill: (models[f"{skill} adapter"].adapter or models[skill].path).read_bytes() for skill in routing.ROUTED
    }
    chosen = {row.prompt: name_of(four, router.route(RouteRequest(row.prompt), four).selected) for row in rows}
    oracle: Callable[[Any], str] = lambda row: str(row.skill)  # noqa: E731
    routed: Callable[[Any], str] = lambda row: chosen[row.prompt]  # noqa: E731
    with Engine(models[CHAMPION].path.read_bytes()) as engine:
        facts = engine.facts
        shares, seconds = {}, []
        for name, choose in (("oracle", oracle), ("n-grams", routed)):
            hits = 0
            for skill in routing.ROUTED:
                plan = StackPlan(facts.sha256, facts.tokenizer_sha256, (hashlib.sha256(packages[skill]).hexdigest(),))
                begun = perf_counter()
                apply_stack(plan, engine, [packages[skill]])
                seconds.append(perf_counter() - begun)
                runner = EngineRunner({skill: engine})
                mine = [row for row in rows if choose(row) == skill]
                hits += sum(runner.run(skill, row.prompt, Limits(TOKENS)).text == row.expected for row in mine)
                engine.detach()
            shares[name] = round(hits / len(rows), 4)
        return {
            "right": shares,
            "package_bytes": {skill: len(data) for skill, data in packages.items()},
            "model_bytes": facts.size,
            "applying_ms": round(1000 * sorted(seconds)[len(seconds) // 2], 2),
        }


def name_of(offered: Sequence[Candidate], revision: str | None) -> str:
    return next(m.id for m in offered if m.revision == revision)
