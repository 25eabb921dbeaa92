"""in-toto links: what a step of somebody's supply chain says it produced, under a signature.

Two forms: the older one signs the canonical JSON of the link itself, the newer one is a DSSE envelope around it. Source:
in-toto specification 1.0 (section 4.4, links) and the canonical JSON it refers to (keys sorted, no white space, whole
numbers only, no escapes but of quotation mark and backslash).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey

from studbook.errors import BytesLie
from studbook.exchange.dsse import pae, payload_of
from studbook.exchange.producer import CURVES, PublicKey, unsigned
from studbook.models.strict_json import read_object

__all__ = ["olpc_json", "read_link"]

_REASON = "oms.form"


def read_link(body: Mapping[str, Any], key: PublicKey, where: object = "") -> tuple[str, dict[str, str]]:
    """Name and products of a link that a key signed.

    Args:
        body: The file's JSON object.
        key: The producer's key.
        where: File, for errors.

    Returns:
        The step's name, and path -> SHA-256 (64 hex digits) of every product that has one.

    Raises:
        BytesLie: if it is no link; ``oms.form`` or ``envelope.form``.
        NotAuthorised: if the key did not sign it; ``oms.signature``.
    """
    if "signed" in body:
        try:
            signed = olpc_json(body["signed"], where)
        except RecursionError as error:
            raise BytesLie("is nested too deeply", where=where, reason=_REASON) from error
        signatures = _hex_signatures(body.get("signatures"), where)
        link = body["signed"]
    else:
        payload, signatures = payload_of(body, where)
        signed, link = pae(payload), read_object(payload, where, _REASON)
    if not any(_verifies(key, signature, signed) for signature in signatures):
        raise unsigned("no signature in it is by this key", where)
    products = link.get("products") if isinstance(link, dict) else None
    if not isinstance(products, dict) or link.get("_type") != "link":
        raise BytesLie("is no in-toto link", where=where, reason=_REASON)
    digests = {path: made.get("sha256") for path, made in products.items() if isinstance(made, dict)}
    return str(link.get("name", "")), {path: digest for path, digest in digests.items() if isinstance(digest, str)}


def olpc_json(value: object, where: object = "") -> bytes:
    """Canonical JSON as in-toto signs it, UTF-8.

    Raises:
        BytesLie: for fractions, which it has none of; ``oms.form``.
    """
    if isinstance(value, str):
        return b'"%s"' % value.replace("\\", "\\\\").replace('"', '\\"').encode()
    if value is None or isinstance(value, bool):
        return {None: b"null", True: b"true", False: b"false"}[value]
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, list):
        return b"[%s]" % b",".join(olpc_json(item, where) for item in value)
    if isinstance(value, dict):
        pairs = (olpc_json(name) + b":" + olpc_json(item, where) for name, item in sorted(value.items()))
        return b"{%s}" % b",".join(pairs)
    raise BytesLie("holds a fraction, which in-toto's canonical JSON has none of", where=where, reason=_REASON)


def _hex_signatures(found: object, where: object) -> list[bytes]:
    try:
        return [bytes.fromhex(signature["sig"]) for signature in found]  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError) as error:
        raise BytesLie("carries no list of signatures in hex", where=where, reason=_REASON) from error


def _verifies(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, signed, ECDSA(CURVES[key.curve.name]))
        else:
            key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
