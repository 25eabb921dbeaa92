"""What may go from a lab, who lets it go, and that verify still explains what is gone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import PARENTS, PERSON, Place, founder, lab_files, problems, rewrite, run_cli
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError
from studbook.lab import Lab
from studbook.lab.absence import check_clearing, check_tombstone
from studbook.records import ClearingRecord, OperatorReceipt, Tombstone, replace


def blob(lab: Lab, name: str) -> Path:
    return lab.desk.workspace.blob_path(lab.desk.find_model(name))


def loser(lab: Lab) -> str:
    """Name of a candidate that was archived and stands in no channel."""
    held = {s.artifact for c in lab.desk.channels() for s in lab.desk.history(c)}
    return next(m.name for _, m in lab.desk.candidates() if m.artifact.sha256 not in held)


def test_du_accounts_for_every_byte_of_the_lab(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        rows = [row for row in lab.du() if row.zone != "cache"]
        would = lab.gc(dry_run=True).freed
        spare = sum(row.reclaimable for row in lab.du())
    other = {lived_lab.path / "studbook.json", *(lived_lab.path / "release" / "channels").iterdir()}
    files = [p for p in lab_files(lived_lab) if p not in other]
    assert sum(row.size for row in rows) == sum(p.stat().st_size for p in files)
    assert sum(row.files for row in rows) == len(files)
    assert all(row.needed + row.reclaimable <= row.size for row in rows)
    assert would == spare > 0


def test_gc_frees_what_a_receipt_makes_again_and_the_receipt_makes_it_again(old_lab: Place) -> None:
    with old_lab.open() as lab:
        name = loser(lab)
        path, data = blob(lab, name), blob(lab, name).read_bytes()
        before = {p: p.stat().st_size for p in lab_files(old_lab)}
        planned = lab.gc(dry_run=True)
        assert {p: p.stat().st_size for p in lab_files(old_lab)} == before
        found = lab.gc()
        assert (found.candidates, found.freed) == (planned.candidates, planned.freed)
        assert name in found.candidates
        assert not path.exists()
        gone = set(before) - set(lab_files(old_lab))
        assert sum(before[p] for p in gone) == found.freed
        held = {s.artifact for c in lab.desk.channels() for s in lab.desk.history(c)}
        assert not {p.name for p in gone} & (held | set(lab.desk.registered()))
        seen = lab.verify()
        assert seen.ok, seen.problems
        assert {a.where for a in seen.absent} >= {str(p) for p in gone}
        assert any("a receipt makes it again" in a.what for a in seen.absent)
        assert lab.gc().record is None
        assert lab.ready().ready
        lab.reproduce(name, restore=True)
        assert path.read_bytes() == data
        assert str(path) not in {a.where for a in lab.verify().absent}


def test_a_file_that_is_gone_without_a_record_is_a_problem(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path = blob(lab, loser(lab))
        path.unlink()
        assert str(path) in {p.where for p in lab.verify().problems}


def test_gc_keeps_candidates_whose_fate_is_open(new_lab: Place) -> None:
    with new_lab.open() as lab:
        artifact = lab.breed("rot", {"operator": "blend/1", "weights": "uniform"})
        assert lab.gc().candidates == ()
        assert lab.desk.workspace.blob_path(artifact).is_file()


def test_gc_takes_leftovers_of_finished_work_and_leaves_what_can_be_gone_on_with(old_lab: Place) -> None:
    with old_lab.open() as lab:
        _, manifest = lab.desk.candidates()[0]
        recipe = lab.show(manifest.template)[0][1].recipe_sha256  # type: ignore[attr-defined]
        done = lab.desk.workspace.resume_folder(recipe[:16])
        pending = lab.desk.workspace.resume_folder("f" * 16)
        for folder in (done, pending):
            (folder / "part").write_bytes(b"x" * 100)
        assert "cache/resume/" + recipe[:16] in lab.gc().folders
        assert not done.exists()
        assert (pending / "part").is_file()


@pytest.mark.parametrize("change", ["source", "stranger", "parent"])
def test_a_clearing_that_lets_more_go_than_receipts_make_is_a_lie(old_lab: Place, change: str) -> None:
    with old_lab.open() as lab:
        found = lab.gc()
        assert found.record is not None
        record = lab.desk.workspace.get(found.record, ClearingRecord)
        check_clearing(lab.desk, record)
        named = {"source": "base", "stranger": "champion", "parent": PARENTS[0]}[change]
        more = record.blobs[0].__class__(sha256=lab.desk.find_model(named), size=1)
        with pytest.raises(DigestDiffers, match="do not make"):
            check_clearing(lab.desk, replace(record, blobs=(*record.blobs, more)))


def test_a_forged_clearing_of_a_winner_in_a_channel_is_found(new_lab: Place) -> None:
    """Its receipt makes it again, but docs/living.md promises that it stays: a rollback must not have to wait for it."""
    with new_lab.open() as lab:
        winner = lab.round("rot").released
        assert winner
        receipt, made = next((d, r) for d, r in lab.desk.all(OperatorReceipt) if r.output.sha256 == winner)
        forged = ClearingRecord(header=lab.desk.header, receipts=(receipt,), blobs=(made.output,))
        with pytest.raises(DigestDiffers, match="was in a channel"):
            check_clearing(lab.desk, forged)
        lab.desk.workspace.commit(forged)
        lab.desk.workspace.discard(winner)
        place = str(lab.desk.workspace.record_path(lab.desk.entries()[-1]))
        assert place in {p.where for p in lab.verify().problems}


def test_a_withdrawn_parent_is_gone_and_the_lab_is_still_explained(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path = blob(lab, PARENTS[0])
        bred = {d.artifact for d in lab.descendants(PARENTS[0])}
        found = lab.withdraw(PARENTS[0], PERSON, "its author asked for it")
        assert found.signed.committed
        assert not path.exists()
        assert found.freed > 0
        assert {d.artifact for d in found.descendants} == bred
        seen = lab.verify()
        assert seen.ok, seen.problems
        assert any("its author asked for it" in a.what for a in seen.absent if a.where == str(path))
        assert {d.artifact for d in lab.descendants(revoked=True)} == bred
        with pytest.raises(OutOfOrder, match="was withdrawn by ann"):
            lab.register(founder(PARENTS[0]))
        with pytest.raises(OutOfOrder, match="was withdrawn"):
            lab.withdraw(PARENTS[0], PERSON, "again")
        with pytest.raises(StudbookError):
            lab.breed("rot", {"operator": "blend/1", "weights": "uniform"}, [PARENTS[0], PARENTS[1]])
    assert not path.exists()


def test_readiness_after_a_withdrawal_tells_what_can_no_longer_be_shown(old_lab: Place) -> None:
    with old_lab.open() as lab:
        assert lab.ready().ready
        lab.withdraw(PARENTS[0], PERSON, "its author asked for it")
        found = {c.name: c for c in lab.ready().criteria}
        below = {d.artifact for d in lab.descendants(PARENTS[0])}
        rest = [m for _, m in lab.desk.candidates() if m.artifact.sha256 not in below]
        assert below
        assert "withdrawn" in found["reproduce"].detail
        assert found["reproduce"].passed == bool(rest)
        assert all(c.passed for name, c in found.items() if name != "reproduce"), found
        lab.withdraw(loser(lab), PERSON, "nobody wants it")
        assert all(c.passed for c in lab.ready().criteria if c.name != "reproduce")


def test_readiness_after_a_former_champion_was_withdrawn_does_not_count_the_way_back_to_it(old_lab: Place) -> None:
    with old_lab.open() as lab:
        winner = lab.desk.channels()["shadow"].artifact
        assert winner
        lab.release(winner, "champion", PERSON, "once more")
        lab.withdraw("base", PERSON, "its owner asked for it")
        found = next(c for c in lab.ready().criteria if c.name == "rollback")
        assert found.passed
        assert "withdrawn" in found.detail


def test_withdrawn_data_go_and_what_was_trained_on_them_is_listed(old_lab: Place) -> None:
    with old_lab.open() as lab:
        source = lab.desk.registered()[lab.desk.find_model(PARENTS[0])][1].source
        data = source.data[0]  # type: ignore[union-attr]
        found = lab.withdraw(data, PERSON, "not free")
        assert PARENTS[0] in {d.name for d in found.descendants}
        stone = found.signed.record
        assert isinstance(stone, Tombstone)
        assert stone.blobs
        assert not any(lab.desk.workspace.blob_path(b.sha256).exists() for b in stone.blobs)
        seen = lab.verify()
        assert seen.ok, seen.problems
        more = replace(stone, blobs=(*stone.blobs, lab.desk.registered()[lab.desk.find_model("base")][1].artifact))
        with pytest.raises(DigestDiffers, match="alone"):
            check_tombstone(lab.desk, more)
        with pytest.raises(DigestDiffers, match="does not speak for"):
            check_tombstone(lab.desk, replace(stone, artifact="0" * 64))


def test_what_a_channel_points_at_is_not_withdrawn(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path = blob(lab, "champion")
        with pytest.raises(OutOfOrder, match="champion points at it"):
            lab.withdraw("champion", PERSON, "why")
        assert path.exists()


@pytest.fixture
def waits(new_lab: Place) -> tuple[Place, str, str]:
    """A lab with a round's winner in shadow no longer, whose withdrawal waits for bob; winner, and what waits."""
    with new_lab.open() as lab:
        lab.keys.new("bob", ["tombstone/1"], PERSON)
        lab.keys.rotate(PERSON, needs={"tombstone/1": 2})
        winner = lab.round("rot").released
        assert winner
        lab.rollback("shadow")
        found = lab.withdraw(winner, PERSON, "why")
        assert not found.signed.committed
    return new_lab, winner, found.signed.digest


def test_a_withdrawal_that_waited_is_refused_once_a_channel_points_at_the_model(waits: tuple[Place, str, str]) -> None:
    place, winner, waiting = waits
    with place.open() as lab:
        lab.release(winner, "shadow")
        with pytest.raises(OutOfOrder, match="shadow points at it") as caught:
            lab.approve(waiting, "bob")
        assert caught.value.reason == "lab.deployed"
        assert blob(lab, winner).is_file()
    with place.open() as lab:
        assert blob(lab, winner).is_file()


def test_the_last_signature_of_a_withdrawal_deletes_the_bytes(waits: tuple[Place, str, str]) -> None:
    place, winner, waiting = waits
    with place.open() as lab:
        path = blob(lab, winner)
        assert lab.approve(waiting, "bob").committed  # type: ignore[union-attr]
        assert not path.exists()
        assert lab.verify().ok


def test_a_withdrawal_that_a_crash_cut_short_is_finished_by_the_next_writer(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path = blob(lab, PARENTS[0])
        data = path.read_bytes()
        lab.withdraw(PARENTS[0], PERSON, "why")
    path.write_bytes(data)
    with old_lab.open():
        assert not path.exists()


def test_a_file_that_something_else_has_too_by_now_outlives_a_withdrawal(opened: Lab, tmp_path: Path) -> None:
    write_llama(tmp_path / "one", 0)
    write_llama(tmp_path / "two", 1)
    assert (tmp_path / "one" / "config.json").read_bytes() == (tmp_path / "two" / "config.json").read_bytes()
    opened.register(tmp_path / "one")
    opened.withdraw("one", PERSON, "why")
    opened.register(tmp_path / "two")
    place = Place(opened.desk.workspace.path, opened.desk.workspace.keys.folder)
    opened.close()
    with place.open() as lab:
        assert lab.verify().ok
    copy = tmp_path / "copy"
    with Lab(place.path, place.keys, writer=False, still=True) as lab:
        lab.backup(copy)
    shared = hashlib.sha256((tmp_path / "two" / "config.json").read_bytes()).hexdigest()
    assert list(copy.rglob(shared))


def test_a_tombstone_written_by_hand_for_a_model_in_a_channel_lets_nothing_go(old_lab: Place) -> None:
    with old_lab.open() as lab:
        champion = lab.desk.champion()
        digest, manifest = lab.desk.registered()[champion]
        path = lab.desk.workspace.blob_path(champion)
        forged = Tombstone(
            header=lab.desk.header,
            withdrawn=digest,
            artifact=champion,
            blobs=(manifest.artifact,),
            withdrawn_by=PERSON,
            reason="",
        )
        lab.desk.workspace.commit(forged, owner=PERSON)
        record = str(lab.desk.workspace.record_path(lab.desk.entries()[-1]))
    with old_lab.open():
        assert path.is_file()
    assert problems(old_lab) == [record]


def test_what_a_stolen_key_withdrew_stays_once_it_was_put_back_and_the_key_is_revoked(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path, since = blob(lab, PARENTS[0]), len(lab.desk.entries())
        data = path.read_bytes()
        lab.withdraw(PARENTS[0], PERSON, "the thief's")
        stolen = next(g.key for g in lab.desk.workspace.root.keys if "tombstone/1" in g.kinds)
        assert lab.keys.rotate(PERSON, stolen[:16]).committed
        lab.keys.revoke(stolen[:16], PERSON, "stolen", since)
    path.write_bytes(data)
    with old_lab.open():
        assert path.read_bytes() == data


def test_only_a_person_with_the_key_withdraws(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path = blob(lab, PARENTS[0])
        with pytest.raises(StudbookError):
            lab.withdraw(PARENTS[0], "mallory", "why")
        assert path.exists()
        assert lab.verify().ok


def test_a_withdrawal_with_other_bytes_in_its_place_is_a_problem(old_lab: Place) -> None:
    with old_lab.open() as lab:
        path = blob(lab, PARENTS[0])
        lab.withdraw(PARENTS[0], PERSON, "why")
        path.write_bytes(b"something else")
        assert str(path) in {p.where for p in lab.verify().problems}
        rewrite(path, b"")
    with old_lab.open(writer=False) as lab:
        assert not lab.verify().ok


def test_the_verbs_say_what_went(old_lab: Place) -> None:
    assert "reclaimable" in run_cli(old_lab, "du").stdout
    dry = run_cli(old_lab, "gc", "--dry-run")
    assert "would free" in dry.stdout
    done = json.loads(run_cli(old_lab, "--json", "gc").stdout)
    assert done["record"]
    gone = run_cli(old_lab, "withdraw", PARENTS[0], "--as", PERSON, "--reason", "asked for")
    assert gone.returncode == 0, gone.stderr
    assert "made from it, and still here" in gone.stdout
    seen = run_cli(old_lab, "verify")
    assert seen.returncode == 0, seen.stdout
    assert "withdrawn by ann" in seen.stdout
