"""Lies about the past: each is named by a reader, refused to a writer, and changes nothing on disk."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_fixtures import Place, rewrite
from studbook.errors import StudbookError
from studbook.ledger import Witness, default_witness
from studbook.ledger.merkle import Tree
from studbook.ledger.note import audit_keys, origin_of, read_checkpoint, write_checkpoint
from studbook.records import Policy, replace
from studbook.seal import KeyRing, SigningKey, seal
from studbook.workspace import Workspace

Lie = Callable[["Case"], None]


class Case:
    """A lab with its witness, an old backup of it, and the thief's tools: the files, and where stated the audit key."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.backup = folder / "backup"
        self.open(writer=True).appoint_witness()
        shutil.copytree(place.path, self.backup, ignore=shutil.ignore_patterns("cache"))
        self.add("one")
        self.add("two")
        self.before = self.ledger.read_bytes()

    @property
    def ledger(self) -> Path:
        return self.place.path / "audit" / "ledger.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.place.path / "audit" / "checkpoint"

    @property
    def witness(self) -> Path:
        return Witness(default_witness(self.place.path)).path

    @property
    def lines(self) -> list[bytes]:
        return self.ledger.read_bytes()[:-1].split(b"\n")

    def open(self, *, writer: bool) -> Workspace:
        workspace = Workspace(self.place.path, KeyRing(self.place.keys), writer=writer)
        workspace.close()
        return workspace

    def add(self, note: str) -> None:
        workspace = Workspace(self.place.path, KeyRing(self.place.keys), writer=True)
        *_, (_, policy) = workspace.all(Policy)
        workspace.commit(replace(policy, policy_version=policy.policy_version + 1, notes=note))
        workspace.close()

    def key(self) -> SigningKey:
        return KeyRing(self.place.keys).held(audit_keys(self.open(writer=False).root))[0]

    def write(self, lines: list[bytes]) -> None:
        rewrite(self.ledger, b"".join(line + b"\n" for line in lines))

    def sign(self, lines: list[bytes], key: SigningKey, origin: str = "") -> None:
        stated = read_checkpoint(self.checkpoint.read_bytes())[0].origin
        rewrite(self.checkpoint, write_checkpoint(origin or stated, len(lines), Tree(lines).root(), key))


def truncated(case: Case) -> None:
    case.write(case.lines[:-1])


def truncated_with_its_old_checkpoint(case: Case) -> None:
    case.write(case.lines[:-2])
    rewrite(case.checkpoint, (case.backup / "audit" / "checkpoint").read_bytes())


def truncated_and_signed_with_the_stolen_audit_key(case: Case) -> None:
    key, lines = case.key(), case.lines[:-1]
    case.write(lines)
    case.sign(lines, key)


def restored_whole_from_an_old_copy(case: Case) -> None:
    shutil.rmtree(case.place.path)
    shutil.copytree(case.backup, case.place.path)


def forked_with_the_stolen_audit_key(case: Case) -> None:
    key, entry = case.key(), case.open(writer=False).ledger.entries[-1]
    lines = [*case.lines[:-1], seal(replace(entry, host="elsewhere"), key)]
    case.write(lines)
    case.sign(lines, key)


def continued_from_an_old_copy_with_the_stolen_audit_key(case: Case) -> None:
    away = case.witness.parent.with_name("away")
    case.witness.parent.rename(away)
    restored_whole_from_an_old_copy(case)
    for note in ("another one", "another two", "and a third"):
        case.add(note)
    away.rename(case.witness.parent)


def reordered(case: Case) -> None:
    lines = case.lines
    case.write([*lines[:-2], lines[-1], lines[-2]])


def reordered_and_chained_again_with_the_stolen_audit_key(case: Case, *, dated_again: bool = True) -> None:
    key, entries = case.key(), case.open(writer=False).ledger.entries
    lines = case.lines[:-2]
    for entry, place in ((entries[-1], entries[-2]), (entries[-2], entries[-1])):
        head = hashlib.sha256(lines[-1]).hexdigest()
        time = place.time if dated_again else entry.time
        lines.append(seal(replace(entry, sequence=len(lines), previous=head, time=time), key))
    case.write(lines)
    case.sign(lines, key)


def reordered_and_chained_again_with_their_old_dates(case: Case) -> None:
    reordered_and_chained_again_with_the_stolen_audit_key(case, dated_again=False)


def doubled(case: Case) -> None:
    case.write([*case.lines, case.lines[-1]])


def one_sequence_twice_with_the_stolen_audit_key(case: Case) -> None:
    key, entry = case.key(), case.open(writer=False).ledger.entries[-1]
    again = seal(replace(entry, previous=hashlib.sha256(case.lines[-1]).hexdigest()), key)
    case.write([*case.lines, again])


def old_checkpoint_replayed(case: Case) -> None:
    rewrite(case.checkpoint, (case.backup / "audit" / "checkpoint").read_bytes())


def checkpoint_of_a_foreign_origin_by_the_true_key(case: Case) -> None:
    case.sign(case.lines, case.key(), origin_of("0" * 64))


def checkpoint_with_another_root_by_the_true_key(case: Case) -> None:
    key = case.key()
    case.sign([*case.lines[:-1], b"another"], key)


def checkpoint_of_more_entries_than_there_are_by_the_true_key(case: Case) -> None:
    key = case.key()
    case.sign([*case.lines, b"promised"], key)


def checkpoint_deleted(case: Case) -> None:
    case.checkpoint.unlink()


def checkpoint_replaced_by_a_link(case: Case) -> None:
    away = case.place.path.with_name("same-bytes")
    case.checkpoint.rename(away)
    case.checkpoint.symlink_to(away)


def witness_forged_without_a_key(case: Case) -> None:
    """The thief reached the witness as well, and forged what it saw without a key."""
    data = bytearray(case.witness.read_bytes())
    data[-10] = ord("A") if data[-10] != ord("A") else ord("B")
    rewrite(case.witness, bytes(data))


LIES: dict[Lie, str] = {
    truncated: "ledger.truncated",
    truncated_with_its_old_checkpoint: "ledger.older-than-witness",
    truncated_and_signed_with_the_stolen_audit_key: "ledger.older-than-witness",
    restored_whole_from_an_old_copy: "ledger.older-than-witness",
    forked_with_the_stolen_audit_key: "ledger.fork",
    continued_from_an_old_copy_with_the_stolen_audit_key: "ledger.fork",
    reordered: "ledger.chain",
    reordered_and_chained_again_with_the_stolen_audit_key: "ledger.fork",
    reordered_and_chained_again_with_their_old_dates: "ledger.clock",
    doubled: "ledger.chain",
    one_sequence_twice_with_the_stolen_audit_key: "ledger.chain",
    old_checkpoint_replayed: "ledger.checkpoint-replayed",
    checkpoint_of_a_foreign_origin_by_the_true_key: "ledger.origin",
    checkpoint_with_another_root_by_the_true_key: "ledger.root",
    checkpoint_of_more_entries_than_there_are_by_the_true_key: "ledger.truncated",
    checkpoint_deleted: "file.missing",
    checkpoint_replaced_by_a_link: "bytes",
    witness_forged_without_a_key: "ledger.signature",
}
# What only the witness can know: the lab opens for reading, with the problem in hand.
_WITNESS_KNOWS = {"ledger.older-than-witness", "ledger.fork", "ledger.checkpoint-replayed", "ledger.signature"}


@pytest.fixture
def case(new_lab: Place, tmp_path: Path) -> Case:
    return Case(new_lab, tmp_path)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_the_past_cannot_be(case: Case, lie: Lie) -> None:
    lie(case)
    reason = LIES[lie]
    files = {p: p.read_bytes() for p in sorted(case.place.path.rglob("*")) if p.is_file() and "cache" not in p.parts}
    with pytest.raises(StudbookError) as caught:
        case.open(writer=True)
    assert caught.value.reason == reason
    assert caught.value.where
    assert caught.value.advice
    if reason in _WITNESS_KNOWS:
        problem = case.open(writer=False).ledger.witness_problem
        assert problem is not None
        assert problem.reason == reason
    else:
        with pytest.raises(StudbookError) as caught:
            case.open(writer=False)
        assert caught.value.reason == reason
    after = {p: p.read_bytes() for p in sorted(case.place.path.rglob("*")) if p.is_file() and "cache" not in p.parts}
    assert after == files
