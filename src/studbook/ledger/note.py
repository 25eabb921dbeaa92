"""Signed notes, and the tree's checkpoint as one (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

A note is a text, an empty line, and signature lines. A checkpoint is a note whose text says whose tree it is (the
origin), how many entries it has, and its root. Its signature is an audit key's over the text itself; a ledger line is
signed over the encoding of DSSE, which begins with other bytes than an origin, so neither can stand for the other.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Collection
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from studbook.errors import BytesLie, DigestDiffers, NotAuthorised
from studbook.ledger.merkle import HASH_BYTES
from studbook.records import LedgerEntry, Root, Zone
from studbook.seal import Authority, SigningKey, keys_in_force

__all__ = [
    "NOTE_LIMIT",
    "Checkpoint",
    "Note",
    "NoteSignature",
    "audit_keys",
    "key_id",
    "open_checkpoint",
    "origin_of",
    "read_base64",
    "read_checkpoint",
    "read_note",
    "read_number",
    "verify_note",
    "write_checkpoint",
    "write_note",
]

# Most bytes of a note; far more than the sixteen signatures that every reader has to take.
NOTE_LIMIT = 1 << 16
_DASH = "\N{EM DASH} "
_ED25519 = b"\x01"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SPACE = re.compile(r"\s")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_ADVICE = "It was edited or damaged. Restore it from a backup; it is never corrected in place."


class NoteSignature(NamedTuple):
    """One signature line.

    Attributes:
        name: Name of the key.
        key_id: 4 bytes that tell keys of one name apart.
        signature: 64 bytes for Ed25519; other kinds of signature have other lengths.
    """

    name: str
    key_id: bytes
    signature: bytes


class Note(NamedTuple):
    """A note whose form was checked, and whose signatures were not.

    Attributes:
        text: What was signed, with its last newline.
        signatures: One or more.
    """

    text: str
    signatures: tuple[NoteSignature, ...]


class Checkpoint(NamedTuple):
    """What a checkpoint says.

    Attributes:
        origin: Whose tree it is.
        size: Number of entries.
        root: Root hash of the tree, 32 bytes.
        extensions: Further lines, without meaning here.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def origin_of(lab: str) -> str:
    """The origin of a lab's checkpoints, from the lab's identity (64 hex digits); also the name of its note key."""
    return f"studbook/{lab}"


def audit_keys(authority: Authority | Root) -> tuple[str, ...]:
    """The public keys, 64 hex digits each, that may sign lines and checkpoints under an authority.

    Raises:
        NotAuthorised: if its root breaks a rule.
    """
    if isinstance(authority, Root):
        authority = Authority(authority)
    grants = keys_in_force(authority.root, authority.revocations, authority.position)
    return tuple(g.key for g in grants if g.zone == Zone.AUDIT and LedgerEntry.kind() in g.kinds)


@lru_cache(maxsize=64)
def key_id(name: str, public: str) -> bytes:
    """The 4 bytes SHA-256(name || 0x0A || 0x01 || public key)[:4] of an Ed25519 key given as 64 hex digits."""
    return sha256(name.encode() + b"\n" + _ED25519 + bytes.fromhex(public)).digest()[:4]


def write_note(text: str, name: str, key: SigningKey) -> bytes:
    """A note with one Ed25519 signature.

    Raises:
        BytesLie: if text or name have no place in a note.
    """
    signed = b64encode(key_id(name, key.public) + key.sign(text.encode())).decode()
    data = f"{text}\n{_DASH}{name} {signed}\n".encode()
    if read_note(data, name).text != text:
        raise _malformed(name, "the text does not read back")
    return data


def read_note(data: bytes, where: object = "") -> Note:
    """Read the form of a note strictly; its signatures are NOT checked.

    Raises:
        BytesLie: if it is too long, not UTF-8, holds control characters, lacks its empty line, or a signature line is
            not an em dash, a name without spaces or plus, and strict base64 of an id and a signature; ``ledger.note``.
    """
    if len(data) > NOTE_LIMIT:
        raise _malformed(where, f"{len(data)} bytes is more than a note may hold")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise _malformed(where, "is not UTF-8") from error
    if _CONTROL.search(whole):
        raise _malformed(where, "holds control characters")
    text, empty, rest = whole.rpartition("\n\n")
    if not empty or not text or not rest.endswith("\n"):
        raise _malformed(where, "is not a text, an empty line, and lines of signatures")
    signatures = tuple(_signature(line, where) for line in rest[:-1].split("\n"))
    if len({(s.name, s.key_id) for s in signatures}) != len(signatures):
        raise _malformed(where, "holds two signatures of one key")
    return Note(text + "\n", signatures)


def verify_note(note: Note, name: str, keys: Collection[str], where: object = "") -> str:
    """Verify the signatures of known keys; lines of other keys are left alone, as the form demands.

    Args:
        note: The note.
        name: The name that the keys have in notes.
        keys: Public keys that count, 64 hex digits each.
        where: File, for errors.

    Returns:
        The public key that signed.

    Raises:
        NotAuthorised: if none of them signed it, or a signature under one of them does not verify; ``ledger.unsigned``
            or ``ledger.signature``.
    """
    known = {key_id(name, key): key for key in keys}
    found = [(known[s.key_id], s.signature) for s in note.signatures if s.name == name and s.key_id in known]
    if not found:
        text = "is not signed by an audit key that the root of keys lists"
        raise NotAuthorised(text, where=where, reason="ledger.unsigned")
    for key, signature in found:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, note.text.encode())
        except (InvalidSignature, ValueError) as error:
            text = f"the signature of {key[:16]}... does not verify"
            raise NotAuthorised(text, where=where, reason="ledger.signature") from error
    return found[0][0]


def write_checkpoint(origin: str, size: int, root: bytes, key: SigningKey) -> bytes:
    """The signed checkpoint of a tree.

    Args:
        origin: Whose tree it is; also the key's name.
        size: Number of entries.
        root: Root hash, 32 bytes.
        key: An audit key.
    """
    return write_note(f"{origin}\n{size}\n{b64encode(root).decode()}\n", origin, key)


def read_checkpoint(data: bytes, where: object = "") -> tuple[Checkpoint, Note]:
    """Read the form of a checkpoint strictly; its signatures are NOT checked.

    Raises:
        BytesLie: if it is not a note (`read_note`), or not an origin, a number and a root; ``ledger.note``.
    """
    note = read_note(data, where)
    lines = note.text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise _malformed(where, "is not at least three lines: origin, size, root")
    size, root = read_number(lines[1], where), read_base64(lines[2], where)
    if len(root) != HASH_BYTES:
        raise _malformed(where, "its root is not 32 bytes")
    return Checkpoint(lines[0], size, root, tuple(lines[3:])), note


def open_checkpoint(data: bytes, origin: str, keys: Collection[str], where: object = "") -> Checkpoint:
    """Read a checkpoint, and verify whose it is and who signed it.

    Args:
        data: The note.
        origin: The origin it must have.
        keys: Public keys that may sign it, 64 hex digits each.
        where: File, for errors.

    Raises:
        BytesLie: if it is malformed; ``ledger.note``.
        DigestDiffers: if it is of another origin; ``ledger.origin``.
        NotAuthorised: if it is not signed by one of the keys; ``ledger.unsigned`` or ``ledger.signature``.
    """
    checkpoint, note = read_checkpoint(data, where)
    if checkpoint.origin != origin:
        advice = "It belongs to another lab. Put this lab's own back."
        text = f"is a checkpoint of {checkpoint.origin!r}, not of {origin!r}"
        raise DigestDiffers(text, where=where, advice=advice, reason="ledger.origin")
    verify_note(note, origin, keys, where)
    return checkpoint


def read_number(text: str, where: object = "") -> int:
    """A number in ASCII digits without leading zeros, at most 16 digits.

    Raises:
        BytesLie: if it is anything else; ``ledger.note``.
    """
    if not _NUMBER.fullmatch(text):
        raise _malformed(where, f"{text[:20]!r} is not a number without leading zeros")
    return int(text)


def read_base64(text: str, where: object = "") -> bytes:
    """The bytes of base64 (RFC 4648 section 4) in its one canonical spelling.

    Raises:
        BytesLie: if it is anything else; ``ledger.note``.
    """
    try:
        data = b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise _malformed(where, "holds a line that is not base64") from error
    if b64encode(data).decode() != text:
        raise _malformed(where, "holds base64 that is not in its canonical spelling")
    return data


def _signature(line: str, where: object) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not name or "+" in name or _SPACE.search(name):
        raise _malformed(where, "holds a line that is not a signature")
    data = read_base64(encoded, where)
    if len(data) < 5:
        raise _malformed(where, "holds a signature without bytes")
    return NoteSignature(name, data[:4], data[4:])


def _malformed(where: object, text: str) -> BytesLie:
    return BytesLie(text, where=where, advice=_ADVICE, reason="ledger.note")
