"""Line-based ``key=value`` text, the sidecar form of the container's author: read and written, one line a key.

UTF-8 with line feeds only; a line splits at its first ``=``; the last line ends with a line feed, so that a cut file
shows; no key twice, no byte-order mark, no control or direction-changing characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from studbook.errors import ManifestRefused

__all__ = [
    "MAX_MANIFEST_BYTES",
    "ManifestRule",
    "format_manifest",
    "manifest_refusal",
    "parse_manifest",
    "take",
    "take_digest",
    "take_int",
]

MAX_MANIFEST_BYTES = 4_194_304
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_INTEGER = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


class ManifestRule(StrEnum):
    """One member a rule of manifests and of the files they list."""

    SIZE = "manifest.size"
    UTF8 = "manifest.utf8"
    BOM = "manifest.byte-order-mark"
    TRUNCATED = "manifest.truncated"
    CHARACTER = "manifest.character"
    LINE = "manifest.line"
    KEY = "manifest.key"
    DUPLICATE = "manifest.duplicate"
    MISSING = "manifest.missing"
    UNKNOWN = "manifest.unknown"
    VALUE = "manifest.value"
    PATH = "manifest.path"
    LINK = "manifest.link"
    TWIN = "manifest.twin"
    TENSOR_NAME = "manifest.tensor.name"
    TENSOR_DIMS = "manifest.tensor.dims"
    TENSOR_LENGTH = "manifest.tensor.length"
    TENSOR_NON_FINITE = "manifest.tensor.non-finite"
    TENSOR_DTYPE = "manifest.tensor.dtype"
    SHAPE = "manifest.shape"


def manifest_refusal(rule: ManifestRule, message: str, where: object, field: str = "") -> ManifestRefused:
    """The error for one broken rule, placed at file and key."""
    places = [str(where), f"field {field}" if field else ""]
    return ManifestRefused(message, where=": ".join(p for p in places if p), reason=rule)


def parse_manifest(data: bytes, where: object = "") -> dict[str, str]:
    """Read the lines of a manifest, in order.

    Raises:
        ManifestRefused: naming the line and the rule it breaks.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise manifest_refusal(ManifestRule.SIZE, f"{len(data)} bytes; at most {MAX_MANIFEST_BYTES}", where)
    if data.startswith(b"\xef\xbb\xbf"):
        raise manifest_refusal(ManifestRule.BOM, "starts with a byte-order mark", where)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise manifest_refusal(ManifestRule.UTF8, f"byte {error.start} is not UTF-8", where) from error
    if not text.endswith("\n"):
        raise manifest_refusal(ManifestRule.TRUNCATED, "does not end with a line feed", where)
    values: dict[str, str] = {}
    for number, line in enumerate(text[:-1].split("\n"), 1):
        place = f"{where}: line {number}" if str(where) else f"line {number}"
        key, value = _split(line, place)
        if key in values:
            raise manifest_refusal(ManifestRule.DUPLICATE, "appears twice", place, key)
        values[key] = value
    return values


def _split(line: str, where: str) -> tuple[str, str]:
    if found := _FORBIDDEN.search(line):
        message = f"character U+{ord(found[0]):04X} is not allowed"
        raise manifest_refusal(ManifestRule.CHARACTER, message, where)
    key, equals, value = line.partition("=")
    if not equals:
        raise manifest_refusal(ManifestRule.LINE, "is not key=value", where)
    if not _KEY.match(key):
        raise manifest_refusal(ManifestRule.KEY, "key is not letters, digits, '.', '_' and '-'", where)
    return key, value


def format_manifest(values: Mapping[str, str], where: object = "") -> bytes:
    """The bytes of a manifest, lines in the order given; reading them gives the same mapping.

    Raises:
        ManifestRefused: if a key or value cannot stand in a manifest.
    """
    try:
        data = "".join(f"{key}={value}\n" for key, value in values.items()).encode()
    except UnicodeEncodeError as error:
        raise manifest_refusal(ManifestRule.UTF8, "a value holds a lone surrogate", where) from error
    if parse_manifest(data, where) != dict(values):
        raise manifest_refusal(ManifestRule.KEY, "a key holds '='", where)
    return data


def take(values: Mapping[str, str], key: str, where: object, allowed: tuple[str, ...] = ()) -> str:
    """One required value, from a closed list where one is given.

    Raises:
        ManifestRefused: if the key is missing or the value is not in the list.
    """
    if key not in values:
        raise manifest_refusal(ManifestRule.MISSING, "is missing", where, key)
    value = values[key]
    if allowed and value not in allowed:
        message = f"{value[:80]!r}; allowed are {', '.join(allowed)}"
        raise manifest_refusal(ManifestRule.VALUE, message, where, key)
    return value


def take_int(values: Mapping[str, str], key: str, where: object) -> int:
    """One required whole number, decimal without sign or leading zeros.

    Raises:
        ManifestRefused: if it is missing or not such a number.
    """
    value = take(values, key, where)
    if not _INTEGER.match(value):
        raise manifest_refusal(ManifestRule.VALUE, f"{value[:80]!r} is not a whole number", where, key)
    return int(value)


def take_digest(values: Mapping[str, str], key: str, where: object) -> str:
    """One required SHA-256, 64 lowercase hexadecimal digits.

    Raises:
        ManifestRefused: if it is missing or not a digest.
    """
    value = take(values, key, where)
    if not _DIGEST.match(value):
        raise manifest_refusal(ManifestRule.VALUE, f"{value[:80]!r} is not a SHA-256", where, key)
    return value
