"""Every rule of a safetensors file, by name: the ``reason`` of each refusal.

Format: the safetensors README (8 bytes of header length, a JSON header, the data). Rules that the format leaves open
and that are ours: the header cap, zero-size tensors, names that could not be a file's or would drive a terminal.
"""

from __future__ import annotations

from enum import StrEnum

from studbook.errors import BytesLie, printable

__all__ = ["SafetensorsRule", "safetensors_refusal"]

_SHOWN = 120


class SafetensorsRule(StrEnum):
    """One member a rule, in the order in which a reader meets them."""

    ENDIANNESS = "safetensors.endianness"
    SHORT = "safetensors.short"
    HEADER_ZERO = "safetensors.header-length.zero"
    HEADER_RANGE = "safetensors.header-length.range"
    HEADER_CAP = "safetensors.header-length.cap"
    START = "safetensors.header.start"
    UTF8 = "safetensors.header.utf-8"
    NUMBER = "safetensors.header.number"
    DEPTH = "safetensors.header.depth"
    JSON = "safetensors.header.json"
    DUPLICATE_TENSOR = "safetensors.duplicate.tensor"
    DUPLICATE_METADATA = "safetensors.duplicate.metadata"
    DUPLICATE_FIELD = "safetensors.duplicate.field"
    METADATA = "safetensors.metadata"
    METADATA_TEXT = "safetensors.metadata.text"
    NAME_EMPTY = "safetensors.name.empty"
    NAME_SURROGATE = "safetensors.name.surrogate"
    NAME_CONTROL = "safetensors.name.control"
    NAME_PATH = "safetensors.name.path"
    ENTRY = "safetensors.entry"
    UNKNOWN_FIELD = "safetensors.entry.unknown-field"
    MISSING_FIELD = "safetensors.entry.missing-field"
    DTYPE = "safetensors.dtype"
    SHAPE = "safetensors.shape"
    SHAPE_RANGE = "safetensors.shape.range"
    ZERO_SIZE = "safetensors.shape.zero"
    OFFSETS = "safetensors.offsets"
    LENGTH = "safetensors.offsets.length"
    RANGE = "safetensors.offsets.range"
    OVERLAP = "safetensors.offsets.overlap"
    HOLE = "safetensors.offsets.hole"
    TRAILING = "safetensors.trailing"
    EMPTY = "safetensors.empty"
    SHORT_READ = "safetensors.short-read"


def safetensors_refusal(rule: SafetensorsRule, message: str, where: object, field: str = "") -> BytesLie:
    """The error for one broken rule, placed at file and field.

    Args:
        rule: Which rule.
        message: What is wrong, with the numbers.
        where: The file.
        field: The tensor or field in it.
    """
    shown = printable(field[:_SHOWN]) + ("..." if len(field) > _SHOWN else "")
    return BytesLie(message, where=f"{where}: {shown}" if shown else where, reason=rule)
