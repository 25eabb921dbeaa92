"""Channels as a pure state machine: gates before every move, and a way back after it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import ClaimRefused, OutOfOrder, OutsideAllowlist, StudbookError
from studbook.policy import default_policy
from studbook.records import (
    AdmissionRecord,
    Blob,
    CandidateManifest,
    ChampionPromotion,
    Gate,
    Header,
    PromotionTemplate,
    Record,
    RollbackRecord,
    Rung,
    StageRule,
    digest,
    replace,
)
from studbook.release import (
    ALONE,
    ChannelState,
    admit,
    champion_template,
    channel_history,
    channel_state,
    check_claim,
    enter,
    first_champion,
    gate,
    move_faults,
    promote,
    roll_back,
    stage_before,
    ways_back,
)

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
MODELS = tuple(letter * 64 for letter in "abcde")
IN_FORCE = (True, "was decided against what is in force")
EMPTY = ChannelState(None, None, None)
Moves = list[tuple[str, Record]]


def template(artifact: str, *gates: Gate, stage: Any = "shadow") -> PromotionTemplate:
    passed = gate("decision", True, "d" * 64, "decisions", "chosen")
    return PromotionTemplate(
        header=HEADER,
        stage=stage,
        artifact=artifact,
        manifest="1" * 64,
        decision="2" * 64,
        gates=gates or (passed,),
    )


def manifest(artifact: str) -> CandidateManifest:
    return CandidateManifest(
        header=HEADER,
        name="blend-a",
        artifact=Blob(sha256=artifact, size=1),
        family="blend",
        purpose="candidate",
        template="3" * 64,
        receipt="4" * 64,
        checks=(),
        licence="CC0-1.0",
        data=(),
        claim=Rung.STRUCTURAL,
        unsupported=(),
        trade_offs=(),
        fallback="5" * 64,
    )


def step(moves: Moves, act: str, artifact: str, number: int) -> Record:
    """The record of one act on the state the moves left, or a refusal."""
    state = channel_state(moves)
    if act == "shadow":
        admission = admit(HEADER, template(artifact), digest(template(artifact)), Rung.TRAINED)
        # A number keeps two moves to the same artifact apart, as the admission of another round would.
        return enter(HEADER, "shadow", admission, f"{number:064x}", ALONE, state["shadow"])
    if act == "first":
        return first_champion(HEADER, artifact, "f" * 64, "ann", "deployed", ALONE, state["champion"])
    if act == "promote":
        opened = champion_template(HEADER, manifest(artifact), "6" * 64, "7" * 64, state, "shadow", "ann", IN_FORCE, ())
        return promote(HEADER, opened, "ann", f"act {number}", ALONE, state["champion"])
    channel = act.removeprefix("undo ")
    return roll_back(HEADER, channel, state[channel], f"act {number}")


ACTS = ["shadow", "first", "promote", "undo shadow", "undo champion"]


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(MODELS[:3])), max_size=25))
def test_any_sequence_of_moves_keeps_a_consistent_way_back(acts: list[tuple[str, str]]) -> None:
    moves: Moves = []
    stacks: dict[str, list[str]] = {"shadow": [], "champion": []}
    for number, (act, artifact) in enumerate([("first", MODELS[0]), *acts]):
        channel = "shadow" if act.endswith("shadow") else "champion"
        try:
            record = step(moves, act, artifact, number)
        except OutOfOrder:
            assert refused_rightly(stacks, act, artifact)
            continue
        moves.append((digest(record), record))
        if isinstance(record, RollbackRecord):
            stacks[channel].pop()
        else:
            stacks[channel].append(artifact)
        check_states(moves, stacks)
    unwinds_to_the_start(moves, stacks)


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(MODELS[:3])), max_size=25))
def test_the_history_of_a_channel_is_what_replaying_every_beginning_gives(acts: list[tuple[str, str]]) -> None:
    moves: Moves = []
    for number, (act, artifact) in enumerate([("first", MODELS[0]), *acts]):
        with suppress(OutOfOrder):
            record = step(moves, act, artifact, number)
            moves.append((digest(record), record))
    for channel in ("shadow", "champion"):
        states = [channel_state(moves[: count + 1])[channel] for count in range(len(moves))]
        assert channel_history(moves, channel) == list(dict.fromkeys(s for s in states if s.record))


def check_states(moves: Moves, stacks: dict[str, list[str]]) -> None:
    """Replaying the moves gives what a plain stack a channel says."""
    state = channel_state(moves)
    assert state["canary"] == EMPTY
    for channel, stack in stacks.items():
        assert state[channel].artifact == (stack[-1] if stack else None)
        back = state[channel].way_back
        assert (back.artifact if back else None) == (stack[-2] if len(stack) > 1 else None)


def refused_rightly(stacks: dict[str, list[str]], act: str, artifact: str) -> bool:
    """Whether the model agrees that an act had to be refused."""
    shadow, champion = stacks["shadow"], stacks["champion"]
    return {
        "undo shadow": not shadow,
        "undo champion": len(champion) < 2,
        "first": bool(champion),
        "promote": not shadow or shadow[-1] != artifact or not champion,
        "shadow": False,
    }[act]


def unwinds_to_the_start(moves: Moves, stacks: dict[str, list[str]]) -> None:
    for channel, stack in stacks.items():
        bottom = 1 if channel == "champion" else 0
        for number in range(len(stack), bottom, -1):
            record = roll_back(HEADER, channel, channel_state(moves)[channel], f"unwinding {number}")
            moves.append((digest(record), record))
            assert record.artifact == (stack[number - 2] if number > 1 else None)
        with pytest.raises(OutOfOrder):
            roll_back(HEADER, channel, channel_state(moves)[channel], "once more")


@given(
    st.lists(
        st.tuples(st.sampled_from(["shadow", "promote", "undo champion"]), st.sampled_from(MODELS[:3])), max_size=15
    ),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
)
def test_every_rollback_along_the_way_back_shortens_it_and_none_leads_forth(
    acts: list[tuple[str, str]], steps: list[int]
) -> None:
    moves: Moves = []
    for number, (act, artifact) in enumerate([("first", MODELS[0]), *acts]):
        with suppress(OutOfOrder):
            record = step(moves, act, artifact, number)
            moves.append((digest(record), record))
    for number, pick in enumerate(steps):
        ways, state = ways_back(moves, "champion"), channel_state(moves)["champion"]
        if not ways:
            break
        target = ways[pick % len(ways)]
        record = roll_back(HEADER, "champion", state, f"back {number}", target)
        forth = roll_back(HEADER, "champion", state, "forth", state.back)
        moves.append((digest(record), record))
        assert channel_state(moves)["champion"].artifact == target.artifact
        assert ways_back(moves, "champion") == ways[pick % len(ways) + 1 :]
        again = replace(forth, undone=digest(record))
        forged = [*moves, (digest(again), again)]
        assert channel_state(forged) == channel_state(moves)
        assert [*move_faults(forged)] == [digest(again)]
        assert "never there, or was undone" in move_faults(forged)[digest(again)].words


def some_moves() -> Moves:
    moves: Moves = []
    for number, (act, artifact) in enumerate(
        [("first", MODELS[0]), ("shadow", MODELS[1]), ("promote", MODELS[1]), ("undo champion", MODELS[0])]
    ):
        record = step(moves, act, artifact, number)
        moves.append((digest(record), record))
    return moves


def test_dropping_doubling_or_reordering_moves_is_noticed_and_what_does_not_follow_moves_nothing() -> None:
    moves = some_moves()
    assert channel_state(moves)["champion"].artifact == MODELS[0]
    assert move_faults(moves) == {}
    for broken, wrong in (
        ([moves[0], moves[2], moves[2]], moves[2]),
        ([*moves[:3], moves[2]], moves[2]),
        (moves[1:], moves[2]),
        ([moves[0], moves[3], moves[2]], moves[3]),
    ):
        assert move_faults(broken)[wrong[0]].reason == "order.channel"
    assert channel_state([moves[0], moves[3], moves[2]]) == channel_state([moves[0], moves[2]])


def test_a_rollback_to_what_was_never_there_moves_nothing_and_honest_moves_go_on_from_before_it() -> None:
    moves = some_moves()
    forged = replace(moves[3][1], artifact=MODELS[4])
    held = [*moves[:3], (digest(forged), forged)]
    assert channel_state(held) == channel_state(moves[:3])
    assert channel_history(held, "champion") == channel_history(moves[:3], "champion")
    assert "never there" in move_faults(held)[digest(forged)].words
    honest = roll_back(HEADER, "champion", channel_state(held)["champion"], "it was forged")
    held.append((digest(honest), honest))
    assert channel_state(held)["champion"].artifact == MODELS[0]
    assert [*move_faults(held)] == [digest(forged)]


def test_a_forged_move_that_names_another_forged_one_moves_nothing_either() -> None:
    moves = some_moves()
    first = replace(moves[3][1], artifact=MODELS[4])
    second = replace(moves[3][1], undone=digest(first))
    held = [*moves[:3], (digest(first), first), (digest(second), second)]
    assert channel_state(held) == channel_state(moves[:3])
    assert {f.void_below for f in move_faults(held).values()} == {False}


def test_an_honest_rollback_of_a_move_that_was_voided_later_leaves_the_channel_as_it_was_before_both() -> None:
    moves: Moves = []
    for number, (act, artifact) in enumerate([("first", MODELS[0]), ("shadow", MODELS[1]), ("shadow", MODELS[2])]):
        record = step(moves, act, artifact, number)
        moves.append((digest(record), record))
    undo = step(moves, "undo shadow", "", 3)
    moves.append((digest(undo), undo))
    after = step(moves, "shadow", MODELS[3], 4)
    moves.append((digest(after), after))
    # Entry 2 turns out to be a thief's: what undid it moved nothing, and what was built on that counts.
    voided = [(d, None if number == 2 else move) for number, (d, move) in enumerate(moves)]
    assert move_faults(voided)[digest(undo)].void_below
    assert [s.artifact for s in channel_history(voided, "shadow")] == [MODELS[1], MODELS[3]]


@pytest.mark.parametrize("passed", [None, False])
def test_a_gate_that_is_pending_or_failed_admits_nothing(passed: bool | None) -> None:
    open_gate = gate("confirmation", passed, None, "decisions", "waits")
    with pytest.raises(OutOfOrder, match="gate confirmation is") as caught:
        admit(HEADER, template(MODELS[0], open_gate), "8" * 64, Rung.TRAINED)
    assert "decisions" in caught.value.advice


def test_an_admission_names_its_template_and_claim() -> None:
    admission = admit(HEADER, template(MODELS[0]), "8" * 64, Rung.TRAINED)
    assert isinstance(admission, AdmissionRecord)
    assert (admission.template, admission.claim) == ("8" * 64, Rung.TRAINED)


def test_shadow_straight_to_champion_is_refused() -> None:
    first = step([], "first", MODELS[0], 0)
    moves: Moves = [(digest(first), first)]
    with pytest.raises(OutOfOrder, match="is not in shadow"):
        step(moves, "promote", MODELS[1], 1)
    record = step(moves, "shadow", MODELS[2], 2)
    with pytest.raises(OutOfOrder, match="is not in shadow"):
        step([*moves, (digest(record), record)], "promote", MODELS[1], 3)


def test_nothing_is_promoted_where_there_is_no_champion_to_go_back_to() -> None:
    record = step([], "shadow", MODELS[1], 0)
    with pytest.raises(OutOfOrder, match="way-back"):
        step([(digest(record), record)], "promote", MODELS[1], 1)


def test_a_decision_against_what_is_no_longer_in_force_promotes_nothing() -> None:
    moves = some_moves()[:2]
    stale = (False, "was decided against another champion than the one in force; run the round again")
    state = channel_state(moves)
    opened = champion_template(HEADER, manifest(MODELS[1]), "6" * 64, "7" * 64, state, "shadow", "ann", stale, ())
    with pytest.raises(OutOfOrder, match="gate decided-against is failed"):
        promote(HEADER, opened, "ann", "", ALONE, state["champion"])


def test_champion_comes_after_canary_where_the_policy_lists_it_and_after_shadow_otherwise() -> None:
    policy = default_policy(HEADER)
    shadow, champion = policy.stages
    canary = StageRule(stage="canary", approvals=1, hold_hours=0)
    with pytest.raises(OutsideAllowlist):
        stage_before(policy, "canary")
    assert stage_before(policy, "champion") == "shadow"
    longer = replace(policy, stages=(shadow, canary, champion))
    assert (stage_before(longer, "canary"), stage_before(longer, "champion")) == ("shadow", "canary")


@pytest.mark.parametrize("claim", list(Rung))
def test_a_claim_needs_the_evidence_of_its_rung_and_of_every_rung_below(claim: Rung) -> None:
    needed = [rung for rung in Rung if rung.height <= claim.height]
    check_claim(claim, dict.fromkeys(needed, True))
    for missing in needed:
        evidence = dict.fromkeys(Rung, True) | {missing: False}
        with pytest.raises(ClaimRefused, match=missing.value):
            check_claim(claim, evidence)
        del evidence[missing]
        with pytest.raises(StudbookError):
            check_claim(claim, evidence)


def test_a_promotion_names_its_person_and_its_way_back() -> None:
    moves = some_moves()[:3]
    promotion = moves[2][1]
    assert isinstance(promotion, ChampionPromotion)
    assert (promotion.promoted_by, promotion.basis) == ("ann", "promotion")
    assert promotion.rollback.artifact == MODELS[0]
    assert promotion.rollback.record == moves[0][0]
