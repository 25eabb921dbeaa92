"""What this version cannot do is proposed by the round or experiment that needs it; what was only mistyped is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_fixtures import write_llama
from experiment_fixtures import judge_by_regex, write_plan
from lab_fixtures import BLEND, CLUSTER, PERSON, Place, problems
from release_fixtures import OTHER, refused
from studbook.errors import OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.records import CodeChangeClosing

NEW = {"operator": "evolution-strategy/1", "sigma": 0.1}


def proposed(lab: Lab) -> list[str]:
    return [p.capability for p in lab.proposals.list()]


def test_a_round_that_needs_an_unknown_operator_is_refused_and_proposes_it_once(new_lab: Place) -> None:
    with new_lab.open() as lab:
        lab.keys.new(OTHER, [CodeChangeClosing.kind()], PERSON)
        for _ in range(2):
            with refused("operator.unknown"):
                lab.round(CLUSTER, [BLEND, NEW])
        (found,) = lab.proposals.list()
        assert found.capability == "operator evolution-strategy/1"
        assert f"round {CLUSTER}" in found.rationale
        assert found.evidence == (lab.desk.policy[0],)
        # From now on promotions wait, until somebody else has answered.
        with pytest.raises(OutOfOrder, match=f"code-changes is pending.*{found.proposal[:16]}"):
            lab.release(str(lab.round(CLUSTER, [BLEND]).record.chosen), "shadow")
        lab.proposals.close(found.proposal, OTHER, "not to come")
        with refused("operator.unknown"):
            lab.round(CLUSTER, [NEW])
        assert proposed(lab) == [], "what was declined is not proposed again"
        assert lab.round(CLUSTER, [BLEND]).released
    assert problems(new_lab) == []


def test_a_round_for_a_label_that_nothing_judges_proposes_nothing(opened: Lab) -> None:
    before = len(opened.desk.entries())
    with pytest.raises(UsageError, match="no frozen suite has the label 'rto'"):
        opened.round("rto", [NEW])
    assert len(opened.desk.entries()) == before


@pytest.mark.parametrize("tag", ["blned/1", "tie/1", "dare-tie/1", "blend", "BLEND/1", "", "../up/1", "blend/0"])
def test_a_slip_of_the_pen_proposes_nothing(opened: Lab, tag: str) -> None:
    before = len(opened.desk.entries())
    with refused("operator.unknown"):
        opened.round(CLUSTER, [BLEND | {"operator": tag}])
    assert len(opened.desk.entries()) == before


def test_a_later_version_of_a_known_operator_is_a_need(opened: Lab) -> None:
    with refused("operator.unknown"):
        opened.round(CLUSTER, [BLEND | {"operator": "blend/2"}])
    assert proposed(opened) == ["operator blend/2"]


def test_an_experiment_proposes_the_operator_and_the_scorers_that_its_baselines_lack(
    opened: Lab, tmp_path: Path
) -> None:
    with refused("operator.unknown"):
        opened.experiments.new(write_plan(tmp_path, operator="evolution-strategy/1"))
    judge_by_regex(opened, tmp_path)
    for _ in range(2):
        with refused("experiment.scorer"):
            opened.experiments.new(write_plan(tmp_path))
    assert proposed(opened) == ["operator evolution-strategy/1", "random search and ensembles that answer by regex"]
    assert opened.proposals.list()[1].evidence[0] in opened.desk.suites_lock[1].suites


def test_a_decision_on_a_checkpoint_that_was_bred_here_proposes_suites_for_it(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open() as lab:
        for seed, name in enumerate(("llama", "other"), 1):
            lab.register(write_llama(tmp_path / name, seed), name)
            lab.approve(name, PERSON, reason="tiny")
        child = lab.breed(None, BLEND, ["llama", "other"])
        with refused("usage.checkpoint"):
            lab.decide(CLUSTER, [child])
        (found,) = lab.proposals.list()
        assert found.capability == "suites that judge checkpoints"
        assert child in {r.artifact.sha256 for d, r in lab.desk.candidates() if d == found.evidence[0]}
    assert problems(new_lab) == []
