"""The meta block of a package: what it was made for, under which licence, and from what.

Canonical JSON (RFC 8785) whose numbers are whole and which is nested 32 deep at most, so that every host reads it alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final

from studbook.adapters.rules import AdapterRule, refusal
from studbook.errors import AdapterRefused, RecordRefused
from studbook.records.doors import canonical, decode_json

__all__ = ["SOURCES", "Mask", "Meta", "parse_meta", "retention_text"]

SOURCES: Final = ("task-delta", "trained", "peft")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,119}")
_KEY = re.compile(r"[a-z0-9_]{1,40}")
_RULE = re.compile(r"[a-z0-9][a-z0-9./-]{0,63}")
_RETENTION = re.compile(r"0|1|0\.[0-9]{0,8}[1-9]")
_PLACES = 9
_MAX_DIGESTS = 16
_MAX_SEED = 2**53 - 1
_DEEPEST = 32
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FRACTION = re.compile(rb"[0-9][.eE]")


@dataclass(frozen=True)
class Mask:
    """How the elements of a sparse package were chosen.

    Attributes:
        rule: Name of the rule with its numbers, such as ``top/tensor/0.1``.
        seed: Seed of a random rule, 0..2^53-1; None for the others.
        sha256: SHA-256 over the little-endian u32 indices of all entries in order.
    """

    rule: str
    seed: int | None
    sha256: str


@dataclass(frozen=True)
class Meta:
    """The meta block.

    Attributes:
        base_sha256: Digest of the f32 model the package was made for.
        licence: SPDX identifier.
        kind: What it was made from: ``task-delta``, ``trained`` or ``peft``.
        digests: Name -> SHA-256 of what it was made from, 1 to 16 of them.
        retention: Kept elements over the model's parameters, see `retention_text`; None unless sparse.
        mask: How the elements were chosen; None unless sparse.
    """

    base_sha256: str
    licence: str
    kind: str
    digests: Mapping[str, str]
    retention: str | None = None
    mask: Mask | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        fields: dict[str, Any] = {
            "base_sha256": self.base_sha256,
            "licence": self.licence,
            "source": {"kind": self.kind, **self.digests},
        }
        if self.retention is not None:
            fields["retention"] = self.retention
        if self.mask is not None:
            fields["mask"] = {"rule": self.mask.rule, "seed": self.mask.seed, "sha256": self.mask.sha256}
        return canonical(fields)


def retention_text(kept: int, parameters: int) -> str:
    """Share kept / parameters as a decimal: rounded to nine places, ties to even, without trailing zeros.

    Args:
        kept: Elements that change, 0..parameters.
        parameters: Elements of the model, at least 1.
    """
    units = round(Fraction(kept * 10**_PLACES, parameters))
    whole, rest = divmod(units, 10**_PLACES)
    return f"{whole}.{rest:0{_PLACES}d}".rstrip("0").rstrip(".")


def parse_meta(data: bytes, magic: str, where: object) -> Meta:
    """Read a meta block.

    Args:
        data: Its bytes.
        magic: The package's magic; only ``ASP1`` has retention and mask, and it must have them.
        where: The file, for errors.

    Raises:
        AdapterRefused: if it is not canonical JSON, or a key is missing, unknown or holds something else.
    """
    fields = _fields(data, where)
    wanted = {"base_sha256", "licence", "source"} | ({"retention", "mask"} if magic == "ASP1" else set())
    if not isinstance(fields, dict) or fields.keys() != wanted:
        found = f"keys {', '.join(sorted(fields))}" if isinstance(fields, dict) else "no object"
        message = f"{found[:200]}; exactly {', '.join(sorted(wanted))} are wanted"
        raise refusal(AdapterRule.META_KEYS, message, where, "meta")
    base, licence = fields["base_sha256"], fields["licence"]
    if not _is(_DIGEST, base):
        raise _odd(AdapterRule.META_BASE, base, "a SHA-256, 64 lowercase hexadecimal digits", where, "base_sha256")
    if not _is(_LICENCE, licence):
        raise _odd(AdapterRule.META_LICENCE, licence, "an SPDX identifier", where, "licence")
    kind, digests = _source(fields["source"], where)
    if magic != "ASP1":
        return Meta(base, licence, kind, digests)
    retention = fields["retention"]
    if not _is(_RETENTION, retention):
        raise _odd(AdapterRule.META_RETENTION, retention, "a decimal from 0 to 1 as text", where, "retention")
    return Meta(base, licence, kind, digests, retention, _mask(fields["mask"], where))


def _fields(data: bytes, where: object) -> Any:
    bare = _TEXT.sub(b"", data)
    if _FRACTION.search(bare):
        raise refusal(AdapterRule.META_JSON, "a number is not whole", where, "meta")
    if max(accumulate((byte in b"[{") - (byte in b"]}") for byte in bare), default=0) > _DEEPEST:
        raise refusal(AdapterRule.META_JSON, f"nested more than {_DEEPEST} deep", where, "meta")
    try:
        return decode_json(data)
    except RecordRefused as error:
        raise refusal(AdapterRule.META_JSON, error.message, where, "meta") from error


def _source(value: Any, where: object) -> tuple[str, Mapping[str, str]]:
    wanted = f"a kind ({', '.join(SOURCES)}) and 1 to {_MAX_DIGESTS} digests"
    if not isinstance(value, dict) or value.get("kind") not in SOURCES:
        raise _odd(AdapterRule.META_SOURCE, value, wanted, where, "source")
    digests = {key: digest for key, digest in value.items() if key != "kind"}
    sound = all(_is(_KEY, key) and _is(_DIGEST, digest) for key, digest in digests.items())
    if not sound or not 1 <= len(digests) <= _MAX_DIGESTS:
        raise _odd(AdapterRule.META_SOURCE, value, wanted, where, "source")
    return value["kind"], MappingProxyType(digests)


def _mask(value: Any, where: object) -> Mask:
    if isinstance(value, dict) and value.keys() == {"rule", "seed", "sha256"}:
        rule, seed, digest = value["rule"], value["seed"], value["sha256"]
        whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= _MAX_SEED
        if _is(_RULE, rule) and _is(_DIGEST, digest) and (seed is None or whole):
            return Mask(rule, seed, digest)
    raise _odd(AdapterRule.META_MASK, value, "an object of rule, seed (or null) and sha256", where, "mask")


def _is(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _odd(rule: AdapterRule, value: Any, wanted: str, where: object, key: str) -> AdapterRefused:
    return refusal(rule, f"{value!r:.120} is not {wanted}", where, f"meta {key}")
