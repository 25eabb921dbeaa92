"""Decisions that a stolen decision key wrote: fewer parents to beat, others left out, more tries than the policy gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, PRUNE, Place, founder, problems
from release_fixtures import Clock, change_policy, decisions, refused, replayed, told
from studbook.errors import OutOfOrder, OverBudget
from studbook.lab import Lab
from studbook.lab.clock import today as this_day
from studbook.lab.replay import replay
from studbook.lab.rounds import run_round
from studbook.records import Excluded, ViabilityDecision, replace


def decided(lab: Lab, **changes: Any) -> ViabilityDecision:
    """The newest decision once more, honestly computed from parents, exclusions or a policy that a forger chose."""
    return replay(lab.desk, replace(decisions(lab)[-1], **changes))


def left_out(lab: Lab, name: str, reason: str) -> Excluded:
    return Excluded(artifact=lab.desk.find_model(name), name=name, reason=reason)


def held_against(lab: Lab, *excluded: Excluded) -> ViabilityDecision:
    """The newest decision against its first parent alone."""
    honest = decisions(lab)[-1]
    assert len(honest.parents) == len(PARENTS) > 1
    return decided(
        lab,
        parents=honest.parents[:1],
        parent_cards=honest.parent_cards[:1],
        excluded=(*honest.excluded, *excluded),
    )


def test_an_approved_parent_that_a_decision_does_not_speak_of(held: Place) -> None:
    with held.open() as lab:
        found = told(lab, held_against(lab))
        assert isinstance(found, OutOfOrder) and found.reason == "decision.parents" and found.advice
        assert PARENTS[1] in found.message and "not spoken of" in found.message
    assert len(problems(held)) == 1


@pytest.mark.parametrize(
    "reason", ["is the shared base", "is registered but nobody approved it as a parent", "was revoked: weak"]
)
def test_an_approved_parent_that_a_decision_leaves_out_for_a_made_up_reason(held: Place, reason: str) -> None:
    with held.open() as lab:
        found = told(lab, held_against(lab, left_out(lab, PARENTS[1], reason)))
        assert found is not None and found.reason == "decision.parents"
        assert PARENTS[1] in found.message and reason in found.message


def test_models_that_a_decision_says_nothing_of_or_invents(held: Place) -> None:
    with held.open() as lab:
        for excluded in ((), (*decisions(lab)[-1].excluded, Excluded(artifact="0" * 64, name="ghost", reason="lost"))):
            found = told(lab, decided(lab, excluded=excluded))
            assert found is not None and found.reason == "decision.parents"


def test_a_decision_on_more_candidates_than_the_policy_allows(held: Place, tmp_path: Path) -> None:
    with held.open() as lab:
        for changes in ({"candidates": 1}, {"candidates": 16, "evaluations": 1}):
            change_policy(lab, tmp_path, budget=lab.policies.show()["budget"] | changes)
            found = told(lab, decided(lab, policy=lab.desk.policy[0]))
            assert isinstance(found, OverBudget) and found.where == f"policy: budget.{[*changes][-1]}"


def test_a_round_with_named_parents_still_answers_to_all_of_them(opened: Lab) -> None:
    opened.register(founder("brk"))
    record = opened.round(CLUSTER, recipes=[PRUNE, BLEND], parents=[*PARENTS]).record
    assert [e.name for e in record.excluded] == ["base", "brk"]
    assert replayed(opened) is None


def test_a_parent_whose_approval_ends_while_the_round_runs(opened: Lab, clock: Clock) -> None:
    today = this_day()
    opened.approve(PARENTS[1], PERSON, until=today.isoformat())
    clock(24)
    assert len(run_round(opened.desk, CLUSTER, [BLEND], today=today).record.parents) == len(PARENTS)
    assert replayed(opened) is None
    clock(49)
    with refused("decision.parents") as caught:
        run_round(opened.desk, CLUSTER, [PRUNE], today=today)
    assert "its approval ended" in caught.value.message
    assert len(decisions(opened)) == 1
