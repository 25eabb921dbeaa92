"""What all records share: the header, digests, names, measured numbers and the trust zones."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "Basis",
    "Blob",
    "Date",
    "Digest",
    "Header",
    "JsonObject",
    "Measure",
    "Moment",
    "Name",
    "Record",
    "Rung",
    "Text",
    "Zone",
    "replace",
]

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="SHA-256, 64 lowercase hexadecimal digits")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]{0,119}\Z", description="a plain name, no spaces")]
Text = Annotated[
    str, Meta(max_length=4000, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z")
]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", description="a calendar day, YYYY-MM-DD, UTC")]
Moment = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")]
Basis = Literal["observed", "estimated", "reported"]
JsonObject = dict[str, Any]


class Zone(StrEnum):
    """The trust zones: which folder a record lies in and which keys may sign it."""

    POLICY = "policy"
    REGISTRY = "registry"
    CANDIDATE = "candidate"
    EVALUATION = "evaluation"
    DECISIONS = "decisions"
    RELEASE = "release"
    HOST = "host"
    AUDIT = "audit"


class Rung(StrEnum):
    """The gate ladder, lowest first: what an artifact may claim, if the evidence for that rung exists."""

    STRUCTURAL = "structural-validation"
    SMOKE = "runtime-smoke"
    TRAINED = "converted-trained"
    ASSISTANT = "assistant-quality"

    @property
    def height(self) -> int:
        """Position on the ladder, 0 for structural validation."""
        return list(Rung).index(self)


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Who made a record and with what; clock, host and keys stay out of it, so equal work is equal bytes.

    Attributes:
        source: The program that wrote the record.
        version: Its version.
        environment: The environment class, such as ``cpython-3.11 numpy-2.4.6 linux-x86_64``.
        owner: The owner of the lab.
    """

    source: Name
    version: Name
    environment: Text
    owner: Name


# A record is a tree and never part of a cycle, so the collector need not walk it.
class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False, tag_field="kind"):
    """A noun of the lab: a frozen struct without defaults, written once as canonical JSON.

    Attributes:
        header: Source, version, environment and owner.
    """

    zone: ClassVar[Zone]
    header: Header

    @classmethod
    def kind(cls) -> str:
        """The tag that names this kind and its version, such as ``scorecard/1``."""
        return str(cls.__struct_config__.tag)

    def subjects(self) -> tuple[str, ...]:
        """Digests of the artifacts this record speaks about; empty when it speaks of records only."""
        return ()

    def references(self) -> tuple[str, ...]:
        """Digests of the records this one cites; each must lie in the ledger before it."""
        return ()


class Blob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One content-addressed file of the store.

    Attributes:
        sha256: Digest of the bytes, also the file's name.
        size: Length in bytes.
    """

    sha256: Digest
    size: Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Measure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number about behaviour that says where it comes from.

    Attributes:
        value: The number.
        unit: Its unit, such as ``bytes`` or ``multiply-adds``.
        basis: Observed here, estimated, or reported by somebody else.
        method: How it was obtained; numbers of different methods are never compared.
    """

    value: float
    unit: Name
    basis: Basis
    method: Text


def replace(record: Record, **changes: Any) -> Any:
    """A copy of a record with fields changed; the original stays as it is."""
    return msgspec.structs.replace(record, **changes)
