"""The ledger: append-only, chained, signed, and never shorter than what was acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_fixtures import Place, problems, rewrite
from studbook.errors import BytesLie, DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.ledger import NOTHING, Ledger
from studbook.records import ArchiveRecord, Policy, digest, replace


def ledger_of(place: Place) -> Path:
    return place.path / "audit" / "ledger.jsonl"


def refusal(place: Place, *, writer: bool = False) -> StudbookError:
    with pytest.raises(StudbookError) as caught, place.open(writer=writer):
        pass
    return caught.value


def test_every_line_names_the_one_before_it(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        ledger = lab.desk.workspace.ledger
    assert ledger.entries[0].previous == NOTHING
    assert [e.sequence for e in ledger.entries] == list(range(len(ledger.entries)))
    assert len({e.previous for e in ledger.entries}) == len(ledger.entries)
    assert ledger.acknowledged == len(ledger.entries)
    assert ledger.length == ledger_of(lived_lab).stat().st_size


@pytest.mark.parametrize("tail", [b"{", b'{"payload":"', b"\x00" * 64, b"x" * 5000])
def test_a_torn_tail_is_reported_by_verify_and_cut_off_by_the_next_writer(new_lab: Place, tail: bytes) -> None:
    whole = ledger_of(new_lab).read_bytes()
    rewrite(ledger_of(new_lab), whole + tail)
    assert problems(new_lab) == [str(ledger_of(new_lab))]
    assert ledger_of(new_lab).read_bytes() == whole + tail, "a reader changes nothing"
    with new_lab.open():
        pass
    assert ledger_of(new_lab).read_bytes() == whole
    assert problems(new_lab) == []


def test_a_whole_line_of_garbage_is_not_a_torn_tail(new_lab: Place) -> None:
    rewrite(ledger_of(new_lab), ledger_of(new_lab).read_bytes() + b"garbage\n")
    for writer in (False, True):
        assert str(ledger_of(new_lab)) in refusal(new_lab, writer=writer).where


@pytest.mark.parametrize("dropped", [1, 2, 10])
def test_truncation_to_an_older_prefix_is_refused(new_lab: Place, dropped: int) -> None:
    lines = ledger_of(new_lab).read_bytes().splitlines(keepends=True)
    rewrite(ledger_of(new_lab), b"".join(lines[:-dropped]))
    for writer in (False, True):
        error = refusal(new_lab, writer=writer)
        assert isinstance(error, DigestDiffers)
        assert error.reason == "ledger.truncated"
        assert "backup" in error.advice


def test_an_acknowledged_line_cut_in_half_is_never_repaired(new_lab: Place) -> None:
    whole = ledger_of(new_lab).read_bytes()
    rewrite(ledger_of(new_lab), whole[:-100])
    assert refusal(new_lab, writer=True).reason == "ledger.truncated"
    assert ledger_of(new_lab).read_bytes() == whole[:-100]


@pytest.mark.parametrize("change", ["reorder", "duplicate", "drop", "fork"])
def test_lines_out_of_their_chain_are_refused(new_lab: Place, change: str) -> None:
    lines = ledger_of(new_lab).read_bytes().splitlines(keepends=True)
    changed = {
        "reorder": [*lines[:4], lines[5], lines[4], *lines[6:]],
        "duplicate": [*lines[:5], lines[4], *lines[5:]],
        "drop": [*lines[:4], *lines[5:]],
        "fork": [*lines, lines[-1]],
    }[change]
    rewrite(ledger_of(new_lab), b"".join(changed))
    error = refusal(new_lab)
    assert isinstance(error, DigestDiffers)
    assert str(ledger_of(new_lab)) in error.where


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n"])
def test_an_empty_ledger_is_refused(new_lab: Place, content: bytes) -> None:
    rewrite(ledger_of(new_lab), content)
    error = refusal(new_lab)
    assert isinstance(error, BytesLie)
    assert str(ledger_of(new_lab)) in error.where


@pytest.mark.parametrize("writer", [False, True])
def test_a_missing_checkpoint_is_refused(new_lab: Place, writer: bool) -> None:
    checkpoint = new_lab.path / "audit" / "checkpoint"
    checkpoint.unlink()
    assert refusal(new_lab, writer=writer).where == str(checkpoint)


def test_a_checkpoint_of_another_lab_is_refused(new_lab: Place, tmp_path: Path) -> None:
    other = new_lab.copy(tmp_path / "other")
    with other.open() as lab:
        _, policy = lab.desk.policy
        lab.desk.workspace.commit(replace(policy, notes="another"))
    later = (other.path / "audit" / "checkpoint").read_bytes()
    rewrite(new_lab.path / "audit" / "checkpoint", later)
    assert refusal(new_lab).reason == "ledger.truncated"


def test_an_older_checkpoint_of_the_same_lab_lets_a_writer_acknowledge_the_rest(new_lab: Place) -> None:
    """A crash between the line and the checkpoint leaves exactly this."""
    checkpoint = new_lab.path / "audit" / "checkpoint"
    older = checkpoint.read_bytes()
    with new_lab.open() as lab:
        _, policy = lab.desk.policy
        added = lab.desk.workspace.commit(replace(policy, notes="another"))
    newer = checkpoint.read_bytes()
    rewrite(checkpoint, older)
    with new_lab.open() as lab:
        assert lab.desk.workspace.get(added, Policy).notes == "another"
    assert checkpoint.read_bytes() == newer


def test_an_entry_that_does_not_follow_is_never_appended(opened: object, new_lab: Place) -> None:
    workspace = opened.desk.workspace  # type: ignore[attr-defined]
    last = workspace.ledger.entries[-1]
    key = workspace.keys.find(workspace.root, "audit", "ledger-entry/1")
    before = ledger_of(new_lab).read_bytes()
    for wrong in (last, replace(last, sequence=last.sequence + 1), replace(last, previous=workspace.ledger.head)):
        with pytest.raises(DigestDiffers, match="does not follow"):
            workspace.ledger.append(wrong, key)
    assert ledger_of(new_lab).read_bytes() == before


def test_a_record_that_cites_what_the_ledger_does_not_hold_is_refused(opened: object) -> None:
    desk = opened.desk  # type: ignore[attr-defined]
    before = len(desk.workspace.ledger.entries)
    with pytest.raises(OutOfOrder, match="does not hold"):
        desk.workspace.commit(ArchiveRecord(header=desk.header, decision="d" * 64, candidates=()))
    assert len(desk.workspace.ledger.entries) == before


def test_the_same_record_is_never_written_twice(opened: object) -> None:
    desk = opened.desk  # type: ignore[attr-defined]
    found, policy = desk.policy
    before = len(desk.workspace.ledger.entries)
    assert desk.workspace.commit(policy) == found == digest(policy)
    assert len(desk.workspace.ledger.entries) == before


def test_a_ledger_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Ledger(tmp_path).load(lambda _entry: (b"", tmp_path))
