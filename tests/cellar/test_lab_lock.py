"""Who may be in a lab together: readers always, one writer, and nobody moves anything while it is looked at whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab_fixtures import Place, rewrite, run_cli
from studbook import files
from studbook.errors import Busy, OverBudget, RecordRefused, StudbookError, UsageError
from studbook.files import lock_folder
from studbook.ledger import book, witness
from studbook.records import Policy, replace
from studbook.rewritten import read_rewritten
from studbook.seal import KeyRing
from studbook.workspace import Workspace, check_free

HOLD = """
import sys, time
from pathlib import Path
from studbook.seal import KeyRing
from studbook.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]), KeyRing(Path(sys.argv[2])), writer=True)
print("held", flush=True)
time.sleep(600)
"""


def opened(place: Place, *, writer: bool = False, still: bool = False) -> Workspace:
    return Workspace(place.path, KeyRing(place.keys), writer=writer, still=still)


def test_clearing_the_cache_never_lets_a_second_writer_in(new_lab: Place) -> None:
    first = opened(new_lab, writer=True)
    shutil.rmtree(new_lab.path / "cache")
    with pytest.raises(Busy, match="an unknown process") as caught:
        opened(new_lab, writer=True)
    assert caught.value.where == str(new_lab.path)
    first.close()
    opened(new_lab, writer=True).close()


def test_a_reader_that_wants_stillness_waits_for_the_writer(new_lab: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "grace")
    writer = opened(new_lab, writer=True)
    opened(new_lab).close()
    with pytest.raises(Busy, match=f"held by grace, process {os.getpid()} on {os.uname().nodename}, running"):
        opened(new_lab, still=True)
    writer.close()
    opened(new_lab, still=True).close()


def test_a_writer_waits_until_readers_that_want_stillness_are_done(new_lab: Place) -> None:
    first, second = opened(new_lab, still=True), opened(new_lab, still=True)
    opened(new_lab).close()
    for reader in (first, second):
        with pytest.raises(Busy, match="a process that reads all of it"):
            opened(new_lab, writer=True)
        reader.close()
    opened(new_lab, writer=True).close()


def test_the_second_person_is_told_who_holds_the_lab_with_what_and_since_when(new_lab: Place) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(new_lab.path), str(new_lab.keys), "round", "rot"],
        env=os.environ | {"USER": "grace"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = run_cli(new_lab, "ready", USER="ada")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert refused.returncode == Busy.exit_code
    assert f"held by grace, process {holder.pid} on {os.uname().nodename}, running `" in refused.stderr
    assert re.search(r"round rot` since \d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", refused.stderr)
    # The holder was killed and its note still lies there: the lock is taken over.
    opened(new_lab, writer=True).close()
    assert json.loads((new_lab.path / "cache" / "lock").read_text())["process"] == os.getpid()


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b"\xff", b'{"owner": 1', b"x" * 5000])
def test_a_note_that_says_nothing_names_nobody(tmp_path: Path, note: bytes) -> None:
    held = lock_folder(tmp_path, tmp_path / "lock", exclusive=True)
    (tmp_path / "lock").write_bytes(note)
    with pytest.raises(Busy, match="held by an unknown process"):
        lock_folder(tmp_path, tmp_path / "lock", exclusive=True)
    os.close(held)


def test_a_note_cannot_paint_the_terminal(tmp_path: Path) -> None:
    held = lock_folder(tmp_path, tmp_path / "lock", exclusive=True)
    told = {"owner": "\x1b[31mroot", "process": 1, "host": "h", "command": "a\nb", "since": "now"}
    (tmp_path / "lock").write_text(json.dumps(told))
    with pytest.raises(Busy) as caught:
        lock_folder(tmp_path, tmp_path / "lock", exclusive=True)
    assert caught.value.message.isprintable()
    os.close(held)


def test_a_still_reader_changes_nothing(new_lab: Place) -> None:
    before = {p: p.stat().st_mtime_ns for p in new_lab.path.rglob("*")}
    opened(new_lab, still=True).close()
    assert {p: p.stat().st_mtime_ns for p in new_lab.path.rglob("*")} == before


def test_an_opening_that_fails_leaves_no_lock(new_lab: Place) -> None:
    path = new_lab.path / "audit" / "ledger.jsonl"
    whole = path.read_bytes()
    rewrite(path, whole + b"garbage\n")
    with pytest.raises(RecordRefused) as caught:
        opened(new_lab, writer=True)
    rewrite(path, whole)
    opened(new_lab, writer=True).close()
    assert str(path) in caught.value.where


def test_a_folder_that_cannot_take_the_note_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "note").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StudbookError, match="cannot be locked") as caught:
        lock_folder(tmp_path, tmp_path / "note", exclusive=True)
    assert caught.value.where == str(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "kept"
    os.close(lock_folder(tmp_path, tmp_path / "other", exclusive=True))


def test_a_full_disk_says_so_where_the_lock_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_note: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_note", full)
        with pytest.raises(OverBudget) as caught:
            lock_folder(tmp_path, tmp_path / "lock", exclusive=True)
    assert caught.value.reason == "disk.full"
    os.close(lock_folder(tmp_path, tmp_path / "lock", exclusive=True))


def test_a_reader_that_a_writer_overtakes_sees_no_tampering(new_lab: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are added between any two files that the reader reads."""
    writer = opened(new_lab, writer=True)
    _, policy = next(writer.all(Policy))
    count = len(writer.ledger.entries)

    def overtaken(path: Path, limit: int) -> bytes:
        data = read_rewritten(path, limit)
        writer.commit(replace(policy, policy_version=policy.policy_version + 1, notes=f"after {path.name}"))
        return data

    for module, name in ((book, "read_file"), (book, "read_rewritten"), (witness, "read_rewritten")):
        monkeypatch.setattr(module, name, overtaken)
    reader = opened(new_lab)
    assert len(writer.ledger.entries) > count + 1
    assert count <= len(reader.ledger.entries) <= len(writer.ledger.entries)
    assert reader.ledger.witness_problem is None
    assert reader.ledger.acknowledged == count
    writer.close()


# -- where a new lab may lie -------------------------------------------------------------------------------------


def test_a_free_place_is_given_back_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert check_free(Path("empty")) == tmp_path / "empty"
    assert check_free(Path("new/../other")) == tmp_path / "other"
    assert check_free(tmp_path / "far" / "away") == tmp_path / "far" / "away"


@pytest.mark.parametrize("name", [".", "", "sub/..", "../here"])
def test_the_current_folder_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "sub").rmdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="current folder") as caught:
        check_free(Path(name))
    assert "name a new folder" in caught.value.advice


def test_a_place_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "away")
    for name, words in (("file", "not a folder"), ("link", "not a folder"), ("full", "not empty")):
        with pytest.raises(UsageError, match=words) as caught:
            check_free(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
