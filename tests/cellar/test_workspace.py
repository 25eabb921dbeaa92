"""The lab's folder: one writer, content addresses, and bytes that are hashed as they are read."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab_fixtures import Place, problems, rewrite
from studbook.errors import Busy, DigestDiffers, OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.records import CompatibilityReport, Policy, SourceManifest, replace


def test_a_second_writer_is_refused_with_the_holders_name(new_lab: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "grace")
    with new_lab.open(), pytest.raises(Busy, match=f"held by grace, process {os.getpid()}") as caught, new_lab.open():
        pass
    assert caught.value.where in (str(new_lab.path), str(new_lab.path / "cache" / "lock"))


def test_a_reader_is_let_in_beside_a_writer(new_lab: Place) -> None:
    with new_lab.open(), new_lab.open(writer=False) as reader:
        assert reader.verify().ok


def test_the_lock_of_a_dead_process_is_taken_over(new_lab: Place) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from studbook.lab import Lab;"
        f"Lab(Path({str(new_lab.path)!r}), Path({str(new_lab.keys)!r})); print('held', flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-9, "held\n")
    lock = new_lab.path / "cache" / "lock"
    stale = lock.read_text()
    with new_lab.open():
        assert lock.read_text() != stale
        assert re.search(rf"\"process\": {os.getpid()}\b", lock.read_text())


def test_closing_lets_the_next_writer_in(new_lab: Place) -> None:
    new_lab.open().close()
    new_lab.open().close()


def test_a_folder_that_is_no_lab_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a lab") as caught:
        Lab(tmp_path)
    assert caught.value.advice == f"Make one: studbook init {tmp_path}"


def test_a_new_lab_is_never_made_in_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        Lab.init(tmp_path / "lab", "ann")
    assert not (tmp_path / "lab.keys").exists()


def test_an_empty_folder_becomes_a_lab(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    keys = Lab.init(tmp_path / "lab", "ann")
    assert keys == tmp_path / "lab.keys"
    assert problems(Place(tmp_path / "lab", keys)) == []


def test_keys_inside_the_lab_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must not lie inside"):
        Lab.init(tmp_path / "lab", "ann", tmp_path / "lab" / "keys")
    assert not (tmp_path / "lab").exists()


def test_reading_changes_nothing_outside_the_cache(lived_lab: Place) -> None:
    def state() -> dict[Path, tuple[int, str]]:
        files = [p for p in lived_lab.path.rglob("*") if p.is_file() and "cache" not in p.parts]
        return {p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}

    before = state()
    assert problems(lived_lab) == []
    assert state() == before


def test_stored_files_are_read_only(lived_lab: Place) -> None:
    stored = [p for p in lived_lab.path.glob("*/*/*") if p.is_file() and "cache" not in p.parts]
    assert len(stored) > 50
    assert {p.stat().st_mode & 0o222 for p in stored} == {0}


def test_a_blob_whose_bytes_changed_is_refused_where_it_lies(new_lab: Place) -> None:
    with new_lab.open(writer=False) as lab:
        artifact = lab.desk.find_model("base")
        path = lab.desk.workspace.blob_path(artifact)
        rewrite(path, path.read_bytes()[:-1] + b"\xff")
        with pytest.raises(DigestDiffers) as caught:
            lab.desk.workspace.blob(artifact)
    assert caught.value.where == str(path)


def test_bytes_that_are_not_those_of_their_digest_never_enter(opened: Lab) -> None:
    workspace = opened.desk.workspace
    _, policy = opened.desk.policy
    before = len(workspace.ledger.entries)
    with pytest.raises(DigestDiffers):
        workspace.commit(replace(policy, notes="with a file"), {"e" * 64: b"something else"})
    assert len(workspace.ledger.entries) == before


def test_what_the_lab_does_not_hold_is_not_found(opened: Lab) -> None:
    workspace = opened.desk.workspace
    some = workspace.ledger.entries[1].record
    assert some in workspace
    assert "f" * 64 not in workspace
    for ask in (lambda: workspace.get("f" * 64, Policy), lambda: workspace.blob("f" * 64)):
        with pytest.raises(UsageError, match="holds no"):
            ask()
    with pytest.raises(UsageError, match="holds no source-manifest/1"):
        workspace.get(some, SourceManifest)


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_damaged_file_is_mended_with_exactly_its_bytes_or_not_at_all(new_lab: Place, damage: str) -> None:
    with new_lab.open() as lab:
        workspace = lab.desk.workspace
        artifact = lab.desk.find_model("base")
        path = workspace.blob_path(artifact)
        kept = path.read_bytes()
        assert workspace.mend_blob(artifact, kept) is False
        damaged = None if damage == "deleted" else kept[:-1]
        path.unlink() if damaged is None else rewrite(path, damaged)
        with pytest.raises(DigestDiffers):
            workspace.mend_blob(artifact, kept + b"x")
        assert (path.read_bytes() if path.exists() else None) == damaged
        assert workspace.mend_blob(artifact, kept) is True
        assert workspace.mend_blob("0" * 64, b"") is False
    assert path.read_bytes() == kept
    assert problems(new_lab) == []


def test_a_record_of_a_zone_without_a_key_is_refused_before_anything_is_written(new_lab: Place) -> None:
    (new_lab.keys / "process" / "audit" / "audit.pem").rename(new_lab.keys / "audit.away")
    with new_lab.open() as lab:
        before = (new_lab.path / "audit" / "ledger.jsonl").read_bytes()
        with pytest.raises(Exception, match="may sign ledger-entry/1") as caught:
            lab.compare("base", ["cap-rot", "dup-odd"])
        assert caught.value.reason == "authority.key-missing"  # type: ignore[attr-defined]
        assert not list(lab.desk.workspace.all(CompatibilityReport))
    assert (new_lab.path / "audit" / "ledger.jsonl").read_bytes() == before


def test_a_lab_without_suites_or_champion_says_what_to_do_first(tmp_path: Path) -> None:
    Lab.init(tmp_path / "lab", "ann")
    with Lab(tmp_path / "lab") as lab:
        with pytest.raises(OutOfOrder, match="no suite is frozen") as caught:
            lab.round("rot")
        assert "studbook suite freeze" in caught.value.advice
        with pytest.raises(OutOfOrder, match="no champion") as caught:
            lab.desk.champion()
        assert "studbook release" in caught.value.advice
