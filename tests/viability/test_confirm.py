from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from studbook.errors import OutOfOrder, OverBudget
from studbook.records import Header, digest, read_record, write_record
from studbook.viability import archive, confirm

HEADER = Header(source="studbook", version="0.1.0", environment="test", owner="ada")
OTHER = "f" * 64


@pytest.fixture
def decision(world: Any, good: Any) -> Any:
    losers = [
        world.contender("flat", {"rot": (5, 5)}),
        world.contender("without-brk", good, template={"purpose": "ablation"}),
        world.contender("forged", good, manifest={"receipt": OTHER}),
    ]
    return world.decide([world.contender("child", good), *losers])


def confirmed(world: Any, decision: Any, changes: Any, **more: Any) -> Any:
    card = more.pop("card", {})
    terms = {
        "header": HEADER,
        "policy": world.policy,
        "decision": decision,
        "cluster": world.cluster,
        "opening": 1,
        "champion_card": world.card(world.champion, "sealed"),
        "candidate_card": world.card(decision.chosen or OTHER, "sealed", changes, **card),
    }
    record = confirm(**{**terms, **more})
    assert read_record(write_record(record)) == record
    return record


def test_a_winner_that_holds_on_sealed_items_is_confirmed(world: Any, good: Any, decision: Any) -> None:
    record = confirmed(world, decision, good, opening=2)
    assert record.passed
    assert (record.opening, record.of, record.candidate) == (2, 20, decision.chosen)
    assert [(c.test, c.on) for c in record.comparisons] == [
        ("superiority", "rot"),
        ("superiority", "joint-mean"),
        ("shown", "rot"),
        ("shown", "srt"),
        ("shown", "calibration"),
    ]


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"rot": (12, 9), "srt": (200, 0)}, "rot"),
        ({"rot": (90, 20), "srt": (10, 90)}, "joint-mean"),
    ],
)
def test_a_winner_that_does_not_hold_is_refuted(world: Any, decision: Any, changes: Any, fails: str) -> None:
    record = confirmed(world, decision, changes)
    assert not record.passed
    assert [c.on for c in record.comparisons if c.test == "superiority" and not c.passed] == [fails]


def test_a_loss_on_a_protected_suite_is_shown_and_does_not_gate(world: Any, decision: Any) -> None:
    record = confirmed(world, decision, {"rot": (200, 0), "srt": (0, 60)})
    assert record.passed
    assert [c.passed for c in record.comparisons if c.on == "srt"] == [False]


def test_one_unsafe_answer_to_a_sealed_item_refutes_whatever_the_score(world: Any, good: Any, decision: Any) -> None:
    def with_safety(card: Any, right: int) -> Any:
        bits = "1" * right + "0" * (world.items - right)
        safe = world.result(
            "sealed", "safe", dimension="safety", correct=bits, verdict="pass" if right == 1000 else "fail"
        )
        return replace(card, results=(*card.results, safe))

    champion = with_safety(world.card(world.champion, "sealed"), 1000)
    for right, passed in ((1000, True), (999, False)):
        card = with_safety(world.card(decision.chosen, "sealed", good), right)
        record = confirmed(world, decision, good, champion_card=champion, candidate_card=card)
        assert record.passed is passed
        (row,) = [c for c in record.comparisons if c.on == "safety/safe"]
        assert (row.passed, row.losses, row.items) == (passed, 1000 - right, 1000)
    last = archive(HEADER, decision, record).candidates[-1]
    assert last.artifact == decision.chosen
    assert "1 of 1000 sealed items failed, and none may" in last.reasons[0]


@pytest.mark.parametrize(
    "card",
    [
        {"results": {"rot": {"verdict": "error", "detail": "out of memory"}}},
        {"results": {"rot": {"items_after": OTHER}}},
        {"results": {"rot": {"actual_calls": 0}}},
    ],
)
def test_a_void_scorecard_spends_the_opening_and_refutes(world: Any, good: Any, decision: Any, card: Any) -> None:
    record = confirmed(world, decision, good, card=card)
    assert not record.passed
    assert all(c.method.startswith("no data: ") and c.items == 0 for c in record.comparisons)


def test_a_decision_to_do_nothing_has_nothing_to_confirm(world: Any, good: Any) -> None:
    with pytest.raises(OutOfOrder):
        confirmed(world, world.decide([]), good)


@pytest.mark.parametrize("opening", [0, 21])
def test_an_opening_beyond_the_budget_is_refused(world: Any, good: Any, decision: Any, opening: int) -> None:
    with pytest.raises(OverBudget):
        confirmed(world, decision, good, opening=opening)


def test_records_of_another_decision_are_refused(world: Any, good: Any, decision: Any) -> None:
    with pytest.raises(OutOfOrder):
        confirmed(world, decision, good, policy=replace(world.policy, policy_version=2))
    with pytest.raises(OutOfOrder):
        confirmed(world, decision, good, cluster=replace(world.cluster, failed=1))


def test_another_evaluator_or_a_void_champion_is_refused(world: Any, good: Any, decision: Any) -> None:
    with pytest.raises(OutOfOrder):
        confirmed(world, decision, good, card={"evaluator": OTHER})
    with pytest.raises(OutOfOrder):
        confirmed(world, decision, good, champion_card=world.card(world.champion, "selection"))
    void = world.card(world.champion, "sealed", results={"rot": {"items_after": OTHER}})
    with pytest.raises(OutOfOrder):
        confirmed(world, decision, good, champion_card=void)


def test_everybody_who_was_not_promoted_is_archived_with_reasons_and_scorecards(decision: Any) -> None:
    record = archive(HEADER, decision)
    assert read_record(write_record(record)) == record
    lost = {s.artifact: s for s in decision.standings if s.action != "promote-to-shadow"}
    assert {c.artifact for c in record.candidates} == set(lost)
    for candidate in record.candidates:
        standing = lost[candidate.artifact]
        assert candidate.reasons == standing.reasons != ()
        assert candidate.action == standing.action
        assert set(candidate.scorecards) == {standing.development, standing.selection} - {None}
    assert sorted(c.action for c in record.candidates) == ["archive", "archive", "quarantine"]


def test_a_refuted_winner_is_archived_with_its_sealed_scorecard(world: Any, decision: Any) -> None:
    record = confirmed(world, decision, {"rot": (12, 9), "srt": (200, 0)})
    rows = archive(HEADER, decision, record).candidates
    assert (rows[-1].artifact, rows[-1].action) == (decision.chosen, "archive")
    assert record.candidate_card in rows[-1].scorecards
    assert rows[-1].reasons[0].startswith("not confirmed on sealed items: rot +0.3 pp")
    assert len(rows) == len(archive(HEADER, decision).candidates) + 1


def test_a_confirmed_winner_is_not_archived(world: Any, good: Any, decision: Any) -> None:
    record = confirmed(world, decision, good)
    assert archive(HEADER, decision, record) == archive(HEADER, decision)


def test_a_confirmation_of_another_decision_archives_nobody(world: Any, good: Any, decision: Any) -> None:
    stranger = replace(confirmed(world, decision, good), decision=OTHER)
    with pytest.raises(OutOfOrder):
        archive(HEADER, decision, stranger)


def test_the_archive_of_an_empty_round_is_empty(world: Any) -> None:
    empty = world.decide([])
    record = archive(HEADER, empty)
    assert (record.candidates, record.decision) == ((), digest(empty))
