"""The two doors of every record: out as canonical JSON, in only if it is exactly that.

Canonical means RFC 8785. Reading decodes strictly into the declared kind and then demands that writing it again
gives the same bytes: that one comparison refuses duplicate keys, unknown number spellings, white space, key order,
byte-order marks and fields that would otherwise be filled in or dropped.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from functools import cache
from typing import Any, TypeVar

import msgspec
import rfc8785

from studbook.errors import RecordRefused
from studbook.records.base import Record

__all__ = [
    "MAX_RECORD_BYTES",
    "canonical",
    "decode_json",
    "digest",
    "read_plain_json",
    "read_record",
    "read_struct",
    "write_record",
]

MAX_RECORD_BYTES = 32 * 1024 * 1024
_TOLD = 400
_ENCODER = msgspec.json.Encoder(order="sorted")
# What the fast encoder and RFC 8785 could spell in two ways: fractions, exponents, large integers; NaN becomes null.
_CAREFUL = re.compile(rb"[0-9][.eE]|[0-9]{15}|null")
S = TypeVar("S", bound=msgspec.Struct)


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a struct or of plain JSON values.

    Raises:
        RecordRefused: for NaN, infinities, integers beyond 2**53 - 1, lone surrogates and other non-JSON values.
    """
    plain = _plain(value) if isinstance(value, msgspec.Struct) else None
    if plain is not None:
        return plain
    try:
        return rfc8785.dumps(msgspec.to_builtins(value))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError, TypeError, ValueError) as error:
        raise RecordRefused(f"cannot be written as canonical JSON: {_told(error)}", reason="record.value") from error


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def write_record(record: Record) -> bytes:
    """Canonical bytes of a record, after reading them back and comparing.

    Raises:
        RecordRefused: if what was built does not survive its own strict reader.
    """
    data = canonical(record)
    if read_struct(data, type(record), where=record.kind()) != record:
        raise RecordRefused("does not read back as what was written", where=record.kind(), reason="record.round-trip")
    return data


def read_record(data: bytes, kinds: Any, where: object = "") -> Any:
    """Read one record of any kind in the tagged union ``kinds``.

    Raises:
        RecordRefused: if the bytes are too long, not strict JSON, not exactly one known kind, or not canonical.
    """
    return _decode(data, kinds, where)


def read_struct(data: bytes, kind: type[S], where: object = "") -> S:
    """Read exactly one kind of struct; the same rules as `read_record`."""
    value: S = _decode(data, kind, where)
    return value


def decode_json(data: bytes, where: object = "") -> Any:
    """Strict, canonical JSON as plain values.

    Raises:
        RecordRefused: as `read_record`.
    """
    return _decode(data, Any, where)


def read_plain_json(data: bytes, where: object = "") -> Any:
    """JSON that a person wrote: UTF-8 in any layout, but no duplicate keys, no NaN and no bottomless nesting.

    Raises:
        RecordRefused: naming what is wrong; the advice is to mend the file.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [name for name, count in Counter(name for name, _ in found).items() if count > 1]:
            raise ValueError(f"key {min(twice)!r} stands twice in one object")
        return dict(found)

    def real(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is too large for a number")
        return value

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not a number JSON knows")

    try:
        value = json.loads(data.decode(), object_pairs_hook=pairs, parse_constant=constant, parse_float=real)
        # Halves of surrogate pairs are no text.
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        message = f"not JSON: {_told(error)}"
        raise RecordRefused(message, where=where, advice="Mend the JSON.", reason="record.json") from error


def _decode(data: bytes, kind: Any, where: object) -> Any:
    if len(data) > MAX_RECORD_BYTES:
        raise RecordRefused(f"{len(data)} bytes is more than a record may hold", where=where, reason="record.size")
    try:
        value = _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordRefused(f"not a valid record: {_told(error)}", where=where, reason="record.decode") from error
    if canonical(value) != data:
        raise RecordRefused("the bytes are not in canonical form (RFC 8785)", where=where, reason="record.canonical")
    return value


def _plain(value: msgspec.Struct) -> bytes | None:
    """The RFC 8785 bytes of a struct that holds nothing that is hard to spell; None for every other one.

    Plain ASCII without escapes, fractions, large integers and nulls is written alike by the fast sorting encoder and by
    RFC 8785, and most records are that.
    """
    try:
        data = _ENCODER.encode(value)
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError, OverflowError):
        return None
    if not data.isascii() or b"\\" in data:
        return None
    # Every second piece between quotation marks is outside of strings.
    return None if _CAREFUL.search(b" ".join(data.split(b'"')[::2])) else data


def _told(error: Exception) -> str:
    """What a library says, shortened: it may repeat the value that it refuses, whatever its length."""
    text = str(error)
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}..."


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)
