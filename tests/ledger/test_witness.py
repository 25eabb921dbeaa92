"""The witness outside the lab: it moves forward only, and a lab that is not what it saw is not written to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_fixtures import Place, rewrite
from ledger_fixtures import Long
from studbook import files
from studbook.errors import Busy, BytesLie, DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.lab import Lab
from studbook.ledger import Witness, default_witness
from studbook.ledger.note import origin_of, read_checkpoint, write_checkpoint
from studbook.records import Policy, replace
from studbook.seal import KeyRing
from studbook.workspace import Workspace, check_free


class Cut(Exception):
    """The power goes at this step."""


def opened(place: Place, *, writer: bool = True, witness: Path | None = None) -> Workspace:
    return Workspace(place.path, KeyRing(place.keys), writer=writer, witness=witness)


def add(place: Place, note: str) -> None:
    workspace = opened(place)
    _, policy = next(workspace.all(Policy))
    workspace.commit(replace(policy, notes=note))
    workspace.close()


def copy_of(place: Place) -> Path:
    """What an old backup of the lab holds, without its cache."""
    backup = place.path.with_name("backup")
    shutil.copytree(place.path, backup, ignore=shutil.ignore_patterns("cache"))
    return backup


def put_back(place: Place, backup: Path) -> None:
    shutil.rmtree(place.path)
    shutil.copytree(backup, place.path)


def witness_of(place: Place) -> Witness:
    return Witness(default_witness(place.path))


def seen(place: Place) -> int:
    data = witness_of(place).read()
    assert data is not None
    return read_checkpoint(data)[0].size


def refused(place: Place) -> StudbookError:
    """Why a writer is refused; a reader is let in, and told the same."""
    with pytest.raises(StudbookError) as caught:
        opened(place)
    reader = opened(place, writer=False)
    assert reader.ledger.witness_problem is not None
    assert reader.ledger.witness_problem.reason == caught.value.reason
    assert list(reader.all(Policy))
    return caught.value


def test_a_new_lab_has_a_witness_outside_that_follows_every_commit(young: Place) -> None:
    assert witness_of(young).path == young.path.with_name("lab.witness") / "checkpoint"
    assert seen(young) == 2
    add(young, "third")
    assert seen(young) == 3
    assert witness_of(young).read() == (young.path / "audit" / "checkpoint").read_bytes()
    assert opened(young, writer=False).ledger.witnessed == 3


def test_a_lab_restored_from_an_old_copy_is_read_but_not_written_to(young: Place) -> None:
    backup = copy_of(young)
    add(young, "lost with the restore")
    put_back(young, backup)
    error = refused(young)
    assert isinstance(error, DigestDiffers)
    assert error.reason == "ledger.older-than-witness"
    assert error.where == str(witness_of(young).path)
    assert "the witness saw 3 entries, and the lab has 2" in error.message
    assert seen(young) == 3


def test_a_restored_lab_that_grew_past_its_witness_is_a_fork(young: Place, tmp_path: Path) -> None:
    backup = copy_of(young)
    add(young, "what the witness saw")
    put_back(young, backup)
    witness_of(young).folder.rename(tmp_path / "away")
    add(young, "another history")
    add(young, "and more of it")
    (tmp_path / "away").rename(witness_of(young).folder)
    assert refused(young).reason == "ledger.fork"


def test_a_fork_of_the_same_length_is_refused(young: Place, tmp_path: Path) -> None:
    backup = copy_of(young)
    add(young, "what the witness saw")
    put_back(young, backup)
    witness_of(young).folder.rename(tmp_path / "away")
    add(young, "another history")
    (tmp_path / "away").rename(witness_of(young).folder)
    assert refused(young).reason == "ledger.fork"


def test_the_witness_of_another_lab_is_refused(young: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other", tmp_path / "others-keys")
    Lab.init(other.path, "bob", other.keys)
    rewrite(witness_of(young).path, (other.path / "audit" / "checkpoint").read_bytes())
    error = refused(young)
    assert isinstance(error, DigestDiffers)
    assert error.reason == "ledger.origin"


def test_an_older_checkpoint_put_back_beside_the_whole_ledger_is_a_replay(young: Place) -> None:
    checkpoint = young.path / "audit" / "checkpoint"
    older = checkpoint.read_bytes()
    add(young, "third")
    rewrite(checkpoint, older)
    error = refused(young)
    assert error.reason == "ledger.checkpoint-replayed"
    assert error.where == str(checkpoint)


def test_a_crash_between_checkpoint_and_witness_is_made_up_for(young: Place) -> None:
    before = witness_of(young).read()
    add(young, "third")
    assert before is not None
    rewrite(witness_of(young).path, before)
    reader = opened(young, writer=False)
    assert (reader.ledger.witness_problem, reader.ledger.witnessed, seen(young)) == (None, 2, 2)
    opened(young).close()
    assert seen(young) == 3


@pytest.mark.parametrize("content", [b"", b"garbage", b"a\n1\nAAAA\n\n\xe2\x80\x94 a AAAA\n"])
def test_a_garbled_witness_is_a_refusal_not_a_missing_one(young: Place, content: bytes) -> None:
    rewrite(witness_of(young).path, content)
    error = refused(young)
    assert isinstance(error, BytesLie)
    assert error.reason == "ledger.note"
    assert "appoint a new witness" in error.advice
    assert witness_of(young).path.read_bytes() == content


def test_a_witness_whose_signature_is_not_the_labs_is_refused(young: Place, long: Long) -> None:
    reader = opened(young, writer=False)
    tree = reader.ledger.tree
    forged = write_checkpoint(origin_of(reader.root.lab), tree.size, tree.root(), long.key)
    rewrite(witness_of(young).path, forged)
    assert refused(young).reason == "ledger.unsigned"


@pytest.mark.parametrize("kind", ["link", "folder", "dangling link"])
def test_something_else_in_the_witness_place_is_refused(young: Place, tmp_path: Path, kind: str) -> None:
    path = witness_of(young).path
    path.rename(tmp_path / "same-bytes")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "same-bytes"),
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to(tmp_path / "nothing"),
    }
    make[kind]()
    with pytest.raises(StudbookError) as caught:
        opened(young)
    assert caught.value.where == str(path)


def test_a_link_in_place_of_the_folder_is_refused_before_anything_is_written(young: Place, tmp_path: Path) -> None:
    folder = witness_of(young).folder
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BytesLie) as caught:
        opened(young)
    assert caught.value.where == str(folder)


def test_a_missing_witness_is_told_and_made_again_only_when_asked_for(young: Place) -> None:
    shutil.rmtree(witness_of(young).folder)
    add(young, "unseen")
    assert not witness_of(young).folder.exists()
    assert opened(young, writer=False).ledger.witnessed is None
    workspace = opened(young)
    workspace.appoint_witness()
    with pytest.raises(UsageError) as caught:
        workspace.appoint_witness()
    assert caught.value.reason == "ledger.witness-exists"
    workspace.close()
    assert seen(young) == 3
    add(young, "seen")
    assert seen(young) == 4


def test_a_witness_that_vanishes_under_a_writer_stops_it(young: Place) -> None:
    workspace = opened(young)
    _, policy = next(workspace.all(Policy))
    shutil.rmtree(witness_of(young).folder)
    with pytest.raises(UsageError) as caught:
        workspace.commit(replace(policy, notes="third"))
    assert caught.value.reason == "ledger.witness-missing"
    with pytest.raises(OutOfOrder) as stopped:
        workspace.commit(replace(policy, notes="fourth"))
    assert stopped.value.reason == "ledger.stopped"
    workspace.close()
    assert len(opened(young, writer=False).ledger.entries) == 3


def test_a_witness_in_a_named_folder_is_the_one_that_counts(young: Place, tmp_path: Path) -> None:
    workspace = opened(young, witness=tmp_path / "usb" / "stick")
    workspace.appoint_witness()
    _, policy = next(workspace.all(Policy))
    workspace.commit(replace(policy, notes="third"))
    workspace.close()
    assert seen(young) == 2
    named = Witness(tmp_path / "usb" / "stick").read()
    assert named is not None
    assert read_checkpoint(named)[0].size == 3


@pytest.mark.parametrize("where", ["lab", "lab/cache/witness", "lab/../lab/audit", "link/audit"])
def test_a_witness_inside_the_lab_is_refused(young: Place, tmp_path: Path, where: str) -> None:
    (tmp_path / "link").symlink_to(young.path)
    for writer in (True, False):
        with pytest.raises(UsageError, match="must not lie inside the lab"):
            opened(young, writer=writer, witness=tmp_path / where)


def test_a_new_lab_is_not_made_where_a_witness_of_an_old_one_lies(young: Place) -> None:
    shutil.rmtree(young.path)
    for folder in (None, default_witness(young.path)):
        with pytest.raises(UsageError) as caught:
            check_free(young.path, folder)
        assert caught.value.reason == "ledger.witness-exists"
        assert caught.value.where == str(default_witness(young.path))
    assert check_free(young.path, young.path.with_name("another")) == young.path


def test_a_crash_once_a_new_lab_is_in_place_leaves_its_witness_to_the_first_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = founding_steps(tmp_path / "whole", monkeypatch, -1)
    placed = max(n for n, step in enumerate(steps) if step == "rename lab")
    assert len(steps) - placed > 5
    for at_step in range(placed, len(steps)):
        place = Place(tmp_path / str(at_step) / "lab", tmp_path / str(at_step) / "keys")
        with pytest.raises(Cut):
            founding_steps(place.path.parent, monkeypatch, at_step)
        assert place.path.exists() == (at_step > placed)
        if place.path.exists():
            assert opened(place, writer=False).ledger.witness_problem is None
            opened(place).close()
            assert seen(place) == 2


def founding_steps(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """The steps of making a lab, whose process ends before the step with this number."""
    folder.mkdir()
    passed: list[str] = []

    def step(name: str) -> None:
        if len(passed) == at:
            raise Cut
        passed.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(files, "boundary", step)
        Lab.init(folder / "lab", "ann", folder / "keys")
    return passed


# -- the witness alone, which knows neither keys nor ledger --------------------------------------------------------


@pytest.fixture
def witness(long: Long, tmp_path: Path) -> Witness:
    witness = Witness(tmp_path / "witness")
    witness.begin(at(long, 100))
    return witness


def at(long: Long, size: int, root: bytes | None = None, origin: str = "") -> bytes:
    tree = long.prefix(size).tree
    return write_checkpoint(origin or origin_of(long.root.lab), size, root or tree.root(), long.key)


def test_it_moves_forward_with_a_proof_only(long: Long, witness: Witness) -> None:
    tree = long.prefix(200).tree
    for size in (100, 101, 128, 200):
        witness.advance(at(long, size), tree.consistency)
        assert witness.read() == at(long, size)


def test_it_never_moves_back_sideways_or_without_proof(long: Long, witness: Witness) -> None:
    tree, kept = long.prefix(200).tree, witness.read()
    refusals = {
        "ledger.older-than-witness": at(long, 99),
        "ledger.fork": at(long, 150, bytes(32)),
        "ledger.origin": at(long, 150, origin=origin_of("0" * 64)),
        "ledger.note": b"nothing",
    }
    for reason, note in refusals.items():
        with pytest.raises(StudbookError) as caught:
            witness.advance(note, tree.consistency)
        assert caught.value.reason == reason
    for prove in (
        lambda o, n: [],
        lambda o, n: tree.consistency(o, n)[:-1],
        lambda o, n: [*tree.consistency(o, n), kept],
    ):
        with pytest.raises(DigestDiffers) as caught_proof:
            witness.advance(at(long, 150), prove)
        assert caught_proof.value.reason == "ledger.fork"
    with pytest.raises(DigestDiffers):
        witness.advance(at(long, 100, bytes(32)), tree.consistency)
    assert witness.read() == kept


def test_it_is_set_under_a_lock(long: Long, witness: Witness) -> None:
    tree = long.prefix(200).tree
    lock = files.lock_folder(witness.folder, witness.folder / "lock", exclusive=True)
    with pytest.raises(Busy):
        witness.advance(at(long, 150), tree.consistency)
    os.close(lock)
    witness.advance(at(long, 150), tree.consistency)


def test_it_begins_once(long: Long, witness: Witness, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        witness.begin(at(long, 100))
    assert caught.value.reason == "ledger.witness-exists"
    with pytest.raises(UsageError) as caught:
        Witness(tmp_path / "none").advance(at(long, 100), long.prefix(100).tree.consistency)
    assert caught.value.reason == "ledger.witness-missing"
    (tmp_path / "link").symlink_to(witness.folder)
    with pytest.raises(BytesLie):
        Witness(tmp_path / "link").advance(at(long, 101), long.prefix(101).tree.consistency)
