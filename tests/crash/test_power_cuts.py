"""The power goes at every moment of the work, and whatever the disk was not told to keep is lost, mixed up or garbage.

What was acknowledged is there and verifies; of the rest a beginning of the ledger is left; the next writer opens the lab
and goes on. The disk is `layer`; a small work is tried in `make test`, whole ones are proofs.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from crash.layer import Event, Link, Log, Recorder, State, Sync, fingerprint, moments, write_state
from lab_fixtures import BLEND, CLUSTER, PERSON, Place, founder, problems, small_policy
from studbook.errors import DigestDiffers
from studbook.lab import Lab
from studbook.lab.keys import Keys
from studbook.records import replace
from studbook.workspace import Workspace


class Work(NamedTuple):
    """Something that was done in a lab while the disk was watched.

    Attributes:
        log: What happened on the disk.
        start: Events that describe the lab before.
        records: Digests of the ledger's records behind it, in order.
    """

    log: Log
    start: int
    records: list[str]


def watch(place: Place, act: Callable[[Lab], object], patch: pytest.MonkeyPatch) -> Work:
    """Do something in a lab, from opening to closing it."""
    recorder = Recorder(place.path.parent)
    start = len(recorder.log.events)
    plain = Workspace.commit_all

    def commit_all(self: Workspace, *arguments: object) -> list[str]:
        digests = plain(self, *arguments)  # type: ignore[arg-type]
        for digest in digests:
            recorder.done(digest)
        return digests

    patch.setattr(Workspace, "commit_all", commit_all)
    with recorder, place.open() as lab:
        act(lab)
    patch.undo()
    with place.open(writer=False) as lab:
        return Work(recorder.log, start, [entry.record for entry in lab.desk.workspace.ledger.entries])


def try_all(work: Work, folder: Path, seed: int, samples: int) -> int:
    """Lose the power at every moment in every way; how many different disks were left."""
    random, seen = Random(seed), set[str]()
    pool = folder / "pool"
    pool.mkdir()
    for until in moments(work.log, work.start):
        done = work.log.done(until)
        for why, state in work.log.states(until, random, samples):
            # The same disk after more was acknowledged is another case.
            if (mark := f"{fingerprint(state)} {len(done)}") not in seen:
                seen.add(mark)
                check_left(state, work, done, folder / str(len(seen)), pool, f"after {until} events, {why}")
    return len(seen)


def check_left(state: State, work: Work, done: list[str], folder: Path, pool: Path, why: str) -> None:
    write_state(state, folder, pool)
    place = Place(folder / "lab", folder / "keys")
    with place.open() as lab:
        found = [entry.record for entry in lab.desk.workspace.ledger.entries]
        assert found == work.records[: len(found)], why
        assert set(done) <= set(found), f"acknowledged and gone, {why}"
        for entry in lab.desk.workspace.ledger.entries:
            lab.desk.workspace.sealed(entry)
            assert all(lab.desk.workspace.blob(blob.sha256) for blob in entry.blobs), why
        _, policy = lab.desk.policy
        lab.desk.workspace.commit(replace(policy, policy_version=policy.policy_version + 1, notes="and on it goes"))
    assert problems(place) == [], why
    shutil.rmtree(folder)


def new_place(folder: Path) -> Place:
    folder.mkdir()
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys, small_policy(folder))
    return place


def note(lab: Lab, text: str, *blobs: bytes) -> None:
    _, policy = lab.desk.policy
    held = {hashlib.sha256(data).hexdigest(): data for data in blobs}
    lab.desk.workspace.commit(replace(policy, policy_version=policy.policy_version + 1, notes=text), held)


def one_record(lab: Lab) -> None:
    note(lab, "one", b"a file that enters with it")


def test_a_record_with_its_file_survives_every_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = watch(new_place(tmp_path / "first"), one_record, monkeypatch)
    (tmp_path / "left").mkdir()
    assert try_all(work, tmp_path / "left", seed=1, samples=0) > 40


def test_a_root_of_keys_survives_every_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line brings what the next line is verified with, and it may be on disk while its envelope is still staged."""
    work = watch(new_place(tmp_path / "first"), lambda lab: Keys(lab.desk).rotate(PERSON), monkeypatch)
    (tmp_path / "left").mkdir()
    assert try_all(work, tmp_path / "left", seed=1, samples=0) > 40


def test_a_line_that_was_not_synced_before_it_was_acknowledged_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same work, told as if the ledger had never been synced: the model loses it, and the check sees that."""
    work = watch(new_place(tmp_path / "first"), one_record, monkeypatch)
    ledger = next(e.node for e in work.log.events if isinstance(e, Link) and e.name == "ledger.jsonl")
    kept = [e for i, e in enumerate(work.log.events) if i < work.start or e != Sync(ledger)]
    assert len(kept) < len(work.log.events)
    (tmp_path / "left").mkdir()
    with pytest.raises((AssertionError, DigestDiffers)):
        try_all(work._replace(log=replace_log(work.log, kept)), tmp_path / "left", seed=1, samples=0)


def replace_log(log: Log, events: list[Event]) -> Log:
    return Log(events, log.folders, log.modes)


def founded(folder: Path) -> Place:
    """A lab with one approved model and nothing else."""
    place = new_place(folder)
    with place.open() as lab:
        lab.register(founder("base"))
        lab.approve("base", PERSON, reason="shipped founder")
    return place


WORKS: dict[str, Callable[[Lab], object]] = {
    "register": lambda lab: lab.register(founder("brk")),
    "release": lambda lab: lab.release("base", "champion", PERSON, "the deployed generalist"),
    "breed": lambda lab: lab.breed(CLUSTER, BLEND),
    "revoke": lambda lab: Keys(lab.desk).revoke("base", PERSON, "no longer wanted"),
    "three records": lambda lab: [note(lab, str(n), b"file %d" % n) for n in range(3)],
}


@pytest.mark.proof
@pytest.mark.parametrize("name", WORKS)
def test_whole_works_survive_every_power_cut_and_mixtures_of_what_was_not_safe(
    name: str, prepared_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared_lab.copy(tmp_path / "first") if name == "breed" else founded(tmp_path / "first")
    work = watch(place, WORKS[name], monkeypatch)
    (tmp_path / "left").mkdir()
    assert work.log.done(len(work.log.events)), "nothing was acknowledged"
    assert try_all(work, tmp_path / "left", seed=7, samples=2) > 20
