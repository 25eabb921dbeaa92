"""Experiments in the small lab: promised first, run as promised, concluded from the answers, and shown whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from experiment_fixtures import PLAN, charter_of, judge_by_regex, result_of, write_plan
from lab_fixtures import PARENTS, PERSON, Place
from release_fixtures import change_policy, refused
from studbook.cli.commands import commands
from studbook.errors import OutsideAllowlist, StudbookError
from studbook.lab import Lab
from studbook.lab.experiment_analysis import planned
from studbook.lab.experiment_charter import operator_of
from studbook.lab.progress import Silent
from studbook.lab.slices import offered
from studbook.records import CandidateManifest, ExperimentCharter, ExperimentResult, Scorecard, SearchReceipt, digest
from studbook.records.experiments import BASELINES


class CutShort(Silent):
    """Progress whose reader goes away at one line."""

    def __init__(self, line: str) -> None:
        self.line = line

    def say(self, line: str) -> None:
        """Go away, if it is the line."""
        if self.line in line:
            raise KeyboardInterrupt


def test_a_lab_with_an_experiment_verifies(experimented: Place) -> None:
    with experimented.open(writer=False) as lab:
        found = lab.verify()
    assert found.ok, found.problems


def test_a_result_has_every_arm_seed_and_baseline_of_its_charter(experimented: Place) -> None:
    with experimented.open(writer=False) as lab:
        (_, charter), result = charter_of(lab), result_of(lab)
        assert [(r.arm, r.seed) for r in result.runs] == [("0", 5), ("0", 6), ("1", 5), ("1", 6)]
        assert tuple(dict.fromkeys(b.baseline for b in result.baselines)) == BASELINES
        assert len([b for b in result.baselines if b.baseline == "parents"]) == len(PARENTS)
        assert [b.seed for b in result.baselines if b.receipt] == [5, 6]
        assert [e.field for e in result.attribution] == ["keep"]
        assert result.supported == all(c.beaten for c in result.contrasts)
        losses = [c for c in result.contrasts if not c.beaten] + [e for e in result.attribution if not e.shown]
        assert len(result.unsupported) == len(losses)
        receipts = [r for _, r in lab.desk.all(SearchReceipt)]
        assert {r.budget for r in receipts} == {charter.budget.candidates} == {len(result.runs)}


def test_only_the_primary_arm_may_ever_be_decided_upon(experimented: Place) -> None:
    with experimented.open(writer=False) as lab:
        purposes = {r.arm: lab.desk.workspace.get(r.manifest, CandidateManifest).purpose for r in result_of(lab).runs}
    assert purposes == {"0": "ablation", "1": "candidate"}


def test_nothing_but_development_items_is_looked_at(experimented: Place) -> None:
    with experimented.open(writer=False) as lab:
        assert {card.role for _, card in lab.desk.all(Scorecard)} == {"development"}


def test_the_charter_stands_in_the_ledger_before_the_first_candidate(experimented: Place) -> None:
    with experimented.open(writer=False) as lab:
        kinds = [entry.record_kind for entry in lab.desk.entries()]
    assert kinds.index("experiment-charter/1") < kinds.index("lineage-template/1")
    assert kinds[-1] == "experiment-result/1"


def test_running_it_again_adds_nothing(experimented: Place, tmp_path: Path) -> None:
    with experimented.copy(tmp_path).open() as lab:
        before = len(lab.desk.entries())
        again, same = lab.experiments.run(PLAN["name"]), lab.experiments.run(charter_of(lab)[0][:12])
        assert again.result == same.result == result_of(lab)
        assert lab.experiments.new(write_plan(tmp_path)).result == again.result
        assert len(lab.desk.entries()) == before


def test_a_run_that_was_cut_short_goes_on_and_comes_to_the_same_bytes(
    experimented: Place, new_lab: Place, tmp_path: Path
) -> None:
    with new_lab.open() as lab:
        lab.experiments.new(write_plan(tmp_path))
    with Lab(new_lab.path, new_lab.keys, progress=CutShort("answer as one")) as lab, pytest.raises(KeyboardInterrupt):
        lab.experiments.run(PLAN["name"])
    with new_lab.open() as lab:
        (shown,) = lab.experiments.show()
        assert shown.result is None and len(list(lab.desk.all(CandidateManifest))) >= shown.charter.budget.candidates
        found = lab.experiments.run(PLAN["name"])
    with experimented.open(writer=False) as lab:
        assert found.result_digest == digest(result_of(lab))


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "an unknown field": ("experiment.file", {"power": 9}),
    "no seed": ("experiment.file", {"seeds": []}),
    "an impossible error rate": ("experiment.file", {"alpha": 0.7}),
    "an error rate that is as good as none": ("experiment.field", {"alpha": 1e-18}),
    "no hypothesis": ("experiment.file", {"hypothesis": ""}),
    "a hypothesis of two lines": ("experiment.file", {"hypothesis": "one\ntwo", "operator": "teleport/1"}),
    "a name that is none, of an unknown operator": ("experiment.file", {"name": "a\nb", "operator": "teleport/1"}),
    "five factors": ("experiment.file", {"factors": {f"f{i}": [0, 1] for i in range(5)}}),
    "a name that is none": ("experiment.file", {"name": "../up"}),
    "a seed twice": ("experiment.field", {"seeds": [5, 5]}),
    "two families": ("experiment.field", {"factors": {"operator": ["dare/1", "blend/1"]}}),
    "the seed as a factor": ("experiment.field", {"factors": {"seed": [1, 2]}}),
    "a field fixed and varied": ("experiment.field", {"fixed": {"keep": 0.5, "scales": 0.5, "skip": []}}),
    "a factor that changes nothing": ("experiment.field", {"factors": {"keep": [0.5, 0.5]}}),
    "an arm that there is not": ("experiment.field", {"primary": "11"}),
    "one parent": ("experiment.field", {"parents": [PARENTS[0]]}),
    "an unknown operator": ("operator.unknown", {"operator": "nobody/1"}),
    "a value out of bounds": ("policy", {"factors": {"keep": [0.01, 0.9]}}),
    "too many candidates": ("budget", {"seeds": list(range(30))}),
}


def test_a_plan_that_cannot_be_kept_is_refused_and_nothing_is_registered(opened: Lab, tmp_path: Path) -> None:
    for case, (reason, changes) in REFUSED.items():
        with pytest.raises(StudbookError) as caught:
            opened.experiments.new(write_plan(tmp_path, **changes))
        assert caught.value.reason.startswith(reason), (case, caught.value.reason, str(caught.value))
        assert caught.value.where and caught.value.advice, case
    (tmp_path / "list.json").write_text("[]")
    with refused("experiment.file"):
        opened.experiments.new(tmp_path / "list.json")
    assert not list(opened.desk.all(ExperimentCharter)) and not list(opened.desk.candidates())


def test_suites_on_which_a_baseline_cannot_answer_are_refused(opened: Lab, tmp_path: Path) -> None:
    judge_by_regex(opened, tmp_path)
    with refused("experiment.scorer"):
        opened.experiments.new(write_plan(tmp_path))


def test_a_charter_is_not_run_under_another_policy(opened: Lab, tmp_path: Path) -> None:
    opened.experiments.new(write_plan(tmp_path))
    change_policy(opened, tmp_path, notes="another one")
    with refused("experiment.ground"):
        opened.experiments.run(PLAN["name"])
    assert not list(opened.desk.all(ExperimentResult)) and not list(opened.desk.candidates())


def test_a_name_is_given_once(experimented: Place, tmp_path: Path) -> None:
    with experimented.copy(tmp_path).open() as lab:
        other = {"factors": {"keep": [0.3, 0.8]}, "seeds": [9]}
        with refused("experiment.name"):
            lab.experiments.new(write_plan(tmp_path, **other))
        found = lab.experiments.new(write_plan(tmp_path, **other, name="keep-most"))
        assert found.result is None
        assert [e.charter.name for e in lab.experiments.show()] == [PLAN["name"], "keep-most"]
        with refused("usage.experiment"):
            lab.experiments.run("nobody")
        assert found.charter.header.owner == PERSON


def invoked(place: Place, *arguments: str) -> str:
    """What one command prints, in this process."""
    found = CliRunner().invoke(commands, ["--lab", str(place.path), "--keys", str(place.keys), *arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_command_line_shows_what_was_promised_and_what_did_not_hold(experimented: Place) -> None:
    listed, shown = (invoked(experimented, "experiment", "show", *name) for name in ((), (PLAN["name"],)))
    assert PLAN["name"] in listed and "supported" in listed
    for text in (PLAN["hypothesis"], "ensemble", "random-search", "factor 1: keep", *PARENTS):
        assert text in shown
    told = json.loads(invoked(experimented, "--json", "experiment", "show", PLAN["name"]))
    with experimented.open(writer=False) as lab:
        assert told[0]["result_digest"] == digest(result_of(lab))
        for text in result_of(lab).unsupported:
            assert text in shown


def test_the_command_line_registers_a_charter_and_says_what_comes_next(new_lab: Place, tmp_path: Path) -> None:
    assert "no experiment" in invoked(new_lab, "experiment", "show")
    made = invoked(new_lab, "experiment", "new", str(write_plan(tmp_path)))
    assert "no result yet" in made and f"studbook experiment run {PLAN['name']}" in made
    assert "none yet" in invoked(new_lab, "experiment", "show")


TRAINING: dict[str, Any] = {
    "operator": "fine-tune/1",
    "fixed": {
        "steps": 2, "rate": 1e-3, "batch": 8, "rehearsal": 0.5, "data": "cluster", "rehearsed": "others",
    },
    "factors": {"reach": [0.1, 0.5]},
}  # fmt: skip


def test_an_operator_that_trains_has_seeds_and_the_clusters_slices(opened: Lab, tmp_path: Path) -> None:
    opened.experiments.new(write_plan(tmp_path, **TRAINING))
    _, charter = charter_of(opened)
    plan = planned(charter)
    assert [(run.arm, run.seed) for run in plan] == [("0", 5), ("0", 6), ("1", 5), ("1", 6)]
    own, _ = offered(opened.desk, charter.cluster)
    assert {tuple(operator_of(opened.desk, charter, run.recipe)[2]["data"]) for run in plan} == {own}
    with refused("training.slice"):
        fixed = {**TRAINING["fixed"], "data": ["0" * 64]}
        opened.experiments.new(write_plan(tmp_path, **TRAINING | {"name": "foreign-rows", "fixed": fixed}))


@pytest.mark.train
def test_an_experiment_with_training_is_concluded_and_verifies(new_lab: Place, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with new_lab.open() as lab:
        lab.experiments.new(write_plan(tmp_path, **TRAINING))
        assert lab.experiments.run(PLAN["name"]).result is not None
        assert lab.verify().ok


def test_an_experiment_without_a_random_search_to_hold_it_against_is_not_registered(
    opened: Lab, tmp_path: Path
) -> None:
    granted = [g for g in opened.policies.show()["operators"] if g["operator"] != "task-delta/1"]
    change_policy(opened, tmp_path, operators=granted)
    with pytest.raises(OutsideAllowlist, match="task-delta/1"):
        opened.experiments.new(write_plan(tmp_path))
    assert not list(opened.desk.all(ExperimentCharter))
