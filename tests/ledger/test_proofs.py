"""Proofs as files: checked from bytes and a root of keys alone, in one spelling, without a node too many or too few."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from lab_fixtures import Place
from ledger_fixtures import Long, find_in
from studbook.errors import BytesLie, DigestDiffers, NotAuthorised, RecordRefused, StudbookError, UsageError
from studbook.lab import Lab
from studbook.ledger import Ledger, check_consistency, check_inclusion
from studbook.ledger.merkle import leaf_hash
from studbook.ledger.note import open_checkpoint, write_checkpoint
from studbook.ledger.proofs import read_consistency, read_inclusion, write_consistency, write_inclusion
from studbook.seal import open_root, seal

SIZES = (1, 2, 3, 7, 8, 100, 128, 199, 200)


@pytest.fixture(scope="module")
def opened(long: Long) -> Ledger:
    ledger = Ledger(long.place.path / "audit")
    ledger.load(find_in(long.place))
    return ledger


def older(long: Long, size: int) -> bytes:
    """The checkpoint as it was at a size."""
    tree = long.prefix(size).tree
    return write_checkpoint(f"studbook/{long.root.lab}", size, tree.root(), long.key)


def reason(data: bytes, long: Long, line: bytes) -> str:
    with pytest.raises(StudbookError) as caught:
        check_inclusion(data, line, long.root, "here")
    assert caught.value.where.startswith("here")
    return caught.value.reason


def test_every_entry_is_proven_to_somebody_who_has_only_the_root(long: Long, opened: Ledger) -> None:
    envelope, _ = find_in(long.place)(opened.entries[0])
    root, _ = open_root(envelope)
    for index in range(0, 200, 7):
        proof = opened.prove(index)
        checkpoint, entry = check_inclusion(proof, long.lines[index], root)
        assert (checkpoint.size, entry) == (200, opened.entries[index])
        assert proof.startswith(b"c2sp.org/tlog-proof@v1\nindex %d\n" % index)
        assert proof.endswith(b"\n\n" + long.checkpoint)


def test_every_older_checkpoint_is_proven_to_be_continued(long: Long, opened: Ledger) -> None:
    for size in SIZES:
        old = older(long, size)
        proof = opened.prove_since(old)
        assert check_consistency(proof, old, long.root).size == 200
        assert proof.startswith(b"old %d\n" % size)


def test_what_the_checkpoint_does_not_cover_is_not_proven(opened: Ledger) -> None:
    for index in (-1, 200):
        with pytest.raises(UsageError) as caught:
            opened.prove(index)
        assert caught.value.reason == "ledger.index"


def test_another_line_or_position_is_not_proven(long: Long, opened: Ledger) -> None:
    proof = opened.prove(20)
    assert reason(proof, long, long.lines[21]) == "ledger.inclusion"
    assert reason(proof.replace(b"index 20\n", b"index 21\n"), long, long.lines[20]) == "ledger.inclusion"
    assert reason(proof.replace(b"index 20\n", b"index 200\n"), long, long.lines[20]) == "ledger.inclusion"


def test_a_node_too_many_or_too_few_is_refused(long: Long, opened: Ledger) -> None:
    found = read_inclusion(opened.prove(20))
    since = read_consistency(opened.prove_since(older(long, 100)))
    for hashes in ([*found.hashes, bytes(32)], found.hashes[:-1], found.hashes[1:], found.hashes[::-1]):
        assert reason(write_inclusion(20, hashes, found.checkpoint), long, long.lines[20]) == "ledger.inclusion"
    for hashes in ([*since.hashes, bytes(32)], since.hashes[:-1], since.hashes[1:], since.hashes[::-1]):
        with pytest.raises(DigestDiffers) as caught:
            check_consistency(write_consistency(100, hashes, since.checkpoint), older(long, 100), long.root)
        assert caught.value.reason == "ledger.consistency"


def test_a_line_in_the_tree_that_says_another_position_is_refused(long: Long) -> None:
    """Only whoever holds the audit key can make one; the proof must still not be read as it was not meant."""
    entry = long.prefix(3).entries[1]
    line = seal(entry, long.key)
    checkpoint = write_checkpoint(f"studbook/{long.root.lab}", 1, leaf_hash(line), long.key)
    assert reason(write_inclusion(0, [], checkpoint), long, line) == "ledger.index"


def test_a_leaf_that_is_no_ledger_entry_is_refused(long: Long) -> None:
    root_envelope, _ = long.find(long.prefix(1).entries[0])
    checkpoint = write_checkpoint(f"studbook/{long.root.lab}", 1, leaf_hash(root_envelope), long.key)
    with pytest.raises((RecordRefused, NotAuthorised)):
        check_inclusion(write_inclusion(0, [], checkpoint), root_envelope, long.root)


def test_proofs_of_another_lab_are_refused(long: Long, opened: Ledger, tmp_path: Path) -> None:
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, "bob", place.keys)
    with place.open(writer=False) as lab:
        other = lab.desk.workspace.root
        theirs = lab.desk.workspace.ledger.prove(0)
    with pytest.raises(DigestDiffers) as caught:
        check_inclusion(theirs, long.lines[0], long.root)
    assert caught.value.reason == "ledger.origin"
    with pytest.raises(DigestDiffers) as caught:
        check_inclusion(opened.prove(0), long.lines[0], other)
    assert caught.value.reason == "ledger.origin"
    with pytest.raises(DigestDiffers) as caught:
        check_consistency(opened.prove_since(long.checkpoint), read_inclusion(theirs).checkpoint, long.root)
    assert caught.value.reason == "ledger.origin"


def test_a_consistency_proof_between_other_sizes_or_from_a_fork_is_refused(long: Long, opened: Ledger) -> None:
    proof = opened.prove_since(older(long, 100))
    with pytest.raises(DigestDiffers) as caught:
        check_consistency(proof, older(long, 99), long.root)
    assert caught.value.reason == "ledger.size"
    fork = write_checkpoint(f"studbook/{long.root.lab}", 100, bytes(32), long.key)
    with pytest.raises(DigestDiffers) as caught:
        check_consistency(proof, fork, long.root)
    assert caught.value.reason == "ledger.consistency"
    with pytest.raises(DigestDiffers) as caught:
        opened.prove_since(fork)
    assert caught.value.reason == "ledger.root"


def test_no_flipped_bit_of_a_proof_passes(long: Long, opened: Ledger) -> None:
    proof, line = opened.prove(20), long.lines[20]
    for position in range(len(proof)):
        data = bytearray(proof)
        data[position] ^= 1 << position % 8
        with pytest.raises(StudbookError):
            check_inclusion(bytes(data), line, long.root)


def broken(proof: bytes) -> dict[str, bytes]:
    head, rest = proof.split(b"\n", 1)
    first = rest.split(b"\n")[1]
    return {
        "another version": proof.replace(b"@v1", b"@v2"),
        "extra data, which nobody signed": head + b"\nextra AAAA\n" + rest,
        "leading zero": proof.replace(b"index ", b"index 0"),
        "negative": proof.replace(b"index ", b"index -"),
        "no index": head + b"\n" + rest.split(b"\n", 1)[1],
        "short hash": proof.replace(first, b64encode(bytes(31))),
        "hash without its end": proof.replace(first, first[:-1]),
        "hash in web base64": proof.replace(first, b"-_" * 21 + b"-="),
        "blank before the newline": proof.replace(first, first + b" "),
        "carriage returns": proof.replace(b"\n", b"\r\n"),
        "empty": b"",
        "no checkpoint": proof.split(b"\n\n")[0] + b"\n\n",
        "no empty line": proof.split(b"\n\n")[0] + b"\n",
        "a thousand hashes": proof.replace(first, b"\n".join([first] * 1000)),
        "too long": proof + b"x" * (1 << 17),
        "not ASCII": proof.replace(first, "é".encode()),
    }


@pytest.mark.parametrize("how", broken(b"h\nindex 1\nx\n\ny"))
def test_a_malformed_proof_is_refused_by_its_form(long: Long, opened: Ledger, how: str) -> None:
    with pytest.raises(BytesLie) as caught:
        check_inclusion(broken(opened.prove(20))[how], long.lines[20], long.root, "here")
    assert caught.value.reason in ("ledger.proof", "ledger.note")


def test_writing_what_was_read_gives_the_same_bytes(long: Long, opened: Ledger) -> None:
    for index in (0, 1, 100, 199):
        proof = opened.prove(index)
        assert write_inclusion(*read_inclusion(proof)) == proof
        since = opened.prove_since(older(long, index + 1))
        assert write_consistency(*read_consistency(since)) == since
    assert open_checkpoint(read_inclusion(proof).checkpoint, f"studbook/{long.root.lab}", [long.key.public]).size == 200
