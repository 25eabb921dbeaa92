"""The release drill: shadow, canary, champion and every way back, on a lab with real models and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from lab_fixtures import PERSON, Place, problems
from release_fixtures import change_policy, refused, winner
from studbook.errors import OutOfOrder
from studbook.lab import Lab
from studbook.lab.deployments import cache_key
from studbook.records import (
    CanarySegment,
    ChampionPromotion,
    Halt,
    ReleaseRecord,
    Resumption,
    RollbackRecord,
    digest,
)
from trial_fixtures import QUICK, Models, Ticking, into_canary, package_of, router_of, served, thresholds_of, until
from walk.test_kills import Driver, check_after_death, check_after_recovery, records_of


def empty(lab: Lab, channel: str) -> bool:
    return lab.desk.channels()[channel].artifact is None


def holder(lab: Lab, record: str) -> str:
    """Whether a person or a process holds the key that signed a record."""
    entry = lab.desk.workspace.entry(record)
    assert entry is not None
    key = lab.desk.workspace.sealed(entry).signers[0].key
    return next(grant.holder for grant in lab.desk.workspace.root.keys if grant.key == key)


def make_ready(lab: Lab, models: Models | None = None) -> None:
    """Serve requests until the trial in canary finds its candidate ready."""
    traffic, run = served(lab, models or Models(lab)), lab.canaries.run("canary")
    until(traffic, lambda: run.trial is not None and run.trial.controller.ready)
    lab.canaries.flush()


@pytest.fixture(scope="module")
def ready_lab(trial_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The lab with a candidate that its trial in canary found ready; only copy it."""
    place = trial_lab.copy(tmp_path_factory.mktemp("ready"))
    with place.open() as lab:
        into_canary(lab)
        make_ready(lab)
    return place


@pytest.fixture(scope="module")
def drive() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def test_a_sound_candidate_walks_from_shadow_through_canary_to_champion(tried: Place) -> None:
    with tried.open() as lab:
        child = winner(lab)
        into_canary(lab)
        with refused("order.gate"):
            lab.promote(PERSON)
        models = Models(lab)
        make_ready(lab, models)
        assert 0.0 < models.asked.count(child) / len(models.asked) < 0.6
        assert isinstance(lab.promote(PERSON, "the trial found it ready"), ChampionPromotion)
        assert lab.desk.champion() == child
        models.asked.clear()
        served(lab, models).complete("once more")
        assert models.asked == [child]
    assert problems(tried) == []


def test_a_worse_model_in_shadow_is_never_returned_and_is_rejected(tried: Place) -> None:
    with tried.open() as lab:
        child = winner(lab)
        lab.plan("shadow", {"patience": 60, "limits": QUICK["limits"], "disagreement": 0.9})
        models = Models(lab, 2, {child: 0.2})
        traffic, texts = served(lab, models), []
        while not empty(lab, "shadow"):
            texts.append(traffic.complete(f"request {len(texts)}").text)
        assert child in models.asked
        assert texts == [f"answer to request {n}" for n in range(len(texts))]
        halt = next(h for _, h in lab.desk.all(Halt))
        assert (halt.act, halt.code) == ("abort", "canary.evidence")
        with refused("order.gate"):
            lab.release(child, "canary")
    assert problems(tried) == []


def test_nothing_is_mirrored_to_shadow_while_the_lab_is_not_ready(tried: Place, tmp_path: Path) -> None:
    with tried.open() as lab:
        lab.plan("shadow", {"patience": 60})
        lab.keys.revoke("cap-rot", PERSON, "leaked")
        models = Models(lab)
        served(lab, models).complete("hello")
        assert models.asked == [lab.desk.champion()]
        with refused("order.readiness"):
            lab.canaries.run("shadow")


def test_shadow_pauses_when_the_lab_is_ready_no_longer(tried: Place, tmp_path: Path) -> None:
    with tried.open() as lab:
        lab.plan("shadow", {"patience": 60})
        models = Models(lab)
        traffic, run = served(lab, models), lab.canaries.run("shadow")
        traffic.complete("hello")
        assert models.asked[1] == winner(lab)
        change_policy(lab, tmp_path, notes="another")
        until(traffic, lambda: not run.going, 200)
        assert next(h for _, h in lab.desk.all(Halt)).code == "canary.readiness"


def test_a_canary_that_fails_twice_as_often_is_rolled_back_in_time(
    tried: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nine of ten salts find it out in time; this is one of them.
    monkeypatch.setattr("secrets.token_hex", lambda size: "5" * 2 * size)
    with tried.open() as lab:
        child, champion = winner(lab), lab.desk.champion()
        plan = into_canary(lab)
        models = Models(lab, 3, {child: 2 * plan.allowed, champion: plan.allowed})
        run = lab.canaries.run("canary", Ticking())
        until(served(lab, models), lambda: empty(lab, "canary"))
        halt = next(h for _, h in lab.desk.all(Halt))
        assert (halt.act, halt.code, halt.raised_by) == ("abort", "canary.evidence", "controller")
        parts = [part for _, part in lab.desk.all(CanarySegment)]
        answered = sum(seen.kind == "canary" for part in parts for seen in part.observations)
        assert plan.detection.most is not None
        assert answered <= plan.detection.most
        assert not run.going
        assert lab.desk.champion() == champion
    assert problems(tried) == []


def test_a_champion_is_taken_back_twice_with_everything_that_worked_together_with_it(tried: Place) -> None:
    with tried.open() as lab:
        child, before = winner(lab), lab.desk.channels()["champion"]
        package = package_of(lab, child, "rot-expert", "1.0.0")
        router = router_of(lab)
        seen = []
        for version in (1, 2):
            thresholds = thresholds_of(lab, version)
            for channel in ("canary", "shadow"):
                if not empty(lab, channel):
                    lab.rollback(channel, "once more from the start", "nothing")
            lab.release(child, "shadow", router=router, thresholds=thresholds)
            assert lab.ready().ready
            into_canary(lab)
            make_ready(lab)
            lab.promote(PERSON, f"with thresholds {version}")
            held = lab.desk.channels()["champion"].deployment
            assert (held.package, held.router, held.thresholds) == (package, router, thresholds)
            assert held.cache == cache_key(child, held.stack)
            seen.append(held)
            lab.rollback("champion", "the way back is tested")
            after = lab.desk.channels()["champion"]
            assert (after.artifact, after.deployment) == (before.artifact, before.deployment)
        assert seen[0] != seen[1]
    assert problems(tried) == []


def test_a_rollback_puts_back_each_deployment_that_was_there(tried: Place) -> None:
    with tried.open() as lab:
        child = winner(lab)
        lab.rollback("shadow", "from the start", "nothing")
        states = []
        for version in (1, 2):
            lab.release(child, "shadow", router=router_of(lab), thresholds=thresholds_of(lab, version))
            states.append(lab.desk.channels()["shadow"])
            if version == 1:
                lab.rollback("shadow", "and again", "nothing")
        assert states[0].deployment != states[1].deployment
        undone = lab.rollback("shadow", "the last one")
        assert undone.deployment == lab.desk.channels()["shadow"].deployment
        assert undone.artifact is None
        # A rollback that restores another deployment than the one that was there moves nothing.
        forged = structs.replace(undone, undone=lab.desk.channels()["shadow"].record, deployment=states[0].deployment)
        lab.desk.workspace.commit(forged)
        assert lab.desk.channels()["shadow"].deployment == undone.deployment
        assert len(lab.desk.move_faults()) == 1


def test_a_forged_move_with_a_margin_of_another_router_is_found_by_verify(tried: Place) -> None:
    with tried.open() as lab:
        state = lab.desk.channels()["shadow"]
        move = lab.desk.workspace.get(state.record or "", ReleaseRecord)
        mixed = structs.replace(move.deployment, thresholds=thresholds_of(lab, 1))
        lab.rollback("shadow", "from the start", "nothing")
        lab.desk.workspace.commit(structs.replace(move, deployment=mixed, rollback=lab.desk.channels()["shadow"].back))
    assert any("release-record" in where for where in problems(tried))


def test_a_way_back_whose_package_was_revoked_is_refused_and_the_next_one_named(
    ready_lab: Place, tmp_path: Path
) -> None:
    place = ready_lab.copy(tmp_path)
    with place.open() as lab:
        base = lab.desk.name_of(lab.desk.champion())
        lab.promote(PERSON)
        thresholds = thresholds_of(lab, 1)
        crowned = lab.desk.channels()["champion"]
        move = lab.desk.workspace.get(crowned.record or "", ChampionPromotion)
        # Two more moves by hand, as the lab would write them: with the thresholds, and again without.
        beside = structs.replace(move.deployment, router=router_of(lab), thresholds=thresholds)
        for number, deployment in enumerate((beside, move.deployment)):
            state = lab.desk.channels()["champion"]
            lab.desk.workspace.commit(
                structs.replace(move, deployment=deployment, reason=f"move {number}", rollback=state.back), owner=PERSON
            )
        lab.keys.revoke(thresholds, PERSON, "calibrated on the wrong items")
        with refused("rollback.revoked") as caught:
            lab.rollback("champion", "back")
        assert "was deployed with record" in caught.value.message
        assert lab.desk.name_of(move.artifact) in caught.value.advice
        lab.rollback("champion", "further back", base)
        assert lab.desk.name_of(lab.desk.champion()) == base


def test_pause_resume_abort_and_stop_are_entries_by_the_right_keys(tried: Place) -> None:
    with tried.open() as lab:
        child, models = winner(lab), Models(lab)
        into_canary(lab)
        traffic = served(lab, models)
        paused = lab.pause("a look", "ann")
        for number in range(30):
            traffic.complete(f"request {number}")
        assert child not in models.asked
        with refused("order.gate"):
            lab.promote(PERSON)
        lab.resume(PERSON, "all is well")
        until(traffic, lambda: child in models.asked, 200)
        lab.stop("smoke in the room")
        assert empty(lab, "canary") and empty(lab, "shadow")
        for act in (lambda: traffic.complete("hello"), lambda: lab.release(child, "shadow")):
            with pytest.raises(OutOfOrder) as caught:
                act()
            assert caught.value.reason == "order.stopped"
        lab.resume(PERSON, "it was the toaster")
        traffic.complete("hello")
        assert [h.act for _, h in lab.desk.all(Halt)] == ["pause", "stop"]
        assert holder(lab, digest(paused)) == "process"
        assert {holder(lab, d) for d, _ in lab.desk.all(Resumption)} == {"person"}
        moved = [r for k in (ReleaseRecord, RollbackRecord) for _, r in lab.desk.all(k)]
        assert sum(m.channel == "canary" for m in moved) == 2
    assert problems(tried) == []


ACTS = ("canary", "promote", "abort")


def die(drive: Driver, start: Place, folder: Path, act: str, picks: Callable[[int], set[int]]) -> None:
    """Die at some boundaries of a move; what is there in the end is what there would have been without."""
    whole = start.copy(folder / "whole")
    ended = drive(whole, act, -1)
    assert ended.lived, ended.lines[-1:]
    for boundary in sorted(picks(len(ended.said("passes")))):
        place = start.copy(folder / str(boundary))
        death = drive(place, act, boundary)
        assert death.status == -9, (boundary, death.lines[-1:])
        check_after_death(place, death.said("acknowledged"))
        check_after_recovery(place)
        assert drive(place, act, -1).lived
        assert records_of(place) == records_of(whole)
        assert problems(place) == []


def before(act: str, trial_lab: Place, ready_lab: Place, folder: Path) -> Place:
    """A lab just before a move."""
    start = (trial_lab if act == "canary" else ready_lab).copy(folder / "start")
    if act == "canary":
        with start.open() as lab:
            lab.plan("canary", QUICK)
    return start


@pytest.mark.parametrize("act", ACTS)
def test_death_in_the_middle_of_a_move_leaves_alias_and_ledger_of_one_mind(
    drive: Driver, trial_lab: Place, ready_lab: Place, tmp_path: Path, act: str
) -> None:
    die(drive, before(act, trial_lab, ready_lab, tmp_path), tmp_path, act, lambda steps: {steps // 2, steps - 1})


@pytest.mark.proof
@pytest.mark.parametrize("act", ACTS)
def test_death_at_every_third_boundary_of_a_move(
    drive: Driver, trial_lab: Place, ready_lab: Place, tmp_path: Path, act: str
) -> None:
    die(drive, before(act, trial_lab, ready_lab, tmp_path), tmp_path, act, lambda steps: set(range(0, steps, 3)))
