"""The MiniModel manifest v0 of an SLM1 model: written, signed, read back and held against the file.

``key=value`` lines, sorted; digests as ``sha256:`` and 64 uppercase hex digits; what is signed are all lines that do
not begin with ``signature.``. Source: the public draft of the format's author (manifest-v0, p2p-roadmap). Where it is
silent the choice is ours: every key under ``slm.`` but ``format_version``, under ``chunks.``, ``evidence.`` and
``signature.``, ``license.spdx``, and the shape of the tree of `merkle_root`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from studbook.errors import DigestDiffers, NotAuthorised, UsageError
from studbook.exchange.dossier import Dossier
from studbook.models.keyvalue import ManifestRule, format_manifest, manifest_refusal, parse_manifest, take, take_int
from studbook.models.slm import parse_slm
from studbook.seal import SigningKey

__all__ = [
    "CHUNK_BYTES",
    "MiniModel",
    "check_artifact",
    "check_signature",
    "merkle_root",
    "read_minimodel",
    "write_minimodel",
]

CHUNK_BYTES = 262_144
"""Bytes of every chunk but the last."""
_SCHEME = "fixed-size-merkle-v0"
_FIXED = {
    "manifest.version": "0",
    "manifest.kind": "minimodel.manifest",
    "manifest.schema_id": "minimodel.manifest.v0",
    "artifact.kind": "slm",
    "artifact.project_server_url": "none",
    "slm.format_version": "1",
}
_ACQUISITIONS = ("user-local-file", "user-external-download", "consent-peer-transfer")
_REQUIRED = (
    *_FIXED,
    *("manifest.schema_checksum", "manifest.created_utc", "model.id", "model.version", "publisher.id"),
    *("publisher.key_id", "model_card.route", "license.route", "artifact.byte_count", "artifact.sha256"),
    "artifact.acquisition",
)
_KEY = re.compile(r"[a-z0-9]+([._][a-z0-9]+)*\Z")
_DIGEST = re.compile(r"sha256:[0-9A-F]{64}\Z")
_MOST_CHUNKS = 65_536


class MiniModel(NamedTuple):
    """A manifest whose form was checked; signature and file are checked by `check_signature` and `check_artifact`.

    Attributes:
        values: Every line, sorted by key.
        signed: The canonical signed form: the lines outside ``signature.``.
    """

    values: Mapping[str, str]
    signed: bytes

    @property
    def chunks(self) -> tuple[str, ...]:
        """SHA-256 of every chunk in order, 64 lowercase hex digits; empty when the manifest lists none."""
        count = int(self.values.get("chunks.count", "0"))
        return tuple(_plain(self.values[_chunk(i)]) for i in range(count))


def write_minimodel(dossier: Dossier, data: bytes, key: SigningKey, card: str) -> bytes:
    """The signed manifest of a model.

    Args:
        dossier: What is on record.
        data: The container's bytes.
        key: A release key of the lab.
        card: Relative path of the exported file that describes the model and names its licence.

    Raises:
        UsageError: if it is no SLM1 model; ``export.not-slm``.
        DigestDiffers: if the bytes are another model's.
        SlmRefused: if they are no container.
    """
    if dossier.form != "slm":
        advice = "Leave --minimodel out; the format describes SLM1 containers alone."
        raise UsageError("is no SLM1 model", where=dossier.name, advice=advice, reason="export.not-slm")
    model = parse_slm(data, dossier.name)
    if model.sha256 != dossier.artifact:
        raise DigestDiffers("is not the model that was to be described", where=dossier.name)
    values = _FIXED | {
        "manifest.schema_checksum": _shown(_schema()),
        "manifest.created_utc": dossier.recorded,
        "model.id": _route(dossier.name),
        "model.version": dossier.artifact[:12],
        "publisher.id": _route(dossier.header.owner),
        "publisher.key_id": f"ed25519:{key.public}",
        "model_card.route": card,
        "license.route": card,
        "license.spdx": dossier.licence or "none",
        "artifact.byte_count": str(len(data)),
        "artifact.sha256": _shown(model.sha256),
        "artifact.acquisition": _ACQUISITIONS[0],
        "slm.storage": model.label,
        "slm.parameter_count": str(model.shape.parameter_count),
        "slm.tensor_layout_sha256": _shown(model.layout_sha256),
        "slm.tokenizer_sha256": _shown(model.tokenizer_sha256),
        "evidence.claim": dossier.claim.value if dossier.claim else "nothing",
        "evidence.record_sha256": _shown(dossier.record),
    }
    values |= _chunk_lines(data)
    signature = base64.b64encode(key.sign(_canonical(values))).decode()
    return _canonical(values | {"signature.algorithm": "ed25519", "signature.value": signature}, signed=False)


def read_minimodel(data: bytes, where: object = "") -> MiniModel:
    """Read a manifest; lines may end in CR LF and be empty, as the draft allows, comments are refused.

    Raises:
        ManifestRefused: naming the key and the rule it breaks.
    """
    lines = [line for line in data.replace(b"\r\n", b"\n").split(b"\n") if line]
    values = parse_manifest(b"".join(line + b"\n" for line in lines), where)
    for key, value in values.items():
        if not _KEY.match(key):
            raise manifest_refusal(ManifestRule.KEY, "is not lowercase words with dots between", where, key)
        if not value.isascii() or value != value.strip():
            raise manifest_refusal(ManifestRule.VALUE, "is not trimmed ASCII", where, key)
        if key.endswith(("sha256", "schema_checksum")) and not _DIGEST.match(value):
            message = "is not sha256: and 64 uppercase hexadecimal digits"
            raise manifest_refusal(ManifestRule.VALUE, message, where, key)
    for key in _REQUIRED:
        take(values, key, where, (_FIXED[key],) if key in _FIXED else ())
    take(values, "artifact.acquisition", where, _ACQUISITIONS)
    take_int(values, "artifact.byte_count", where)
    _check_chunks(values, where)
    return MiniModel(dict(sorted(values.items())), _canonical(values))


def check_signature(manifest: MiniModel, public: str, where: object = "") -> None:
    """Whether a key signed a manifest.

    Args:
        manifest: The manifest.
        public: The publisher's Ed25519 key, 64 hex digits, known from elsewhere than the manifest.
        where: File, for errors.

    Raises:
        NotAuthorised: if it did not, or the manifest names another key; ``manifest.signature``.
    """
    advice = "Ask the publisher for the key and the manifest once more."
    try:
        if manifest.values.get("signature.algorithm") != "ed25519" or "signature.value" not in manifest.values:
            raise ValueError("carries no Ed25519 signature")
        if manifest.values["publisher.key_id"] != f"ed25519:{public}":
            raise ValueError("names another key")
        signature = base64.b64decode(manifest.values["signature.value"], validate=True)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, manifest.signed)
    except (ValueError, binascii.Error) as error:
        raise NotAuthorised(str(error), where=where, advice=advice, reason="manifest.signature") from error
    except InvalidSignature as error:
        text = "the signature does not verify"
        raise NotAuthorised(text, where=where, advice=advice, reason="manifest.signature") from error


def check_artifact(manifest: MiniModel, data: bytes, where: object = "") -> None:
    """Whether a file is the one a manifest describes.

    Args:
        manifest: The manifest.
        data: The file's bytes.
        where: File, for errors.

    Raises:
        DigestDiffers: naming the first field that differs.
        SlmRefused: if the file is no container.
    """
    model, values = parse_slm(data, where), manifest.values
    found = {
        "artifact.byte_count": str(len(data)),
        "artifact.sha256": _shown(model.sha256),
        "slm.storage": model.label,
        "slm.parameter_count": str(model.shape.parameter_count),
        "slm.tensor_layout_sha256": _shown(model.layout_sha256),
        "slm.tokenizer_sha256": _shown(model.tokenizer_sha256),
    }
    if "chunks.size" in values:
        found |= _chunk_lines(data, int(values["chunks.size"]))
    for key, value in found.items():
        if values.get(key, value) != value:
            text = f"{key} is {value[:80]} of this file, and {values[key][:80]} in its manifest"
            raise DigestDiffers(text, where=where, advice="Fetch file and manifest again from the publisher.")


def merkle_root(leaves: Sequence[str]) -> str:
    """The root over the SHA-256 of every chunk, in order, 64 hex digits.

    The tree of RFC 6962 section 2.1 with the 32 raw bytes of each chunk's digest as one entry: a leaf is
    SHA-256(0x00 || entry), a node SHA-256(0x01 || left || right), and the left side is the largest power of two of
    entries that is smaller than all.

    Args:
        leaves: SHA-256 of every chunk, 64 hex digits each; one at least.
    """
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + bytes.fromhex(leaves[0])).hexdigest()
    cut = 1 << ((len(leaves) - 1).bit_length() - 1)
    sides = bytes.fromhex(merkle_root(leaves[:cut]) + merkle_root(leaves[cut:]))
    return hashlib.sha256(b"\1" + sides).hexdigest()


def _chunk_lines(data: bytes, size: int = CHUNK_BYTES) -> dict[str, str]:
    view = memoryview(data)
    leaves = [hashlib.sha256(view[at : at + size]).hexdigest() for at in range(0, len(data), size)]
    lines = {"chunks.scheme": _SCHEME, "chunks.size": str(size), "chunks.count": str(len(leaves))}
    lines["chunks.merkle_root_sha256"] = _shown(merkle_root(leaves))
    return lines | {_chunk(i): _shown(leaf) for i, leaf in enumerate(leaves)}


def _check_chunks(values: Mapping[str, str], where: object) -> None:
    """A chunk list is whole, as long as the file, and the root is its root; or there is none."""
    listed = {key for key in values if key.startswith("chunks.")}
    if not listed:
        return
    take(values, "chunks.scheme", where, (_SCHEME,))
    size, count = take_int(values, "chunks.size", where), take_int(values, "chunks.count", where)
    length = int(values["artifact.byte_count"])
    if size < 1 or not 1 <= count <= _MOST_CHUNKS or count != -(-length // size):
        message = f"{count} chunks of {size} bytes do not make a file of {length}"
        raise manifest_refusal(ManifestRule.VALUE, message, where, "chunks.count")
    leaves = [_plain(take(values, _chunk(i), where)) for i in range(count)]
    known = {"chunks.scheme", "chunks.size", "chunks.count", "chunks.merkle_root_sha256"}
    if extra := sorted(listed - known - {_chunk(i) for i in range(count)}):
        raise manifest_refusal(ManifestRule.UNKNOWN, "is no chunk of this file", where, extra[0])
    if _plain(take(values, "chunks.merkle_root_sha256", where)) != merkle_root(leaves):
        message = "is not the root of the chunks listed"
        raise manifest_refusal(ManifestRule.VALUE, message, where, "chunks.merkle_root_sha256")


def _canonical(values: Mapping[str, str], *, signed: bool = True) -> bytes:
    """Lines sorted by key; those of the signature are left out of what is signed."""
    kept = {k: v for k, v in sorted(values.items()) if not (signed and k.startswith("signature."))}
    return format_manifest(kept, "MiniModel manifest")


def _schema() -> str:
    """SHA-256 of the list of required keys, sorted, a line feed after each."""
    return hashlib.sha256("".join(f"{key}\n" for key in sorted(_REQUIRED)).encode()).hexdigest()


def _chunk(index: int) -> str:
    return f"chunks.{index:05d}.sha256"


def _shown(sha256: str) -> str:
    return f"sha256:{sha256.upper()}"


def _plain(value: str) -> str:
    return value.removeprefix("sha256:").lower()


def _route(name: str) -> str:
    """A name that can stand in a route: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)
