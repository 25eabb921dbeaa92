"""Proofs as files, checked by anybody from their bytes and a root of keys, without the lab.

* Inclusion, c2sp.org/tlog-proof: that a ledger line is in the tree of a signed checkpoint.
* Consistency, the form in which c2sp.org/tlog-witness submits checkpoints: that a checkpoint continues an older one.

Both are text: a head, the hashes in base64, an empty line, the checkpoint as it was signed. There is one spelling.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from studbook.errors import BytesLie, DigestDiffers, RecordRefused
from studbook.ledger.merkle import HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from studbook.ledger.note import (
    Checkpoint,
    audit_keys,
    open_checkpoint,
    origin_of,
    read_base64,
    read_checkpoint,
    read_number,
)
from studbook.records import LedgerEntry, Root
from studbook.seal import Authority, unseal

__all__ = [
    "PROOF_LIMIT",
    "Proof",
    "check_consistency",
    "check_inclusion",
    "read_consistency",
    "read_inclusion",
    "write_consistency",
    "write_inclusion",
]

# A path has at most one hash a bit of the size; the rest is the checkpoint.
PROOF_LIMIT = 1 << 17
_MOST_HASHES = 64
_HEAD = "c2sp.org/tlog-proof@v1"


class Proof(NamedTuple):
    """A proof whose form was checked, and nothing else.

    Attributes:
        number: Position of the entry, or size of the older tree.
        hashes: The path, 32 bytes each.
        checkpoint: The checkpoint's bytes.
    """

    number: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


def write_inclusion(index: int, hashes: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The file that proves that entry ``index`` is in the tree of a checkpoint.

    Args:
        index: Position, from 0.
        hashes: The path (`Tree.inclusion`).
        checkpoint: The signed checkpoint.
    """
    return _write([_HEAD, f"index {index}"], hashes, checkpoint)


def write_consistency(old: int, hashes: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The file that proves that a checkpoint continues an older one of ``old`` entries.

    Args:
        old: Size of the older tree.
        hashes: The path (`Tree.consistency`).
        checkpoint: The newer signed checkpoint.
    """
    return _write([f"old {old}"], hashes, checkpoint)


def read_inclusion(data: bytes, where: object = "") -> Proof:
    """Read the form of a proof of inclusion strictly; nothing is verified.

    Raises:
        BytesLie: if it is malformed, or carries extra data, which nobody signed; ``ledger.proof`` or ``ledger.note``.
    """
    head, newline, rest = data.partition(b"\n")
    if head != _HEAD.encode() or not newline:
        raise _malformed(where, f"does not begin with {_HEAD}")
    return _read(rest, "index ", where)


def read_consistency(data: bytes, where: object = "") -> Proof:
    """Read the form of a proof of consistency strictly; nothing is verified.

    Raises:
        BytesLie: if it is malformed; ``ledger.proof`` or ``ledger.note``.
    """
    return _read(data, "old ", where)


def check_inclusion(
    data: bytes, line: bytes, authority: Authority | Root, where: object = ""
) -> tuple[Checkpoint, LedgerEntry]:
    """Verify that a ledger line is one of this lab's, signed, and in the tree of a signed checkpoint.

    Args:
        data: The proof.
        line: The line of the ledger, without its newline.
        authority: The root of keys in force at the entry and at the checkpoint, from `studbook.seal.open_root`; trust in
            it comes from its pin. Where a root followed in between, check the older entry under a checkpoint of its time.
        where: File, for errors.

    Returns:
        The checkpoint and the entry.

    Raises:
        BytesLie: if proof, checkpoint or line are malformed.
        DigestDiffers: if the checkpoint is another lab's, the entry says another position, or the path does not lead from
            the line to the root; ``ledger.origin``, ``ledger.index`` or ``ledger.inclusion``.
        NotAuthorised: if checkpoint or line are not signed by an audit key of the root.
    """
    proof = read_inclusion(data, where)
    checkpoint = _open(proof.checkpoint, authority, where)
    verify_inclusion(leaf_hash(line), proof.number, checkpoint.size, proof.hashes, checkpoint.root, where)
    entry = unseal(line, authority, where).record
    if not isinstance(entry, LedgerEntry):
        raise RecordRefused("is not a ledger entry", where=where)
    if entry.sequence != proof.number:
        text = f"the line says it is entry {entry.sequence}, not {proof.number}"
        raise DigestDiffers(text, where=where, reason="ledger.index")
    return checkpoint, entry


def check_consistency(data: bytes, older: bytes, authority: Authority | Root, where: object = "") -> Checkpoint:
    """Verify that a checkpoint continues an older one of the same lab.

    Args:
        data: The proof, which carries the newer checkpoint.
        older: The older signed checkpoint.
        authority: The root of keys in force at both, from `studbook.seal.open_root`.
        where: File, for errors.

    Returns:
        The newer checkpoint.

    Raises:
        BytesLie: if proof or checkpoints are malformed.
        DigestDiffers: if one is another lab's, the proof begins at another size, or does not lead from one root to the
            other; ``ledger.origin``, ``ledger.size`` or ``ledger.consistency``.
        NotAuthorised: if a checkpoint is not signed by an audit key of the root.
    """
    proof = read_consistency(data, where)
    new, old = _open(proof.checkpoint, authority, where), _open(older, authority, where)
    if old.size != proof.number:
        text = f"begins at {proof.number} entries, and the older checkpoint has {old.size}"
        raise DigestDiffers(text, where=where, reason="ledger.size")
    verify_consistency(old.size, old.root, new.size, new.root, proof.hashes, where)
    return new


def _open(data: bytes, authority: Authority | Root, where: object) -> Checkpoint:
    root = authority if isinstance(authority, Root) else authority.root
    return open_checkpoint(data, origin_of(root.lab), audit_keys(authority), where)


def _write(head: Sequence[str], hashes: Sequence[bytes], checkpoint: bytes) -> bytes:
    lines = [*head, *(b64encode(node).decode() for node in hashes), "", ""]
    return "\n".join(lines).encode() + checkpoint


def _read(data: bytes, word: str, where: object) -> Proof:
    if len(data) > PROOF_LIMIT:
        raise _malformed(where, f"{len(data)} bytes is more than a proof may hold")
    head, empty, checkpoint = data.partition(b"\n\n")
    if not empty or not head.isascii():
        raise _malformed(where, "is not a head, an empty line, and a checkpoint")
    first, *encoded = head.decode().split("\n")
    if not first.startswith(word):
        raise _malformed(where, f"has no line {word!r} where it belongs")
    number = read_number(first.removeprefix(word), where)
    if len(encoded) > _MOST_HASHES:
        raise _malformed(where, f"{len(encoded)} hashes are more than any tree needs")
    hashes = tuple(read_base64(line, where) for line in encoded)
    if any(len(node) != HASH_BYTES for node in hashes):
        raise _malformed(where, "holds a hash that is not 32 bytes")
    read_checkpoint(checkpoint, where)
    return Proof(number, hashes, checkpoint)


def _malformed(where: object, text: str) -> BytesLie:
    advice = "Ask for the proof again; it can be made at any time from the ledger."
    return BytesLie(text, where=where, advice=advice, reason="ledger.proof")
