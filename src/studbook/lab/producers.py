"""A producer's signature over the folder that a source is registered from: checked, recorded, and found again.

Nothing is registered where the signature does not hold. What it is held against are the digests of the bytes that enter
the store, taken as they were read or copied, never a second look at the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from studbook.errors import BytesLie, UsageError, printable
from studbook.exchange.oms import SIGNATURE_FILE, read_signature
from studbook.exchange.producer import SignedFiles, key_bytes, load_public, match_files
from studbook.files import read_file
from studbook.lab.desk import Desk
from studbook.records import CheckpointSource, LoraSource, ProducerSignature, SourceManifest, digest
from studbook.workspace import Accession

__all__ = ["Producer", "Signature", "accession", "bytes_of", "read_producer", "say_unchecked", "signatures"]

_KEY_BYTES = 65_536
_DOCUMENT_BYTES = 16 << 20
_LONGEST = 4000


class Producer(NamedTuple):
    """Where a producer's signature is to be found.

    Attributes:
        key: File of the public key, PEM; never in the folder itself.
        signature: File of the signature; ``model.sig`` in the folder by default.
    """

    key: Path
    signature: Path | None = None


class Signature(NamedTuple):
    """A signature that verified, not yet held against any file.

    Attributes:
        signed: What it says.
        document: Its bytes.
        key: The public key, DER.
        where: Its file, for errors.
    """

    signed: SignedFiles
    document: bytes
    key: bytes
    where: Path


def read_producer(folder: Path, producer: Producer) -> Signature:
    """Read a producer's key and signature, and verify the signature; no other file of the folder is opened.

    Raises:
        UsageError: if the source is no folder (``producer.folder``), the key lies in it (``producer.key-inside``), or
            there is no such key or signature (``file.missing``, ``producer.unsigned``).
        BytesLie: if the signature is malformed; ``oms.form`` or ``envelope.form``.
        NotAuthorised: if the key is unfit or did not sign it; ``oms.key`` or ``oms.signature``.
    """
    if not folder.is_dir():
        advice = "Register the folder that the producer signed, not a file of it."
        raise UsageError("a producer signs a folder", where=folder, advice=advice, reason="producer.folder")
    if producer.key.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            "the key lies in the folder that it is to vouch for",
            where=producer.key,
            advice="Get the producer's public key from somewhere else, and keep it outside the folder.",
            reason="producer.key-inside",
        )
    key = load_public(read_file(producer.key, _KEY_BYTES), producer.key)
    place = producer.signature or folder / SIGNATURE_FILE
    if not place.is_symlink() and not place.exists():
        raise UsageError(
            "there is no signature, and a producer's key was given",
            where=place,
            advice="Name its file with --signature, ask the producer for it, or leave --producer-key out.",
            reason="producer.unsigned",
        )
    document = read_file(place, _DOCUMENT_BYTES)
    signed = read_signature(document, key_bytes(key), place)
    for text in (signed.name, *signed.files):
        if printable(text) != text or len(text) > _LONGEST:
            raise BytesLie("a name in it is no plain text", where=place, reason="oms.form")
    return Signature(signed, document, key_bytes(key), place)


def accession(desk: Desk, found: Signature, manifest: SourceManifest, taken: Mapping[str, str]) -> Accession:
    """The record of a signature, ready to enter together with the registration it speaks of.

    Args:
        desk: The lab.
        found: What `read_producer` gave.
        manifest: The registration.
        taken: Relative path -> SHA-256 of every file that was taken from the folder.

    Raises:
        DigestDiffers: if a file is not signed, or has other bytes; ``oms.file``.
        UsageError: if what the store keeps is not what lies in the folder; ``producer.converted``.
    """
    covered, absent = match_files(taken, found.signed.files, found.where)
    if not bytes_of(manifest) <= set(taken.values()):
        raise UsageError(
            "what would be registered is made from the folder's files, or lies elsewhere; no signature can cover it",
            where=found.where,
            advice="Have the producer sign the folder with the model itself in it: a .slm file, or a checkpoint.",
            reason="producer.converted",
        )
    if absent:
        some = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if absent[3:] else "")
        desk.progress.say(f"{found.where}: signed and not registered: {some}")
    record = ProducerSignature(
        header=desk.header,
        artifact=manifest.artifact.sha256,
        source=digest(manifest),
        form=found.signed.form,
        key_sha256=found.signed.key_sha256,
        document_sha256=found.signed.document_sha256,
        name=found.signed.name,
        covered=covered,
        absent=absent,
    )
    return Accession(record, {record.document_sha256: found.document, record.key_sha256: found.key})


def bytes_of(manifest: SourceManifest) -> set[str]:
    """Digests of the files a source consists of; the list that stands for a checkpoint is none of them."""
    listed = isinstance(manifest.source, CheckpointSource | LoraSource)
    return {b.sha256 for b in manifest.files} | ({manifest.artifact.sha256} if not listed else set())


def say_unchecked(desk: Desk, folder: Path) -> None:
    """Say that a signature lies in a folder and that nobody checked it."""
    links = sorted(folder.glob("*.link")) if folder.is_dir() else []
    for place in [folder / SIGNATURE_FILE, *links]:
        if place.is_file():
            desk.progress.say(
                f"{printable(place)} was NOT checked: no key of its producer was given (--producer-key); nothing is "
                "recorded of it"
            )


def signatures(desk: Desk, artifact: str) -> tuple[tuple[str, ProducerSignature], ...]:
    """Every producer's signature on record over a source, oldest first, with the digests of the records."""
    return tuple((d, s) for d, s in desk.all(ProducerSignature) if s.artifact == artifact)
