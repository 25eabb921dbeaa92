"""What a producer's signature over a folder says, whatever form it has; and the keys it is checked with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from studbook.errors import DigestDiffers, NotAuthorised

__all__ = [
    "CURVES",
    "FolderSignature",
    "PublicKey",
    "SignedFiles",
    "key_bytes",
    "key_digest",
    "load_public",
    "match_files",
    "no_key",
    "unsigned",
]

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey
CURVES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""The hash that goes with a curve, as in sigstore's key details."""


class SignedFiles(Struct, frozen=True, kw_only=True):
    """What a key signed, before it is held against any file.

    Attributes:
        form: ``oms`` (a model signature) or ``in-toto-link``.
        key_sha256: SHA-256 of the public key (DER, SubjectPublicKeyInfo) that it was checked with.
        document_sha256: SHA-256 of the signature's file.
        name: What the signer calls the model, or the step.
        files: Path -> SHA-256, 64 hex digits, of every file that was signed.
    """

    form: Literal["oms", "in-toto-link"]
    key_sha256: str
    document_sha256: str
    name: str
    files: Mapping[str, str]


class FolderSignature(Struct, frozen=True, kw_only=True):
    """What a producer's signature says about a folder; every file of the folder is among those it covers.

    Attributes:
        form: ``oms`` (a model signature) or ``in-toto-link``.
        key_sha256: SHA-256 of the public key (DER, SubjectPublicKeyInfo) that it was checked with.
        document_sha256: SHA-256 of the signature's file.
        name: What the signer calls the model, or the step.
        covered: Files of the folder, sorted; each has the digest that was signed.
        absent: Files that were signed and are not in the folder, sorted.
    """

    form: Literal["oms", "in-toto-link"]
    key_sha256: str
    document_sha256: str
    name: str
    covered: tuple[str, ...]
    absent: tuple[str, ...]


def load_public(data: bytes, where: object = "") -> PublicKey:
    """A public key in PEM or DER form (SubjectPublicKeyInfo): Ed25519, or elliptic curve P-256, P-384 or P-521.

    Raises:
        NotAuthorised: if it is none; ``oms.key``.
    """
    read = serialization.load_pem_public_key if data[:1] == b"-" else serialization.load_der_public_key
    try:
        key = read(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise no_key("is no public key in PEM form", where) from error
    if isinstance(key, Ed25519PublicKey) or (isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES):
        return key
    raise no_key("is no Ed25519 key, and on none of the curves P-256, P-384 and P-521", where)


def key_bytes(key: PublicKey) -> bytes:
    """A public key in DER form (RFC 5280, SubjectPublicKeyInfo)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_digest(key: PublicKey) -> str:
    """SHA-256 of `key_bytes`, 64 hex digits."""
    return hashlib.sha256(key_bytes(key)).hexdigest()


def match_files(
    files: Mapping[str, str], signed: Mapping[str, str], where: object
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold a folder's files against what was signed.

    Returns:
        The files of the folder, and those that were signed and are not there, both sorted.

    Raises:
        DigestDiffers: if a file is not signed, or has other bytes; ``oms.file``.
    """
    for path, sha256 in sorted(files.items()):
        if signed.get(path) != sha256:
            what = "was signed with other bytes" if path in signed else "is not among the files that were signed"
            advice = "Do not use this folder. Fetch it again from its producer."
            raise DigestDiffers(f"{path} {what}", where=where, advice=advice, reason="oms.file")
    return tuple(sorted(files)), tuple(sorted(signed.keys() - files.keys()))


def no_key(text: str, where: object) -> NotAuthorised:
    """The error for a key that cannot be used; ``oms.key``."""
    advice = "Make a key pair: openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem"
    return NotAuthorised(text, where=where, advice=advice, reason="oms.key")


def unsigned(text: str, where: object) -> NotAuthorised:
    """The error for a signature that is not the key's; ``oms.signature``."""
    advice = "Check that the public key is the producer's; if it is, do not use this folder."
    return NotAuthorised(text, where=where, advice=advice, reason="oms.signature")
