"""Clusters, looks, decisions and templates that somebody wrote by hand, and that say what is not so."""

from __future__ import annotations

from typing import Any

import pytest

from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, Place, problems
from release_fixtures import decisions, refused, told
from studbook.lab import Lab, judging
from studbook.records import (
    AdmissionRecord,
    ConfirmationRecord,
    DriftReport,
    FailureCluster,
    PromotionTemplate,
    Record,
    RuntimeSmoke,
    Scorecard,
    SuiteManifest,
    replace,
)


@pytest.fixture
def judged(opened: Lab) -> Lab:
    """A lab after a round."""
    opened.round(CLUSTER, [BLEND])
    return opened


def cluster(lab: Lab) -> FailureCluster:
    return list(lab.desk.all(FailureCluster))[-1][1]


def another_card(lab: Lab) -> tuple[str, Scorecard]:
    """A development scorecard of a parent."""
    parent = lab.desk.find_model(PARENTS[0])
    card = judging.evaluate(lab.desk, [parent], "development")[parent]
    return card.digest, card.card


def test_a_cluster_on_evidence_of_another_model_is_refused(judged: Lab) -> None:
    digest, card = another_card(judged)
    result = card.tasks()[CLUSTER]
    failed = len(result.correct) - result.right
    for changes in ({}, {"champion": card.artifact}):
        forged = replace(cluster(judged), evidence=digest, failed=failed, **changes)
        found = told(judged, forged)
        assert found is not None and found.reason == "cluster.field" and found.advice


@pytest.mark.parametrize("field", ["label", "suites", "training_slice", "failed"])
def test_a_cluster_that_says_what_is_not_so_is_refused_and_the_field_is_named(judged: Lab, field: str) -> None:
    honest = cluster(judged)
    other = next(f.sha256 for f in data_files(judged, honest) if f.label != CLUSTER)
    lies: dict[str, Any] = {
        "label": "ghost",
        "suites": honest.suites[:1],
        "training_slice": other,
        "failed": honest.failed - 1,
    }
    found = told(judged, replace(honest, **{field: lies[field]}))
    assert found is not None and found.reason == "cluster.field"
    assert problems(Place(judged.desk.workspace.path, judged.desk.workspace.keys.folder))


def data_files(lab: Lab, record: FailureCluster) -> Any:
    return lab.show(record.data)[0][1].source.files  # type: ignore[attr-defined]


def test_sealed_suites_opened_without_a_look_on_record_are_found_by_verify(judged: Lab) -> None:
    desk = judged.desk
    assert told(judged) is None
    parent = desk.find_model(PARENTS[0])
    card = judging.evaluate(desk, [parent], "sealed")[parent]
    place = str(desk.workspace.record_path(desk.workspace.entry(card.digest)))  # type: ignore[arg-type]
    assert place in {p.where for p in judged.verify().problems}
    assert len(judged.verify().problems) == 1


def test_a_look_by_hand_and_a_rounds_look_carry_their_scorecards(judged: Lab) -> None:
    judged.suites.open([PARENTS[0]])
    assert {c.role for _, c in judged.desk.all(Scorecard)} == {"development", "selection", "sealed"}
    assert judged.verify().ok


@pytest.mark.parametrize("lie", ["no cards", "one card twice", "a parent too few"])
def test_a_decision_that_cites_too_little_is_a_problem_and_no_crash(judged: Lab, lie: str) -> None:
    honest = decisions(judged)[-1]
    first, second = honest.champion_cards
    lies: dict[str, dict[str, Any]] = {
        "no cards": {"champion_cards": ()},
        "one card twice": {"champion_cards": (second, second)},
        "a parent too few": {"parent_cards": honest.parent_cards[:1]},
    }
    assert first != second
    found = told(judged, replace(honest, **lies[lie]))
    assert found is not None and found.reason == "decision.field"


def test_a_release_on_a_decision_that_chose_nobody_is_a_problem_and_no_crash(judged: Lab) -> None:
    workspace, template = judged.desk.workspace, list(judged.desk.all(PromotionTemplate))[-1][1]
    admission = list(judged.desk.all(AdmissionRecord))[-1][1]
    nobody = workspace.commit(replace(decisions(judged)[-1], chosen=None))
    hollow = workspace.commit(replace(template, decision=nobody))
    admitted = workspace.commit(replace(admission, template=hollow))
    release = next(r for _, r in judged.show(admission.artifact) if r.kind() == "release-record/1")
    found = told(judged, replace(release, admission=admitted))  # type: ignore[type-var]
    assert found is not None and found.reason == "order.decision"


@pytest.mark.parametrize("kind", [ConfirmationRecord, Scorecard, RuntimeSmoke, FailureCluster])
def test_nothing_is_promoted_on_a_record_that_a_person_took_back(judged: Lab, kind: type[Record]) -> None:
    decision = decisions(judged)[-1]
    assert decision.chosen == judged.desk.channels()["shadow"].artifact
    about = {
        ConfirmationRecord: lambda r: r.candidate,
        Scorecard: lambda r: r.artifact if r.role == "selection" else "",
        RuntimeSmoke: lambda r: r.artifact,
        FailureCluster: lambda _: decision.chosen,
    }
    taken = next(d for d, r in judged.desk.all(kind) if about[kind](r) == decision.chosen)
    judged.keys.revoke(taken, PERSON, "measured by a broken machine")
    with refused("order.gate"):
        if kind is RuntimeSmoke:
            judged.rollback("shadow")
            judged.release(str(decision.chosen), "shadow")
        judged.release("shadow", "champion", PERSON, "all the same")


def test_a_drift_report_of_another_evaluator_is_found(judged: Lab) -> None:
    suite = next(d for d, _ in judged.desk.all(SuiteManifest))
    artifact, champion = decisions(judged)[-1].standings[0].artifact, judged.desk.champion()
    forged = DriftReport(
        header=judged.desk.header,
        artifact=artifact,
        champion=champion,
        suite=suite,
        evaluator="e" * 64,
        items_before="0" * 64,
        items_after="0" * 64,
        kl_micro="",
        cka=(),
        verdict="error",
        detail="none",
        isolation=(),
    )
    found = told(judged, forged)
    assert found is not None and found.reason == "evaluator.unadmitted"


def test_two_models_side_by_side_show_nothing_of_the_selection_suites(judged: Lab) -> None:
    assert {c.role for _, c in judged.desk.all(Scorecard)} >= {"development", "selection"}
    winner = decisions(judged)[-1].standings[0].artifact
    found = judged.diff("champion", winner)["scorecards"]
    assert {row["role"] for row in found} == {"development"}
