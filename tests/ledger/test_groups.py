"""Records that enter together: one sync of the ledger, one checkpoint, and after a crash the first few or all of them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_fixtures import Place
from studbook import files
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError
from studbook.ledger import default_witness
from studbook.ledger.note import read_checkpoint
from studbook.records import ArchiveRecord, Policy, Record, Revocation, RevokedSubject, SuitesLock, digest, replace
from studbook.seal import KeyRing, seal
from studbook.workspace import Accession, Workspace


class Cut(Exception):
    """The power goes at this step."""


def opened(place: Place, *, writer: bool = True) -> Workspace:
    return Workspace(place.path, KeyRing(place.keys), writer=writer)


@pytest.fixture
def workspace(young: Place) -> Iterator[Workspace]:
    workspace = opened(young)
    yield workspace
    workspace.close()


def policies(workspace: Workspace, count: int, word: str = "note") -> list[Accession]:
    _, policy = next(workspace.all(Policy))
    notes = [replace(policy, notes=f"{word} {n}") for n in range(count)]
    return [Accession(p, {sha(p.notes): p.notes.encode()}) for p in notes]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was synced, by the name of the file or folder."""
    seen: Counter[str] = Counter()
    plain = os.fsync

    def fsync(handle: int) -> None:
        seen[Path(f"/proc/self/fd/{handle}").resolve().name] += 1
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_a_group_is_one_sync_of_the_ledger_one_checkpoint_and_one_word_to_the_witness(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = counted(monkeypatch)
    workspace.commit_all(policies(workspace, 20))
    assert len(workspace.ledger.entries) == 22
    assert (synced["ledger.jsonl"], synced["checkpoint.partial"], synced["audit"]) == (1, 2, 1)
    assert (synced["staging"], synced["lab.witness"]) == (1, 1)


def test_a_commit_takes_as_many_syncs_as_the_page_says(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _, policy = next(workspace.all(Policy))
    workspace.commit(replace(policy, notes="folders are there"))
    counts = {}
    for size in (1, 10):
        synced = counted(monkeypatch)
        workspace.commit_all([Accession(replace(policy, notes=f"{size} {n}")) for n in range(size)])
        counts[size] = sum(synced.values())
        monkeypatch.undo()
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert f"{counts[1]} syncs" in page
    assert counts[10] == counts[1] + 9
    assert "n + 7" in page
    assert counts[1] == 1 + 7


def test_a_group_gives_the_ledger_that_single_commits_give(workspace: Workspace) -> None:
    digests = workspace.commit_all(policies(workspace, 5))
    assert digests == [digest(a.record) for a in policies(workspace, 5)]
    assert [e.record for e in workspace.ledger.entries[2:]] == digests
    for entry in workspace.ledger.entries:
        assert workspace.sealed(entry).digest == entry.record
    for accession in policies(workspace, 5):
        assert all(workspace.blob(d) == content for d, content in accession.blobs.items())
    reader = opened(Place(workspace.path, workspace.keys.folder), writer=False)
    assert reader.ledger.entries == workspace.ledger.entries
    assert reader.ledger.acknowledged == reader.ledger.witnessed == 7


def test_a_record_twice_in_a_group_is_written_once_and_a_shared_file_too(workspace: Workspace) -> None:
    first, second = policies(workspace, 2)
    second = second._replace(blobs=first.blobs)
    assert len(workspace.commit_all([first, second, first])) == 3
    assert [len(e.blobs) for e in workspace.ledger.entries[2:]] == [1, 0]
    assert workspace.commit_all([first]) == [digest(first.record)]
    assert workspace.commit_all([]) == []
    assert len(workspace.ledger.entries) == 4


def test_a_record_may_cite_one_that_stands_before_it_in_its_group_and_no_other(workspace: Workspace) -> None:
    header = workspace.root.header
    (first,) = policies(workspace, 1)
    cites = Accession(replace_cited(first.record, digest(first.record), header))
    with pytest.raises(OutOfOrder, match="does not hold"):
        workspace.commit_all([cites, first])
    assert len(workspace.ledger.entries) == 2
    assert len(workspace.commit_all([first, cites])) == 2


def replace_cited(_policy: Record, cited: str, header: object) -> Record:
    return SuitesLock(header=header, lock_version=1, suites=(cited,))  # type: ignore[arg-type]


def test_one_refused_record_refuses_its_group_and_the_next_group_enters(workspace: Workspace, young: Place) -> None:
    before = (young.path / "audit" / "ledger.jsonl").read_bytes()
    good = policies(workspace, 3)
    bad = [
        Accession(ArchiveRecord(header=workspace.root.header, decision="d" * 64, candidates=())),
        good[1]._replace(blobs={"e" * 64: b"something else"}),
        good[1]._replace(owner="nobody"),
        good[1]._replace(envelope=b"{}"),
    ]
    for lie in bad:
        with pytest.raises(StudbookError):
            workspace.commit_all([good[0], lie, good[2]])
    assert (young.path / "audit" / "ledger.jsonl").read_bytes() == before
    assert len(workspace.commit_all(good)) == 3


def test_an_envelope_signed_elsewhere_is_kept_as_it_is(workspace: Workspace) -> None:
    first, second = policies(workspace, 2)
    key = workspace.keys.find(workspace.root, "policy", "policy/1")
    envelope = seal(first.record, key)
    with pytest.raises(DigestDiffers, match="another record"):
        workspace.commit(second.record, envelope=envelope)
    workspace.commit(first.record, envelope=envelope)
    entry = workspace.ledger.entries[-1]
    assert workspace.record_path(entry).read_bytes() == envelope


def test_a_revocation_ends_its_group_and_counts_from_the_next_record_on(workspace: Workspace) -> None:
    first, second = policies(workspace, 2)
    key = workspace.keys.find(workspace.root, "policy", "policy/1").public
    subject = RevokedSubject(type="key", digest=key)
    revocation = Revocation(header=workspace.root.header, subject=subject, reason="stolen", since=4)
    with pytest.raises(StudbookError) as caught:
        workspace.commit_all([first, Accession(revocation), second])
    assert caught.value.reason == "authority.key-missing"
    assert [e.record_kind for e in workspace.ledger.entries[2:]] == ["policy/1", "revocation/1"]
    reader = opened(Place(workspace.path, workspace.keys.folder), writer=False)
    assert [e.record for e in reader.ledger.entries] == [e.record for e in workspace.ledger.entries]


STEPS = (
    "append",
    "fsync append",
    "rename ",
    "create checkpoint.partial",
    "rename checkpoint",
    "sync folder audit",
)


@pytest.mark.parametrize("step", STEPS)
def test_after_a_failure_half_way_nothing_more_is_written_until_the_lab_is_opened_again(
    young: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    workspace = opened(young)
    group = policies(workspace, 3)

    def fail(name: str) -> None:
        if name.startswith(step):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "boundary", fail)
        with pytest.raises((StudbookError, OSError)):
            workspace.commit_all(group)
    left = (young.path / "audit" / "ledger.jsonl").read_bytes()
    with pytest.raises(OutOfOrder) as caught:
        workspace.commit_all(policies(workspace, 1, "another"))
    assert caught.value.reason == "ledger.stopped"
    assert (young.path / "audit" / "ledger.jsonl").read_bytes() == left
    workspace.close()
    workspace = opened(young)
    assert workspace.commit_all(group) == [digest(a.record) for a in group]
    assert len(workspace.ledger.entries) == 5
    workspace.close()


def test_a_crash_at_any_step_of_a_group_leaves_its_first_few_and_the_next_writer_goes_on(
    young: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, went = 0, True
    while went:
        place = copied(young, tmp_path / str(steps))
        workspace = opened(place)
        group = policies(workspace, 2)
        went = crash(workspace, group, monkeypatch, steps)
        os.close(workspace._lock)
        wanted = [digest(a.record) for a in group]
        again = opened(place)
        there = [e.record for e in again.ledger.entries[2:]]
        assert there == wanted[: len(there)]
        assert again.commit_all(group) == wanted
        assert [e.record for e in again.ledger.entries[2:]] == wanted
        again.close()
        note = (default_witness(place.path) / "checkpoint").read_bytes()
        assert read_checkpoint(note)[0].size == 4
        shutil.rmtree(place.path.parent)
        steps += went
    assert steps > 20


def crash(workspace: Workspace, group: list[Accession], monkeypatch: pytest.MonkeyPatch, at: int) -> bool:
    passed = [0]

    def step(_name: str) -> None:
        if passed[0] == at:
            raise Cut
        passed[0] += 1

    with monkeypatch.context() as patch:
        patch.setattr(files, "boundary", step)
        try:
            workspace.commit_all(group)
        except Cut:
            return True
    return False


def copied(place: Place, folder: Path) -> Place:
    target = Place(folder / "lab", place.keys)
    shutil.copytree(place.path, target.path)
    shutil.copytree(default_witness(place.path), default_witness(target.path))
    return target


def test_a_line_cut_off_in_the_middle_of_a_group_takes_the_rest_of_it_away(young: Place) -> None:
    ledger = young.path / "audit" / "ledger.jsonl"
    before = ledger.read_bytes(), (young.path / "audit" / "checkpoint").read_bytes()
    witness = default_witness(young.path) / "checkpoint"
    seen = witness.read_bytes()
    workspace = opened(young)
    digests = workspace.commit_all(policies(workspace, 3))
    workspace.close()
    lines = ledger.read_bytes().splitlines(keepends=True)
    for path, data in ((ledger, b"".join(lines[:4]) + lines[4][:50]), (witness, seen)):
        path.chmod(0o644)
        path.write_bytes(data)
    checkpoint = young.path / "audit" / "checkpoint"
    checkpoint.chmod(0o644)
    checkpoint.write_bytes(before[1])
    again = opened(young)
    assert [e.record for e in again.ledger.entries[2:]] == digests[:2]
    again.close()
    assert ledger.read_bytes() == b"".join(lines[:4])
