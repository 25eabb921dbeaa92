"""DSSE around in-toto statements that are not records: the pre-authentication encoding, and one signature.

Source: DSSE 1.0, protocol.md and envelope.md; the payload type is that of in-toto's attestation framework v1.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from studbook.errors import BytesLie, NotAuthorised
from studbook.models.strict_json import read_object
from studbook.records import canonical
from studbook.seal import PAYLOAD_TYPE, SigningKey

__all__ = ["decode_base64", "open_signed", "pae", "payload_of", "sign"]

_REASON = "envelope.form"


def pae(payload: bytes) -> bytes:
    """What is signed: ``DSSEv1``, the lengths in bytes, the type and the payload, with spaces between."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def sign(payload: bytes, key: SigningKey) -> bytes:
    """The envelope of a statement, canonical JSON; the key id is the public key in hex.

    Args:
        payload: The statement's bytes.
        key: Who signs.
    """
    signature = {"keyid": key.public, "sig": base64.b64encode(key.sign(pae(payload))).decode()}
    body = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return canonical(body)


def open_signed(data: bytes, public: str, where: object = "") -> bytes:
    """The payload of an envelope that an Ed25519 key signed.

    Args:
        data: The envelope.
        public: The public key, 64 hex digits.
        where: File, for errors.

    Raises:
        BytesLie: if it is no envelope; ``envelope.form``.
        NotAuthorised: if no signature in it is that key's; ``envelope.signature``.
    """
    payload, signatures = payload_of(read_object(data, where, _REASON), where)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError as error:
        advice = "Give the public key as 64 hex digits, as `studbook show` prints a root of keys."
        text = "the key to check with is no Ed25519 key"
        raise NotAuthorised(text, where=where, advice=advice, reason="envelope.signature") from error
    for signature in signatures:
        try:
            key.verify(signature, pae(payload))
        except InvalidSignature:
            continue
        return payload
    text = f"no signature in it is by key {public[:16]}..."
    advice = "Ask the producer which key signed it, and for the file itself once more."
    raise NotAuthorised(text, where=where, advice=advice, reason="envelope.signature")


def payload_of(envelope: Any, where: object) -> tuple[bytes, list[bytes]]:
    """Payload and signatures of an envelope's JSON object; nothing is verified.

    Raises:
        BytesLie: if a field is missing or not what it should be; ``envelope.form``.
    """
    if not isinstance(envelope, dict) or envelope.get("payloadType") != PAYLOAD_TYPE:
        raise BytesLie(f"is no envelope of type {PAYLOAD_TYPE}", where=where, reason=_REASON)
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or not signatures or not all(isinstance(s, dict) for s in signatures):
        raise BytesLie("carries no list of signatures", where=where, reason=_REASON)
    found = [decode_base64(s.get("sig"), f"{where}: field sig") for s in signatures]
    return decode_base64(envelope.get("payload"), f"{where}: field payload"), found


def decode_base64(text: object, where: object) -> bytes:
    """The bytes of standard base64 with padding (RFC 4648 section 4).

    Raises:
        BytesLie: if it is anything else; ``envelope.form``.
    """
    try:
        if not isinstance(text, str):
            raise ValueError("is not text")
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BytesLie("is not base64", where=where, reason=_REASON) from error
