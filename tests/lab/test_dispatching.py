"""Trials decide on a running server who answers; what they are told is how it went, never what was said."""

from __future__ import annotations

from lab_fixtures import Place, problems
from release_fixtures import winner
from studbook.lab.dispatching import TrialDispatcher
from studbook.records import CanarySegment, Halt
from studbook.runtime.serve.dispatch import Outcome
from studbook.runtime.serve.requests import Asked, Wanted
from trial_fixtures import QUICK, into_canary


def test_a_canary_gets_its_share_and_the_server_learns_nothing_else(tried: Place) -> None:
    with tried.open() as lab:
        child, champion = winner(lab), lab.desk.champion()
        into_canary(lab, probes=1.0)
        dispatcher = TrialDispatcher(lab.desk, lab.canaries)
        assert dispatcher.models() == (champion, child)
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


def test_a_number_that_comes_again_because_the_queue_was_full_blocks_nothing(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab, probes=0.0)
        dispatcher, asked = TrialDispatcher(lab.desk, lab.canaries), Asked(0, Wanted("hello"))
        dispatcher.dispatch(asked)
        plan = dispatcher.dispatch(asked)
        dispatcher.observe(asked, Outcome(plan.answering, 0.01, 4, "d"), ())
        lab.canaries.flush()
        assert [s.number for _, part in lab.desk.all(CanarySegment) for s in part.observations] == [1]


def test_a_client_that_goes_away_says_nothing_about_a_model(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab, probes=0.0)
        dispatcher, asked = TrialDispatcher(lab.desk, lab.canaries), Asked(0, Wanted("hello"))
        plan = dispatcher.dispatch(asked)
        dispatcher.observe(asked, Outcome(plan.answering, 0.01, failure="serve.cancelled"), ())
        lab.canaries.flush()
        assert not list(lab.desk.all(CanarySegment))


def test_a_failing_model_in_shadow_is_mirrored_found_out_and_never_answers(tried: Place) -> None:
    with tried.open() as lab:
        child = winner(lab)
        lab.plan("shadow", {"patience": 60, "limits": QUICK["limits"], "probes": 0.0})
        dispatcher, number = TrialDispatcher(lab.desk, lab.canaries), 0
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
