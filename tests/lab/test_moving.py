"""A lab goes where its folder goes, its copies are labs, and a lab of another format is never half understood."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab_fixtures import PARENTS, PERSON, Place, lab_files, prepare, problems, rewrite, run_cli
from studbook.errors import DigestDiffers, OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.workspace import FORMAT, MARKER, marker_bytes


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in lab_files(Place(folder, folder))}


def copy_to(place: Place, folder: Path) -> None:
    with Lab(place.path, place.keys, writer=False, still=True) as lab:
        lab.backup(folder)


def set_format(place: Place, version: int) -> None:
    with place.open(writer=False) as lab:
        rewrite(place.path / MARKER, marker_bytes(lab.desk.workspace.root.lab, version))


def test_a_backup_holds_the_same_bytes_and_verifies_as_the_lab_does(lived_lab: Place, tmp_path: Path) -> None:
    copy_to(lived_lab, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(lived_lab.path)
    with Lab(tmp_path / "copy", lived_lab.keys, writer=False) as lab:
        found = lab.verify()
        assert found.ok, found.problems
        assert found.pinned
    assert not list((tmp_path / "copy").rglob("*.pem"))


def test_a_backup_is_brought_up_to_date_by_what_is_new(new_lab: Place, tmp_path: Path) -> None:
    with Lab(new_lab.path, new_lab.keys, writer=False, still=True) as lab:
        first = lab.backup(tmp_path / "copy")
        assert lab.backup(tmp_path / "copy").files == 0
    with new_lab.open() as lab:
        lab.breed("rot", {"operator": "blend/1", "weights": "uniform"})
    with Lab(new_lab.path, new_lab.keys, writer=False, still=True) as lab:
        second = lab.backup(tmp_path / "copy")
    assert 0 < second.files < first.files
    assert contents(tmp_path / "copy") == contents(new_lab.path)


def test_what_was_withdrawn_goes_from_the_backup_too(old_lab: Place, tmp_path: Path) -> None:
    copy_to(old_lab, tmp_path / "copy")
    with old_lab.open() as lab:
        found = lab.withdraw(PARENTS[0], PERSON, "asked for")
        gone = [b.sha256 for b in found.signed.record.blobs]  # type: ignore[attr-defined]
        lab.gc()
    copy_to(old_lab, tmp_path / "copy")
    assert not [p for p in (tmp_path / "copy").rglob("*") if p.name in gone]
    with Lab(tmp_path / "copy", old_lab.keys, writer=False) as lab:
        assert lab.verify().ok


@pytest.mark.parametrize("where", ["inside", "around", "full", "file"])
def test_a_backup_goes_nowhere_else(new_lab: Place, tmp_path: Path, where: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    folder = {
        "inside": new_lab.path / "copy",
        "around": new_lab.path.parent,
        "full": tmp_path / "full",
        "file": tmp_path / "full" / "thesis.txt",
    }[where]
    before = contents(new_lab.path)
    with Lab(new_lab.path, new_lab.keys, writer=False, still=True) as lab, pytest.raises((UsageError, OSError)):
        lab.backup(folder)
    assert contents(new_lab.path) == before
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_a_backup_never_replaces_a_newer_one_or_another_lab(new_lab: Place, lived_lab: Place, tmp_path: Path) -> None:
    """The lived lab went on from the prepared one, so it may follow its copy, and not the other way."""
    copy_to(new_lab, tmp_path / "copy")
    copy_to(lived_lab, tmp_path / "copy")
    whole = contents(tmp_path / "copy")
    with pytest.raises(DigestDiffers, match="another lab"):
        copy_to(new_lab, tmp_path / "copy")
    assert contents(tmp_path / "copy") == whole


def test_a_backup_of_a_damaged_lab_stops_at_the_file(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open(writer=False) as lab:
        path = lab.desk.workspace.blob_path(lab.desk.find_model("base"))
    rewrite(path, path.read_bytes()[:-1] + b"x")
    with pytest.raises(DigestDiffers) as caught:
        copy_to(new_lab, tmp_path / "copy")
    assert caught.value.where == str(path)
    assert not (tmp_path / "copy" / "audit" / "ledger.jsonl").exists()


def test_a_backup_that_was_cut_short_is_finished(
    new_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = 0

    def cut(step: str) -> None:
        nonlocal files
        files += step.startswith("create ")
        if files > 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("studbook.files.boundary", cut)
        with pytest.raises(KeyboardInterrupt):
            copy_to(new_lab, tmp_path / "copy")
    copy_to(new_lab, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(new_lab.path)


def test_a_lab_moved_with_its_witness_opens_verifies_and_goes_on(tmp_path: Path) -> None:
    place = prepare(tmp_path / "here")
    there = Place(tmp_path / "there" / "renamed", place.keys)
    there.path.parent.mkdir()
    place.path.rename(there.path)
    place.path.with_name("lab.witness").rename(there.path.with_name("renamed.witness"))
    with there.open(writer=False) as lab:
        found = lab.verify()
        assert found.ok, found.problems
        assert found.witnessed == found.entries
    with there.open() as lab:
        lab.breed("rot", {"operator": "blend/1", "weights": "uniform"})
        assert lab.verify().ok
    text = str(place.path).encode()
    assert not [p for p in lab_files(there) if text in p.read_bytes()]


def test_a_lab_moved_without_its_witness_says_so_and_takes_it_by_name(new_lab: Place, tmp_path: Path) -> None:
    witness = tmp_path / "kept" / "witness"
    assert run_cli(new_lab, "--witness", str(witness), "witness").returncode == 0
    moved = Place(tmp_path / "moved", new_lab.keys)
    new_lab.path.rename(moved.path)
    assert "no witness" in run_cli(moved, "verify").stdout
    assert "a witness saw" in run_cli(moved, "--witness", str(witness), "verify").stdout


def test_a_restored_lab_is_the_lab(lived_lab: Place, tmp_path: Path) -> None:
    copy_to(lived_lab, tmp_path / "copy")
    back = Place(tmp_path / "back", lived_lab.keys)
    done = run_cli(back, "restore", str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    assert contents(back.path) == contents(lived_lab.path)
    with back.open() as lab:
        assert lab.verify().ok
    again = run_cli(back, "restore", str(tmp_path / "copy"))
    assert again.returncode == 2
    assert "not a new or empty folder" in again.stderr


def test_a_damaged_copy_is_not_restored(new_lab: Place, tmp_path: Path) -> None:
    copy_to(new_lab, tmp_path / "copy")
    victim = next(p for p in lab_files(Place(tmp_path / "copy", tmp_path)) if p.parent.name == "blobs")
    rewrite(victim, b"damaged")
    with pytest.raises(DigestDiffers) as caught:
        Lab.restore(tmp_path / "copy", tmp_path / "back", new_lab.keys)
    assert caught.value.where == str(victim)
    assert not (tmp_path / "back").exists()


def test_an_old_copy_comes_back_with_a_warning_and_cannot_be_written_to(new_lab: Place, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    assert run_cli(new_lab, "--witness", str(witness), "witness").returncode == 0
    copy_to(new_lab, tmp_path / "copy")
    with Lab(new_lab.path, new_lab.keys, witness=witness) as lab:
        lab.breed("rot", {"operator": "blend/1", "weights": "uniform"})
    shutil.rmtree(new_lab.path)
    found = Lab.restore(tmp_path / "copy", new_lab.path, new_lab.keys, witness)
    assert "the witness saw" in found.warning
    with pytest.raises(DigestDiffers, match="the witness saw"):
        Lab(new_lab.path, new_lab.keys, witness=witness)


# -- formats -----------------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused_with_what_to_do(new_lab: Place) -> None:
    set_format(new_lab, FORMAT + 1)
    for writer in (True, False):
        with pytest.raises(UsageError, match=f"format {FORMAT + 1}") as caught:
            new_lab.open(writer=writer)
        assert "Install" in caught.value.advice
    assert run_cli(new_lab, "upgrade").returncode == 2


def test_an_older_format_is_read_and_not_written_to_until_it_is_upgraded(new_lab: Place) -> None:
    set_format(new_lab, 1)
    before = contents(new_lab.path)
    with new_lab.open(writer=False) as lab:
        assert lab.verify().ok
        assert lab.list("models")
    with pytest.raises(OutOfOrder, match="format 1") as caught:
        new_lab.open()
    assert "studbook upgrade" in caught.value.advice
    assert contents(new_lab.path) == before
    done = run_cli(new_lab, "upgrade")
    assert f"format 1 -> {FORMAT}" in done.stdout, done.stderr
    with new_lab.open() as lab:
        assert lab.verify().ok
        lab.breed("rot", {"operator": "blend/1", "weights": "uniform"})
    assert "already" in run_cli(new_lab, "upgrade").stdout


def test_a_damaged_lab_is_not_upgraded(new_lab: Place) -> None:
    set_format(new_lab, 1)
    victim = next(p for p in lab_files(new_lab) if p.parent.name == "blobs")
    rewrite(victim, b"damaged")
    before = contents(new_lab.path)
    with pytest.raises(DigestDiffers) as caught:
        Lab.upgrade(new_lab.path, new_lab.keys)
    assert caught.value.where == str(victim)
    assert contents(new_lab.path) == before


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format":0}', b'{"format":true}', b'{"format":"2"}', b"\xff"])
def test_a_marker_that_says_nothing_is_a_problem_that_verify_names(new_lab: Place, data: bytes) -> None:
    rewrite(new_lab.path / MARKER, data)
    assert problems(new_lab) == [str(new_lab.path / MARKER)]
