"""What is kept free, how long a champion stands, and what becomes of whom: one rule each, just above and just below it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from studbook.errors import OutsideAllowlist
from studbook.policy import check_policy
from studbook.records import Allowance, ViabilityDecision, digest
from studbook.viability import ALONE, Former, Situation, archive, held

NOON = "2026-03-01T12:00:00.000000Z"
EQUAL: Mapping[str, tuple[int, int]] = {"rot": (3, 3), "srt": (3, 3)}
WORSE: Mapping[str, tuple[int, int]] = {"rot": (90, 20), "srt": (0, 90)}


def having(world: Any, **changes: Any) -> Any:
    """The same world under a policy with other hysteresis."""
    changed = {"hysteresis": replace(world.policy.hysteresis, **changes)}
    return dataclasses.replace(world, policy_changes={**world.policy_changes, **changed})


def reserving(world: Any, account: Any, capacity: int, minimum: int) -> Any:
    """The same world under a policy that states one more account."""
    reserve = replace(world.policy.reserve, accounts=(Allowance(account=account, capacity=capacity, minimum=minimum),))
    return dataclasses.replace(world, policy_changes={**world.policy_changes, "reserve": reserve})


def row(decision: ViabilityDecision, on: str) -> Any:
    return next(c for c in decision.standings[0].comparisons if c.on == on)


# Each leaves 100 of a thousand: two decoded sizes, two costs of compute, 6,000 calls, 3 + 1 openings, 2 + 2 acts.
ACCOUNTS = (
    ("memory", 1_400_000),
    ("latency", 18_000_000_000),
    ("model-calls", 6_000),
    ("sealed-openings", 4),
    ("attention", 4),
)


@pytest.mark.parametrize(("account", "used"), ACCOUNTS)
def test_a_promotion_that_leaves_less_of_an_account_than_its_minimum_is_refused(
    world: Any, good: Any, account: str, used: int
) -> None:
    past = Situation(openings=3, waiting=2)
    for minimum, chosen in ((100, True), (101, False)):
        tight = reserving(world, account, used + 100, minimum)
        decision = tight.decide([tight.contender("child", good)], situation=past)
        found = row(decision, f"{account}-reserve")
        assert (found.difference, found.threshold, found.passed) == (100.0, float(minimum), chosen)
        assert (decision.action == "promote-to-shadow") is chosen
    (reason,) = decision.standings[0].reasons
    assert reason == f"{account}: 100 of {used + 100:,} would stay free, the policy demands 101"
    (said,) = [a for a in decision.assumptions if "what is left of" in a]
    assert account in said.partition(";")[0] and account not in said.partition(";")[2]


def test_an_account_without_a_capacity_is_not_checked_and_the_decision_says_so(world: Any, good: Any) -> None:
    bare = dataclasses.replace(world, policy_changes={"reserve": replace(world.policy.reserve, accounts=())})
    decision = bare.decide([bare.contender("child", good)], situation=Situation(waiting=10**6))
    assert decision.action == "promote-to-shadow"
    (said,) = [a for a in decision.assumptions if "states no capacity" in a]
    assert "what is left of storage, model-calls, sealed-openings; " in said
    assert "no capacity for memory, latency, attention:" in said


def test_the_default_policy_holds_every_account_that_means_the_same_in_two_labs(world: Any, good: Any) -> None:
    decision = world.decide([world.contender("child", good)], situation=Situation(openings=3, waiting=2))
    assert decision.action == "promote-to-shadow"
    held = {c.on: c.method for c in decision.standings[0].comparisons if c.on.endswith("-reserve")}
    assert {on: method.partition(":")[0] for on, method in held.items()} == {
        "storage-reserve": "reserved 2,100,000 of 268,435,456",
        "memory-reserve": "reserved 1,400,000 of 1,073,741,824",
        "attention-reserve": "reserved 4 of 16",
        "model-calls-reserve": "reserved 6,000 of 400,000",
        "sealed-openings-reserve": "reserved 4 of 20",
    }
    assert any("no capacity for latency:" in said for said in decision.assumptions)


def test_a_promotion_is_refused_where_its_look_at_the_sealed_suites_would_be_one_too_many(
    world: Any, good: Any
) -> None:
    for openings, action in ((19, "promote-to-shadow"), (20, "keep")):
        assert world.decide([world.contender("child", good)], situation=Situation(openings=openings)).action == action


def test_memory_that_was_not_measured_keeps_no_reserve(world: Any, good: Any) -> None:
    tight = reserving(world, "memory", 10**9, 0)
    cost = tuple(m for m in tight.card(tight.champion).cost if m.unit != "decoded-bytes")
    decision = tight.decide([tight.contender("child", good, selection_card={"cost": cost})])
    assert decision.chosen is None
    assert "memory-reserve: no data" in " ".join(decision.standings[0].reasons)


@pytest.mark.parametrize(
    ("account", "capacity", "minimum", "what"),
    [("memory", 5, 5, "below the capacity"), ("sealed-openings", 21, 0, "gates.sealed_openings")],
)
def test_a_policy_whose_accounts_contradict_it_is_refused(
    world: Any, account: str, capacity: int, minimum: int, what: str
) -> None:
    with pytest.raises(OutsideAllowlist, match=what):
        check_policy(reserving(world, account, capacity, minimum).policy)


def test_a_policy_that_names_an_account_twice_is_refused(world: Any) -> None:
    policy = reserving(world, "memory", 5, 1).policy
    twice = replace(policy, reserve=replace(policy.reserve, accounts=policy.reserve.accounts * 2))
    with pytest.raises(OutsideAllowlist, match="twice"):
        check_policy(twice)


def test_a_round_inside_the_cooldown_is_a_no_op_that_says_until_when(world: Any, good: Any) -> None:
    calm = having(world, cooldown_hours=24)
    past = Situation(as_of="2026-03-02T11:59:59.999999Z", since=NOON, moved=NOON)
    decision = calm.decide([calm.contender("child", good)], situation=past)
    assert (decision.action, decision.chosen, decision.as_of) == ("no-op", None, past.as_of)
    told = "cooldown: 23.9 of 24 hours since the champion last moved; it may be replaced from 2026-03-02T12:00:00Z on"
    assert decision.no_op.chosen and decision.no_op.reasons[0] == told
    assert decision.no_op.reasons[1].startswith("1 of 1 candidate passed")
    assert decision.standings[0].reasons == (told,)
    over = dataclasses.replace(past, as_of="2026-03-02T12:00:00.000000Z")
    assert calm.decide([calm.contender("child", good)], situation=over).action == "promote-to-shadow"


def test_a_champion_is_observed_for_days_and_for_decisions(world: Any, good: Any) -> None:
    calm = having(world, window_days=2, window_decisions=3)
    early = Situation(as_of="2026-03-02T12:00:00.000000Z", since=NOON, decisions=2)
    decision = calm.decide([calm.contender("child", good)], situation=early)
    assert decision.action == "no-op"
    assert [r.partition(":")[0] for r in decision.no_op.reasons[:2]] == ["observation", "observation"]
    assert "24.0 of 48 hours since the champion took its place" in decision.no_op.reasons[0]
    assert "2 decisions stand on record against this champion, and the policy asks for 3" in decision.no_op.reasons[1]
    late = dataclasses.replace(early, as_of="2026-03-03T12:00:00.000000Z")
    assert held(calm.policy, late) == decision.no_op.reasons[1:2]
    assert held(calm.policy, dataclasses.replace(late, decisions=3)) == ()


def test_a_wait_is_told_where_no_candidate_was_bred(world: Any) -> None:
    calm = having(world, window_decisions=1)
    reasons = calm.decide([]).no_op.reasons
    assert [r.partition(":")[0] for r in reasons] == ["observation", reasons[1]]


def test_a_champion_is_kept_where_a_finalist_is_no_worse_and_a_no_op_where_none_is(world: Any) -> None:
    assert world.decide([world.contender("equal", EQUAL)]).action == "keep"
    assert world.decide([world.contender("worse", WORSE)]).action == "no-op"
    both = world.decide([world.contender("worse", WORSE), world.contender("equal", EQUAL)])
    assert (both.action, both.chosen, both.no_op.chosen) == ("keep", None, True)


def smaller(world: Any, size: int, changes: Any = EQUAL) -> Any:
    made = world.contender("small", changes)
    blob = replace(made.manifest.artifact, size=size)
    template = replace(made.template, expected=replace(made.template.expected, size_bytes=size))
    receipt = replace(made.receipt, template=digest(template), output=blob)
    manifest = replace(made.manifest, artifact=blob, template=digest(template), receipt=digest(receipt))
    return dataclasses.replace(made, manifest=manifest, receipt=receipt, template=template)


def test_a_smaller_equal_is_kept_to_compress_by_the_policys_share_and_not_promoted(world: Any) -> None:
    frugal = having(world, smaller_by=0.25)
    decision = frugal.decide([smaller(frugal, 525_000)])
    assert (decision.action, decision.chosen) == ("merge-compress", None)
    (standing,) = decision.standings
    assert standing.action == "merge-compress"
    assert "in 525,000 bytes against 700,000, 25.0 % less where the policy asks for 25.0 %" in standing.reasons[0]
    assert [c.action for c in archive(world.cluster.header, decision).candidates] == ["merge-compress"]
    assert frugal.decide([smaller(frugal, 525_001)]).action == "keep"
    assert frugal.decide([smaller(frugal, 525_000, WORSE)]).standings[0].action == "archive"
    assert world.decide([smaller(world, 525_000)]).action == "keep"


def test_whom_a_population_keeps_is_archived_for_diversity_unless_a_gate_failed(world: Any) -> None:
    made = world.contender("odd", WORSE)
    broken = world.contender("odd", WORSE, smoke={"passed": False, "detail": "does not run"})
    past = Situation(diverse=frozenset({made.artifact}))
    assert world.decide([made], situation=past).standings[0].action == "archive-for-diversity"
    assert world.decide([made]).standings[0].action == "archive"
    assert world.decide([broken], situation=past).standings[0].action == "archive"


def test_a_former_champion_is_retired_only_beyond_capacity_and_above_the_removal_threshold(world: Any) -> None:
    # Of both skills 30 more are right: the mean is 3.0 pp above, its lower bound a little more than 2.3 pp.
    card = world.card("b" * 64, changes={"rot": (10, 40), "srt": (10, 40)})
    past = Situation(former=(Former(card.artifact, "old", card, digest(card)),))
    active = replace(world.policy.population, active=1)
    full = Situation(former=(*past.former, *past.former))
    few = dataclasses.replace(world, policy_changes={"population": active})
    assert few.decide([], situation=past).retired == ()
    (found,) = few.decide([], situation=full).retired
    assert (found.artifact, found.scorecard) == (card.artifact, digest(card))
    assert "the champion's joint mean is +3.0 pp above it" in found.reasons[0]
    assert having(few, removal_threshold=0.02).decide([], situation=full).retired
    assert not having(few, removal_threshold=0.03).decide([], situation=full).retired
    unmeasured = Situation(former=(*past.former, Former("c" * 64, "older", None, "")))
    assert few.decide([], situation=unmeasured).retired == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=st.integers(0, 60), more=st.integers(0, 60), decisions=st.integers(0, 5))
def test_a_champion_that_may_be_replaced_may_be_replaced_ever_after(
    world: Any, hours: int, more: int, decisions: int
) -> None:
    policy = having(world, cooldown_hours=30, window_days=1, window_decisions=2).policy

    def at(hour: int) -> Situation:
        moment = f"2026-03-{1 + hour // 24:02}T{hour % 24:02}:00:00.000000Z"
        start = "2026-03-01T00:00:00.000000Z"
        return Situation(as_of=moment, since=start, moved=start, decisions=decisions)

    if not held(policy, at(hours)):
        assert hours >= 30 and decisions >= 2
        assert not held(policy, at(hours + more))


def test_nothing_waits_by_default(world: Any) -> None:
    assert held(world.policy, ALONE) == ()
    assert world.decide([]).as_of is None
