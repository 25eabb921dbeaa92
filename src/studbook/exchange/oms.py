"""OpenSSF Model Signing: a signature over every file of a folder, written with an elliptic-curve key, and checked.

A sigstore bundle 0.3 that holds a DSSE envelope around an in-toto statement of type
``https://model_signing/signature/v1.0``. Source: the model_signing 1.1 format, which its key verifier reads; it takes
NIST P-256, P-384 and P-521 keys only, so the lab's own Ed25519 keys cannot sign this. The signature is ECDSA with the
nonce of RFC 6979, so equal files and an equal key give equal bytes (the format's own library draws the nonce).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey

from studbook.errors import BytesLie, NotAuthorised, UsageError
from studbook.exchange.dsse import pae, payload_of
from studbook.exchange.links import read_link
from studbook.exchange.producer import (
    CURVES,
    FolderSignature,
    SignedFiles,
    key_digest,
    load_public,
    match_files,
    no_key,
    unsigned,
)
from studbook.files import read_file
from studbook.models.strict_json import read_object
from studbook.records import canonical
from studbook.seal import PAYLOAD_TYPE

__all__ = [
    "PREDICATE_TYPE",
    "SIGNATURE_FILE",
    "check_producer_signature",
    "load_key",
    "read_signature",
    "sign_files",
]

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SIGNATURE_FILE = "model.sig"
"""What the format calls its file."""
_STATEMENT = "https://in-toto.io/Statement/v1"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore")
_KEY_BYTES = 65_536
_REASON = "oms.form"


def load_key(path: Path) -> EllipticCurvePrivateKey:
    """A private key file (PEM, not encrypted) that model signing knows.

    Raises:
        UsageError: if there is no such file.
        NotAuthorised: if it is open to others, no private key, or of a kind the format does not know; ``oms.key``.
    """
    data = read_file(path, _KEY_BYTES)
    if path.stat().st_mode & 0o077:
        raise NotAuthorised("the key file is open to others", where=path, advice=f"chmod 600 {path}", reason="oms.key")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise no_key("is no private key in PEM form without a passphrase", path) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise no_key("is no key on the curve P-256, P-384 or P-521", path)
    return key


def sign_files(
    name: str, files: Mapping[str, str], key: EllipticCurvePrivateKey, signature: str = SIGNATURE_FILE
) -> bytes:
    """The signature of a folder.

    Args:
        name: What the model is called.
        files: Relative path -> SHA-256 (64 hex digits) of every file but the signature's own.
        key: A key of `load_key`.
        signature: Path of the signature's file in the folder; verifiers leave it out.

    Raises:
        UsageError: if there is no file, or this machine's library cannot sign with a fixed nonce; ``oms.library``.
    """
    if not files:
        raise UsageError("there is no file to sign", where=name, reason="oms.empty")
    ordered = sorted(files, key=lambda path: PurePosixPath(path).parts)
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(files[path] for path in ordered)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "resources": [{"algorithm": "sha256", "digest": files[path], "name": path} for path in ordered],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted([*_IGNORED, signature]),
            },
        },
    }
    payload = canonical(statement)
    try:
        made = key.sign(pae(payload), ECDSA(CURVES[key.curve.name], deterministic_signing=True))
    except UnsupportedAlgorithm as error:
        advice = "Install the wheel of cryptography for this machine; it brings OpenSSL 3.2 or later."
        text = "the library cryptography here cannot sign with a fixed nonce"
        raise UsageError(text, where="--oms", advice=advice, reason="oms.library") from error
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": base64.b64encode(made).decode()}],
    }
    material = {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []}
    return canonical({"mediaType": _BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope})


def check_producer_signature(
    folder_files: Mapping[str, str], bundle: bytes, public_key: bytes, where: object = SIGNATURE_FILE
) -> FolderSignature:
    """Whether a producer's key signed the files of a folder: a model signature, or an in-toto link whose products they are.

    Args:
        folder_files: Relative path -> SHA-256 of every file that was taken from the folder.
        bundle: The signature's bytes: a sigstore bundle, or an in-toto link.
        public_key: The producer's public key, PEM, from elsewhere than the folder.
        where: File, for errors.

    Raises:
        BytesLie: if the bytes are neither, or contradict themselves; ``oms.form`` or ``envelope.form``.
        NotAuthorised: if the key is of another kind, or did not sign it; ``oms.key`` or ``oms.signature``.
        DigestDiffers: if a file is not signed, or has other bytes; ``oms.file``.
    """
    found = read_signature(bundle, public_key, where)
    covered, absent = match_files(folder_files, found.files, where)
    return FolderSignature(
        form=found.form,
        key_sha256=found.key_sha256,
        document_sha256=found.document_sha256,
        name=found.name,
        covered=covered,
        absent=absent,
    )


def read_signature(bundle: bytes, public_key: bytes, where: object = SIGNATURE_FILE) -> SignedFiles:
    """What a producer's key signed; no file is held against it yet.

    Args:
        bundle: The signature's bytes: a sigstore bundle, or an in-toto link.
        public_key: The producer's public key, PEM or DER.
        where: File, for errors.

    Raises:
        BytesLie: if the bytes are neither, or contradict themselves; ``oms.form`` or ``envelope.form``.
        NotAuthorised: if the key is of another kind, or did not sign it; ``oms.key`` or ``oms.signature``.
    """
    key, body = load_public(public_key, where), read_object(bundle, where, _REASON)
    if "mediaType" not in body:
        name, signed = read_link(body, key, where)
        form: Literal["oms", "in-toto-link"] = "in-toto-link"
    elif isinstance(key, EllipticCurvePublicKey):
        name, signed = _signed(_verified(body, key, where), where)
        form = "oms"
    else:
        raise no_key("a model signature is checked with a key on P-256, P-384 or P-521", where)
    return SignedFiles(
        form=form,
        key_sha256=key_digest(key),
        document_sha256=hashlib.sha256(bundle).hexdigest(),
        name=name,
        files=signed,
    )


def _verified(body: Mapping[str, Any], key: EllipticCurvePublicKey, where: object) -> bytes:
    """The payload of a bundle, after its one signature was checked."""
    if body.get("mediaType") != _BUNDLE:
        raise BytesLie(f"is no bundle of type {_BUNDLE}", where=where, reason=_REASON)
    material = body.get("verificationMaterial")
    named = material.get("publicKey") if isinstance(material, dict) else None
    if not isinstance(named, dict):
        advice = "Only signatures made with a key are checked here, not those made with a certificate or an account."
        raise BytesLie("was not signed with a key", where=where, advice=advice, reason=_REASON)
    if named.get("hint") not in (None, "", _hint(key)):
        raise unsigned("names another key", where)
    payload, signatures = payload_of(body.get("dsseEnvelope"), where)
    if len(signatures) != 1:
        raise BytesLie(f"carries {len(signatures)} signatures, and the format has one", where=where, reason=_REASON)
    try:
        key.verify(signatures[0], pae(payload), ECDSA(CURVES[key.curve.name]))
    except InvalidSignature as error:
        raise unsigned("the signature does not verify", where) from error
    return payload


def _signed(payload: bytes, where: object) -> tuple[str, dict[str, str]]:
    """Name and files of a statement, whose one subject must be the digest over the digests it lists."""
    statement = read_object(payload, where, _REASON)
    if (statement.get("_type"), statement.get("predicateType")) != (_STATEMENT, PREDICATE_TYPE):
        advice = "Ask the producer for a signature by model_signing 1.0 or later."
        raise BytesLie(f"holds no statement of type {PREDICATE_TYPE}", where=where, advice=advice, reason=_REASON)
    try:
        (subject,) = statement["subject"]
        resources: Sequence[Mapping[str, Any]] = statement["predicate"]["resources"]
        method = statement["predicate"]["serialization"]["method"]
        listed = [(str(r["name"]), str(r["algorithm"]), str(r["digest"])) for r in resources]
        root, name = _root(sha256 for _, _, sha256 in listed), str(subject["name"])
        stated = subject["digest"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise BytesLie(f"a field is missing or malformed: {error}", where=where, reason=_REASON) from error
    if method != "files" or any(algorithm != "sha256" for _, algorithm, _ in listed):
        advice = "Ask the producer for a signature over whole files with SHA-256, which is the format's default."
        raise BytesLie(
            f"signs {json.dumps(method)[:40]}, not whole files with SHA-256", where=where, advice=advice, reason=_REASON
        )
    files = {path: sha256 for path, _, sha256 in listed}
    if root != stated or len(files) != len(listed):
        raise BytesLie("its root is not that of the files it lists, each once", where=where, reason=_REASON)
    return name, files


def _root(digests: Any) -> str:
    """SHA-256 over the raw digests of all files, in the order listed."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _hint(key: EllipticCurvePublicKey) -> str:
    """How the format names a key: SHA-256 of its PEM form, 64 hex digits."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(encoding, form)).hexdigest()
