"""What a policy asks for before a stage: approvals by distinct people, time in shadow, a receipt or bytes bred again."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, PRUNE, Place, founder, problems
from release_fixtures import OTHER, Clock, change_policy, refused, replayed, winner
from studbook.errors import OutOfOrder, OutsideAllowlist, OverBudget, UsageError
from studbook.lab import Lab, breeding
from studbook.lab.gates import current
from studbook.lab.generations import generation_after
from studbook.lab.pending import Signed
from studbook.lab.stages import Vote, decision_for, distinct
from studbook.records import (
    ChampionPromotion,
    ParentApproval,
    PromotionTemplate,
    ReleaseRecord,
    StageApproval,
    digest,
    replace,
)


def gates(lab: Lab) -> dict[str, str]:
    """Name and status of every gate of the newest template."""
    template = list(lab.desk.all(PromotionTemplate))[-1][1]
    return {g.name: g.status for g in template.gates}


def approve(lab: Lab, stage: str, person: str) -> Signed:
    found = lab.approve(winner(lab), person, [stage])
    assert isinstance(found, Signed)
    return found


def test_a_winner_waits_for_its_last_approval_and_then_goes_on(held: Place) -> None:
    with held.open() as lab:
        assert gates(lab)["approvals"] == "pending"
        assert {status for name, status in gates(lab).items() if name != "approvals"} == {"passed"}
        for person in (PERSON, OTHER):
            with refused("order.gate"):
                lab.release(winner(lab), "shadow")
            assert lab.desk.channels()["shadow"].record is None
            assert approve(lab, "shadow", person).committed
        lab.release(winner(lab), "shadow")
        assert lab.desk.channels()["shadow"].artifact == winner(lab)
        assert gates(lab)["approvals"] == "passed"
    assert problems(held) == []


def test_approving_twice_counts_once(held: Place) -> None:
    with held.open() as lab:
        for reason in ("", "sure", "very sure"):
            assert lab.approve(winner(lab), PERSON, ["shadow"], reason=reason)
        with refused("order.gate"):
            lab.release(winner(lab), "shadow")


def test_whoever_promotes_counts_as_one_and_a_day_has_to_pass(shadowed: Place, clock: Clock) -> None:
    with shadowed.open() as lab:
        clock(25)
        with pytest.raises(OutOfOrder, match="1 of 2 distinct owners: ann by promoting") as caught:
            lab.release(winner(lab), "champion", PERSON)
        assert "studbook approve" in caught.value.advice
        approve(lab, "champion", PERSON)
        with pytest.raises(OutOfOrder, match="1 of 2"):
            lab.release(winner(lab), "champion", PERSON)
        approve(lab, "champion", OTHER)
        clock(26)
        assert isinstance(lab.release(winner(lab), "champion", PERSON), ChampionPromotion)
        assert lab.desk.champion() == winner(lab)
    assert problems(shadowed) == []


def test_before_its_day_has_passed_nothing_is_promoted(shadowed: Place, clock: Clock) -> None:
    with shadowed.open() as lab:
        approve(lab, "champion", OTHER)
        for hours in (0, 12, 23.9):
            clock(hours)
            with pytest.raises(OutOfOrder, match="gate hold is pending") as caught:
                lab.release(winner(lab), "champion", PERSON)
            assert "Wait" in caught.value.advice
        assert not [p for _, p in lab.desk.all(ChampionPromotion) if p.basis == "promotion"]


def test_back_in_shadow_the_day_begins_again_and_so_do_the_approvals(shadowed: Place, clock: Clock) -> None:
    with shadowed.open() as lab:
        approve(lab, "champion", OTHER)
        clock(20)
        lab.rollback("shadow", "it misbehaved")
        with refused("order.gate"):
            lab.release(winner(lab), "shadow")
        for person in (PERSON, OTHER):
            approve(lab, "shadow", person)
        lab.release(winner(lab), "shadow")
        clock(30)
        with pytest.raises(OutOfOrder, match="gate hold is pending"):
            lab.release(winner(lab), "champion", PERSON)
        clock(45)
        with pytest.raises(OutOfOrder, match="1 of 2"):
            lab.release(winner(lab), "champion", PERSON)
        approve(lab, "champion", OTHER)
        assert isinstance(lab.release(winner(lab), "champion", PERSON), ChampionPromotion)
    assert problems(shadowed) == []


def test_an_approval_that_was_taken_back_counts_no_longer(held: Place) -> None:
    with held.open() as lab:
        for person in (PERSON, OTHER):
            last = approve(lab, "shadow", person)
        lab.keys.revoke(last.digest, PERSON, "bob was mistaken")
        with pytest.raises(OutOfOrder, match="1 of 2"):
            lab.release(winner(lab), "shadow")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], UsageError),
        (["shadow", "champion"], UsageError),
        (["rot"], UsageError),
        (["canary"], OutsideAllowlist),
        (["champion"], OutOfOrder),
    ],
)
def test_a_candidate_is_approved_for_the_stage_it_stands_before(held: Place, words: list[str], error: type) -> None:
    with held.open() as lab:
        with pytest.raises(error):
            lab.approve(winner(lab), PERSON, words)
        assert not list(lab.desk.all(StageApproval))


def test_neither_a_source_nor_a_loser_is_approved_for_a_stage(held: Place) -> None:
    with held.open() as lab:
        with pytest.raises(UsageError, match="was registered"):
            lab.approve("base", PERSON, ["shadow"])
        loser = next(m.artifact.sha256 for _, m in lab.desk.candidates() if m.artifact.sha256 != winner(lab))
        with refused("order.decision"):
            lab.approve(loser, PERSON, ["shadow"])


def test_people_are_counted_by_name_and_by_key() -> None:
    def counted(*pairs: str) -> int:
        return len(distinct(Vote(*pair.split(), None) for pair in pairs))

    assert counted("ann k1", "bob k2") == 2
    assert counted("ann k1", "ann k2", "Ann k3") == 1
    assert counted("ann k1", "bob k1") == 1
    assert counted("ann k1", "bob k1", "bob k2") == 2


# -- several signatures on one promotion -------------------------------------------------------------------------


@pytest.fixture
def waiting(shadowed: Place, clock: Clock) -> tuple[Place, str]:
    """A promotion that ann signed and that takes bob's signature as well; and its digest."""
    with shadowed.open() as lab:
        lab.keys.rotate(PERSON, needs={"champion-promotion/1": 2})
        approve(lab, "champion", OTHER)
        clock(25)
        signed = lab.release(winner(lab), "champion", PERSON)
        assert isinstance(signed, Signed) and not signed.committed
        assert lab.desk.champion() == lab.desk.find_model("base")
    return shadowed, signed.digest


def test_a_promotion_waits_for_the_people_the_root_asks_for(waiting: tuple[Place, str]) -> None:
    place, name = waiting
    assert problems(place) == []
    with place.open() as lab:
        assert not lab.approve(name, PERSON).committed  # type: ignore[union-attr]
        assert lab.approve(name, OTHER).committed  # type: ignore[union-attr]
        assert lab.desk.champion() == winner(lab)
    assert problems(place) == []


def test_the_first_champion_waits_as_well(tmp_path: Path) -> None:
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, PERSON, place.keys)
    with place.open() as lab:
        lab.register(founder("base"))
        lab.approve("base", PERSON)
        lab.keys.new(OTHER, ["champion-promotion/1"], PERSON)
        lab.keys.rotate(PERSON, needs={"champion-promotion/1": 2})
        signed = lab.release("base", "champion", PERSON)
        assert isinstance(signed, Signed) and "1 of 2" in signed.waiting
        assert lab.desk.channels()["champion"].artifact is None
        assert lab.approve(signed.digest, OTHER).committed  # type: ignore[union-attr]
        assert lab.desk.champion() == lab.desk.find_model("base")
    assert problems(place) == []


def test_a_first_champion_whose_approval_was_revoked_while_it_waited_is_not_installed(tmp_path: Path) -> None:
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, PERSON, place.keys)
    with place.open() as lab:
        lab.register(founder("base"))
        approval = digest(lab.approve("base", PERSON))  # type: ignore[arg-type]
        lab.keys.new(OTHER, ["champion-promotion/1"], PERSON)
        lab.keys.rotate(PERSON, needs={"champion-promotion/1": 2})
        signed = lab.release("base", "champion", PERSON)
        assert isinstance(signed, Signed)
        lab.keys.revoke(approval, PERSON, "signed by mistake")
        with refused("order.approval"):
            lab.approve(signed.digest, OTHER)
        assert lab.desk.channels()["champion"].artifact is None


# -- recomputation and depth -------------------------------------------------------------------------------------


def test_a_policy_says_whether_shadow_breeds_a_winner_again(
    held: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    again = breeding.reproduce_manifest
    monkeypatch.setattr(breeding, "reproduce_manifest", lambda desk, m: asked.append(m.name) or again(desk, m))
    with held.open() as lab:
        with refused("order.gate"):
            lab.release(winner(lab), "shadow")
        assert not asked
        told = {g.name: g.detail for g in list(lab.desk.all(PromotionTemplate))[-1][1].gates}
        assert "not bred again" in told["recompute"]
        change_policy(lab, tmp_path, recompute="full")
        lab.round(CLUSTER)
        told = {g.name: g.detail for g in list(lab.desk.all(PromotionTemplate))[-1][1].gates}
        assert asked and "same bytes" in told["recompute"]


def test_nothing_is_bred_deeper_than_the_policy_allows(
    new_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_lab.open() as lab:
        change_policy(lab, tmp_path, budget=lab.policies.show()["budget"] | {"depth": 1})
        won = lab.round(CLUSTER, [BLEND]).released
        assert won is not None
        assert generation_after(lab.desk, [lab.desk.find_model("base")]) == 1
        assert generation_after(lab.desk, [lab.desk.find_model("base"), won]) == 2
        lab.release(won, "champion", PERSON)
        entries = len(lab.desk.entries())
        # Prune works on the champion, which is a child already.
        with pytest.raises(OverBudget, match="generation 2") as caught:
            lab.breed(CLUSTER, PRUNE)
        assert (caught.value.reason, caught.value.where) == ("budget.depth", "policy: budget.depth")
        assert not [e for e in lab.desk.entries()[entries:] if e.record_kind == "lineage-template/1"]
        change_policy(lab, tmp_path, budget=lab.policies.show()["budget"] | {"depth": 2})
        assert lab.breed(CLUSTER, PRUNE)
    assert problems(new_lab) == []
    with new_lab.open() as lab:
        change_policy(lab, tmp_path, budget=lab.policies.show()["budget"] | {"depth": 1})
        entries = len(lab.desk.entries())
        monkeypatch.setattr(breeding, "require_depth", lambda *_: None)
        lab.breed(CLUSTER, PRUNE)
        found = replayed(lab, entries)
        assert found is not None and found.reason == "budget.depth"


def registered_again(lab: Lab, folder: Path, artifact: str, name: str) -> None:
    """Register and approve under a name of its own what was bred here."""
    path = folder / f"{name}.slm"
    path.write_bytes(lab.desk.workspace.blob(artifact))
    lab.register(path, name)
    lab.approve(name, PERSON)


def test_a_winner_that_is_registered_too_is_approved_for_its_stage_or_as_a_parent(held: Place, tmp_path: Path) -> None:
    with held.open() as lab:
        registered_again(lab, tmp_path, winner(lab), "child")
        assert isinstance(lab.approve("child", PERSON), ParentApproval)
        for words, until in ((["shadow", CLUSTER], ""), (["shadow"], "2099-01-01")):
            with pytest.raises(UsageError, match="one stage and no day"):
                lab.approve("child", PERSON, words, until)
        for person in (PERSON, OTHER):
            assert approve(lab, "shadow", person).committed
        lab.release("child", "shadow")
        assert lab.desk.channels()["shadow"].artifact == winner(lab)
        with pytest.raises(UsageError, match="not bred here"):
            lab.approve(PARENTS[0], PERSON, ["shadow"])
    assert problems(held) == []


def test_shadow_is_released_by_the_gates_alone_unless_the_policy_asks_for_people(opened: Lab) -> None:
    assert opened.round(CLUSTER).released is not None
    assert [r.channel for _, r in opened.desk.all(ReleaseRecord)] == ["shadow"]


def test_a_decision_that_was_revoked_promotes_nothing(shadowed: Place, clock: Clock) -> None:
    with shadowed.open() as lab:
        decision, record = decision_for(lab.desk, winner(lab))
        lab.approve(winner(lab), OTHER, ["champion"])
        assert current(lab.desk, record)[0]
        lab.keys.revoke(decision, PERSON, "a suite was wrong")
        clock(30)
        with refused("order.decision"):
            lab.release(winner(lab), "champion", PERSON)
        assert "revoked" in current(lab.desk, record)[1]


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"stage": "shadow", "approvals": 0, "hold_hours": 0}],
        [{"stage": "champion", "approvals": 1, "hold_hours": 0}, {"stage": "shadow", "approvals": 0, "hold_hours": 0}],
        [{"stage": "shadow", "approvals": 0, "hold_hours": 1}, {"stage": "champion", "approvals": 1, "hold_hours": 0}],
        [{"stage": "shadow", "approvals": 0, "hold_hours": 0}, {"stage": "champion", "approvals": 0, "hold_hours": 0}],
    ],
)
def test_a_way_to_champion_that_means_nothing_is_refused(
    prepared_lab: Place, tmp_path: Path, stages: list[dict[str, object]]
) -> None:
    place = prepared_lab.copy(tmp_path / "stages")
    with place.open() as lab, pytest.raises(OutsideAllowlist) as caught:
        change_policy(lab, tmp_path, stages=stages)
    assert caught.value.where.startswith("policy: stages")


def test_a_scorecard_that_was_revoked_is_not_used_again(opened: Lab) -> None:
    artifact = opened.desk.find_model(PARENTS[0])
    honest = opened.evaluate([PARENTS[0]])[artifact]
    first, *rest = honest.card.results
    swapped = first.correct.translate(str.maketrans("01", "10"))
    forged = opened.desk.workspace.commit(
        replace(honest.card, results=(structs.replace(first, correct=swapped), *rest))
    )
    assert opened.evaluate([PARENTS[0]])[artifact].digest == forged
    opened.keys.revoke(forged, PERSON, "nobody measured that")
    assert opened.evaluate([PARENTS[0]])[artifact] == honest
