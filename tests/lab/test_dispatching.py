"""Trials decide on a running server who answers; what they are told is how it went, never what was said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lab_fixtures import Place, problems, shipped_items
from package_fixtures import install_specialists
from release_fixtures import winner
from studbook.errors import DigestDiffers, StudbookError
from studbook.lab import Lab, runs
from studbook.lab.canaries import Canaries
from studbook.lab.desk import Desk
from studbook.lab.dispatching import TrialDispatcher
from studbook.lab.package_life import usable
from studbook.lab.residence import served_model, served_package
from studbook.lab.ways import Ways
from studbook.records import CanarySegment, Halt
from studbook.runtime.serve.dispatch import Aside, Outcome
from studbook.runtime.serve.requests import Asked, Wanted
from trial_fixtures import QUICK, into_canary


def seen_numbers(lab: Lab) -> list[int]:
    return [seen.number for _, part in lab.desk.all(CanarySegment) for seen in part.observations]


def test_a_canary_gets_its_share_and_the_server_learns_nothing_else(tried: Place) -> None:
    with tried.open() as lab:
        child, champion = winner(lab), lab.desk.champion()
        into_canary(lab, probes=1.0)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        assert [m.revision for m in dispatcher.models()] == [champion, child]
        answering = []
        for number in range(100):
            asked = Asked(number, Wanted(f"request {number}"))
            plan = dispatcher.dispatch(asked)
            answering.append(plan.answering)
            assert [aside.revision for aside in plan.asides] == [child, champion]
            asides = tuple(Outcome(a.revision, 0.01, 4, "d", right=True) for a in plan.asides)
            dispatcher.observe(asked, Outcome(plan.answering, 0.01, 4, "d"), asides)
        assert 5 < answering.count(child) < 45
        lab.canaries.flush()
        seen = [s for _, part in lab.desk.all(CanarySegment) for s in part.observations]
        assert len(seen) == 200
        assert [s.kind == "canary" for s in seen if s.kind != "probe"] == [a == child for a in answering]
    assert problems(tried) == []


def test_each_channel_answers_through_its_own_router_and_logs_what_clients_got(tried: Place) -> None:
    with tried.open() as lab:
        child, champion = winner(lab), lab.desk.champion()
        install_specialists(lab)
        found = lab.routes.learn()
        lab.rollback("shadow", "to be released with a router", "nothing")
        lab.release(child, "shadow", router=found.router, thresholds=found.thresholds)
        assert lab.ready().ready
        into_canary(lab, probes=0.0)
        ways = Ways(lab.desk)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, ways)
        rot = lab.packages.show("rot").package.artifact.sha256
        models = [m.revision for m in dispatcher.models()]
        assert models[:2] == [champion, child]
        assert rot in models[2:]
        prompt = shipped_items("selection", "rot")[0]["prompt"]
        plans = []
        for number in range(60):
            asked = Asked(number, Wanted(prompt))
            plans.append(plan := dispatcher.dispatch(asked))
            answer = Outcome(plan.answering, 0.01, 4, "d")
            dispatcher.answered(asked, answer)
            dispatcher.observe(asked, answer, ())
        # The champion stands in a channel without a router, and stands in where what the canary chose fails.
        assert {(plan.answering, plan.instead) for plan in plans} == {(champion, ""), (rot, champion)}
        dropped = next(n for n in range(60, 120) if dispatcher.dispatch(Asked(n, Wanted(prompt))).answering == rot)
        dispatcher.observe(Asked(dropped, Wanted(prompt)), Outcome(rot, 0.0, failure="serve.dropped"), ())
        ways.close()
        told = lab.routes.verify()
        assert told.routes == told.replayed == sum(plan.answering == rot for plan in plans)
        # What is not in memory is chosen by nobody.
        dispatcher.hold({champion, child})
        later = [dispatcher.dispatch(Asked(n, Wanted(prompt))).answering for n in range(200, 260)]
        assert set(later) == {champion, child}


def test_what_no_model_is_to_blame_for_says_nothing_and_blocks_nothing(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab, probes=0.0)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        nobodys = ("serve.cancelled", "serve.dropped", "serve.stopping", "serve.gone", "serve.context", "")
        asked = [Asked(number, Wanted("hello")) for number in range(len(nobodys))]
        plans = [dispatcher.dispatch(each) for each in asked]
        for each, plan, failure in zip(asked, plans, nobodys, strict=True):
            dispatcher.observe(each, Outcome(plan.answering, 0.01, 4, "d", failure=failure), ())
        lab.canaries.flush()
        assert seen_numbers(lab) == [len(nobodys) - 1]


def test_a_trial_that_cannot_be_replayed_takes_nobody_down(tried: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with tried.open() as lab:
        into_canary(lab, probes=0.0)

        def lost(desk: Desk, channel: str) -> None:
            raise DigestDiffers("is not as it was", where="canary-segment")

        monkeypatch.setattr(runs, "trial", lost)
        dispatcher = TrialDispatcher(lab.desk, Canaries(lab.desk), Ways(lab.desk))
        assert dispatcher.dispatch(Asked(0, Wanted("hello"))).answering == lab.desk.champion()


def test_an_answer_that_is_no_number_rolls_back_at_once(tried: Place) -> None:
    with tried.open() as lab:
        child, champion = winner(lab), lab.desk.champion()
        into_canary(lab, probes=0.0)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        plans = [dispatcher.dispatch(Asked(number, Wanted("hello"))) for number in range(40)]
        number = next(n for n, plan in enumerate(plans) if plan.answering == child)
        assert {plan.instead for plan in plans} == {"", champion}
        broken = Outcome(child, 0.01, failure="serve.broken")
        dispatcher.observe(Asked(number, Wanted("hello")), broken, ())
        assert next(h for _, h in lab.desk.all(Halt)).code == "canary.invariant"
        assert dispatcher.stale()
        after = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        assert [m.revision for m in after.models()] == [champion]


def test_a_trial_that_began_after_a_dispatcher_was_made_gets_nothing_of_it(tried: Place) -> None:
    with tried.open() as lab:
        before = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        into_canary(lab, probes=1.0)
        assert before.stale()
        assert all(before.dispatch(Asked(n, Wanted("hello"))).answering == before.champion for n in range(40))
        after = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        after.lost(winner(lab), ValueError("does not load"))
        halt = next(h for _, h in lab.desk.all(Halt))
        assert (halt.act, halt.code) == ("pause", "canary.analysis")
        assert "does not load" in halt.reason
        assert after.dispatch(Asked(0, Wanted("hello"))).asides == ()


def test_what_the_model_in_canary_said_is_not_mirrored(tried: Place) -> None:
    with tried.open() as lab:
        child = winner(lab)
        lab.plan("shadow", {"patience": 60, "limits": QUICK["limits"], "probes": 0.0})
        into_canary(lab, probes=0.0)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        plans = [dispatcher.dispatch(Asked(n, Wanted("hello"))) for n in range(60)]
        asides = {plan.answering: plan.asides for plan in plans}
        assert asides == {child: (), dispatcher.champion: (Aside(child),)}


def test_a_failing_model_in_shadow_is_mirrored_found_out_and_never_answers(tried: Place) -> None:
    with tried.open() as lab:
        child = winner(lab)
        lab.plan("shadow", {"patience": 60, "limits": QUICK["limits"], "probes": 0.0})
        dispatcher, number = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk)), 0
        while lab.desk.channels()["shadow"].artifact == child:
            asked = Asked(number, Wanted("hello"))
            plan = dispatcher.dispatch(asked)
            assert plan.answering == lab.desk.champion()
            assert [aside.revision for aside in plan.asides] == [child]
            failed = Outcome(child, 0.01, failure="engine.fault")
            dispatcher.observe(asked, Outcome(plan.answering, 0.01, 4, "d"), (failed,))
            number += 1
        assert number < 50
        assert next(h for _, h in lab.desk.all(Halt)).code == "canary.evidence"


def test_a_trial_that_cannot_be_told_takes_nothing_from_the_other(
    tried: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tried.open() as lab:
        child = winner(lab)
        lab.plan("shadow", {"patience": 60, "limits": QUICK["limits"], "probes": 0.0})
        into_canary(lab, probes=0.0)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        plans = {n: dispatcher.dispatch(Asked(n, Wanted("hello"))) for n in range(40)}
        number = next(n for n, plan in plans.items() if plan.asides)
        canary, shadow = lab.canaries.run("canary"), lab.canaries.run("shadow")

        def full(*_: object, **__: object) -> None:
            raise StudbookError("no space is left")

        monkeypatch.setattr(canary, "answered", full)
        told = []
        monkeypatch.setattr(shadow, "answered", lambda ticket, *_, **__: told.append(ticket.number))
        with pytest.raises(StudbookError, match="no space"):
            done = Outcome(plans[number].answering, 0.01, 4, "d")
            dispatcher.observe(Asked(number, Wanted("hello")), done, (Outcome(child, 0.01, 4, "d"),))
        assert told == [0]


def test_a_model_on_trial_is_no_spare_where_it_is_a_package_too(host: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with host.open() as lab:
        dispatcher = TrialDispatcher(lab.desk, lab.canaries, Ways(lab.desk))
        (champion,) = dispatcher.models()
        package = usable(lab.desk)[0][0]
        spare, own = served_package(lab.desk, package), served_model(lab.desk, package.package.artifact.sha256, "")
        assert (spare.revision, spare.spare, own.spare) == (own.revision, True, False)
        ways = {
            "champion": SimpleNamespace(models=lambda: (champion, spare)),
            "canary": SimpleNamespace(models=lambda: (own,)),
        }
        monkeypatch.setattr(dispatcher, "_ways", ways)
        assert dispatcher.models() == (champion, own)
