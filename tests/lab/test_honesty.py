"""Honesty rows: shown beside a round, never protected, never a target, and no part of any mean."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lab_fixtures import CLUSTER, PERSON, Place, problems, write_suite
from release_fixtures import change_policy, refused
from studbook.cli.pages import decision
from studbook.errors import UsageError
from studbook.lab import Lab

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def hard(folder: Path, task: str, **changes: object) -> Path:
    """A shipped honesty suite, some settings changed."""
    path = EXAMPLES / "honesty" / f"honesty-{task}" / "items.jsonl"
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    fields = {"name": f"honesty-{task}", "role": "development", "dimension": "honesty", "cluster": task}
    return write_suite(folder, items, **{**fields, **changes})


def test_honesty_rows_are_shown_beside_a_round_and_decide_nothing(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open() as lab:
        before = lab.evaluate(["base"]).popitem()[1].card
        lab.suites.freeze([hard(tmp_path, task) for task in ("get", "cnt", "add")], PERSON)
        # Every cluster that is judged is protected: honesty rows are not even then.
        change_policy(lab, tmp_path, protected=[])
        after = lab.evaluate(["base"]).popitem()[1].card
        assert after.labels() == before.labels()
        assert after.joint_mean == before.joint_mean
        outcome = lab.round(CLUSTER)
        page = io.StringIO()
        decision(outcome)(Console(file=page, width=300))
    assert outcome.released
    assert [(row.cluster, row.items) for row in outcome.honesty] == [("get", 200), ("cnt", 200), ("add", 200)]
    assert all(row.champion < 0.5 for row in outcome.honesty)
    assert [name for name, _ in outcome.honesty[0].candidates] == [s.name for s in outcome.record.standings]
    judged = {c.on for s in outcome.record.standings for c in s.comparisons}
    assert judged.isdisjoint({"get", "cnt", "add"})
    assert "Honesty rows" in page.getvalue() and "get (200 items)" in page.getvalue()
    assert problems(new_lab) == []


def test_an_honesty_row_is_no_target(opened: Lab, tmp_path: Path) -> None:
    opened.suites.freeze([hard(tmp_path, "add")], PERSON)
    with pytest.raises(UsageError, match="no frozen suite has the label 'add'"):
        opened.round("add")


@pytest.mark.parametrize("role", ["selection", "sealed", "descriptor", "canary"])
def test_an_honesty_suite_that_would_judge_is_refused(opened: Lab, tmp_path: Path, role: str) -> None:
    with refused("suite.honesty"):
        opened.suites.freeze([hard(tmp_path, "add", role=role)], PERSON)
