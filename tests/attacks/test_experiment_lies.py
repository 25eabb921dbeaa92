"""Experiments told otherwise than they went: a charter back-dated, a seed swapped, an arm or a baseline dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiment_fixtures import PLAN, charter_of, result_of, write_plan
from lab_fixtures import CLUSTER, Place, problems
from release_fixtures import refused, told
from studbook.errors import DigestDiffers, StudbookError
from studbook.lab import Lab
from studbook.lab.experiment_charter import check_charter
from studbook.lab.experiment_check import check_result
from studbook.lab.search import Request
from studbook.records import ExperimentCharter, ExperimentResult, Scorecard, SuiteManifest, digest, replace

ARM = {"operator": "dare/1", **PLAN["fixed"], "keep": 0.9, "seed": 5}


def rows(items: tuple[Any, ...], place: int, **changes: Any) -> tuple[Any, ...]:
    """The rows with one of them changed."""
    found = list(items)
    found[place] = msgspec.structs.replace(found[place], **changes)
    return tuple(found)


def swapped_runs(r: ExperimentResult) -> tuple[Any, ...]:
    """The first two runs tell each other's candidate under their own seed."""
    first, second = r.runs[:2]
    fields = ("manifest", "artifact", "scorecard", "score")
    return (
        msgspec.structs.replace(first, **{f: getattr(second, f) for f in fields}),
        msgspec.structs.replace(second, **{f: getattr(first, f) for f in fields}),
        *r.runs[2:],
    )


def other_card(lab: Lab, artifact: str) -> str:
    return next(d for d, c in lab.desk.all(Scorecard) if c.artifact != artifact)


Lie = Callable[[Lab, ExperimentResult], dict[str, Any]]
LIES: dict[str, tuple[str, Lie]] = {
    "an arm dropped": ("arms", lambda _, r: {"runs": r.runs[2:]}),
    "one run of an arm dropped": ("arms", lambda _, r: {"runs": r.runs[1:]}),
    "a run twice": ("arms", lambda _, r: {"runs": (*r.runs, r.runs[0])}),
    "an arm that was not promised": ("arms", lambda _, r: {"runs": rows(r.runs, 0, arm="11")}),
    "a seed swapped": ("seeds", lambda _, r: {"runs": rows(r.runs, 0, seed=7)}),
    "a seed told twice": ("seeds", lambda _, r: {"runs": rows(r.runs, 0, seed=6)}),
    "no seed": ("seeds", lambda _, r: {"runs": rows(r.runs, 0, seed=None)}),
    "runs in another order": ("seeds", lambda _, r: {"runs": r.runs[::-1]}),
    "a run under another's seed": ("run", lambda _, r: {"runs": swapped_runs(r)}),
    "no baselines": ("baselines", lambda _, r: {"baselines": ()}),
    "no ensemble": ("baselines", lambda _, r: {"baselines": tuple(b for b in r.baselines if b.baseline != "ensemble")}),
    "one search of two": ("baselines", lambda _, r: {"baselines": r.baselines[:-1]}),
    "a parent left out": ("baselines", lambda _, r: {"baselines": (*r.baselines[:2], *r.baselines[3:])}),
    "a weaker parent told twice": (
        "run",
        lambda _, r: {"baselines": rows(r.baselines, 2, scorecard=r.baselines[3].scorecard)},
    ),
    "a search under another seed": (
        "run",
        lambda _, r: {"baselines": rows(r.baselines, -1, receipt=r.baselines[-2].receipt)},
    ),
    "another's scorecard": (
        "run",
        lambda lab, r: {"runs": rows(r.runs, 0, scorecard=other_card(lab, r.runs[0].artifact))},
    ),
    "an ensemble on one suite": ("run", lambda _, r: {"ensemble": r.ensemble[:1]}),
    "an ensemble that knows nothing": (
        "result",
        lambda _, r: {
            "ensemble": rows(r.ensemble, 0, correct="0" * len(r.ensemble[0].correct), verdict="fail", detail="")
        },
    ),
    "a better arm": ("result", lambda _, r: {"outcomes": rows(r.outcomes, 1, score=0.99)}),
    "a better run": ("result", lambda _, r: {"runs": rows(r.runs, 2, score=0.99)}),
    "a baseline beaten": ("result", lambda _, r: {"contrasts": rows(r.contrasts, -1, lower=0.01, beaten=True)}),
    "a baseline not spoken of": ("result", lambda _, r: {"contrasts": r.contrasts[:-1]}),
    "an effect shown": ("result", lambda _, r: {"attribution": rows(r.attribution, 0, lower=0.01, shown=True)}),
    "an effect left out": ("result", lambda _, r: {"attribution": ()}),
    "support it does not have": ("result", lambda _, r: {"supported": not r.supported}),
    "what did not hold left out": ("result", lambda _, r: {"unsupported": ()}),
    "another evaluator": ("result", lambda _, r: {"evaluator": "0" * 64}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_result_that_is_not_its_charters_is_refused(experimented: Place, lie: str) -> None:
    rule, change = LIES[lie]
    with experimented.open(writer=False) as lab:
        true = result_of(lab)
        check_result(lab.desk, true)
        with pytest.raises(StudbookError) as caught:
            check_result(before_result(lab), replace(true, **change(lab, true)))
    assert caught.value.reason == f"experiment.{rule}"
    assert caught.value.where and caught.value.advice


@pytest.mark.parametrize("field", ["receipt", "scorecard"])
def test_a_baseline_without_its_evidence_is_refused(experimented: Place, field: str) -> None:
    with experimented.open(writer=False) as lab:
        true = result_of(lab)
        place = -1 if field == "receipt" else 0
        with pytest.raises(StudbookError) as caught:
            check_result(before_result(lab), replace(true, baselines=rows(true.baselines, place, **{field: None})))
    assert caught.value.advice


def test_a_lie_well_signed_is_found_when_the_lab_is_verified(experimented: Place, tmp_path: Path) -> None:
    place = experimented.copy(tmp_path)
    with place.open() as lab:
        true = result_of(lab)
        found = told(lab, replace(true, baselines=true.baselines[1:]))
        assert isinstance(found, DigestDiffers) and found.reason == "experiment.baselines"
    assert len(problems(place)) == 1


def test_a_second_result_of_one_charter_is_refused(experimented: Place, tmp_path: Path) -> None:
    with experimented.copy(tmp_path).open() as lab:
        true = result_of(lab)
        other = replace(true, header=msgspec.structs.replace(true.header, environment="elsewhere"))
        found = told(lab, other)
        assert found is not None and found.reason == "experiment.twice" and found.advice


def test_a_charter_that_came_after_its_candidates_carries_no_result(experimented: Place, tmp_path: Path) -> None:
    with experimented.copy(tmp_path).open() as lab:
        (_, charter), true = charter_of(lab), result_of(lab)
        late = replace(charter, name="it-was-clear-from-the-start")
        forged = replace(true, charter=digest(late))
        first = len(lab.desk.entries())
        found = told(lab, late, forged)
        assert found is not None and found.reason == "experiment.seen"
        with refused("experiment.order"):
            check_result(lab.desk.at(first + 1), forged)


def test_a_charter_is_not_registered_once_an_arm_was_bred_or_its_searches_made(
    new_lab: Place, experimented: Place, tmp_path: Path
) -> None:
    with experimented.open(writer=False) as lab:
        _, charter = charter_of(lab)
    searched = new_lab.copy(tmp_path / "searched")
    with new_lab.open() as lab:
        lab.breed(CLUSTER, ARM)
        with refused("experiment.seen"):
            lab.experiments.new(write_plan(tmp_path))
        found = told(lab, charter)
        assert found is not None and found.reason == "experiment.seen"
    with searched.open() as lab:
        lab.search(CLUSTER, Request(method="random", evaluations=2, seed=PLAN["seeds"][1]))
        with refused("experiment.seen"):
            lab.experiments.new(write_plan(tmp_path))


def suites_of(lab: Lab, role: str) -> tuple[str, ...]:
    return tuple(d for d, m in lab.desk.all(SuiteManifest) if (m.role, m.dimension) == (role, "task"))


Promise = Callable[[Lab, ExperimentCharter], dict[str, Any]]
PROMISES: dict[str, Promise] = {
    "no baselines": lambda _, c: {"baselines": ()},
    "no ensemble": lambda _, c: {"baselines": tuple(b for b in c.baselines if b != "ensemble")},
    "selection suites": lambda lab, _: {"suites": suites_of(lab, "selection")},
    "sealed suites": lambda lab, _: {"suites": suites_of(lab, "sealed")},
    "a suite left out": lambda _, c: {"suites": c.suites[1:]},
    "a smaller budget": lambda _, c: {"budget": msgspec.structs.replace(c.budget, calls=1)},
    "an easier margin": lambda _, c: {"analysis": msgspec.structs.replace(c.analysis, margin=0.5)},
    "another champion": lambda _, c: {"champion": c.parents[0]},
    "parents nobody compared": lambda _, c: {"parents": c.parents[::-1]},
}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_charter_that_is_not_of_the_lab_it_entered_is_refused(experimented: Place, promise: str) -> None:
    with experimented.open(writer=False) as lab:
        found, true = charter_of(lab)
        entry = lab.desk.workspace.entry(found)
        assert entry is not None
        then = lab.desk.at(entry.sequence)
        check_charter(then, true)
        with refused("experiment.charter"):
            check_charter(then, replace(true, **PROMISES[promise](lab, true)))


def before_result(lab: Lab) -> Any:
    """The lab as it was just before the result entered."""
    return lab.desk.at(len(lab.desk.entries()) - 1)
