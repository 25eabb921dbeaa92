"""A small lab in which one experiment was registered and run: two arms, two seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import CLUSTER, PERSON, PROTECTED, ROLES, Place, shipped_items, write_suite
from release_fixtures import change_policy
from studbook.lab import Lab
from studbook.records import ExperimentCharter, ExperimentResult

PLAN: dict[str, Any] = {
    "name": "keep-more",
    "hypothesis": "Keeping more of each change beats champion, parents, ensemble and random search.",
    "cluster": CLUSTER,
    "operator": "dare/1",
    "fixed": {"scales": 0.5, "skip": []},
    "factors": {"keep": [0.4, 0.9]},
    "seeds": [5, 6],
}


def write_plan(folder: Path, **changes: Any) -> Path:
    """A file with the experiment, some fields changed."""
    path = folder / "experiment.json"
    path.write_text(json.dumps(PLAN | changes), encoding="utf-8")
    return path


def judge_by_regex(lab: Lab, folder: Path) -> None:
    """Protect one more skill, whose suites in every role of a round are answered in writing."""
    suites = []
    for role in ROLES:
        rows = [{**row, "rule": {"pattern": row["expected"]}} for row in shipped_items(role, CLUSTER)]
        suites.append(write_suite(folder, rows, name=f"{role}-written", role=role, cluster="written", scorer="regex"))
    lab.suites.freeze(suites, PERSON)
    change_policy(lab, folder, protected=[*PROTECTED, "written"])


def charter_of(lab: Lab) -> tuple[str, ExperimentCharter]:
    """The first charter of a lab with its digest."""
    return next(lab.desk.all(ExperimentCharter))


def result_of(lab: Lab) -> ExperimentResult:
    """The first result of a lab."""
    return next(lab.desk.all(ExperimentResult))[1]


@pytest.fixture(scope="session")
def experimented(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The lab after the experiment; only read it, or copy it."""
    folder = tmp_path_factory.mktemp("experimented")
    place = prepared_lab.copy(folder)
    with place.open() as lab:
        lab.experiments.new(write_plan(folder))
        lab.experiments.run(PLAN["name"])
    return place
