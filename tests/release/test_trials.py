"""The controller of trials: what follows from what was seen, in whatever way the models behave."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import OutOfOrder
from studbook.records import Answered, CanaryLimits, CanaryPlan, CanaryStep, Observation, digest
from studbook.release import Controller, Verdict, drawn, in_cohort, parts_of, probe_after, simulate_detection
from trial_fixtures import plan_of

RIGHT = Answered(right=True, broken=False, milliseconds=100, tokens=8)
WRONG = Answered(right=False, broken=False, milliseconds=100, tokens=8)
PLAN = plan_of()
# Found out sooner, and with half of the requests from the first: 200 of them take seconds.
QUICK = plan_of(
    steps=(CanaryStep(share=0.5, requests=2000, probes=50),),
    limits=CanaryLimits(requests=4000, seconds=10**6, tokens=10**9),
)


def seen(
    controller: Controller, number: int, moment: int, failing: float, beside: float, draw: random.Random
) -> Iterator[Observation]:
    """One request and the probe that follows it, by models that fail a share of their answers."""
    mine = in_cohort(controller.digest, number, controller.share)
    own = WRONG if draw.random() < (failing if mine else beside) else RIGHT
    step = controller.step
    yield observed(number, moment, step, "canary" if mine else "champion", own if mine else None, None if mine else own)
    if probe_after(controller.digest, number, controller.plan.probes):
        pair = [WRONG if draw.random() < share else RIGHT for share in (failing, beside)]
        yield observed(number, moment, step, "probe", *pair)


def observed(
    number: int, moment: int, step: int, kind: str, candidate: Answered | None, champion: Answered | None
) -> Observation:
    return Observation(
        number=number,
        moment=moment,
        step=step,
        kind=kind,  # type: ignore[arg-type]
        candidate=candidate,
        champion=champion,
        differs=candidate is not None and champion is not None and candidate is not champion,
        label="rot" if kind == "probe" else None,
    )


def run(
    plan: CanaryPlan, failing: float, beside: float, seed: int
) -> tuple[Controller, list[Observation], list[Verdict]]:
    """A whole trial, to its halt or until the candidate is ready."""
    controller, draw = Controller(plan, digest(plan)), random.Random(seed)
    kept: list[Observation] = []
    verdicts: list[Verdict] = []
    number = 0
    while not controller.halted and not controller.ready:
        for one in seen(controller, number, 50 * number, failing, beside, draw):
            kept.append(one)
            verdicts.append(controller.observe(one))
            if controller.halted:
                break
        number += 1
    return controller, kept, verdicts


def salted(plan: CanaryPlan, seed: int) -> CanaryPlan:
    return plan_of(steps=plan.steps, limits=plan.limits, salt=f"{seed:064x}", detection=plan.detection)


def test_of_two_hundred_candidates_that_fail_twice_as_often_nine_in_ten_are_rolled_back_in_the_registered_number() -> (
    None
):
    most = QUICK.detection.most
    assert most is not None
    ends = [run(salted(QUICK, seed), 0.04, 0.02, seed)[0] for seed in range(200)]
    assert sum(c.halted == "canary.evidence" and c.requests <= most for c in ends) >= 180


def test_of_a_hundred_candidates_that_are_no_worse_few_are_rolled_back_and_most_are_ready() -> None:
    ends = [run(salted(QUICK, 1000 + seed), 0.02, 0.02, seed)[0] for seed in range(100)]
    # 11 or more of 100 come by chance in 1 of 100 such tests if each is 1 in 20.
    assert sum(c.halted == "canary.evidence" for c in ends) <= 10
    assert sum(c.ready for c in ends) >= 80


def test_the_same_observations_give_the_same_verdicts_and_steps_come_one_by_one() -> None:
    controller, kept, verdicts = run(PLAN, 0.01, 0.01, 5)
    again = Controller(PLAN, digest(PLAN))
    assert [again.observe(one) for one in kept] == verdicts
    assert [v.step for v in verdicts if v.action == "step"] == [1, 2]
    assert verdicts[-1].action == "promote-ready"
    assert controller.ready
    assert verdicts[-1].requests >= PLAN.steps[-1].requests


def test_one_broken_invariant_rolls_back_at_once() -> None:
    controller = Controller(QUICK, digest(QUICK))
    number = next(n for n in range(100) if in_cohort(controller.digest, n, 0.5))
    broken = Answered(right=True, broken=True, milliseconds=1, tokens=1)
    verdict = controller.observe(observed(number, 0, 0, "canary", broken, None))
    assert (verdict.action, verdict.code) == ("roll-back", "canary.invariant")
    with pytest.raises(OutOfOrder) as caught:
        controller.resume()
    assert caught.value.reason == "canary.resume"


def test_slow_answers_are_found_out_although_all_went_well_for_long() -> None:
    slow = Answered(right=True, broken=False, milliseconds=501, tokens=8)
    controller, draw, number = Controller(QUICK, digest(QUICK)), random.Random(2), 0
    while not controller.halted:
        mine = in_cohort(controller.digest, number, 0.5)
        late = draw.random() < (0.1 if controller.requests > 1000 else 0.005)
        own = slow if late and mine else RIGHT
        kind = "canary" if mine else "champion"
        controller.observe(observed(number, number, 0, kind, own if mine else None, None if mine else own))
        number += 1
    assert controller.halted == "canary.evidence"
    assert 1000 < controller.requests < 1300


def test_answers_that_differ_without_a_reason_pause_and_are_counted_anew_after_a_person_looked() -> None:
    shadow = plan_of(channel="shadow", steps=(CanaryStep(share=0.0, requests=500, probes=0),))
    controller = Controller(shadow, digest(shadow))
    other = Answered(right=True, broken=False, milliseconds=7, tokens=8)
    number = 0
    while not controller.halted:
        controller.observe(observed(number, number, 0, "mirror", RIGHT, other))
        number += 1
    assert controller.halted == "canary.disagreement"
    assert number < 30
    controller.resume()
    controller.observe(observed(number, number, 0, "mirror", RIGHT, other))
    assert not controller.halted


def test_silence_pauses_and_a_limit_ends() -> None:
    controller = Controller(QUICK, digest(QUICK))
    assert controller.wait(1000 * QUICK.patience).action == "continue"
    verdict = controller.wait(1000 * QUICK.patience + 1)
    assert (verdict.action, verdict.code) == ("pause", "canary.no-data")
    assert controller.share == 0.0
    controller.resume()
    tight = plan_of(limits=CanaryLimits(requests=6000, seconds=10**6, tokens=20))
    controller, number = Controller(tight, digest(tight)), 0
    while not controller.halted:
        mine = in_cohort(controller.digest, number, controller.share)
        kind = "canary" if mine else "champion"
        controller.observe(observed(number, number, 0, kind, RIGHT if mine else None, None if mine else RIGHT))
        number += 1
    assert controller.halted == "canary.limit"
    assert controller.requests == 3
    with pytest.raises(OutOfOrder):
        controller.resume()


def test_requests_that_only_the_champion_answers_are_no_data() -> None:
    controller = Controller(PLAN, digest(PLAN))
    numbers = [n for n in range(100_000) if not in_cohort(controller.digest, n, PLAN.steps[0].share)]
    step = 1000 * PLAN.patience // 100
    for count, number in enumerate(numbers):
        verdict = controller.observe(observed(number, count * step, 0, "champion", None, RIGHT))
        if controller.halted:
            break
    assert verdict.code == "canary.no-data"


def test_cusum_calls_a_person_and_decides_nothing() -> None:
    calm = plan_of(alpha=1e-9, detection=PLAN.detection)
    controller, number, paged = Controller(calm, digest(calm)), 0, False
    draw = random.Random(4)
    while not paged:
        mine = in_cohort(controller.digest, number, controller.share)
        own = WRONG if mine and draw.random() < 0.06 else RIGHT
        kind = "canary" if mine else "champion"
        step = controller.step
        found = controller.observe(observed(number, number, step, kind, own if mine else None, None if mine else own))
        paged = found.paged
        number += 1
    assert found.action == "continue"
    assert not controller.halted


@given(st.integers(0, 2**53 - 1), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_who_is_in_a_small_cohort_is_in_every_larger_one(number: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert in_cohort("a" * 64, number, low) <= in_cohort("a" * 64, number, high)


def test_the_cohort_has_its_share_and_probes_do_not_depend_on_it() -> None:
    numbers = range(20_000)
    inside = [in_cohort("b" * 64, n, 0.25) for n in numbers]
    probed = [probe_after("b" * 64, n, 0.5) for n in numbers]
    assert abs(sum(inside) / 20_000 - 0.25) < 0.012
    both = sum(i and p for i, p in zip(inside, probed, strict=True))
    assert abs(both / sum(inside) - 0.5) < 0.03
    assert {drawn("b" * 64, n, 3) for n in numbers} == {0, 1, 2}
    assert inside != [in_cohort("c" * 64, n, 0.25) for n in numbers]


def test_the_registered_quantiles_follow_from_the_plan_alone() -> None:
    assert simulate_detection(PLAN) == PLAN.detection
    half, most = PLAN.detection.half, PLAN.detection.most
    assert half is not None and most is not None and half < most
    # More e-processes share one alpha, and each needs more evidence.
    critical = plan_of(critical=("cap", "rot"))
    assert len(parts_of("canary", critical.critical)) == len(parts_of("canary", ())) + 2
    assert critical.detection.most is not None and critical.detection.most > most
    short = plan_of(limits=CanaryLimits(requests=500, seconds=1, tokens=1))
    assert short.detection.most is None
    assert short.detection.found < 0.9


def test_a_critical_label_is_found_out_by_itself() -> None:
    plan = plan_of(critical=("rot",), probes=1.0, detection=PLAN.detection)
    controller, number = Controller(plan, digest(plan)), 0
    verdict = Verdict("continue")
    while not controller.halted:
        mine = in_cohort(controller.digest, number, controller.share)
        kind = "canary" if mine else "champion"
        step = controller.step
        controller.observe(observed(number, number, step, kind, RIGHT if mine else None, None if mine else RIGHT))
        verdict = controller.observe(observed(number, number, step, "probe", WRONG, RIGHT))
        number += 1
    evidence = dict(verdict.evidence)
    assert verdict.code == "canary.evidence"
    assert evidence["paired rot"] == evidence["paired"] > evidence["failures"]
