"""Ways back that lie: to what is gone, damaged or revoked, to what never was there, and forth again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, problems, rewrite, run_cli
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.channels import sync_aliases
from studbook.lab.replay import check_record
from studbook.records import (
    AdmissionRecord,
    ChampionPromotion,
    LedgerEntry,
    PromotionTemplate,
    ReleaseRecord,
    RollbackRecord,
    Rung,
    ViabilityDecision,
    digest,
    replace,
)
from studbook.release import ALONE, admit, enter, gate, promote

FIRST, SECOND, THIRD = "base", *PARENTS


def crown(lab: Lab, name: str) -> str:
    """Sign by hand what makes a model the champion by way of shadow; the digest of the promotion.

    The papers cite no decision, so `verify` refuses them; what a rollback looks at is as it would be.
    """
    desk, artifact = lab.desk, lab.desk.find_model(name)
    other = desk.registered()[artifact][0]
    passed = gate("decision", True, other, "decisions", "chosen")

    def paper(stage: str) -> PromotionTemplate:
        return PromotionTemplate(
            header=desk.header, stage=stage, artifact=artifact, manifest=other, decision=other, gates=(passed,)
        )

    template = desk.workspace.commit(paper("shadow"))
    admission = admit(desk.header, paper("shadow"), template, Rung.STRUCTURAL)
    admitted = desk.workspace.commit(admission)
    desk.workspace.commit(enter(desk.header, "shadow", admission, admitted, ALONE, desk.channels()["shadow"]))
    desk.workspace.commit(paper("champion"))
    promotion = promote(desk.header, paper("champion"), PERSON, "", ALONE, desk.channels()["champion"])
    return desk.workspace.commit(promotion, owner=PERSON)


def forge(lab: Lab, artifact: str | None, restored: str | None, channel: str = "champion") -> StudbookError | None:
    """Sign a rollback by hand; what replaying it against the lab before it says."""
    undone = lab.desk.channels()[channel].record
    assert undone is not None
    record = RollbackRecord(
        header=lab.desk.header,
        channel=channel,
        artifact=artifact,
        deployment=ALONE,
        undone=undone,
        restored=restored,
        reason="forged",
    )
    entry = lab.desk.workspace.entry(lab.desk.workspace.commit(record))
    assert entry is not None
    return replayed(lab, entry)


def replayed(lab: Lab, entry: LedgerEntry) -> StudbookError | None:
    try:
        check_record(lab.desk.at(entry.sequence), entry)
    except StudbookError as error:
        return error
    return None


def champion(lab: Lab) -> str:
    return lab.desk.name_of(lab.desk.champion())


def blob(lab: Lab, name: str) -> Path:
    return lab.desk.workspace.blob_path(lab.desk.find_model(name))


@pytest.fixture(scope="module")
def three(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab with three champions, one after the other; only copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("three"))
    with place.open() as lab:
        crown(lab, SECOND)
        crown(lab, THIRD)
    return place


@pytest.fixture
def place(three: Place, tmp_path: Path) -> Place:
    return three.copy(tmp_path / "copy")


@pytest.fixture
def lab(place: Place) -> Iterator[Lab]:
    with place.open() as opened:
        yield opened


# -- targets that cannot be restored -----------------------------------------------------------------------------


def gone(lab: Lab) -> None:
    blob(lab, SECOND).unlink()


def damaged(lab: Lab) -> None:
    data = bytearray(blob(lab, SECOND).read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(blob(lab, SECOND), bytes(data))


def revoked(lab: Lab) -> None:
    lab.keys.revoke(SECOND, PERSON, "leaked")


def record_revoked(lab: Lab) -> None:
    lab.keys.revoke(lab.desk.registered()[lab.desk.find_model(SECOND)][0], PERSON, "leaked")


def promotion_revoked(lab: Lab) -> None:
    second = lab.desk.find_model(SECOND)
    promotion = next(d for d, p in lab.desk.all(ChampionPromotion) if p.artifact == second)
    lab.keys.revoke(promotion, PERSON, "signed by mistake")


def linked(lab: Lab) -> None:
    path = blob(lab, SECOND)
    moved = path.with_name("elsewhere")
    path.rename(moved)
    path.symlink_to(moved)


TARGETS = {
    "target missing": (gone, DigestDiffers, "rollback.missing"),
    "target damaged": (damaged, DigestDiffers, "rollback.damaged"),
    "target is a link": (linked, DigestDiffers, "rollback.damaged"),
    "target revoked": (revoked, OutOfOrder, "rollback.revoked"),
    "record of the target revoked": (record_revoked, OutOfOrder, "rollback.revoked"),
    "promotion of the target revoked": (promotion_revoked, OutOfOrder, "rollback.revoked"),
}


@pytest.mark.parametrize("lie", TARGETS)
def test_a_way_back_that_cannot_be_gone_is_refused_and_the_next_one_is_named(lab: Lab, lie: str) -> None:
    spoil, kind, reason = TARGETS[lie]
    spoil(lab)
    before = lab.desk.channels(), len(lab.desk.entries())
    for to in (None, SECOND):
        with pytest.raises(kind) as caught:
            lab.rollback("champion", "it misbehaves", to)
        assert (type(caught.value), caught.value.reason) == (kind, reason)
        assert SECOND in caught.value.message
        first = lab.desk.find_model(FIRST)
        assert f"stands is {FIRST}: studbook rollback champion --to {first[:12]}" in caught.value.advice
    assert (lab.desk.channels(), len(lab.desk.entries())) == before
    record = lab.rollback("champion", "it misbehaves", first[:12])
    assert champion(lab) == FIRST
    assert record.artifact == first
    entry = lab.desk.entries()[-1]
    assert replayed(lab, entry) is None


def test_where_nothing_further_back_stands_the_refusal_says_so(lab: Lab) -> None:
    for name in (FIRST, SECOND):
        blob(lab, name).unlink()
    with pytest.raises(DigestDiffers) as caught:
        lab.rollback()
    assert "Nothing further back can be restored" in caught.value.advice
    assert champion(lab) == THIRD


def test_a_shadow_whose_way_back_was_revoked_can_still_be_emptied(lab: Lab) -> None:
    revoked(lab)
    with pytest.raises(OutOfOrder) as caught:
        lab.rollback("shadow")
    assert "studbook rollback shadow --to nothing" in caught.value.advice
    lab.rollback("shadow", to="nothing")
    assert lab.desk.channels()["shadow"].artifact is None
    assert replayed(lab, lab.desk.entries()[-1]) is None
    with pytest.raises(OutOfOrder, match="nothing to undo"):
        lab.rollback("shadow")


def test_a_champion_is_never_taken_away_without_another(lab: Lab) -> None:
    with pytest.raises(OutOfOrder, match="nothing never was champion"):
        lab.rollback("champion", to="nothing")
    found = forge(lab, None, None)
    assert isinstance(found, OutOfOrder)
    assert found.where == "rollback-record: restored"


# -- what never was there ----------------------------------------------------------------------------------------


def test_nothing_goes_back_to_what_never_was_champion(lab: Lab) -> None:
    shadow = [d for d, r in lab.desk.all(ReleaseRecord) if r.artifact == lab.desk.find_model(SECOND)][-1]
    with pytest.raises(UsageError):
        lab.rollback("champion", to="nobody")
    with pytest.raises(OutOfOrder, match="is dup-odd already") as caught:
        lab.rollback("champion", to=THIRD)
    assert caught.value.reason == "rollback.same"
    # It names a move of another channel, whose state holds the very model that was champion.
    assert getattr(forge(lab, lab.desk.find_model(SECOND), shadow), "reason", "") == "order.rollback"


def test_a_forged_way_back_to_what_never_was_champion_is_found(new_lab: Place) -> None:
    with new_lab.open() as lab:
        with pytest.raises(OutOfOrder, match="cap-rot never was champion") as caught:
            lab.rollback("champion", to=SECOND)
        assert caught.value.reason == "rollback.never"
        first = lab.desk.channels()["champion"].record
        assert getattr(forge(lab, lab.desk.find_model(SECOND), first), "reason", "") == "order.rollback"
        forged = str(lab.desk.workspace.record_path(lab.desk.entries()[-1]))
    assert problems(new_lab) == [forged]


def test_a_promotion_that_names_a_way_back_that_never_was_is_found(new_lab: Place) -> None:
    with new_lab.open() as lab:
        crown(lab, SECOND)
        true = next(p for _, p in lab.desk.all(ChampionPromotion) if p.basis == "promotion")
        state = lab.desk.channels()["champion"]
        back = structs.replace(state.back, artifact=lab.desk.find_model(THIRD))
        forged = ChampionPromotion(
            header=true.header,
            basis="promotion",
            artifact=true.artifact,
            evidence=true.evidence,
            promoted_by=PERSON,
            reason="again",
            deployment=ALONE,
            rollback=back,
        )
        lab.desk.workspace.commit(forged, owner=PERSON)
        assert champion(lab) == SECOND
        assert lab.desk.move_faults()[digest(forged)].words == "names a way back that was never there"


@pytest.mark.parametrize("lie", ["base", "never"])
def test_a_forged_move_keeps_nobody_from_throwing_the_stolen_key_out(new_lab: Place, lie: str) -> None:
    with new_lab.open() as lab:
        crown(lab, SECOND)
        stolen = next(g.key for g in lab.desk.workspace.root.keys if RollbackRecord.kind() in g.kinds)
        sync_aliases(lab.desk)
        states = lab.desk.channels()
        undone = states["champion" if lie == "never" else "shadow"].record
        assert undone is not None
        record = RollbackRecord(
            header=lab.desk.header,
            channel="champion",
            artifact=lab.desk.find_model(THIRD),
            deployment=ALONE,
            undone=undone,
            restored=None,
            reason="forged",
        )
        forged = lab.desk.workspace.commit(record)
        place = lab.desk.workspace.record_path(lab.desk.entries()[-1])
        since = len(lab.desk.entries()) - 1
    for verb in (["list", "models"], ["backup", str(new_lab.path.with_name("copy"))]):
        done = run_cli(new_lab, *verb)
        assert done.returncode == 0, done.stderr
    assert str(place) in problems(new_lab)
    with new_lab.open() as lab:
        assert lab.desk.channels() == states
        lab.keys.rotate(PERSON, "process/release/rollback")
        lab.keys.revoke(stolen[:16], PERSON, "stolen", since)
        assert lab.desk.void_moves() == {forged}
        lab.rollback()
        assert champion(lab) == FIRST


def test_nothing_goes_back_to_what_was_never_admitted(new_lab: Place) -> None:
    with new_lab.open() as lab:
        unadmitted(lab, SECOND)
        crown(lab, THIRD)
        with pytest.raises(OutOfOrder) as caught:
            lab.rollback()
        assert caught.value.reason == "rollback.admitted"
        assert FIRST in caught.value.advice
        way = lab.desk.ways_back("champion")[0]
        found = forge(lab, way.artifact, way.record)
        assert isinstance(found, OutOfOrder)
        assert (found.reason, found.where) == ("rollback.admitted", "rollback-record: restored")


def unadmitted(lab: Lab, name: str) -> None:
    """A promotion that a person signed for something that never passed a gate."""
    desk = lab.desk
    state = desk.channels()["champion"]
    evidence = next(d for d, _ in desk.all(AdmissionRecord)) if list(desk.all(AdmissionRecord)) else state.record
    assert evidence is not None
    record = ChampionPromotion(
        header=desk.header,
        basis="promotion",
        artifact=desk.find_model(name),
        evidence=evidence,
        promoted_by=PERSON,
        reason="",
        deployment=ALONE,
        rollback=state.back,
    )
    desk.workspace.commit(record, owner=PERSON)


def test_a_forged_way_back_to_a_revoked_model_is_found(lab: Lab) -> None:
    revoked(lab)
    way = lab.desk.ways_back("champion")[0]
    found = forge(lab, way.artifact, way.record)
    assert isinstance(found, OutOfOrder)
    assert found.reason == "rollback.revoked"
    assert "leaked" in found.message


def test_a_forged_way_back_to_a_revoked_promotion_is_found(lab: Lab) -> None:
    promotion_revoked(lab)
    way = lab.desk.ways_back("champion")[0]
    found = forge(lab, way.artifact, way.record)
    assert isinstance(found, OutOfOrder)
    assert found.reason == "rollback.revoked"


def test_a_rollback_to_what_a_revoked_promotion_put_there_is_no_way_round_it(lab: Lab) -> None:
    lab.rollback()
    crown(lab, THIRD)
    # SECOND stands on the way back by a rollback, and that rests on its first promotion.
    promotion_revoked(lab)
    with pytest.raises(OutOfOrder) as caught:
        lab.rollback("champion", "it misbehaves", SECOND)
    assert caught.value.reason == "rollback.revoked"


def test_a_rollback_taken_before_the_revocation_stays_valid(lab: Lab) -> None:
    lab.rollback()
    entry = lab.desk.entries()[-1]
    revoked(lab)
    assert replayed(lab, entry) is None


# -- back and forth ----------------------------------------------------------------------------------------------


def test_rolling_back_a_rollback_goes_further_back_and_never_forth(lab: Lab) -> None:
    lab.rollback()
    assert champion(lab) == SECOND
    with pytest.raises(OutOfOrder, match="dup-odd was undone, and a rollback never goes forward") as caught:
        lab.rollback("champion", to=THIRD)
    assert caught.value.reason == "rollback.undone"
    assert "--as NAME" in caught.value.advice
    lab.rollback()
    assert champion(lab) == FIRST
    with pytest.raises(OutOfOrder, match="nothing before it"):
        lab.rollback()


def test_a_forged_way_forth_to_what_was_undone_is_found(lab: Lab) -> None:
    undone = lab.desk.channels()["champion"]
    lab.rollback()
    assert getattr(forge(lab, undone.artifact, undone.record), "reason", "") == "order.rollback"


def test_after_going_back_by_name_the_next_rollback_goes_before_that(lab: Lab) -> None:
    lab.rollback("champion", to=SECOND)
    crown(lab, THIRD)
    lab.rollback("champion", to=FIRST)
    assert [way.artifact for way in lab.desk.ways_back("champion")] == []
    crown(lab, SECOND)
    assert [lab.desk.name_of(str(w.artifact)) for w in lab.desk.ways_back("champion")] == [FIRST]


def test_going_back_needs_a_process_key_and_nobody(place: Place, tmp_path: Path) -> None:
    shutil.move(place.keys / "people", tmp_path / "in-a-safe")
    for key in (place.keys / "process").rglob("*.pem"):
        if key.stem not in ("rollback", "audit"):
            key.unlink()
    done = run_cli(place, "rollback", "--to", FIRST, "--reason", "it misbehaves")
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["champion", "->", FIRST])


def test_a_rollback_signed_with_a_stolen_key_counts_no_longer_and_the_lab_lives_on(place: Place) -> None:
    with place.open() as lab:
        stolen = next(g.key for g in lab.desk.workspace.root.keys if RollbackRecord.kind() in g.kinds)
        theft = len(lab.desk.entries())
        lab.rollback("champion", "the thief's")
        lab.keys.rotate(PERSON, "process/release/rollback")
        crown(lab, FIRST)
        lab.keys.revoke(stolen[:16], PERSON, "stolen", theft)
    with place.open() as lab:
        assert champion(lab) == FIRST
        # It goes back to the champion before the theft, which the thief's rollback did not move.
        lab.rollback()
        assert champion(lab) == THIRD
        lab.rollback()
        assert champion(lab) == SECOND


def test_nothing_goes_back_to_what_was_installed_by_a_record_that_was_revoked(lab: Lab) -> None:
    installed = next(d for d, p in lab.desk.all(ChampionPromotion) if p.basis == "first")
    lab.keys.revoke(installed, PERSON, "signed by mistake")
    with pytest.raises(OutOfOrder) as caught:
        lab.rollback("champion", to=FIRST)
    assert caught.value.reason == "rollback.admitted"
    assert champion(lab) == THIRD


def test_what_a_thief_left_behind_does_not_keep_verify_from_finding_the_next_lie(new_lab: Place) -> None:
    with new_lab.open() as lab:
        lab.round(CLUSTER)
        stolen = next(g.key for g in lab.desk.workspace.root.keys if RollbackRecord.kind() in g.kinds)
        theft = lab.rollback("shadow", "the thief's")
        entry = lab.desk.workspace.entry(digest(theft))
        assert entry is not None
        left = [str(lab.desk.workspace.record_path(entry))]
        lab.keys.rotate(PERSON, "process/release/rollback")
        lab.keys.revoke(stolen[:16], PERSON, "stolen", entry.sequence)
    with new_lab.open() as lab:
        assert [v.where for v in lab.verify().void] == left
        assert problems(new_lab) == []
        decision = list(lab.desk.all(ViabilityDecision))[-1][1]
        lab.desk.workspace.commit(replace(decision, assumptions=("none",)))
        lied = str(lab.desk.workspace.record_path(lab.desk.entries()[-1]))
    assert problems(new_lab) == [lied]


def test_after_a_theft_the_alias_says_what_counts(new_lab: Place) -> None:
    with new_lab.open() as lab:
        crown(lab, SECOND)
        stolen = next(g.key for g in lab.desk.workspace.root.keys if RollbackRecord.kind() in g.kinds)
        theft = len(lab.desk.entries())
        lab.rollback("champion", "the thief's")
        lab.keys.rotate(PERSON, "process/release/rollback")
        alias = lab.desk.workspace.alias_path("champion")
        before = alias.read_bytes()
        lab.keys.revoke(stolen[:16], PERSON, "stolen", theft)
        assert alias.read_bytes() != before
    with new_lab.open() as lab:
        assert champion(lab) == SECOND
        assert alias.read_bytes() != before
        assert lab.desk.champion().encode() in alias.read_bytes()
