"""Signatures: keys by zone and record kind, DSSE envelopes around in-toto statements.

An envelope is canonical JSON with one Ed25519 signature over the DSSE pre-authentication encoding (DSSE 1.0) of an
in-toto Statement v1. Subjects: the record itself first, then the artifacts it speaks about. The key's public bytes
are its identity; the root says for which zone and which kinds of record it may sign.
"""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from studbook.errors import DigestDiffers, NotAuthorised, RecordRefused, StudbookError
from studbook.files import make_folder, read_file, sync_folder, write_new
from studbook.records import AnyRecord, KeyGrant, Record, Root, canonical, digest, read_struct, write_record

__all__ = ["PAYLOAD_TYPE", "KeyRing", "Sealed", "SigningKey", "grant_for", "open_root", "peek", "seal", "unseal"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_KEY_BYTES = 4096
_PUBLIC = ".pub"
Base64 = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}\Z")]


class _Signature(Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: Base64


class _Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    payload: Base64
    payloadType: str  # noqa: N815 - the name is DSSE's
    signatures: tuple[_Signature, ...]


class _Subject(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    digest: dict[str, str]


class _Statement(Struct, frozen=True, forbid_unknown_fields=True):
    statement_type: str = msgspec.field(name="_type")
    subject: tuple[_Subject, ...]
    predicateType: str  # noqa: N815 - the name is in-toto's
    predicate: AnyRecord


class Sealed(NamedTuple):
    """What came out of a verified envelope.

    Attributes:
        record: The record.
        digest: Its digest.
        grant: The grant of the key that signed.
    """

    record: Record
    digest: str
    grant: KeyGrant


class SigningKey:
    """An Ed25519 private key; its public bytes, in hex, are its name."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = raw.hex()

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of ``data``; deterministic (RFC 8032)."""
        return self._private.sign(data)


class KeyRing:
    """A folder of private keys, one file a key, readable by its owner alone; its public key lies beside it.

    A private key is opened only when it is the one that is needed: nobody else's is read on the way.

    Args:
        folder: Where the keys lie; never inside the lab.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, name: str) -> SigningKey:
        """Make a new key file (PKCS 8, PEM, mode 0600) and its public key (64 hex digits and a newline, mode 0444).

        Args:
            name: Path inside the ring, such as ``people/policy``.

        Raises:
            NotAuthorised: if a key of that name exists.
        """
        path = self.folder / f"{name}.pem"
        if path.exists() or path.with_suffix(_PUBLIC).exists():
            raise NotAuthorised("this key exists already", where=path, advice="Choose another folder for the keys.")
        make_folder(path.parent, mode=0o700)
        private = Ed25519PrivateKey.generate()
        encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key = SigningKey(private)
        write_new(path, private.private_bytes(*encoding), mode=0o600)
        write_new(path.with_suffix(_PUBLIC), f"{key.public}\n".encode())
        sync_folder(path.parent)
        return key

    def find(self, root: Root, zone: str, kind: str, owner: str | None = None) -> SigningKey:
        """The first key in the ring that the root lets sign this kind of record in this zone.

        Args:
            root: The root of keys in force.
            zone: Zone of the record.
            kind: Kind of the record.
            owner: Only keys of this owner, if given.

        Raises:
            NotAuthorised: if there is none, its file is readable by others, or it is not the key its public file says.
        """
        allowed = {g.key for g in root.keys if g.zone == zone and kind in g.kinds and owner in (None, g.owner)}
        public = {path: self._public(path) for path in sorted(self.folder.glob("*/*.pem"))} if allowed else {}
        for path, name in public.items():
            if name in allowed:
                return self._load(path, name)
        # A key without its public file has to be opened to know whose it is; last, so that it is rarely done.
        for path, name in public.items():
            if name is None and (key := self._load(path)).public in allowed:
                return key
        holder = f" of {owner}" if owner else ""
        raise NotAuthorised(
            f"no key{holder} here may sign {kind} in zone {zone}",
            where=self.folder,
            advice="Name the folder that holds the key with --keys, or ask its owner to do this step.",
            reason="authority.key-missing",
        )

    def _public(self, path: Path) -> str | None:
        try:
            text = read_file(path.with_suffix(_PUBLIC), _KEY_BYTES).decode("ascii", "replace")
        except StudbookError:
            return None
        return text[:-1] if re.fullmatch(r"[0-9a-f]{64}\n", text) else None

    def _load(self, path: Path, public: str | None = None) -> SigningKey:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise NotAuthorised(
                "the key file can be read by others",
                where=path,
                advice=f"chmod 600 {path}",
                reason="authority.key-mode",
            )
        try:
            private = serialization.load_pem_private_key(read_file(path, _KEY_BYTES), password=None)
        except (ValueError, TypeError) as error:
            raise NotAuthorised("not a private key in PEM form", where=path) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise NotAuthorised("not an Ed25519 key", where=path)
        key = SigningKey(private)
        if public not in (None, key.public):
            advice = f"Restore the key, or delete {path.with_suffix(_PUBLIC)} if the key is the right one."
            raise NotAuthorised("is not the key that its public file says", where=path, advice=advice)
        return key


def seal(record: Record, key: SigningKey) -> bytes:
    """The signed envelope of a record, canonical JSON bytes."""
    payload = canonical(_statement(record, hashlib.sha256(write_record(record)).hexdigest()))
    signature = _Signature(keyid=key.public, sig=_b64(key.sign(_pae(payload))))
    return canonical(_Envelope(payload=_b64(payload), payloadType=PAYLOAD_TYPE, signatures=(signature,)))


def unseal(data: bytes, root: Root, where: object = "") -> Sealed:
    """Verify an envelope and return its record.

    Checked in order: canonical envelope, payload type, one signature, key listed by the root, signature, canonical
    statement, zone and kind allowed for the key, subjects and predicate type those of the record.

    Raises:
        RecordRefused: if envelope or statement are malformed.
        NotAuthorised: if the key may not sign this, or the signature does not verify.
        DigestDiffers: if the statement speaks of other subjects than its record.
    """
    payload, signature = _open_envelope(data, where)
    grants = [g for g in root.keys if g.key == signature.keyid]
    if not grants:
        raise NotAuthorised(f"signed by {signature.keyid[:16]}..., which the root does not list", where=where)
    _verify(signature, payload, where)
    statement = read_struct(payload, _Statement, where)
    record: Record = statement.predicate
    record_digest = digest(record)
    if statement != _statement(record, record_digest):
        raise DigestDiffers("the statement's subjects or type are not those of its record", where=where)
    return Sealed(record, record_digest, grant_for(grants, record, where))


def grant_for(grants: list[KeyGrant], record: Record, where: object) -> KeyGrant:
    """The grant that covers a record's zone and kind.

    Raises:
        NotAuthorised: if there is none.
    """
    for grant in grants:
        if grant.zone == record.zone and record.kind() in grant.kinds:
            return grant
    raise NotAuthorised(
        f"key {grants[0].key[:16]}... may not sign {record.kind()} in zone {record.zone.value}",
        where=where,
        reason="authority.zone",
    )


def peek(data: bytes, where: object = "") -> Record:
    """The record of an envelope whose signature has NOT been checked; only to find the root to check it with."""
    payload, _ = _open_envelope(data, where)
    record: Record = read_struct(payload, _Statement, where).predicate
    return record


def open_root(data: bytes, where: object = "") -> tuple[Root, str]:
    """Verify a root envelope against the keys it lists itself.

    Returns:
        The root and its digest. Trust in it comes from a pin kept outside the lab.

    Raises:
        RecordRefused: if it is not a root record.
        NotAuthorised: if no person's key in it signed it.
    """
    root = peek(data, where)
    if not isinstance(root, Root):
        raise RecordRefused("the first record of a ledger must be a root of keys", where=where)
    sealed = unseal(data, root, where)
    if sealed.grant.holder != "person":
        raise NotAuthorised("a root must be signed by a person's key", where=where)
    return root, sealed.digest


def _open_envelope(data: bytes, where: object) -> tuple[bytes, _Signature]:
    envelope = read_struct(data, _Envelope, where)
    if envelope.payloadType != PAYLOAD_TYPE:
        raise RecordRefused(f"payload type {envelope.payloadType!r} is not {PAYLOAD_TYPE}", where=where)
    if len(envelope.signatures) != 1:
        raise NotAuthorised(f"{len(envelope.signatures)} signatures where one is needed", where=where)
    return _unb64(envelope.payload, where), envelope.signatures[0]


def _verify(signature: _Signature, payload: bytes, where: object) -> None:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.keyid))
        public.verify(_unb64(signature.sig, where), _pae(payload))
    except (InvalidSignature, ValueError) as error:
        raise NotAuthorised("the signature does not verify", where=where, reason="authority.signature") from error


def _statement(record: Record, record_digest: str) -> _Statement:
    named = [("record", record_digest), *((f"artifact-{i}", d) for i, d in enumerate(record.subjects()))]
    subjects = tuple(_Subject(name=name, digest={"sha256": value}) for name, value in named)
    return _Statement(
        statement_type=STATEMENT_TYPE,
        subject=subjects,
        predicateType=f"urn:studbook:record:{record.kind()}",
        predicate=record,  # type: ignore[arg-type]
    )


def _pae(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str, where: object) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RecordRefused(f"not base64: {error}", where=where) from error
    if _b64(data) != text:
        raise RecordRefused("base64 with stray bits", where=where, reason="record.base64")
    return data
