"""Lies about trials: told to the controller, to the lab, or written by hand with good keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from lab_fixtures import CLUSTER, PERSON, Place, problems
from release_fixtures import Clock, refused, told, winner
from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.lab import Lab, clock
from studbook.lab.channels import require_promoter
from studbook.lab.gates import champion_template_for
from studbook.lab.halts import CONTROLLER
from studbook.lab.trials import trial
from studbook.records import (
    Answered,
    CanaryPlan,
    CanarySegment,
    ChampionPromotion,
    Halt,
    Observation,
    PromotionTemplate,
    ReleaseRecord,
    Resumption,
    digest,
    replace,
)
from studbook.release import Controller, in_cohort, probe_after
from studbook.sandbox import Limits, landlock, run_worker
from trial_fixtures import QUICK, Models, Ticking, into_canary, plan_of, served, until

RIGHT = Answered(right=True, broken=False, milliseconds=1, tokens=1)


def observed(number: int, kind: str, moment: int = 0, step: int = 0) -> Observation:
    both = kind in ("mirror", "probe")
    return Observation(
        number=number,
        moment=moment,
        step=step,
        kind=kind,  # type: ignore[arg-type]
        candidate=RIGHT if both or kind == "canary" else None,
        champion=RIGHT if both or kind == "champion" else None,
        differs=False,
        label="rot" if kind == "probe" else None,
    )


def honest(controller: Controller, number: int, moment: int = 0) -> Observation:
    mine = in_cohort(controller.digest, number, controller.share)
    return observed(number, "canary" if mine else "champion", moment)


@pytest.fixture
def controller() -> Controller:
    plan = plan_of()
    made = Controller(plan, digest(plan))
    for number in range(10):
        made.observe(honest(made, number, 1000 + number))
    return made


# -- told to the controller --------------------------------------------------------------------------------------

LIES: dict[str, tuple[Callable[[Controller], Observation], str]] = {
    "an observation replayed": (lambda c: honest(c, 9, 2000), "canary.order"),
    "an observation of before": (lambda c: honest(c, 3, 2000), "canary.order"),
    "a clock set back": (lambda c: honest(c, 10, 1008), "canary.clock"),
    "a step that is not reached": (lambda c: structs.replace(honest(c, 10, 2000), step=1), "canary.order"),
    "a cohort of one's own choice": (
        lambda c: observed(10, "champion" if in_cohort(c.digest, 10, c.share) else "canary", 2000),
        "canary.cohort",
    ),
    "a probe that no request was followed by": (
        lambda c: observed(next(n for n in range(10, 99) if not probe_after(c.digest, n, 0.05)), "probe", 2000),
        "canary.cohort",
    ),
    "a mirrored request in canary": (lambda c: observed(10, "mirror", 2000), "canary.cohort"),
    "an answer of nobody": (
        lambda c: structs.replace(honest(c, 10, 2000), candidate=None, champion=None),
        "canary.cohort",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_controller_refuses(controller: Controller, lie: str) -> None:
    write, reason = LIES[lie]
    before = (controller.number, controller.requests, controller.moment, controller.halted)
    with refused(reason):
        controller.observe(write(controller))
    assert (controller.number, controller.requests, controller.moment, controller.halted) == before


def test_a_clock_that_is_looked_at_backwards(controller: Controller) -> None:
    with refused("canary.clock"):
        controller.wait(controller.moment - 1)


def test_observations_go_on_although_the_trial_was_halted(controller: Controller) -> None:
    controller.halt("person.pause")
    with refused("canary.halted"):
        controller.observe(honest(controller, 10, 2000))


def test_a_client_cannot_choose_its_cohort() -> None:
    """Whatever a prompt says, requests are counted, and a plan's salt is known to nobody beforehand."""
    one, other = plan_of(salt="6" * 64), plan_of(salt="7" * 64)
    members = [[in_cohort(digest(p), n, 0.5) for n in range(400)] for p in (one, other)]
    same = sum(a == b for a, b in zip(*members, strict=True))
    assert 140 < same < 260


# -- told to the lab ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"nonsense": 1}, UsageError, None),
        ({"alpha": 0.5}, UsageError, "canary.setting"),
        ({"steps": []}, UsageError, "canary.setting"),
        ({"allowed": "much"}, UsageError, "canary.setting"),
        ({"steps": [{"share": 0.0, "requests": 1, "probes": 0}]}, DigestDiffers, "canary.plan"),
        ({"steps": [{"share": 0.4, "requests": 9, "probes": 0}, {"share": 0.2, "requests": 9, "probes": 0}]}, DigestDiffers,
         "canary.plan"),
        ({"critical": ["rot", "cap"]}, DigestDiffers, "canary.plan"),
        ({"margin": 0.5 + 1e-9}, UsageError, "canary.setting"),
        ({"limits": {"requests": 300, "seconds": 9, "tokens": 9}}, OverBudget, "canary.power"),
    ],
)  # fmt: skip
def test_a_plan_that_shows_nothing_is_refused(
    tried: Place, settings: dict[str, Any], error: type[StudbookError], reason: str | None
) -> None:
    with tried.open() as lab:
        entries = len(lab.desk.entries())
        steps = {"steps": [{"share": 0.5, "requests": 100, "probes": 9}]}
        with pytest.raises(error) as caught:
            lab.plan("canary", {**QUICK, **(steps if "limits" in settings else {}), **settings})
        assert reason is None or caught.value.reason == reason
        assert len(lab.desk.entries()) == entries


def test_shadow_straight_to_champion_where_the_policy_lists_canary(tried: Place) -> None:
    with tried.open() as lab:
        with refused("order.gate") as caught:
            lab.release(winner(lab), "champion", PERSON)
        assert "canary" in caught.value.message


def test_into_canary_without_a_plan_and_with_one_that_served_before(tried: Place) -> None:
    with tried.open() as lab:
        with refused("order.gate") as caught:
            lab.release(winner(lab), "canary")
        assert "gate plan" in caught.value.message
        into_canary(lab)
        lab.abort("once more")
        assert lab.ready().ready
        with refused("order.gate") as caught:
            lab.release(winner(lab), "canary")
        assert "no plan was registered for it since it moved last" in caught.value.message


def test_a_plan_and_a_release_while_the_lab_is_not_ready(tried: Place) -> None:
    with tried.open() as lab:
        lab.plan("canary", QUICK)
        # Another child of the lab: what was found ready was the lab without it.
        lab.breed(CLUSTER, {"operator": "task-delta/1", "scales": [0.25, 0.25], "skip": []})
        with refused("order.readiness"):
            lab.plan("canary", QUICK)
        with refused("order.gate") as caught:
            lab.release(winner(lab), "canary")
        assert "gate readiness is pending" in caught.value.message


def test_promotion_of_a_canary_without_data(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab)
        with refused("order.gate") as caught:
            lab.promote(PERSON)
        assert "gate trial is pending: the candidate is not ready after 0 requests" in caught.value.message


def test_a_trial_that_sees_nothing_pauses(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab)
        clock = Ticking(0)
        run = lab.canaries.run("canary", clock)
        run.look()
        assert run.going
        clock.now = 1000 * 61
        run.look()
        assert not run.going
        halt = next(h for _, h in lab.desk.all(Halt))
        assert (halt.act, halt.code, halt.raised_by) == ("pause", "canary.no-data", CONTROLLER)
        with refused("order.gate"):
            lab.promote(PERSON)
    assert problems(tried) == []


def test_an_analysis_that_fails_is_no_success(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab, probes=1.0)
        child, champion = winner(lab), lab.desk.champion()
        models = Models(lab)
        traffic = served(lab, models)
        until(traffic, lambda: child in models.asked, 500)

        def fails(artifact: str, prompt: str) -> Any:
            if artifact == champion and not prompt.startswith("request"):
                raise OutOfOrder("the champion could not be asked")
            return models(artifact, prompt)

        traffic._answer = fails
        run = lab.canaries.run("canary")
        until(traffic, lambda: not run.going, 50)
        halt = next(h for _, h in lab.desk.all(Halt))
        assert (halt.act, halt.code) == ("pause", "canary.analysis")
        with refused("order.gate"):
            lab.promote(PERSON)
    assert problems(tried) == []


def test_a_second_plan_for_what_is_on_trial_already(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab)
        with refused("order.trial"):
            lab.plan("canary", {**QUICK, "allowed": 0.2})


def test_resuming_what_is_over_or_without_a_persons_key(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab)
        with refused("canary.resume"):
            lab.resume(PERSON)
        lab.pause("a look")
        with pytest.raises(NotAuthorised):
            lab.resume("mallory")
        aborted = lab.abort("enough")
        with refused("canary.resume"):
            lab.resume(PERSON)
        made = Resumption(header=lab.desk.header, halt=digest(aborted), resumed_by=PERSON, reason="")
        found = told(lab, made, owners={"resumption/1": PERSON})
        assert found is not None and found.reason == "canary.resume"


# -- written by hand ---------------------------------------------------------------------------------------------


def running(lab: Lab) -> tuple[str, CanaryPlan]:
    into_canary(lab)
    found = trial(lab.desk, "canary")
    assert found is not None
    return found.digest, found.plan


def segment(lab: Lab, plan: str, *seen: Observation, part: int = 0, previous: str | None = None) -> CanarySegment:
    return CanarySegment(
        header=lab.desk.header,
        plan=plan,
        part=part,
        previous=previous,
        observations=seen,
        until=max((s.moment for s in seen), default=0),
    )


def test_a_plan_written_by_hand_that_registers_another_detection(tried: Place) -> None:
    with tried.open() as lab:
        plan = lab.plan("canary", QUICK)
        sooner = structs.replace(plan.detection, most=10, half=5)
        found = told(lab, replace(plan, detection=sooner, salt="0" * 64))
        assert isinstance(found, DigestDiffers) and "detection" in f"{found.where} {found.message}"
    assert len(problems(tried)) == 1


def test_a_plan_changed_after_the_trial_began(tried: Place) -> None:
    """The trial goes on under the plan it was let in with, and the other one is named by verify."""
    with tried.open() as lab:
        named, plan = running(lab)
        found = told(lab, replace(plan, allowed=0.5, salt="0" * 64))
        assert found is not None and found.reason == "order.trial"
        now = trial(lab.desk, "canary")
        assert now is not None and now.digest == named
    assert len(problems(tried)) == 1


def test_segments_replayed_reordered_or_of_another_trial(tried: Place) -> None:
    with tried.open() as lab:
        named, plan = running(lab)
        begun = Controller(plan, named)
        first = segment(lab, named, *(honest(begun, n, n) for n in range(4)))
        assert told(lab, first) is None
        again = segment(lab, named, *(honest(begun, n, 10) for n in range(4)), part=1, previous=digest(first))
        found = told(lab, again)
        assert isinstance(found, OutOfOrder) and found.reason == "canary.order"
    assert len(problems(tried)) == 1


def test_segments_that_skip_a_part_or_its_place(tried: Place) -> None:
    with tried.open() as lab:
        named, plan = running(lab)
        found = told(lab, segment(lab, named, honest(Controller(plan, named), 0), part=1))
        assert isinstance(found, DigestDiffers) and found.reason == "canary.segment"


def test_a_template_that_calls_the_trial_ready(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab)
        with refused("order.gate"):
            lab.promote(PERSON)
        promoter = require_promoter(lab.desk, PERSON)
        template = champion_template_for(lab.desk, lab.desk.header, winner(lab), promoter, clock.now())
        gates = tuple(
            structs.replace(g, status="passed", evidence=g.evidence or template.decision) for g in template.gates
        )
        forged: PromotionTemplate = replace(template, gates=gates)
        champion, canary = (lab.desk.channels()[c] for c in ("champion", "canary"))
        move = ChampionPromotion(
            header=lab.desk.header,
            basis="promotion",
            artifact=winner(lab),
            evidence=digest(forged),
            promoted_by=PERSON,
            reason="",
            deployment=canary.deployment,
            rollback=champion.back,
        )
        found = told(lab, forged, move, owners={"champion-promotion/1": PERSON})
        assert isinstance(found, DigestDiffers) and found.reason == "release.template"
    assert problems(tried)


def test_a_halt_in_the_controllers_name_that_it_did_not_raise(tried: Place) -> None:
    with tried.open() as lab:
        named, _ = running(lab)
        forged = Halt(
            header=lab.desk.header,
            act="abort",
            plan=named,
            evidence=None,
            raised_by=CONTROLLER,
            code="canary.evidence",
            reason="so it seems",
            serial=0,
        )
        found = told(lab, forged)
        assert isinstance(found, DigestDiffers) and found.reason == "canary.halt"


def test_a_release_while_everything_is_stopped_written_by_hand(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab)
        move = lab.desk.workspace.get(lab.desk.channels()["canary"].record or "", ReleaseRecord)
        lab.stop("fire")
        again = replace(move, rollback=lab.desk.channels()["canary"].back)
        found = told(lab, again)
        assert found is not None and found.reason == "order.stopped"


def test_a_clock_set_back_between_shadow_and_canary(tried: Place, clock: Clock) -> None:
    with tried.open() as lab:
        lab.plan("canary", QUICK)
        clock(-48)
        with refused("order.gate") as caught:
            lab.release(winner(lab), "canary")
        assert "gate hold is pending" in caught.value.message


@pytest.mark.skipif(landlock.version() < 6, reason="needs Linux with Landlock version 6 on x86-64 or 64-bit Arm")
def test_what_a_channel_points_at_is_read_by_no_worker(tried: Place, tmp_path: Path) -> None:
    with tried.open() as lab:
        into_canary(lab)
        limits = Limits(seconds=10, memory_bytes=2 << 30, file_bytes=1 << 20)
        places = [lab.desk.workspace.alias_path(c) for c in ("shadow", "canary", "champion")]
        plan = next(e for e in lab.desk.entries() if e.record_kind == CanaryPlan.kind())
        places += [lab.desk.workspace.record_path(plan), lab.desk.workspace.ledger.path]
    for number, place in enumerate(places):
        job = {"model": str(place), "sha256": "0" * 64, "memory": 64 << 20}
        for reads, told_so in (([], "ermission denied"), ([place], "breaks the rule slm")):
            folder = tmp_path / f"{number}-{len(reads)}"
            folder.mkdir()
            with pytest.raises(StudbookError, match=told_so):
                run_worker("studbook.evaluation.smoke_worker", job, folder, limits, reads)
