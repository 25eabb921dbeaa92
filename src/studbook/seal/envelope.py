"""DSSE envelopes (DSSE 1.0): one payload, one or more Ed25519 signatures, each over the same encoding of it.

Canonical JSON, signatures sorted by key id, no key twice. The key id is the public key itself in hex, so there is no
second name under which one key could be counted again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from studbook.errors import NotAuthorised, RecordRefused
from studbook.records import Digest, Record
from studbook.records.doors import MAX_RECORD_BYTES
from studbook.seal.keys import SigningKey
from studbook.seal.statement import read_statement, write_statement

__all__ = [
    "PAYLOAD_TYPE",
    "Envelope",
    "Signature",
    "add_signature",
    "check_signatures",
    "open_envelope",
    "peek",
    "seal",
    "signing_keys",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PAE = b"DSSEv1 %d %s " % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode())


class Signature(Struct, frozen=True, forbid_unknown_fields=True):
    """One signature.

    Attributes:
        keyid: The public key, 64 hex digits.
        sig: 64 bytes (RFC 8032).
    """

    keyid: Digest
    sig: bytes


class _Written(Struct, frozen=True, forbid_unknown_fields=True):
    payload: bytes
    payloadType: str  # noqa: N815 - the name is DSSE's
    signatures: tuple[Signature, ...]


class Envelope(NamedTuple):
    """An envelope whose form was checked, and whose signatures were not.

    Attributes:
        payload: The bytes of the statement.
        signatures: One or more, sorted by key id.
    """

    payload: bytes
    signatures: tuple[Signature, ...]


# Fields are declared in their canonical order, and no string in it needs an escape, so this writes RFC 8785.
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Written, strict=True)


def seal(record: Record, *keys: SigningKey) -> bytes:
    """The envelope of a record signed by every key, canonical JSON bytes.

    Raises:
        RecordRefused: if the record does not survive its own strict reader.
        NotAuthorised: if there is no key, or one stands twice.
    """
    payload = write_statement(record)
    signed = _encoded(payload)
    return _write(payload, [Signature(keyid=key.public, sig=key.sign(signed)) for key in keys], record.kind())


def add_signature(data: bytes, key: SigningKey, where: object = "") -> bytes:
    """The envelope with one more signature over the same payload.

    Raises:
        RecordRefused: if the envelope or its statement is malformed.
        NotAuthorised: if the key signed it already.
        DigestDiffers: if the statement is not that of its record; nobody should sign such a thing.
    """
    envelope = open_envelope(data, where)
    read_statement(envelope.payload, where).require_bound(where)
    added = Signature(keyid=key.public, sig=key.sign(_encoded(envelope.payload)))
    return _write(envelope.payload, [*envelope.signatures, added], where)


def peek(data: bytes, where: object = "") -> Record:
    """The record of an envelope whose signatures have NOT been checked; only to find what to check them with.

    Raises:
        RecordRefused: if envelope or statement are malformed.
    """
    return read_statement(open_envelope(data, where).payload, where).record


def signing_keys(data: bytes, where: object = "") -> frozenset[str]:
    """The key ids of an envelope, 64 hex digits each; the signatures have NOT been checked.

    Raises:
        StudbookError: as `open_envelope`.
    """
    return frozenset(signature.keyid for signature in open_envelope(data, where).signatures)


def open_envelope(data: bytes, where: object = "") -> Envelope:
    """Check the form of an envelope: size, strict JSON, canonical bytes, payload type, and its list of signatures.

    Raises:
        RecordRefused: for the first four; ``reason`` is ``record.size``, ``record.decode``, ``record.canonical`` or
            ``record.payload-type``.
        NotAuthorised: for the list; ``authority.unsigned``, ``authority.signature-twice`` or
            ``authority.signature-order``.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise RecordRefused(f"{len(data)} bytes is more than an envelope may hold", where=where, reason="record.size")
    try:
        found = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordRefused(f"not a valid envelope: {error}", where=where, reason="record.decode") from error
    # Refuses white space, another order of keys, keys that stand twice, and base64 with stray bits or line ends.
    if _ENCODER.encode(found) != data:
        text = "the envelope is not in canonical form (RFC 8785, base64 of RFC 4648)"
        raise RecordRefused(text, where=where, reason="record.canonical")
    if found.payloadType != PAYLOAD_TYPE:
        text = f"payload type {found.payloadType!r} is not {PAYLOAD_TYPE}"
        raise RecordRefused(text, where=where, reason="record.payload-type")
    _check_list(found.signatures, where)
    return Envelope(found.payload, found.signatures)


def check_signatures(envelope: Envelope, where: object = "") -> None:
    """Verify every signature under the key that its key id is.

    Raises:
        NotAuthorised: if one does not verify, or its key id is no Ed25519 key; ``authority.signature``.
    """
    signed = _encoded(envelope.payload)
    for signature in envelope.signatures:
        try:
            _public_key(signature.keyid).verify(signature.sig, signed)
        except (InvalidSignature, ValueError) as error:
            text = f"the signature of {signature.keyid[:16]}... does not verify"
            raise NotAuthorised(text, where=where, reason="authority.signature") from error


def _check_list(signatures: tuple[Signature, ...], where: object) -> None:
    names = [signature.keyid for signature in signatures]
    if not names:
        raise NotAuthorised("carries no signature", where=where, reason="authority.unsigned")
    if len(names) == 1:
        return
    if len(set(names)) != len(names):
        raise NotAuthorised("one key signed twice", where=where, reason="authority.signature-twice")
    if names != sorted(names):
        raise NotAuthorised("signatures are not sorted by key id", where=where, reason="authority.signature-order")


def _write(payload: bytes, signatures: list[Signature], where: object) -> bytes:
    ordered = tuple(sorted(signatures, key=lambda s: s.keyid))
    _check_list(ordered, where)
    return _ENCODER.encode(_Written(payload=payload, payloadType=PAYLOAD_TYPE, signatures=ordered))


def _encoded(payload: bytes) -> bytes:
    """The pre-authentication encoding (DSSE 1.0, PAE) of a payload of the one type there is."""
    return _PAE + b"%d " % len(payload) + payload


@lru_cache(maxsize=1024)
def _public_key(name: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(name))
