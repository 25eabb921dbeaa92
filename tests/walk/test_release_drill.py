"""The release drill: shadow, canary, champion and every way back, on a lab with real models and requests."""

from __future__ import annotations

from lab_fixtures import PERSON, Place, problems
from release_fixtures import refused, winner
from studbook.lab import Lab
from studbook.records import CanarySegment, ChampionPromotion, Halt
from trial_fixtures import Models, Ticking, into_canary, served, until


def gone(lab: Lab, channel: str) -> bool:
    return lab.desk.channels()[channel].artifact is None


def test_a_sound_candidate_walks_from_shadow_through_canary_to_champion_and_back(tried: Place) -> None:
    with tried.open() as lab:
        child, before = winner(lab), lab.desk.channels()["champion"]
        plan = into_canary(lab)
        models = Models(lab)
        with refused("order.gate"):
            lab.canaries.promote(PERSON)
        until(served(lab, models), lambda: lab.canaries.run("canary").trial.controller.ready)  # type: ignore[union-attr]
        share = models.asked.count(child) / len(models.asked)
        assert 0.0 < share < 0.6
        moved = lab.canaries.promote(PERSON, "the trial found it ready")
        assert isinstance(moved, ChampionPromotion)
        assert lab.desk.champion() == child
        assert moved.deployment == plan.deployment
        lab.rollback("champion", "the way back is tested")
        assert lab.desk.champion() == before.artifact
    assert problems(tried) == []


def test_a_canary_that_fails_twice_as_often_is_rolled_back_in_time(tried: Place) -> None:
    with tried.open() as lab:
        child, champion = winner(lab), lab.desk.champion()
        plan = into_canary(lab)
        models = Models(lab, 3, {child: 2 * plan.allowed, champion: plan.allowed})
        run = lab.canaries.run("canary", Ticking())
        until(served(lab, models), lambda: gone(lab, "canary"))
        halt = next(h for _, h in lab.desk.all(Halt))
        assert (halt.act, halt.code, halt.raised_by) == ("abort", "canary.evidence", "controller")
        answered = sum(seen.kind == "canary" for _, part in lab.desk.all(CanarySegment) for seen in part.observations)
        assert plan.detection.most is not None
        assert answered <= plan.detection.most
        assert not run.going
        assert lab.desk.champion() == champion
    assert problems(tried) == []
