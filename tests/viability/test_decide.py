from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace

from studbook.errors import OutOfOrder
from studbook.records import Agreement, Measure, Reserve, digest
from studbook.viability import Baseline, screen

OTHER = "f" * 64


def costs(**changes: float) -> tuple[Measure, ...]:
    values = {"bytes": 700_000, "decoded-bytes": 700_000, "multiply-adds": 9e9}
    named = {key.replace("_", "-"): value for key, value in changes.items()}
    return tuple(
        Measure(value=value, unit=unit, basis="observed", method="closed form")
        for unit, value in {**values, **named}.items()
    )


def only(decision: Any) -> Any:
    (standing,) = decision.standings
    return standing


def rows(standing: Any, test: str) -> list[Any]:
    return [c for c in standing.comparisons if c.test == test]


def test_a_candidate_that_holds_every_rule_is_promoted(world: Any, good: Any) -> None:
    contender = world.contender("child", good)
    decision = world.decide([contender])
    standing = only(decision)
    assert (decision.action, decision.chosen) == ("promote-to-shadow", contender.artifact)
    assert standing.action == "promote-to-shadow"
    assert all(c.passed for c in standing.comparisons if c.test != "shown")
    assert not decision.no_op.chosen
    assert decision.no_op.reasons == (
        "doing nothing is worth 0; child is worth at least +4.3 pp, and a switch costs +0.1 pp",
    )
    assert standing.reasons[0].startswith("gain on rot is +7.0 pp, lower bound +5.3 pp, p < 0.0001 after Holm over 1")


def test_every_rule_leaves_its_row(world: Any, good: Any) -> None:
    standing = only(world.decide([world.contender("child", good)]))
    assert [(c.test, c.on) for c in standing.comparisons] == [
        ("non-inferiority", "rot"),
        ("non-inferiority", "srt"),
        ("non-inferiority", "calibration"),
        ("superiority", "rot"),
        ("parent", "joint-mean"),
        ("shown", "worst-skill"),
        ("parent", "joint-mean"),
        ("shown", "worst-skill"),
        ("utility", "net-utility"),
        ("utility", "storage-reserve"),
        ("utility", "memory-reserve"),
        ("utility", "attention-reserve"),
        ("utility", "model-calls-reserve"),
        ("utility", "sealed-openings-reserve"),
    ]
    target = rows(standing, "superiority")[0]
    assert (target.items, target.wins, target.losses, target.difference) == (1000, 90, 20, 0.07)
    assert all(c.method for c in standing.comparisons)


def test_net_utility_is_the_sum_of_its_terms(world: Any, good: Any) -> None:
    dearer = {"cost": costs(decoded_bytes=1_400_000, multiply_adds=18e9)}
    standing = only(world.decide([world.contender("child", good, selection_card=dearer)]))
    by_name = {t.name: t for t in standing.utility}
    assert standing.net_utility == pytest.approx(sum(t.contribution for t in standing.utility), abs=1e-9)
    assert by_name["memory-doublings"].contribution == -0.02
    assert by_name["compute-doublings"].contribution == -0.02
    assert by_name["risk-of-a-change"].contribution == -0.0005
    joint = rows(standing, "utility")[0]
    assert by_name["joint-mean-gain-lower-bound"].quantity == pytest.approx(joint.lower + 0.0405, abs=1e-9)


def test_a_smaller_model_earns_nothing_for_memory_but_does_for_compute(world: Any, good: Any) -> None:
    lighter = {"cost": costs(decoded_bytes=350_000, multiply_adds=4.5e9)}
    terms = {t.name: t for t in only(world.decide([world.contender("c", good, selection_card=lighter)])).utility}
    assert terms["memory-doublings"].contribution == 0.0
    assert terms["compute-doublings"].contribution == 0.02


def test_a_collapse_of_one_protected_skill_is_refused_with_its_numbers(world: Any) -> None:
    standing = only(world.decide([world.contender("lopsided", {"rot": (300, 0), "srt": (10, 320)})]))
    assert standing.action == "archive"
    assert standing.reasons[0] == "srt fell from 60.0 % to 29.0 % (lower bound -33.5 pp, allowed -2.0 pp)"


def test_too_little_data_to_show_that_nothing_was_lost_is_refused(world: Any) -> None:
    standing = only(world.decide([world.contender("unsure", {"rot": (90, 20), "srt": (120, 121)})]))
    assert any(
        r.startswith("srt fell from 60.0 % to 59.9 % (lower bound -2.7 pp, allowed -2.0 pp)") for r in standing.reasons
    )


def test_a_worse_calibration_is_refused(world: Any, good: Any) -> None:
    worse = {"results": {"mixture": {"brier": 520_000}}}
    standing = only(world.decide([world.contender("boastful", good, selection_card=worse)]))
    assert standing.action == "archive"
    assert standing.reasons == (
        "calibration: mean Brier score went from 0.403 to 0.523 (lower bound of the improvement -0.120, allowed -0.050)",
    )


def test_no_gain_on_the_target_is_refused_however_good_the_rest(world: Any) -> None:
    decision = world.decide([world.contender("aside", {"rot": (12, 9), "srt": (200, 0)})])
    assert decision.action == "keep"
    assert only(decision).reasons == (
        "gain on rot is +0.3 pp, lower bound -0.5 pp, p = 0.33 after Holm over 1; needs +1.0 pp and p <= 0.05",
    )
    assert decision.no_op.reasons[1] == (
        "best gain on rot is +0.3 pp, lower bound -0.5 pp, p = 0.33 after Holm over 1; needs +1.0 pp and p <= 0.05 (aside)"
    )


def test_a_certain_but_tiny_gain_is_refused(world: Any) -> None:
    standing = only(world.decide([world.contender("tiny", {"rot": (9, 0), "srt": (100, 0)})]))
    target = rows(standing, "superiority")[0]
    assert target.p_value < 0.05 and not target.passed
    assert "needs +1.0 pp" in standing.reasons[0]


def test_holm_counts_every_finalist(world: Any) -> None:
    # 40 wins against 23 losses is p = .021 alone and .064 among three.
    lone = world.contender("lone", {"rot": (40, 23), "srt": (80, 0)})
    assert world.decide([lone]).action == "promote-to-shadow"
    idle = [world.contender(f"idle-{i}", {"rot": (5, 5), "srt": (5, 5)}) for i in range(2)]
    decision = world.decide([lone, *idle])
    assert decision.action == "keep"
    assert "after Holm over 3" in decision.standings[0].reasons[0]


def test_a_better_parent_stops_the_child_and_is_named(world: Any, good: Any) -> None:
    parents = world.parents({"rot": (100, 20), "srt": (80, 20)})
    decision = world.decide([world.contender("child", good)], parents=parents)
    assert decision.action == "keep"
    assert decision.best_parent == world.parent
    assert only(decision).reasons == ("the parent brk is better: 67.0 % against 65.5 %",)
    assert decision.no_op.reasons[-1] == (
        "the parent brk stands at 67.0 % joint mean against the champion's 60.0 %; "
        "a parent itself is not promoted in this version"
    )


def test_a_parent_not_shown_to_be_beaten_stops_the_child(world: Any, good: Any) -> None:
    parents = world.parents({"rot": (88, 20), "srt": (59, 20)})
    (reason,) = only(world.decide([world.contender("child", good)], parents=parents)).reasons
    assert reason.startswith("not shown to be better than the parent brk: 65.5 % against 65.3 %")


def test_a_copy_of_a_parent_is_called_one(world: Any, good: Any) -> None:
    copy = world.contender("copy", good, artifact=world.parent)
    standing = only(world.decide([copy], parents=world.parents(good)))
    assert "identical to the parent brk" in standing.reasons


def test_a_parent_without_a_scorecard_stops_its_child(world: Any, good: Any) -> None:
    decision = world.decide([world.contender("child", good)], parents=world.parents()[:1])
    assert decision.action == "keep"
    assert "was not evaluated as a baseline" in only(decision).reasons[0]


def test_the_champion_as_a_parent_has_to_be_beaten_like_any_other(world: Any, good: Any) -> None:
    alone = {"parents": (world.champion,), "compatibility": None}
    standing = only(world.decide([world.contender("mutant", good, template=alone)], parents=()))
    (parent,) = rows(standing, "parent")
    assert parent.against == world.champion and parent.passed


def test_a_parent_with_a_better_worst_skill_is_shown_and_does_not_stop_the_child(world: Any) -> None:
    parents = world.parents({"rot": (30, 0), "srt": (30, 0)})
    decision = world.decide([world.contender("child", {"rot": (150, 5), "srt": (20, 10)})], parents=parents)
    standing = only(decision)
    assert decision.action == "promote-to-shadow"
    assert (
        standing.reasons[-1]
        == "the parent brk keeps a better worst skill: srt 61.0 % against the parent brk's rot 63.0 %"
    )
    assert (
        decision.assumptions[-1]
        == "the best parent is brk with 63.0 % joint mean; it is ahead of child on: srt 63.0 % against 61.0 %"
    )


def test_a_gain_below_the_switching_threshold_is_refused(world: Any) -> None:
    standing = only(
        world.decide(
            [
                world.contender(
                    "dear", {"rot": (60, 20), "srt": (30, 20)}, selection_card={"cost": costs(decoded_bytes=1_400_000)}
                )
            ]
        )
    )
    (reason,) = standing.reasons
    assert reason.startswith("net utility lower bound -0.5 pp, switching threshold +0.1 pp")


def test_no_room_for_the_way_back_is_refused(world: Any, good: Any) -> None:
    crowded = dataclasses.replace(
        world, policy_changes={"reserve": Reserve(capacity_bytes=3_000_000, minimum_bytes=900_001, accounts=())}
    )
    decision = crowded.decide([crowded.contender("child", good)])
    assert only(decision).reasons == ("900,000 bytes would stay free, the policy demands 900,001",)


@pytest.mark.parametrize(
    "cost",
    [
        (),
        costs()[:1],
        (*costs(), costs()[1]),
        tuple(replace(m, method="guessed") for m in costs()),
        tuple(replace(m, basis="reported") for m in costs()),
        costs(multiply_adds=0.0),
        costs(decoded_bytes=-1.0),
    ],
)
def test_costs_that_cannot_be_compared_never_promote(world: Any, good: Any, cost: Any) -> None:
    decision = world.decide([world.contender("child", good, selection_card={"cost": cost})])
    assert decision.action == "keep"
    assert "net-utility: no data" in only(decision).reasons[0]


@pytest.mark.parametrize("verdict", ["error", "no-data"])
@pytest.mark.parametrize("label", ["rot", "srt", "mixture"])
def test_error_and_no_data_never_promote(world: Any, good: Any, label: str, verdict: str) -> None:
    told = {"results": {label: {"verdict": verdict, "detail": "worker ended early"}}}
    standing = only(world.decide([world.contender("child", good, selection_card=told)]))
    assert standing.action == "archive"
    assert standing.reasons[0] == f"evidence/selection: {label} says {verdict}: worker ended early"
    assert [c.method.split(":")[0] for c in standing.comparisons] == ["no data"]


def test_a_suite_below_its_pass_mark_never_promotes(world: Any, good: Any) -> None:
    told = {"results": {"srt": {"verdict": "fail"}}}
    standing = only(world.decide([world.contender("child", good, selection_card=told)]))
    assert standing.action == "archive"
    assert standing.reasons == ("pass-mark: does not hold: pass marks reached on srt 64.0 %",)


def test_a_failed_development_suite_is_no_gate(world: Any, good: Any) -> None:
    told = {"results": {"srt": {"verdict": "fail"}}}
    assert world.decide([world.contender("child", good, development_card=told)]).action == "promote-to-shadow"


def test_a_finalist_that_never_met_the_selection_suites_never_promotes(world: Any, good: Any) -> None:
    contender = dataclasses.replace(world.contender("child", good), selection=None)
    standing = only(world.decide([contender]))
    assert (standing.action, standing.selection) == ("archive", None)
    assert standing.reasons[0] == "evidence/selection: no selection scorecard: no data never promotes"


@pytest.mark.parametrize(
    "told",
    [
        {"results": {"rot": {"items_after": OTHER}}},
        {"results": {"rot": {"actual_calls": 0}}},
        {"results": {"rot": {"correct": "1"}}},
        {"agreement": Agreement(sampled=32, agreed=30)},
        {"artifact": OTHER},
        {"isolation": ()},
    ],
)
def test_a_scorecard_that_was_interfered_with_quarantines(world: Any, good: Any, told: Any) -> None:
    decision = world.decide([world.contender("child", good, selection_card=told)])
    assert decision.action == "no-op"
    assert only(decision).action == "quarantine"
    assert only(decision).reasons[0].startswith("integrity/selection-")


def test_a_candidate_bred_for_another_cluster_is_quarantined(world: Any, good: Any) -> None:
    standing = only(world.decide([world.contender("stray", good, template={"cluster": OTHER})]))
    assert (standing.action, standing.screen_rank) == ("quarantine", 0)
    assert standing.reasons == ("integrity/cluster: does not hold: bred for failure cluster rot",)


def test_a_missing_smoke_archives(world: Any, good: Any) -> None:
    contender = dataclasses.replace(world.contender("child", good), smoke=None)
    standing = only(world.decide([contender]))
    assert (standing.action, standing.comparisons) == ("archive", ())
    assert standing.reasons == ("smoke: no runtime smoke: it was never shown to load and run",)


def test_an_ablation_explains_and_is_never_chosen(world: Any, good: Any) -> None:
    decision = world.decide([world.contender("without-brk", good, template={"purpose": "ablation"})])
    assert (decision.action, only(decision).action) == ("no-op", "archive")
    assert "never eligible" in only(decision).reasons[0]


def test_the_champion_offered_again_is_called_identical(world: Any) -> None:
    decision = world.decide([world.contender("twin", artifact=world.champion)])
    assert decision.action == "no-op"
    assert only(decision).reasons == ("difference: identical to the champion",)


def test_no_candidate_is_a_no_op_with_a_reason(world: Any) -> None:
    decision = world.decide([])
    assert (decision.action, decision.chosen, decision.standings) == ("no-op", None, ())
    assert decision.no_op.reasons == ("no candidate was bred, so there is nothing to compare with the champion",)


def test_only_finalists_meet_the_selection_suites(world: Any) -> None:
    narrow = world.having(finalists=2)
    gains = {f"child-{i}": {"rot": (60 + 10 * i, 5), "srt": (60, 5)} for i in range(4)}
    decision = narrow.decide([narrow.contender(name, change) for name, change in gains.items()])
    assert [s.screen_rank for s in decision.standings] == [4, 3, 2, 1]
    assert [bool(s.selection) for s in decision.standings] == [False, False, True, True]
    assert (
        decision.standings[0].reasons[0].startswith("place 4 of 4 on development items (joint mean 65.5 %, 0 protected")
    )
    assert decision.standings[0].comparisons == ()


def test_the_screen_prefers_who_loses_nothing_over_who_gains_more(world: Any) -> None:
    narrow = world.having(finalists=1)
    bold = narrow.contender("bold", development={"rot": (300, 0), "srt": (0, 40)})
    even = narrow.contender("even", development={"rot": (30, 0), "srt": (10, 0)})
    champion = narrow.card(narrow.champion, "development")
    assert screen([bold, even], champion, narrow.cluster, narrow.policy) == (digest(even.manifest),)


def test_the_screen_is_the_same_before_and_after_the_selection_suites(world: Any) -> None:
    contenders = [world.contender(f"c{i}", {"rot": (20 + i, 0)}) for i in range(5)]
    blind = [dataclasses.replace(c, selection=None) for c in contenders]
    champion = world.card(world.champion, "development")
    finalists = screen(blind, champion, world.cluster, world.policy)
    decision = world.decide(contenders)
    assert {s.manifest for s in decision.standings if s.selection} == set(finalists)
    assert len(finalists) == 3


def test_of_equal_files_only_one_meets_the_selection_suites(world: Any, good: Any) -> None:
    twins = [world.contender(name, good, artifact="a" * 64) for name in ("first", "second")]
    decision = world.decide(twins)
    losers = [s for s in decision.standings if s.action == "archive"]
    assert decision.action == "promote-to-shadow"
    assert [s.reasons[0] for s in losers] == [
        f"the same bytes as {next(s.name for s in decision.standings if s not in losers)} by another recipe; "
        "one of them is judged"
    ]


def test_of_two_good_candidates_the_one_worth_more_wins_and_the_other_hears_why(world: Any, good: Any) -> None:
    better = world.contender("better", {"rot": (120, 20), "srt": (90, 20)})
    decision = world.decide([world.contender("second", good), better])
    assert decision.chosen == better.artifact
    assert decision.standings[0].action == "archive"
    assert decision.standings[0].reasons == (
        "passes every test, but better is worth more: net utility lower bound +7.2 pp against +4.3 pp",
    )


def test_equal_worth_is_settled_by_the_artifact_digest(world: Any, good: Any) -> None:
    pair = [world.contender(name, good, artifact=letter * 64) for name, letter in (("late", "b"), ("early", "a"))]
    assert world.decide(pair).chosen == world.decide(pair[::-1]).chosen == "a" * 64


def test_scorecards_of_different_evaluators_are_never_compared(world: Any, good: Any) -> None:
    contender = world.contender("child", good, selection_card={"evaluator": OTHER})
    with pytest.raises(OutOfOrder) as caught:
        world.decide([contender])
    assert caught.value.reason == "order.evaluator"
    champion = world.card(world.champion, "development")
    early = world.contender("child", good, development_card={"evaluator": OTHER})
    with pytest.raises(OutOfOrder):
        screen([early], champion, world.cluster, world.policy)


def test_a_parent_of_another_evaluator_is_refused(world: Any, good: Any) -> None:
    stale = Baseline(world.parent, "brk", world.card(world.parent, evaluator=OTHER))
    with pytest.raises(OutOfOrder):
        world.decide([world.contender("child", good)], parents=(stale,))


@pytest.mark.parametrize(
    "told",
    [
        {"results": {"rot": {"verdict": "error"}}},
        {"results": {"rot": {"items_after": OTHER}}},
        {"results": {"rot": {"suite": OTHER}}},
        {"results": {"rot": {"cluster": "rev"}}},
        {"results": {"srt": {"cluster": "rot"}}},
        {"results": {"mixture": {"dimension": "task"}}},
        {"role": "sealed"},
        {"results": {"rot": {"actual_calls": 1}}},
        {"agreement": Agreement(sampled=0, agreed=0)},
    ],
)
def test_a_champion_without_sound_scorecards_stops_the_round(world: Any, good: Any, told: Any) -> None:
    void = world.card(world.champion, **told)
    with pytest.raises(OutOfOrder):
        world.decide([world.contender("child", good)], champion_selection=void)


def test_suites_that_called_no_model_stop_the_round(world: Any, good: Any) -> None:
    silent = {"results": {"rot": {"actual_calls": 0, "expected_calls": 0}}}
    void = world.card(world.champion, **silent)
    with pytest.raises(OutOfOrder):
        world.decide([world.contender("child", good, selection_card=silent)], champion_selection=void, parents=())


@pytest.mark.parametrize(
    "told",
    [
        {"results": {"rot": {"verdict": "no-data"}}},
        {"results": {"srt": {"items_after": OTHER}}},
        {"results": {"rot": {"suite": OTHER}}},
        {"artifact": OTHER},
        {"agreement": Agreement(sampled=4, agreed=3)},
    ],
)
def test_a_parent_without_a_sound_scorecard_stops_the_round(world: Any, good: Any, told: Any) -> None:
    parent = Baseline(world.parent, "brk", world.card(**{"artifact": world.parent, **told}))
    with pytest.raises(OutOfOrder):
        world.decide([world.contender("child", good)], parents=(parent, *world.parents()[1:]))


def test_the_scorecards_have_to_be_the_champions(world: Any, good: Any) -> None:
    with pytest.raises(OutOfOrder):
        world.decide([world.contender("child", good)], champion_development=world.card(OTHER, "development"))


def test_suites_outside_the_lock_stop_the_round(world: Any, good: Any) -> None:
    lock = replace(world.suites, suites=world.suites.suites[1:])
    with pytest.raises(OutOfOrder) as caught:
        world.decide([world.contender("child", good)], suites=lock)
    assert "suites lock" in str(caught.value)


def test_a_candidate_offered_twice_stops_the_round(world: Any, good: Any) -> None:
    contender = world.contender("child", good)
    with pytest.raises(OutOfOrder):
        world.decide([contender, contender])


def test_a_policy_that_names_no_protected_cluster_protects_every_one(world: Any, good: Any) -> None:
    silent = dataclasses.replace(world, policy_changes={"protected": ()})
    named = world.decide([world.contender("child", good)])
    unnamed = silent.decide([silent.contender("child", good)])
    assert unnamed.chosen == named.chosen
    protected = [[c.on for c in d.standings[0].comparisons if c.test == "non-inferiority"] for d in (named, unnamed)]
    assert sorted(protected[0]) == sorted(protected[1])


def test_the_assumptions_name_what_was_not_measured(world: Any, good: Any) -> None:
    told = "\n".join(world.decide([world.contender("child", good)]).assumptions)
    for words in (
        "alpha 0.05",
        "1 finalist x 1 target",
        "rot 2.5 pp (1000 items)",
        "robustness, safety, bias",
        "Ladder",
    ):
        assert words in told
    for words in ("independent", "synthetic", "the best parent is brk with 60.0 %"):
        assert words in told


def test_every_candidate_keeps_its_place_in_the_record(world: Any, good: Any) -> None:
    contenders = [world.contender(name, good if name == "b" else {}) for name in "abc"]
    decision = world.decide(contenders)
    assert [s.name for s in decision.standings] == ["a", "b", "c"]
    assert decision.champion_cards == (
        digest(world.card(world.champion, "development")),
        digest(world.card(world.champion)),
    )
