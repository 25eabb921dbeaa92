"""Producers who sign what they hand over, and keys for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from studbook.exchange import sign_files
from studbook.exchange.links import olpc_json
from studbook.records import canonical

SIGNATURE = "model.sig"


def curve_key(secret: int = 0x5EED) -> ec.EllipticCurvePrivateKey:
    """A key on P-256, always the same for a secret."""
    return ec.derive_private_key(secret, ec.SECP256R1())


def edwards_key() -> Ed25519PrivateKey:
    """An Ed25519 key, always the same."""
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def public_file(path: Path, key: Any) -> Path:
    """The public half of a key in a PEM file."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(encoding, form))
    return path


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder but its signature."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != SIGNATURE]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def sign_folder(folder: Path, key: ec.EllipticCurvePrivateKey | None = None, name: str = "") -> Path:
    """Sign everything in a folder as the format's own tool does; returns the signature's file."""
    place = folder / SIGNATURE
    place.write_bytes(sign_files(name or folder.name, digests(folder), key or curve_key()))
    return place


def link_folder(folder: Path, place: Path) -> Path:
    """The same as an in-toto link by an Ed25519 key, in a file elsewhere."""
    link = {
        "_type": "link",
        "name": "train",
        "materials": {},
        "products": {path: {"sha256": sha256} for path, sha256 in digests(folder).items()},
        "byproducts": {},
        "command": [],
        "environment": {},
    }
    signature = {"keyid": "", "sig": edwards_key().sign(olpc_json(link)).hex()}
    place.write_bytes(canonical({"signatures": [signature], "signed": link}))
    return place
