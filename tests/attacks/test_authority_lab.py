"""Lies about authority told to a whole lab: by its files, by a stolen audit key, by what waits for signatures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lab_fixtures import Place, problems, rewrite
from studbook.errors import StudbookError
from studbook.lab import Lab
from studbook.lab.keys import Keys
from studbook.lab.pending import approve_pending
from studbook.records import Blob, LedgerEntry, Policy, Zone, replace
from studbook.seal import KeyRing, SigningKey, add_signature, seal


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A new lab of ann's, without anything in it."""
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, "ann", place.keys)
    return place


def audit_key(lab: Lab) -> SigningKey:
    work = lab.desk.workspace
    return work.keys.find(work.root, Zone.AUDIT, LedgerEntry.kind())


def refused(reason: str) -> pytest.RaisesExc[StudbookError]:
    return pytest.raises(StudbookError, check=lambda error: error.reason == reason and bool(error.where))


def test_a_policy_replay_by_whoever_stole_the_audit_key(place: Place) -> None:
    """The old policy's own envelope, signed by its owner, is entered a second time to be the newest again."""
    with place.open() as lab:
        work = lab.desk.workspace
        old, policy = lab.desk.policy
        newer = work.commit(replace(policy, policy_version=2, notes="stricter"))
        known = work.entry(old)
        assert known is not None
        again = replace(known, sequence=len(work.ledger.entries), previous=work.ledger.head)
        line = seal(again, audit_key(lab))
        assert lab.desk.policy[0] == newer
    path = place.path / "audit" / "ledger.jsonl"
    rewrite(path, path.read_bytes() + line + b"\n")
    with refused("ledger.replay"):
        place.open(writer=False)
    assert len(problems(place)) == 1 and str(path) in problems(place)[0]


def test_a_policy_written_by_whoever_stole_the_audit_key(place: Place) -> None:
    with place.open() as lab:
        work, policy = lab.desk.workspace, lab.desk.policy[1]
        forged = seal(replace(policy, notes="anything goes"), audit_key(lab))
        with refused("authority.zone"):
            work.commit(replace(policy, notes="anything goes"), envelope=forged)
        assert len(list(lab.desk.all(Policy))) == 1


def test_an_envelope_that_holds_another_record_than_the_one_to_commit(place: Place) -> None:
    with place.open() as lab:
        work, policy = lab.desk.workspace, lab.desk.policy[1]
        key = work.keys.find(work.root, Zone.POLICY, Policy.kind())
        other = seal(replace(policy, notes="one"), key)
        with refused("digest"):
            work.commit(replace(policy, notes="two"), envelope=other)


def test_a_revocation_slipped_in_under_another_entry(place: Place) -> None:
    """The file that an entry names is exchanged for another sealed record of the same kind."""
    with place.open() as lab:
        keys = Keys(lab.desk)
        old = lab.desk.workspace.keys.public_of("process/candidate/candidate")
        keys.rotate("ann", "process/candidate/candidate")
        assert old is not None
        signed = keys.revoke(old, "ann", "stolen")
        work = lab.desk.workspace
        found = work.entry(signed.digest)
        assert found is not None
        path = work.record_path(found)
        key = work.keys.find(work.root, Zone.POLICY, "revocation/1")
        other = seal(replace(signed.record, since=10_000), key)
    rewrite(path, other)
    assert problems(place) == [str(path)]
    assert hashlib.sha256(other).hexdigest() != found.envelope.sha256
    assert isinstance(found.envelope, Blob)


def test_a_pending_envelope_filled_up_by_a_stranger(place: Place, tmp_path: Path) -> None:
    bob, eve = KeyRing(tmp_path / "bob"), KeyRing(tmp_path / "eve").create("people/policy/root")
    with place.open() as lab:
        keys = Keys(lab.desk)
        keys.rotate("ann", "process/evaluation/evaluation", owner="bob")
        keys.new("bob", ["root/1"], "ann", bob.create("people/policy/root").public)
        waits = keys.rotate("ann", needs={"root/1": 2})
        path = place.path / "policy" / "pending" / f"{waits.digest}.json"
        rewrite(path, add_signature(path.read_bytes(), eve))
        with refused("authority.unknown-key"):
            approve_pending(lab.desk, waits.digest, "ann")
        assert lab.desk.workspace.root.owners.threshold == 1


@pytest.mark.parametrize("name", ["notes.txt", "x.json", "0" * 64, ".hidden"])
def test_a_file_smuggled_in_beside_what_waits(place: Place, name: str) -> None:
    path = place.path / "policy" / "pending" / name
    path.parent.mkdir()
    path.write_text("{}")
    assert problems(place) == [str(path)]
