"""Lies about releases: skipped stages, borrowed approvals, turned clocks, old policies; told to the lab or written by hand.

By hand means: records with good signatures of the keys they need, appended in good order. Only what they say is not so.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab_fixtures import CLUSTER, PERSON, Place, problems, rewrite
from release_fixtures import OTHER, Clock, change_policy, decisions, edited, refused, told, winner
from studbook.errors import Busy, DigestDiffers, NotAuthorised, OutOfOrder, OutsideAllowlist
from studbook.lab import Lab, gates
from studbook.lab.entering import check_admitting
from studbook.lab.pending import Signed, waiting
from studbook.lab.stages import decision_for, standing, votes
from studbook.records import (
    AdmissionRecord,
    ChampionPromotion,
    ConfirmationRecord,
    Gate,
    LedgerEntry,
    Policy,
    PromotionTemplate,
    Record,
    ReleaseRecord,
    Rung,
    SealedOpening,
    StageApproval,
    Zone,
    digest,
    replace,
)
from studbook.release import ALONE
from studbook.seal import KeyRing, seal

OWNERS = {"champion-promotion/1": PERSON, "policy/1": PERSON}


# -- what a forger writes ----------------------------------------------------------------------------------------


def passed(template: PromotionTemplate, evidence: str = "") -> PromotionTemplate:
    """A template that says of every gate that it is passed, on that evidence where it has none."""

    def lied(gate: Gate) -> Gate:
        return msgspec.structs.replace(gate, status="passed", evidence=gate.evidence or evidence or template.decision)

    forged: PromotionTemplate = replace(template, gates=tuple(lied(g) for g in template.gates))
    return forged


def newest_template(lab: Lab) -> PromotionTemplate:
    return list(lab.desk.all(PromotionTemplate))[-1][1]


def into_shadow(lab: Lab, template: PromotionTemplate) -> tuple[Record, ...]:
    """Template, admission and release of a candidate, as the lab would write them."""
    admission = AdmissionRecord(
        header=lab.desk.header, artifact=template.artifact, template=digest(template), claim=Rung.TRAINED
    )
    return template, admission, release_on(lab, digest(admission), template.artifact)


def release_on(lab: Lab, admission: str, artifact: str) -> ReleaseRecord:
    shadow = lab.desk.channels()["shadow"]
    return ReleaseRecord(
        header=lab.desk.header,
        channel="shadow",
        artifact=artifact,
        admission=admission,
        deployment=ALONE,
        rollback=shadow.back,
    )


def to_champion(lab: Lab) -> tuple[PromotionTemplate, ChampionPromotion]:
    """Template and promotion of the winner, every gate called passed, as the state of the lab would have it."""
    decision, record = decision_for(lab.desk, winner(lab))
    channels = lab.desk.channels()
    manifest = next(s.manifest for s in record.standings if s.artifact == record.chosen)
    evidence = {"shadow": channels["shadow"].record, "way-back": channels["champion"].record, "hold": None}
    gates = tuple(
        Gate(name=n, status="passed", evidence=evidence.get(n) or decision, satisfied_by="person", detail="sure")
        for n in ("shadow", "way-back", "decided-against", "hold", "approvals", "person")
    )
    template = PromotionTemplate(
        header=lab.desk.header,
        stage="champion",
        artifact=winner(lab),
        manifest=manifest,
        decision=decision,
        gates=gates,
    )
    return template, promotion_on(lab, template)


def promotion_on(lab: Lab, template: PromotionTemplate) -> ChampionPromotion:
    champion = lab.desk.channels()["champion"]
    return ChampionPromotion(
        header=lab.desk.header,
        basis="promotion",
        artifact=template.artifact,
        evidence=digest(template),
        promoted_by=PERSON,
        reason="",
        deployment=ALONE,
        rollback=champion.back,
    )


def approve(lab: Lab, stage: str, *people: str) -> None:
    for person in people:
        assert lab.approve(winner(lab), person, [stage]).committed  # type: ignore[union-attr]


def approval(lab: Lab, **changes: Any) -> StageApproval:
    """An approval of the winner for shadow by ann, with changes."""
    fields = {
        "header": lab.desk.header,
        "stage": "shadow",
        "artifact": winner(lab),
        "decision": decision_for(lab.desk, winner(lab))[0],
        "standing": standing(lab.desk, winner(lab)),
        "approved_by": PERSON,
        "reason": "",
    }
    return StageApproval(**{**fields, **changes})


# -- stages ------------------------------------------------------------------------------------------------------


def test_shadow_straight_to_champion_skipping_shadow(held: Place) -> None:
    with held.open() as lab:
        with refused("order.gate"):
            lab.release(winner(lab), "champion", PERSON)
        found = told(lab, *to_champion(lab), owners=OWNERS)
        assert isinstance(found, OutOfOrder) and "was not in shadow" in found.message
    assert problems(held)


def test_a_promotion_resumed_before_approval(held: Place) -> None:
    with held.open() as lab:
        with refused("order.gate"):
            lab.release(winner(lab), "shadow")
        # The template says honestly that approvals are pending; admission and release follow all the same.
        found = told(lab, *into_shadow(lab, newest_template(lab)))
        assert isinstance(found, OutOfOrder) and found.reason == "order.gate"
    assert problems(held)


def test_a_look_at_the_sealed_suites_that_was_not_logged(new_lab: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_lab.open() as lab:
        monkeypatch.setattr(gates, "_open_sealed", lambda *_: 1)
        assert lab.round(CLUSTER).released
        entry = next(e for e in lab.desk.entries() if e.record_kind == ConfirmationRecord.kind())
        assert str(lab.desk.workspace.record_path(entry)) in problems(new_lab)


@pytest.mark.parametrize("change", [{"opening": 21}, {"of": 99}, {"decision": "again"}])
def test_a_look_beyond_what_the_policy_allows_or_taken_twice(held: Place, change: dict[str, Any]) -> None:
    with held.open() as lab:
        first = next(o for _, o in lab.desk.all(SealedOpening))
        other = next(d for d, r in lab.desk.all(PromotionTemplate))
        found = told(
            lab, replace(first, **({"opening": 2} if change.get("decision") else {"decision": other} | change))
        )
        assert isinstance(found, DigestDiffers) and "opening" in found.message


def test_a_template_that_calls_a_pending_gate_passed(held: Place) -> None:
    with held.open() as lab:
        found = told(lab, *into_shadow(lab, passed(newest_template(lab))))
        assert isinstance(found, DigestDiffers)
        assert found.where == "promotion-template: approvals"


def test_a_template_that_leaves_a_gate_out(held: Place) -> None:
    with held.open() as lab:
        short = newest_template(lab)
        short = replace(short, gates=tuple(g for g in short.gates if g.name != "approvals"))
        found = told(lab, *into_shadow(lab, short))
        assert isinstance(found, DigestDiffers) and found.reason == "release.template"


def test_an_admission_of_another_day_used_again(shadowed: Place) -> None:
    """Everything was in order when the winner entered shadow. It was taken out; the old admission is used once more."""
    with shadowed.open() as lab:
        admission = next(d for d, _ in lab.desk.all(AdmissionRecord))
        lab.rollback("shadow", "it misbehaved")
        found = told(lab, release_on(lab, admission, winner(lab)))
        assert isinstance(found, OutOfOrder) and found.where == "promotion-template: approvals"


# -- races -------------------------------------------------------------------------------------------------------


def test_two_promotions_racing_in_two_processes(new_lab: Place) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        with pytest.raises(Busy):
            new_lab.open()
    command = [sys.executable, "-m", "studbook", "--lab", str(new_lab.path), "--keys", str(new_lab.keys)]
    both = [
        subprocess.Popen([*command, "release", won, "--to", "champion", "--as", PERSON], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told_ = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, OutOfOrder.exit_code], [0, Busy.exit_code]), told_
    with new_lab.open(writer=False) as lab:
        assert lab.desk.champion() == won
        assert len([p for _, p in lab.desk.all(ChampionPromotion) if p.basis == "promotion"]) == 1
    assert problems(new_lab) == []


@pytest.fixture
def two_wait(shadowed: Place, clock: Clock) -> tuple[Place, list[str]]:
    """Two promotions of the same winner that ann signed and that wait for bob; and their digests."""
    with shadowed.open() as lab:
        lab.keys.rotate(PERSON, needs={"champion-promotion/1": 2})
        approve(lab, "champion", OTHER)
        clock(25)
        found = [lab.release(winner(lab), "champion", PERSON, reason) for reason in ("first", "second")]
    assert all(isinstance(f, Signed) and not f.committed for f in found)
    return shadowed, [f.digest for f in found]  # type: ignore[union-attr]


def test_two_promotions_that_wait_and_race_for_the_last_signature(two_wait: tuple[Place, list[str]]) -> None:
    place, (first, second) = two_wait
    with place.open() as lab:
        assert lab.approve(first, OTHER).committed  # type: ignore[union-attr]
        entries = len(lab.desk.entries())
        with refused("order.channel"):
            lab.approve(second, OTHER)
        assert len(lab.desk.entries()) == entries
        assert [*waiting(lab.desk)] == [second]
    assert problems(place) == []


def test_a_promotion_whose_shadow_was_rolled_back_meanwhile(two_wait: tuple[Place, list[str]]) -> None:
    place, (first, _) = two_wait
    with place.open() as lab:
        lab.rollback("shadow", "it misbehaved")
        with pytest.raises(OutOfOrder, match="was not in shadow"):
            lab.approve(first, OTHER)
        with refused("order.gate"):
            lab.release(winner(lab), "champion", PERSON)
        assert lab.desk.champion() == lab.desk.find_model("base")
    assert problems(place) == []


@pytest.mark.parametrize("what", ["revoked", "policy"])
def test_a_promotion_that_waited_while_the_ground_moved(
    two_wait: tuple[Place, list[str]], tmp_path: Path, what: str
) -> None:
    place, (first, _) = two_wait
    with place.open() as lab:
        if what == "revoked":
            lab.keys.revoke(winner(lab), PERSON, "answers were seen in training")
        else:
            change_policy(lab, tmp_path, notes="another day")
        with refused("order.revoked" if what == "revoked" else "order.gate"):
            lab.approve(first, OTHER)
        assert lab.desk.champion() == lab.desk.find_model("base")
    assert problems(place) == []


def test_a_promotion_written_by_hand_after_its_shadow_was_rolled_back(shadowed: Place, clock: Clock) -> None:
    with shadowed.open() as lab:
        approve(lab, "champion", OTHER)
        clock(25)
        template, promotion = to_champion(lab)
        lab.rollback("shadow")
        assert isinstance(told(lab, template, promotion, owners=OWNERS), OutOfOrder)


# -- clocks ------------------------------------------------------------------------------------------------------


def test_a_clock_set_back_to_shorten_a_hold(held: Place, clock: Clock) -> None:
    """Into shadow with the clock a day back, then promotion with the right one: the first step is refused already."""
    with held.open() as lab:
        approve(lab, "shadow", PERSON, OTHER)
        clock(-25)
        with refused("ledger.clock"):
            lab.release(winner(lab), "shadow")
        clock(0)
        lab.release(winner(lab), "shadow")
        approve(lab, "champion", OTHER)
        with pytest.raises(OutOfOrder, match="gate hold is pending"):
            lab.release(winner(lab), "champion", PERSON)
    assert problems(held) == []


def test_a_clock_set_forward_and_back_to_shorten_a_hold(shadowed: Place, clock: Clock) -> None:
    """Anything that enters a day ahead stops every entry until that day has come; the hold is not over unnoticed."""
    with shadowed.open() as lab:
        clock(25)
        approve(lab, "champion", OTHER)
        clock(1)
        with pytest.raises(OutOfOrder, match="gate hold is pending"):
            lab.release(winner(lab), "champion", PERSON)
        with refused("ledger.clock"):
            lab.rollback("shadow")
    assert problems(shadowed) == []


def test_a_clock_that_is_set_right_by_minutes_stops_nothing(held: Place, clock: Clock) -> None:
    with held.open() as lab:
        approve(lab, "shadow", PERSON)
        clock(-0.05)
        approve(lab, "shadow", OTHER)
        times = [e.time for e in lab.desk.entries()]
    assert times == sorted(times) and times[-1] == times[-2]
    assert problems(held) == []


def test_a_hold_shortened_by_hand(shadowed: Place) -> None:
    with shadowed.open() as lab:
        approve(lab, "champion", OTHER)
        found = told(lab, *to_champion(lab), owners=OWNERS)
        assert isinstance(found, DigestDiffers) and found.reason == "release.template"


@pytest.mark.parametrize("time", ["2024-01-01T00:00:00.000000Z", "2027-02-30T00:00:00.000000Z"])
def test_a_ledger_line_dated_before_the_one_before_it_or_on_no_day(held: Place, time: str) -> None:
    with held.open() as lab:
        work = lab.desk.workspace
        record = approval(lab)
        envelope = seal(record, work.keys.find(work.authority(), Zone.RELEASE, record.kind(), PERSON))
        work.commit(record, envelope=envelope)
        last = work.ledger.entries[-1]
        lines = work.ledger.path.read_bytes().splitlines()
        key = work.keys.find(work.authority(), Zone.AUDIT, LedgerEntry.kind())
        forged = seal(replace(last, time=time), key)
    path = held.path / "audit" / "ledger.jsonl"
    rewrite(path, b"\n".join([*lines[:-1], forged]) + b"\n")
    with refused("ledger.clock"):
        held.open(writer=False)


# -- policies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "reason"), [(1, "replay"), (2, "same"), (4, "skip"), (2**53 - 1, "skip")])
def test_a_policy_of_another_version_than_the_next(held: Place, tmp_path: Path, version: int, reason: str) -> None:
    with held.open() as lab:
        path = edited(lab, tmp_path, {"notes": "weaker"}, version)
        with refused(f"policy.{reason}") as caught:
            lab.policies.sign(path, PERSON)
        assert caught.value.where == f"{path}: policy_version" and "to 3" in caught.value.advice
        assert lab.desk.policy[1].policy_version == 2


@pytest.mark.parametrize(("version", "reason"), [(1, "replay"), (2, "same"), (4, "skip")])
def test_a_policy_replay_of_an_older_version_or_a_skipped_one_written_by_hand(
    held: Place, version: int, reason: str
) -> None:
    with held.open() as lab:
        first = next(policy for _, policy in lab.desk.all(Policy))
        found = told(lab, replace(first, policy_version=version, notes="as weak as before"), owners=OWNERS)
        assert found is not None and found.reason == f"policy.{reason}"
    assert len(problems(held)) == 1


def test_a_policy_that_no_round_could_run_under_written_by_hand(held: Place) -> None:
    with held.open() as lab:
        policy = replace(lab.desk.policy[1], policy_version=3, operators=())
        found = told(lab, policy, owners=OWNERS)
        assert found is not None and found.reason == "policy.field"


def test_a_policy_that_waited_while_another_one_came_into_force(held: Place, tmp_path: Path) -> None:
    with held.open() as lab:
        lab.keys.new(OTHER, ["policy/1"], PERSON)
        lab.keys.rotate(PERSON, needs={"policy/1": 2})
        loose, strict = (lab.policies.sign(edited(lab, tmp_path, {"notes": n}), PERSON) for n in ("loose", "strict"))
        assert not loose.committed and not strict.committed
        assert lab.desk.policy[1].policy_version == 2
        assert lab.approve(strict.digest, OTHER).committed  # type: ignore[union-attr]
        with refused("policy.same"):
            lab.approve(loose.digest, OTHER)
        assert lab.desk.policy[1].notes == "strict"
    assert problems(held) == []


def test_a_policy_changed_between_round_and_promotion(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        before = decisions(lab)[-1].policy
        change_policy(lab, tmp_path, notes="stricter from today")
        assert lab.desk.policy[0] != before
        with pytest.raises(OutOfOrder, match="decided against another policy"):
            lab.release(won, "champion", PERSON)
        with pytest.raises(OutOfOrder, match="decided against another policy"):
            lab.approve(won, PERSON, ["champion"])
        assert lab.desk.champion() == lab.desk.find_model("base")
    assert problems(new_lab) == []


# -- approvals ---------------------------------------------------------------------------------------------------


def test_approvals_by_one_person_with_two_keys(held: Place) -> None:
    with held.open() as lab:
        second = lab.keys.new(PERSON, ["stage-approval/1"], PERSON)
        assert second.committed
        work = lab.desk.workspace
        allowed = {g.key for g in work.root.keys if g.owner == PERSON and "stage-approval/1" in g.kinds}
        for number, key in enumerate(work.keys.held(allowed)):
            record = approval(lab, reason=f"key {number}")
            work.commit(record, envelope=seal(record, key))
        found = votes(lab.desk, "shadow", winner(lab), decision_for(lab.desk, winner(lab))[0])
        assert len({v.key for v in found}) == 2 and {v.owner for v in found} == {PERSON}
        with pytest.raises(OutOfOrder, match="1 of 2 distinct owners"):
            lab.release(winner(lab), "shadow")


def test_approvals_with_one_key_that_two_roots_list_for_two_people(held: Place) -> None:
    with held.open() as lab:
        approve(lab, "shadow", OTHER)
        key = lab.desk.workspace.keys.public_of(f"people/release/{OTHER}-2")
        assert key is not None
        # The same key is now carol's; she holds it, and approves as well.
        spare = KeyRing(lab.desk.workspace.keys.folder.parent / "spare").create("people/release/bob").public
        assert lab.keys.rotate(PERSON, key, public=spare).committed
        assert lab.keys.new("carol", ["stage-approval/1"], PERSON, key).committed
        approve(lab, "shadow", "carol")
        with pytest.raises(OutOfOrder, match="1 of 2 distinct owners"):
            lab.release(winner(lab), "shadow")


def other_than(lab: Lab, artifact: str) -> str:
    return next(m.artifact.sha256 for _, m in lab.desk.candidates() if m.artifact.sha256 != artifact)


REUSED: dict[str, Any] = {
    "another candidate": lambda lab: {"artifact": other_than(lab, winner(lab))},
    "another stage": lambda lab: {"stage": "champion"},
    "a stage that the policy does not list": lambda lab: {"stage": "canary"},
    "another place in its life": lambda lab: {"standing": lab.desk.channels()["champion"].record},
}


@pytest.mark.parametrize("how", REUSED)
def test_an_approval_reused_for(held: Place, how: str) -> None:
    with held.open() as lab:
        approve(lab, "shadow", OTHER)
        found = told(lab, approval(lab, **REUSED[how](lab)), owners={"stage-approval/1": PERSON})
        assert isinstance(found, (OutOfOrder, OutsideAllowlist))
        with pytest.raises(OutOfOrder, match="1 of 2 distinct owners"):
            lab.release(winner(lab), "shadow")


def test_an_approval_reused_for_another_decision(held: Place, tmp_path: Path) -> None:
    with held.open() as lab:
        approve(lab, "shadow", PERSON, OTHER)
        change_policy(lab, tmp_path, notes="the same gates, another day")
        assert "0 of 2" in lab.round(CLUSTER).held
        assert len(decisions(lab)) == 2 and decisions(lab)[0].chosen == decisions(lab)[1].chosen
        with pytest.raises(OutOfOrder, match="0 of 2 distinct owners"):
            lab.release(winner(lab), "shadow")
        old = next(d for d, r in lab.desk.all(StageApproval) if r.approved_by == PERSON)
        assert isinstance(told(lab, *into_shadow(lab, passed(newest_template(lab), old))), DigestDiffers)


def test_an_approval_by_a_revoked_key(held: Place) -> None:
    with held.open() as lab:
        stolen = lab.desk.workspace.keys.public_of(f"people/release/{OTHER}-2")
        assert stolen is not None
        since = len(lab.desk.entries())
        approve(lab, "shadow", PERSON, OTHER)
        lab.release(winner(lab), "shadow")
        lab.keys.revoke(stolen, PERSON, "a stick was lost", since)
        with pytest.raises(NotAuthorised):
            lab.approve(winner(lab), OTHER, ["champion"])
        # What rests on it is found although every gate stood open when it moved.
        with pytest.raises(DigestDiffers) as caught:
            check_admitting(lab.desk, digest(newest_template(lab)), datetime.now(UTC))
        assert caught.value.where == "promotion-template: approvals"
    assert kinds(problems(held)) == ["admission-record-1", "release-record-1"]
    with held.open() as lab:
        assert kinds([v.where for v in lab.verify().void]) == ["stage-approval-1"]
        # Once shadow rests on it no longer, there is nothing left to do.
        lab.rollback("shadow", "its approval was a thief's")
        found = lab.verify()
    assert found.ok
    assert kinds([v.where for v in found.void]) == ["stage-approval-1", "admission-record-1", "release-record-1"]


def kinds(places: list[str]) -> list[str]:
    """The kinds of the records that lie at some places."""
    return [Path(where).parent.name for where in places]


def test_an_approval_that_names_somebody_else(held: Place) -> None:
    with held.open() as lab:
        found = told(lab, approval(lab, approved_by=OTHER), owners={"stage-approval/1": PERSON})
        assert isinstance(found, NotAuthorised) and "names bob" in found.message


def test_a_running_process_that_approves(held: Place) -> None:
    with held.open() as lab:
        work = lab.desk.workspace
        key = work.keys.find(work.authority(), Zone.RELEASE, "release-record/1")
        record = approval(lab)
        with refused("authority.zone"):
            work.commit(record, envelope=seal(record, key))
