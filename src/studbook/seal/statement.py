"""The in-toto Statement v1 around a record: who it speaks of, and the record as predicate.

The statement of a record has exactly one spelling, so reading is not parsing the statement but taking the record out of
its middle and comparing the rest; only what does not fit is parsed in full, to say what is wrong with it.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec
from msgspec import Struct

from studbook.errors import DigestDiffers
from studbook.records import AnyRecord, LedgerEntry, Record, Root, canonical, digest, read_struct, write_record

__all__ = ["STATEMENT_TYPE", "Statement", "read_statement", "speaks_of_root", "write_statement"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_HEAD = b'{"_type":"%s","predicate":' % STATEMENT_TYPE.encode()
_TAIL = b',"predicateType":'
_PREDICATE_TYPE = "urn:studbook:record:"
_DECODER: msgspec.json.Decoder[Record] = msgspec.json.Decoder(AnyRecord, strict=True)
_ENCODER = msgspec.json.Encoder(order="sorted")


class _Subject(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    digest: dict[str, str]


class _Statement(Struct, frozen=True, forbid_unknown_fields=True):
    statement_type: str = msgspec.field(name="_type")
    subject: tuple[_Subject, ...]
    predicateType: str  # noqa: N815 - the name is in-toto's
    predicate: AnyRecord


class Statement(NamedTuple):
    """What a payload says.

    Attributes:
        record: The predicate.
        digest: SHA-256 of its canonical bytes.
        bound: Whether statement type, predicate type and subjects are those of this record.
    """

    record: Record
    digest: str
    bound: bool

    def require_bound(self, where: object = "") -> None:
        """Refuse a statement that speaks of something other than its record.

        Raises:
            DigestDiffers: if it does; ``record.subjects``.
        """
        if not self.bound:
            text = "the statement's subjects or type are not those of its record"
            raise DigestDiffers(text, where=where, reason="record.subjects")


def write_statement(record: Record) -> bytes:
    """Canonical bytes of the statement about a record.

    Raises:
        RecordRefused: if the record does not survive its own strict reader.
    """
    body = write_record(record)
    return _HEAD + body + _tail(record, hashlib.sha256(body).hexdigest())


def read_statement(payload: bytes, where: object = "") -> Statement:
    """Read a payload strictly.

    Raises:
        RecordRefused: if it is not the canonical statement of exactly one known record.
    """
    found = _read_known(payload)
    if found is not None:
        return found
    statement = read_struct(payload, _Statement, where)
    record: Record = statement.predicate
    return Statement(record, digest(record), bound=write_statement(record) == payload)


def speaks_of_root(payload: bytes) -> bool:
    """Whether a payload, not yet verified, says that it holds a root of keys."""
    wanted = f'"{_PREDICATE_TYPE}{Root.kind()}",'.encode()
    return payload.startswith(wanted, payload.rfind(_TAIL) + len(_TAIL))


def _read_known(payload: bytes) -> Statement | None:
    """The statement, if its bytes are exactly those that its record makes; None if anything differs."""
    cut = payload.rfind(_TAIL)
    if cut < 0 or not payload.startswith(_HEAD):
        return None
    body = payload[len(_HEAD) : cut]
    try:
        record = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not _is_canonical(record, body):
        return None
    found = hashlib.sha256(body).hexdigest()
    return Statement(record, found, bound=True) if payload[cut:] == _tail(record, found) else None


def _is_canonical(record: Record, body: bytes) -> bool:
    """Whether ``body`` is the RFC 8785 form of the record it was read from.

    A ledger's lines come by the thousand and hold text and small integers alone, by their type: in plain ASCII without
    escapes there is nothing to look for.
    """
    if isinstance(record, LedgerEntry) and body.isascii() and b"\\" not in body:
        return _ENCODER.encode(record) == body
    return canonical(record) == body


def _tail(record: Record, record_digest: str) -> bytes:
    named = [("record", record_digest), *((f"artifact-{i}", d) for i, d in enumerate(record.subjects()))]
    subjects = ",".join(f'{{"digest":{{"sha256":"{value}"}},"name":"{name}"}}' for name, value in named)
    return f',"predicateType":"{_PREDICATE_TYPE}{record.kind()}","subject":[{subjects}]}}'.encode()
