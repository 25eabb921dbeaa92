"""What a power cut may leave: names are on disk before the line that speaks of them, and a line without its files goes."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_fixtures import Place, problems, rewrite
from studbook import files
from studbook.errors import DigestDiffers, StudbookError
from studbook.records import Policy, replace


class Cut(Exception):
    """The power goes at this step."""


def synced_folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every folder whose names were put on disk, in order."""
    seen: list[Path] = []
    plain = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            seen.append(Path(f"/proc/self/fd/{handle}").resolve())
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def add_policy(place: Place, note: str, *blobs: bytes) -> str:
    """Commit a policy with a note, the next version; one whose note is there already once more."""
    with place.open() as lab:
        _, policy = lab.desk.policy
        known = next((p for _, p in lab.desk.all(Policy) if p.notes == note), None)
        held = {hashlib.sha256(data).hexdigest(): data for data in blobs}
        wanted = known or replace(policy, policy_version=policy.policy_version + 1, notes=note)
        return lab.desk.workspace.commit(wanted, held)


def test_staged_names_are_on_disk_before_the_line_is_written(new_lab: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = new_lab.path / "cache" / "staging"
    steps: list[tuple[str, bool, list[str]]] = []
    synced = synced_folders(monkeypatch)

    def look(step: str) -> None:
        last = bool(synced) and synced[-1] == staging
        steps.append((step, last, sorted(p.name for p in staging.iterdir()) if staging.is_dir() else []))

    monkeypatch.setattr(files, "boundary", look)
    add_policy(new_lab, "one", b"a file that enters with it")
    names = [step for step, _, _ in steps]
    line = names.index("append")
    assert names[line - 1] == "sync folder staging"
    assert steps[line][1], "nothing else was synced in between"
    assert steps[line][2] == steps[line - 1][2]
    assert len(steps[line][2]) == 2
    assert staging.parent in synced[: synced.index(staging)], "the staging folder's own name"


def test_new_folders_are_named_on_disk_before_anything_lies_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = synced_folders(monkeypatch)
    steps: list[str] = []
    monkeypatch.setattr(files, "boundary", steps.append)
    files.make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert steps[:2] == ["make folder a", f"sync folder {tmp_path.name}"]
    steps.clear()
    files.make_folder(tmp_path / "a" / "b")
    assert steps == []
    (tmp_path / "source").write_bytes(b"x")
    files.place(tmp_path / "source", tmp_path / "d" / "target")
    assert synced[3:] == [tmp_path, tmp_path / "d"]


def test_a_folder_where_a_file_lies_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StudbookError) as caught:
        files.make_folder(tmp_path / "a" / "b")
    assert caught.value.where.startswith(str(tmp_path / "a"))


def test_a_new_ledger_is_named_on_disk_before_its_first_line_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = synced_folders(monkeypatch)
    files.append_line(tmp_path / "lines", b"one")
    assert synced == [tmp_path]
    files.append_line(tmp_path / "lines", b"two")
    assert synced == [tmp_path]


class Unacknowledged:
    """A lab whose last two records were written and never acknowledged."""

    def __init__(self, place: Place) -> None:
        self.place = place
        checkpoint = place.path / "audit" / "checkpoint"
        self.before = self.ledger
        older = checkpoint.read_bytes()
        self.blobs = (b"the first's file", b"the second's file")
        self.added = [add_policy(place, f"note {n}", blob) for n, blob in enumerate(self.blobs)]
        rewrite(checkpoint, older)

    @property
    def ledger(self) -> bytes:
        return (self.place.path / "audit" / "ledger.jsonl").read_bytes()

    def envelope(self, number: int) -> Path:
        return self.place.path / "policy" / "policy-1" / f"{self.added[number]}.json"

    def blob(self, number: int) -> Path:
        return self.place.path / "policy" / "blobs" / hashlib.sha256(self.blobs[number]).hexdigest()

    def known(self) -> list[bool]:
        with self.place.open() as lab:
            return [digest in lab.desk.workspace for digest in self.added]


@pytest.fixture
def cut_short(new_lab: Place) -> Unacknowledged:
    return Unacknowledged(new_lab)


LOSSES: dict[str, tuple[Callable[[Unacknowledged], Path], list[bool]]] = {
    "the second's envelope": (lambda lab: lab.envelope(1), [True, False]),
    "the second's file": (lambda lab: lab.blob(1), [True, False]),
    "the first's envelope": (lambda lab: lab.envelope(0), [False, False]),
    "the first's file": (lambda lab: lab.blob(0), [False, False]),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("how", ["gone", "empty", "garbled"])
def test_an_entry_whose_files_never_reached_the_disk_is_cut_off_with_all_behind_it(
    cut_short: Unacknowledged, loss: str, how: str
) -> None:
    lost, expected = LOSSES[loss]
    path = lost(cut_short)
    whole = cut_short.ledger
    if how == "gone":
        path.unlink()
    else:
        rewrite(path, b"" if how == "empty" else b"\x00" * path.stat().st_size)
    assert cut_short.known() == expected
    lines = whole.splitlines(keepends=True)
    assert cut_short.ledger == b"".join(lines[: len(lines) - expected.count(False)])
    assert problems(cut_short.place) == [], "nothing of what was cut off lies around"
    again = [add_policy(cut_short.place, f"note {n}", blob) for n, blob in enumerate(cut_short.blobs)]
    assert again == cut_short.added
    assert problems(cut_short.place) == []


def test_nothing_is_cut_off_when_everything_arrived(cut_short: Unacknowledged) -> None:
    whole = cut_short.ledger
    assert cut_short.known() == [True, True]
    assert cut_short.ledger == whole
    assert problems(cut_short.place) == []


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("in_place", ["nothing", "garbage"])
def test_a_file_that_is_still_staged_is_put_in_place(cut_short: Unacknowledged, loss: str, in_place: str) -> None:
    path = LOSSES[loss][0](cut_short)
    data = path.read_bytes()
    staging = cut_short.place.path / "cache" / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    (staging / hashlib.sha256(data).hexdigest()).write_bytes(data)
    (staging / ("0" * 64)).write_bytes(b"of an entry that was never written")
    path.unlink()
    if in_place == "garbage":
        path.write_bytes(b"torn")
    assert cut_short.known() == [True, True]
    assert path.read_bytes() == data
    assert not staging.exists()
    assert problems(cut_short.place) == []


def test_what_was_acknowledged_is_never_cut_off(new_lab: Place) -> None:
    added = add_policy(new_lab, "acknowledged")
    path = new_lab.path / "policy" / "policy-1" / f"{added}.json"
    ledger = new_lab.path / "audit" / "ledger.jsonl"
    whole = ledger.read_bytes()
    path.unlink()
    with new_lab.open() as lab, pytest.raises(StudbookError):
        lab.desk.workspace.get(added, Policy)
    assert ledger.read_bytes() == whole
    assert str(path) in problems(new_lab)
    with new_lab.open() as lab:
        entries = len(lab.desk.workspace.ledger.entries)
        with pytest.raises(DigestDiffers, match="was acknowledged"):
            lab.desk.workspace.ledger.cut(entries - 1)
    assert ledger.read_bytes() == whole


def test_a_power_cut_that_takes_unsynced_names_loses_nothing_acknowledged(
    prepared_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step of a commit the power goes and takes each name that no folder sync had made safe."""
    count, went = 0, True
    while went:
        place = prepared_lab.copy(tmp_path / str(count))
        before = (place.path / "audit" / "ledger.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            went = lose_power(place, patch, count)
            count += went
        with place.open() as lab:
            entries = lab.desk.workspace.ledger.entries
            for entry in entries:
                assert lab.desk.workspace.sealed(entry).digest == entry.record
                assert all(lab.desk.workspace.blob(blob.sha256) for blob in entry.blobs)
        assert (place.path / "audit" / "ledger.jsonl").read_bytes().startswith(before)
        assert problems(place) == []
        shutil.rmtree(place.path.parent)
    assert count > 15


def lose_power(place: Place, patch: pytest.MonkeyPatch, at: int) -> bool:
    """Commit one record with a file; whether the power went before the end, at the step with this number."""
    safe = set(place.path.rglob("*"))
    plain, passed = os.fsync, [0]

    def fsync(handle: int) -> None:
        plain(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            folder = Path(f"/proc/self/fd/{handle}").resolve()
            safe.difference_update([p for p in safe if p.parent == folder])
            safe.update(folder.iterdir())

    def step(_name: str) -> None:
        if passed[0] == at:
            raise Cut
        passed[0] += 1

    patch.setattr(os, "fsync", fsync)
    patch.setattr(files, "boundary", step)
    try:
        add_policy(place, "in the dark", b"and its file")
    except Cut:
        took = True
    else:
        took = False
    patch.undo()
    for path in sorted(set(place.path.rglob("*")) - safe, reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return took
