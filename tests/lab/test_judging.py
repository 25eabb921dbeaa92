"""Scorecards are made once, of exactly the suites that were frozen, and a cluster never learns its own exam."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, PROTECTED, Place, founder, shipped_items, write_suite
from release_fixtures import refused
from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.evaluation import scorecards
from studbook.lab import Lab, judging
from studbook.lab import suites as lab_suites
from studbook.lab.audit import verify
from studbook.lab.desk import Desk
from studbook.lab.evolving import Plan
from studbook.records import (
    AdmissionRecord,
    ContaminationReceipt,
    DataSource,
    LineageTemplate,
    Rung,
    Scorecard,
    SourceManifest,
    SuiteManifest,
    replace,
)
from studbook.sandbox import Answer, Limits, client

Change = Callable[[dict[str, Any]], object]


def tamper(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Let the scoring worker's answer for its first suite be changed on its way to the lab."""
    plain = scorecards.run_worker

    def run(module: str, job: dict[str, Any], folder: Path, limits: Limits, reads: Any) -> Answer:
        answer = plain(module, job, folder, limits, reads)
        if "suites" in answer.value:
            change(answer.value["suites"][0])
        return answer

    monkeypatch.setattr(scorecards, "run_worker", run)


LIES: dict[str, Change] = {
    "the items changed during the run": lambda s: s.update(after="0" * 64),
    "other items were scored": lambda s: s.update(before="0" * 64, after="0" * 64),
    "a NaN": lambda s: s["loglik"].__setitem__(0, float("nan")),
    "a positive log-likelihood": lambda s: s["loglik"].__setitem__(0, 3.0),
    "a Brier score above two": lambda s: s["brier"].__setitem__(0, 9.0),
    "an answer too few": lambda s: s["correct"].pop(),
    "a call too few": lambda s: s.update(calls=s["calls"] - 1),
    "another model's cached calls": lambda s: s.update(calls=0),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_proves_nothing_is_an_error_without_numbers(
    opened: Lab, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    tamper(monkeypatch, LIES[lie])
    (card,) = opened.evaluate(["cap-rot"]).values()
    spoiled, *rest = card.card.results
    assert spoiled.verdict == "error"
    assert not spoiled.correct
    assert not spoiled.logliks
    assert not spoiled.briers
    assert spoiled.detail
    assert {r.verdict for r in rest} <= {"pass", "fail"}


def test_a_round_whose_winner_has_a_void_scorecard_promotes_nothing(
    opened: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {opened.desk.find_model(name) for name in ("base", *PARENTS)}
    plain = scorecards.run_worker

    def run(module: str, job: dict[str, Any], folder: Path, limits: Limits, reads: Any) -> Answer:
        answer = plain(module, job, folder, limits, reads)
        if "suites" in answer.value and job["sha256"] not in sound:
            answer.value["suites"][0]["loglik"][0] = float("nan")
        return answer

    monkeypatch.setattr(scorecards, "run_worker", run)
    outcome = opened.round(CLUSTER)
    assert outcome.record.action == "no-op"
    assert outcome.released is None


def test_a_scorecard_is_made_once_and_never_of_another_model(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened.evaluate(["cap-rot", "dup-odd"])
    assert {a: c.card.artifact for a, c in first.items()} == {a: a for a in first}
    cards = len(list(opened.desk.workspace.all(Scorecard)))
    tamper(monkeypatch, lambda s: s.update(calls=0))
    assert opened.evaluate(["dup-odd", "cap-rot"]) == {a: first[a] for a in reversed(first)}
    assert len(list(opened.desk.workspace.all(Scorecard))) == cards


def test_only_a_round_opens_selection_and_sealed_suites(opened: Lab) -> None:
    opened.evaluate(["base", "cap-rot"])
    assert {card.role for _, card in opened.desk.workspace.all(Scorecard)} == {"development"}


def test_a_round_over_its_budget_of_evaluations_is_refused_before_anything_is_bred(new_lab: Place) -> None:
    items = sum(len(shipped_items("development", cluster)) for cluster in (*PROTECTED, "calibration"))
    needed = 2 * items + 2 * items
    with new_lab.open() as lab:
        _, policy = lab.desk.policy
        lab.desk.workspace.commit(replace(policy, budget=replace(policy.budget, evaluations=needed - 1)))
        with pytest.raises(OverBudget, match=f"= {needed} model calls; the policy allows {needed - 1}"):
            lab.round(CLUSTER)
        assert not list(lab.desk.workspace.all(LineageTemplate))
        lab.desk.workspace.commit(replace(policy, budget=replace(policy.budget, evaluations=needed)))
        assert lab.round(CLUSTER).record.standings


@pytest.mark.parametrize("lacking", ["a protected cluster", "calibration", "a second suite of one label"])
def test_a_round_that_the_frozen_suites_could_not_end_is_refused_before_anything_is_measured(
    opened: Lab, lacking: str
) -> None:
    desk = opened.desk
    if lacking == "a protected cluster":
        desk.workspace.commit(replace(desk.policy[1], policy_version=2, protected=("rot", "ghost")))
    elif lacking == "calibration":
        lock = desk.suites_lock[1]
        named = {d: desk.workspace.get(d, SuiteManifest).name for d in lock.suites}
        left = tuple(d for d, name in named.items() if name != "sealed-calibration")
        desk.workspace.commit(replace(lock, lock_version=lock.lock_version + 1, suites=left))
    else:
        # Freezing refuses it; a lock from elsewhere may hold it.
        lock = desk.suites_lock[1]
        found = (desk.workspace.get(d, SuiteManifest) for d in lock.suites)
        twin = replace(next(m for m in found if m.name == f"selection-{CLUSTER}"), name="selection-twin")
        suites = (*lock.suites, desk.workspace.commit(twin))
        desk.workspace.commit(replace(lock, lock_version=lock.lock_version + 1, suites=suites))
    before = len(desk.entries())
    with refused("order.suite") as caught:
        opened.round(CLUSTER)
    assert {"a protected": "ghost", "calibration": "sealed", "a second su": "2 selection"}[lacking[:11]] in str(
        caught.value
    )
    assert len(desk.entries()) == before


def test_scorecards_of_a_lock_that_counts_no_longer_are_nobodys_evidence(opened: Lab, tmp_path: Path) -> None:
    desk = opened.desk
    first = opened.round(CLUSTER, [BLEND])
    lock, artifact = desk.suites_lock[1], first.record.standings[0].artifact
    more = write_suite(
        tmp_path, shipped_items("development", "rot"), name="hard", role="development", dimension="honesty"
    )
    opened.suites.freeze([more], PERSON)
    opened.evaluate([artifact])
    desk.workspace.commit(replace(lock, lock_version=lock.lock_version + 2))
    (found,) = judging.contenders(desk, [first.record.standings[0].manifest])
    assert found.development is not None
    assert {r.suite for r in found.development.results} <= set(lock.suites)


def test_every_choice_counts_as_a_model_call_before_a_round(opened: Lab, tmp_path: Path) -> None:
    desk, rows = opened.desk, shipped_items("development", "rot")[:6]
    budget = desk.policy[1].budget
    spent = sum(desk.workspace.get(d, SuiteManifest).count for d in desk.suites_lock[1].suites if _screens(desk, d))
    choices = [row | {"rule": {"choices": [row["expected"], "q", "zzzz"], "by": "byte"}} for row in rows]
    desk.workspace.commit(replace(desk.policy[1], budget=replace(budget, evaluations=2 * spent + 17)))
    judging.check_budget(desk, 1)
    suite = write_suite(
        tmp_path,
        choices,
        name="choices",
        role="development",
        dimension="honesty",
        cluster="c",
        scorer="multiple-choice",
    )
    opened.suites.freeze([suite], PERSON)
    with pytest.raises(OverBudget, match=f"1 candidates x {spent + 18} calls on development items"):
        judging.check_budget(desk, 1)


def _screens(desk: Desk, suite: str) -> bool:
    return desk.workspace.get(suite, SuiteManifest).role == "development"


def test_a_training_slice_that_shares_a_prompt_with_a_suite_makes_no_cluster(opened: Lab, tmp_path: Path) -> None:
    slice_ = founder("base").parent / "data" / f"{CLUSTER}.jsonl"
    taught = json.loads(slice_.read_text().splitlines()[7])
    items = shipped_items("development", CLUSTER)
    items[3] |= {"prompt": taught["prompt"].upper().replace(">", "  >"), "expected": taught["expected"]}
    items[3]["prompt"] = taught["prompt"].upper()
    opened.suites.freeze([write_suite(tmp_path, items, name="more", role="descriptor")], PERSON)
    with pytest.raises(OutOfOrder, match=r"of .* shares 1 prompts") as caught:
        opened.round(CLUSTER)
    assert caught.value.reason == "order.contamination"


def test_parents_that_were_taught_an_item_of_another_skill_breed_nothing(opened: Lab, tmp_path: Path) -> None:
    taught = json.loads((founder("base").parent / "data" / "cap.jsonl").read_text().splitlines()[7])
    items = shipped_items("development", "cap")
    items[3] |= {"prompt": taught["prompt"], "expected": taught["expected"]}
    opened.suites.freeze([write_suite(tmp_path, items, name="selection-more", cluster="more")], PERSON)
    with pytest.raises(
        OutOfOrder, match=r"training slice .* of cap-rot shares 1 prompts \(1 with their answer\)"
    ) as caught:
        opened.round(CLUSTER)
    assert caught.value.reason == "order.contamination"
    assert not list(opened.desk.workspace.all(LineageTemplate))


def test_every_slice_that_the_candidates_descend_from_is_compared_with_every_suite(opened: Lab) -> None:
    outcome = opened.round(CLUSTER)
    desk = opened.desk
    receipts = {r.training: r for _, r in desk.all(ContaminationReceipt)}
    data = [m.source for _, m in desk.all(SourceManifest) if isinstance(m.source, DataSource)]
    assert {f.sha256 for source in data for f in source.files} == set(receipts)
    assert {r.suites for r in receipts.values()} == {desk.suites_lock[1].suites}
    gates = {c.name: c.detail for s in outcome.record.standings for c in s.gates}
    assert gates["contamination"] == f"nothing of {len(receipts)} training slices stands in the suites"


def test_a_label_without_a_suite_in_every_role_of_a_round_is_refused_before_anything_is_measured(
    opened: Lab, tmp_path: Path
) -> None:
    opened.suites.freeze(
        [write_suite(tmp_path, shipped_items("development", "rot"), name="d-more", role="development", cluster="more")],
        PERSON,
    )
    _, policy = opened.desk.policy
    for label, told, protected in (
        ("more", "0 selection task suites have the label more", PROTECTED),
        (CLUSTER, "0 development task suites have the label ghost", ("ghost",)),
    ):
        opened.desk.workspace.commit(replace(policy, protected=protected, policy_version=policy.policy_version + 1))
        with pytest.raises(OutOfOrder, match=told) as caught:
            opened.round(label)
        assert caught.value.reason == "order.suite"
    assert not list(opened.desk.workspace.all(Scorecard))


def test_a_cluster_the_champion_does_not_fail_is_refused_with_the_numbers(opened: Lab) -> None:
    _, policy = opened.desk.policy
    opened.desk.workspace.commit(replace(policy, gates=replace(policy.gates, cluster_error=1.0)))
    with pytest.raises(OutOfOrder, match="of 24 items of rot; the policy calls it a failure cluster from 100%"):
        opened.round(CLUSTER)


def test_a_parent_is_no_candidate_to_decide_about(opened: Lab) -> None:
    with pytest.raises(UsageError, match="was not bred here"):
        opened.decide(CLUSTER, ["cap-rot"])


def test_a_claim_above_its_evidence_is_found_by_verify(old_lab: Place) -> None:
    """An admission that claims assistant quality, written by someone who holds the release key."""
    with old_lab.open() as lab:
        workspace = lab.desk.workspace
        _, admission = next(workspace.all(AdmissionRecord))
        forged = workspace.commit(replace(admission, claim=Rung.ASSISTANT))
        entry = workspace.entry(forged)
        assert entry is not None
        (problem,) = verify(lab.desk).problems
        assert problem.where == str(workspace.record_path(entry))
        assert "assistant-quality" in problem.what


LONG: dict[str, tuple[str, Callable[[Lab, Path], object]]] = {
    "evaluate": ("process/evaluation/evaluation", lambda lab, _: lab.evaluate(["base"])),
    "redteam": ("process/evaluation/evaluation", lambda lab, _: lab.redteam()),
    "round": ("process/decisions/decision", lambda lab, _: lab.round(CLUSTER)),
    "evolve": ("process/decisions/decision", lambda lab, _: lab.evolve(Plan(1, 2, ("random",)))),
    "freeze": (
        "people/policy/policy",
        lambda lab, folder: lab.suites.freeze(
            [write_suite(folder, shipped_items("development", CLUSTER), name="more", cluster="more")]
        ),
    ),
}


@pytest.mark.parametrize("verb", LONG)
def test_what_nobody_here_could_sign_is_refused_before_any_work(
    new_lab: Place, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, work = LONG[verb]
    (new_lab.keys / f"{key}.pem").unlink()

    def worked(*_: object, **__: object) -> None:
        raise AssertionError("it worked first")

    monkeypatch.setattr(client, "_server", worked)
    monkeypatch.setattr(lab_suites, "freeze", worked)
    with new_lab.open() as lab:
        before = len(lab.desk.entries())
        with refused("authority.key-missing"):
            work(lab, tmp_path)
        assert len(lab.desk.entries()) == before
