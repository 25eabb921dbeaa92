"""Candidates that cheat, an evaluator that was swapped, and a judge that nobody but the judged let in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab_fixtures import BLEND, CLUSTER, PERSON, Place, problems
from release_fixtures import OTHER, refused, told, winner
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError
from studbook.evaluation import costs, redteam_worker, scorecards, smokes
from studbook.evaluation.redteam import EXPECTED
from studbook.evaluation.scorecards import evaluator_sha256
from studbook.lab import Lab, evaluators, judging, measured, redteam
from studbook.lab.frozen import of_role
from studbook.models.engine import ENGINE_SHA256
from studbook.records import EvaluatorChange, RedTeamReport, RuntimeSmoke, Scorecard, replace
from studbook.sandbox import run_worker
from studbook.seal import Signer

NEW = "f" * 64
CHANGE = EvaluatorChange.kind()


@pytest.fixture(scope="module")
def attacked_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab with a winner in shadow and a report of the red team."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("attacked"))
    with place.open() as lab:
        assert lab.round(CLUSTER, [BLEND]).released
        lab.redteam()
    return place


@pytest.fixture
def attacked(attacked_lab: Place, tmp_path: Path) -> Place:
    return attacked_lab.copy(tmp_path / "attacked")


@pytest.fixture
def upgraded(attacked: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same lab under a program whose evaluator is another one."""
    for module in (evaluators, judging, redteam):
        monkeypatch.setattr(module, "evaluator_sha256", lambda: NEW)
    monkeypatch.setattr("studbook.evaluation.scorecards.evaluator_sha256", lambda: NEW)
    monkeypatch.setattr("studbook.evaluation.redteam.evaluator_sha256", lambda: NEW)
    return attacked


def report_of(lab: Lab) -> RedTeamReport:
    return list(lab.desk.all(RedTeamReport))[-1][1]


def test_every_candidate_that_cheats_is_rejected_with_the_right_reason(attacked: Place) -> None:
    with attacked.open(writer=False) as lab:
        report = report_of(lab)
        assert {row.candidate: row.found for row in report.rows} == EXPECTED
        assert report.passed
        assert "verdict.pass" not in EXPECTED.values()
        assert {"landlock-files", "seccomp"} <= set(report.isolation)
    assert problems(attacked) == []


def test_who_can_read_the_answers_passes_so_the_sandbox_is_what_stops_it(attacked: Place, tmp_path: Path) -> None:
    with attacked.open(writer=False) as lab:
        suite = of_role(lab.desk, "development")[0]
        job = {
            "cheat": "answers-read",
            "prompts": [i.prompt for i in suite.items],
            "answers": str(suite.path.absolute()),
        }
        limits = lab.desk.worker_limits()
        found = run_worker(redteam_worker.__name__, job, tmp_path, limits, [suite.path]).value["texts"]
        assert found == [item.expected for item in suite.items]


@pytest.mark.parametrize(
    "lie",
    [
        {"passed": False},
        {"rows": ()},
        {"suite": "0" * 64},
        lambda report: {"rows": report.rows[1:]},
        lambda report: {"rows": (replace_row(report.rows[0], found="verdict.pass"), *report.rows[1:])},
        lambda report: {
            "rows": (replace_row(report.rows[0], found="verdict.pass", expected="verdict.pass"), *report.rows[1:])
        },
    ],
)
def test_a_report_of_the_red_team_that_lies_is_refused_and_the_field_is_named(attacked: Place, lie: object) -> None:
    with attacked.open(writer=False) as lab:
        report = report_of(lab)
        changes = lie(report) if callable(lie) else lie
        with pytest.raises(StudbookError, match="in the record"):
            redteam.check_red_team(lab.desk, replace(report, **changes))  # type: ignore[arg-type]


def replace_row(row: object, **changes: str) -> object:
    return msgspec.structs.replace(row, **changes)  # type: ignore[type-var]


def test_nothing_is_measured_by_an_evaluator_that_nobody_let_judge(upgraded: Place) -> None:
    with upgraded.open() as lab:
        before = len(lab.desk.entries())
        for act in (lambda: lab.round(CLUSTER, [BLEND]), lambda: lab.evaluate(["base"])):
            with refused("evaluator.unadmitted"):
                act()
        assert len(lab.desk.entries()) == before


def test_a_scorecard_of_another_evaluator_is_found_by_verify(attacked: Place) -> None:
    with attacked.open() as lab:
        card = list(lab.desk.all(Scorecard))[-1][1]
        error = told(lab, replace(card, evaluator=NEW))
        assert error is not None
        assert error.reason == "evaluator.unadmitted"


def test_one_person_alone_lets_an_evaluator_judge_and_it_is_said_so(upgraded: Place) -> None:
    with upgraded.open() as lab:
        old = evaluators.in_force(lab.desk)
        with refused("evaluator.red-team"):
            lab.evaluators.change(PERSON, "a new engine")
        assert lab.redteam().passed
        with refused("authority.key-missing"):
            lab.evaluators.change(PERSON, "a new engine")
        lab.keys.new(PERSON, [CHANGE], PERSON)
        assert lab.evaluators.change(PERSON, "a new engine").committed
        shown = lab.evaluators.show()
        assert (shown.evaluator, shown.independent) == (NEW, False)
        assert "one owner alone" in shown.told
        # What was decided before rests on the other judge, and champion and candidates are measured anew.
        with pytest.raises(OutOfOrder, match="another evaluator"):
            lab.release(winner(lab), "champion", PERSON)
        lab.round(CLUSTER, [BLEND])
        cards = {(c.artifact, c.role, c.evaluator) for _, c in lab.desk.all(Scorecard)}
        assert {(lab.desk.champion(), role, e) for role in ("development", "selection") for e in (old, NEW)} <= cards
        assert {s.evaluator for _, s in lab.desk.all(RuntimeSmoke)} == {old, NEW}
    assert problems(upgraded) == []


def test_another_engine_is_another_evaluator_and_champion_and_doing_nothing_are_measured_anew_before_comparing(
    attacked: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = evaluator_sha256()
    for module in (scorecards, smokes, costs, measured):
        monkeypatch.setattr(module, "ENGINE_SHA256", NEW)
    now = evaluator_sha256()
    assert now != old
    with attacked.open() as lab:
        with refused("evaluator.unadmitted"):
            lab.round(CLUSTER, [BLEND])
        assert lab.redteam().passed
        lab.keys.new(PERSON, [CHANGE], PERSON)
        assert lab.evaluators.change(PERSON, "a new engine").committed
        before = len(lab.desk.entries())
        record = lab.round(CLUSTER, [BLEND]).record
        # Doing nothing is the champion as it stands: the decision rests on cards of the new engine alone, made after it.
        compared = [*record.champion_cards, *record.parent_cards]
        made = {entry.record for entry in lab.desk.entries()[before:]}
        assert made.issuperset(compared)
        assert {lab.desk.scorecard(digest).evaluator for digest in compared} == {now}
        methods = {m.method for digest in compared for m in lab.desk.scorecard(digest).cost if m.unit == "fuel"}
        assert len(methods) == 1
        assert NEW in methods.pop()
        assert {(s.engine, s.evaluator) for _, s in lab.desk.all(RuntimeSmoke)} == {(ENGINE_SHA256, old), (NEW, now)}
    assert problems(attacked) == []


def test_where_there_are_two_people_an_evaluator_takes_more_than_a_promotion(upgraded: Place) -> None:
    with upgraded.open() as lab:
        lab.redteam()
        lab.keys.new(PERSON, [CHANGE], PERSON)
        with refused("authority.evaluator-threshold"):
            lab.keys.new(OTHER, [CHANGE], PERSON)
        lab.keys.rotate(PERSON, needs={CHANGE: 2})
        lab.keys.new(OTHER, [CHANGE], PERSON)
        found = lab.evaluators.change(PERSON, "a new engine")
        assert not found.committed
        with refused("evaluator.unadmitted"):
            lab.evaluate(["base"])
        assert lab.approve(found.digest, OTHER).committed  # type: ignore[union-attr]
        assert lab.evaluators.show().independent
        lab.evaluate(["base"])
    assert problems(upgraded) == []


def test_a_change_that_says_nobody_else_could_be_asked_where_somebody_could_is_refused(upgraded: Place) -> None:
    with upgraded.open() as lab:
        lab.redteam()
        lab.keys.rotate(PERSON, needs={CHANGE: 2})
        for person in (PERSON, OTHER):
            lab.keys.new(person, [CHANGE], PERSON)
        record = lab.evaluators.change(PERSON, "a new engine").record
        for lie in ({"independent": False}, {"replaces": "0" * 64}, {"evaluator": "0" * 64}):
            with pytest.raises(DigestDiffers, match=next(iter(lie))):
                evaluators.check_change(lab.desk, replace(record, **lie), [Signer("a" * 64, PERSON)])
        with refused("evaluator.owners"):
            evaluators.check_change(lab.desk, record, [Signer("a" * 64, PERSON), Signer("b" * 64, PERSON.upper())])


def test_a_report_made_behind_less_than_the_policy_demands_carries_no_change(upgraded: Place) -> None:
    with upgraded.open() as lab:
        lab.redteam()
        lab.keys.new(PERSON, [CHANGE], PERSON)
        report = report_of(lab)
        lab.desk.workspace.commit(replace(report, isolation=report.isolation[:1]))
        weak = lab.desk.entries()[-1].record
        assert lab.evaluators.change(PERSON, "a new engine").record.red_team != weak  # type: ignore[attr-defined]
        change = list(lab.desk.all(EvaluatorChange))[-1]
        before = lab.desk.at(lab.desk.workspace.entry(change[0]).sequence)  # type: ignore[union-attr]
        with pytest.raises(DigestDiffers, match="isolation"):
            evaluators.check_change(before, replace(change[1], red_team=weak), [Signer("a" * 64, PERSON)])


def test_a_score_is_never_found_under_another_artifact(attacked: Place) -> None:
    with attacked.open() as lab:
        names = ["base", *("cap-rot", "dup-odd")]
        cards = lab.evaluate(names)
        assert {a: c.card.artifact for a, c in cards.items()} == {a: a for a in map(lab.desk.find_model, names)}
        assert len({c.digest for c in cards.values()}) == len(names)
        # The artifact is a field of the record itself: a score without one cannot be written down.
        fields = msgspec.to_builtins(next(iter(cards.values())).card)
        del fields["artifact"]
        with pytest.raises(msgspec.ValidationError, match="artifact"):
            msgspec.convert(fields, Scorecard)
