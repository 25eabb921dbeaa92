"""The header of a safetensors file: strict JSON, then offsets that cover the data exactly, without a hole.

The parser turns each entry into a small tuple while the JSON is read, so that a header of many tensors costs a few times
its own length and no more. Format: the safetensors README.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn

from studbook.models.safetensors_rules import SafetensorsRule as Rule
from studbook.models.safetensors_rules import safetensors_refusal as refusal

__all__ = ["BITS", "HEADER_CAP", "Entry", "check_name", "parse_header"]

# Bits of one element of every dtype the format knows; most of them are only ever refused, by name.
BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
        "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
        "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
        "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    }
)  # fmt: skip
_ONE_COPY = {name: name for name in BITS}
# The format allows 100 MB; a header of this length names 200,000 tensors.
HEADER_CAP: Final = 25_000_000
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_METADATA = "__metadata__"
_MOST_RANK = 16
_MOST_ELEMENTS = 1 << 60


class Entry(NamedTuple):
    """One tensor of a header.

    Attributes:
        dtype: As the file spells it, such as ``BF16``.
        shape: Dimensions.
        start: First byte, counted from the first byte after the header.
        stop: The byte after the last one.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class _Pairs(NamedTuple):
    """An object that is no well-formed entry: metadata, the header itself, or a lie."""

    pairs: list[tuple[str, Any]]


class _Number(ValueError):
    """A number no header has: a fraction, an exponent, NaN."""


def parse_header(data: bytes, room: int, where: object) -> tuple[dict[str, Entry], dict[str, str]]:
    """Read and check a header.

    Args:
        data: The JSON, at most `HEADER_CAP` bytes, padding included.
        room: Bytes of data that follow it.
        where: The file, for errors.

    Returns:
        Tensors by name in the order of their bytes, and the metadata.

    Raises:
        BytesLie: naming the rule that is broken and the tensor that breaks it.
    """
    metadata: dict[str, str] | None = None
    found: dict[str, Entry] = {}
    for name, value in _decode(data, where).pairs:
        if name == _METADATA:
            if metadata is not None:
                raise refusal(Rule.DUPLICATE_METADATA, "stands twice", where, _METADATA)
            metadata = _check_metadata(value, where)
            continue
        if name in found:
            raise refusal(Rule.DUPLICATE_TENSOR, "stands twice", where, name)
        check_name(name, where)
        found[name] = _check_entry(name, value, where)
    if not found:
        raise refusal(Rule.EMPTY, "holds no tensor", where)
    return _check_cover(found, room, where), metadata or {}


def _decode(data: bytes, where: object) -> _Pairs:
    if data[:1] != b"{":
        raise refusal(Rule.START, "the header does not start with {", where)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise refusal(Rule.UTF8, f"the header is not UTF-8 at byte {error.start}", where) from error
    try:
        value = json.loads(
            text, object_pairs_hook=_pack, parse_float=_no_number, parse_constant=_no_number, parse_int=_whole
        )
    except _Number as error:
        raise refusal(Rule.NUMBER, f"the header holds {str(error)[:40]}, not a plain integer", where) from error
    except RecursionError as error:
        raise refusal(Rule.DEPTH, "the header is nested too deeply", where) from error
    except ValueError as error:
        raise refusal(Rule.JSON, f"the header is not JSON: {error}", where) from error
    if isinstance(value, Entry):
        raise refusal(Rule.ENTRY, "the header itself is written like a tensor", where)
    if text.rstrip(" ")[-1:] != "}":
        raise refusal(Rule.JSON, "the header is padded with something other than spaces", where)
    return value  # type: ignore[no-any-return]


def _pack(pairs: list[tuple[str, Any]]) -> Entry | _Pairs:
    """An object of the header as a small tuple, where it has exactly the fields of a tensor."""
    if len(pairs) == len(_FIELDS):
        fields = dict(pairs)
        if fields.keys() == _FIELDS:
            dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
            if type(shape) is list and type(offsets) is list and type(dtype) is str and len(offsets) == 2:
                return Entry(_ONE_COPY.get(dtype, dtype), tuple(shape), *offsets)
    return _Pairs(pairs)


def _no_number(text: str) -> NoReturn:
    raise _Number(text)


def _whole(text: str) -> int:
    if len(text) > 20:
        raise _Number(text)
    return int(text)


def _check_metadata(value: Any, where: object) -> dict[str, str]:
    if not isinstance(value, _Pairs):
        raise refusal(Rule.METADATA, "is not an object of texts", where, _METADATA)
    metadata: dict[str, str] = {}
    for key, text in value.pairs:
        if key in metadata:
            raise refusal(Rule.DUPLICATE_METADATA, "stands twice", where, f"{_METADATA}.{key}")
        if not isinstance(text, str) or _surrogate(key) or _surrogate(text):
            raise refusal(Rule.METADATA_TEXT, "is not text", where, f"{_METADATA}.{key}")
        metadata[key] = text
    return metadata


def _surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def check_name(name: str, where: object) -> None:
    """Refuse a tensor name that is empty, no text, no single printable line, or a path that leads outside.

    Raises:
        BytesLie: naming the rule.
    """
    if not name:
        raise refusal(Rule.NAME_EMPTY, "a tensor has no name", where)
    if _surrogate(name):
        raise refusal(Rule.NAME_SURROGATE, "the name is not Unicode text", where, name)
    if not name.isprintable():
        raise refusal(Rule.NAME_CONTROL, "the name holds a control character", where, name)
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or (len(parts) > 1 and not parts[0]):
        raise refusal(Rule.NAME_PATH, "the name is a path that leads outside", where, name)


def _check_entry(name: str, value: Any, where: object) -> Entry:
    entry = value if isinstance(value, Entry) else _explain(name, value, where)
    if entry.dtype not in BITS:
        raise refusal(Rule.DTYPE, f"{entry.dtype[:40]!r} is not a dtype of the format", where, name)
    dims = entry.shape
    if any(type(d) is not int for d in dims) or any(d < 0 for d in dims) or len(dims) > _MOST_RANK:
        raise refusal(Rule.SHAPE, f"shape is not a list of at most {_MOST_RANK} integers >= 0", where, name)
    if 0 in dims:
        raise refusal(Rule.ZERO_SIZE, "has no elements", where, name)
    if math.prod(dims) > _MOST_ELEMENTS:
        raise refusal(Rule.SHAPE_RANGE, "has more elements than any file", where, name)
    if type(entry.start) is not int or type(entry.stop) is not int or not 0 <= entry.start <= entry.stop:
        raise refusal(Rule.OFFSETS, "data_offsets are not two rising integers >= 0", where, name)
    bits = math.prod(dims) * BITS[entry.dtype]
    if bits % 8 or bits // 8 != entry.stop - entry.start:
        message = f"{entry.stop - entry.start} bytes; {entry.dtype} of shape {list(dims)} has {bits / 8:g}"
        raise refusal(Rule.LENGTH, message, where, name)
    return entry


def _explain(name: str, value: Any, where: object) -> NoReturn:
    """Say what is wrong with an object that is not an entry."""
    if not isinstance(value, _Pairs):
        raise refusal(Rule.ENTRY, "is not an object", where, name)
    fields: dict[str, Any] = {}
    for key, part in value.pairs:
        if key in fields:
            raise refusal(Rule.DUPLICATE_FIELD, f"{key[:40]!r} stands twice", where, name)
        if key not in _FIELDS:
            raise refusal(Rule.UNKNOWN_FIELD, f"{key[:40]!r} is not a field of a tensor", where, name)
        fields[key] = part
    if missing := _FIELDS - fields.keys():
        raise refusal(Rule.MISSING_FIELD, f"has no {min(missing)}", where, name)
    if type(fields["dtype"]) is not str:
        raise refusal(Rule.DTYPE, "dtype is not text", where, name)
    if type(fields["shape"]) is not list:
        raise refusal(Rule.SHAPE, "shape is not a list", where, name)
    raise refusal(Rule.OFFSETS, "data_offsets is not a list of two integers", where, name)


def _check_cover(found: dict[str, Entry], room: int, where: object) -> dict[str, Entry]:
    """The tensors in the order of their bytes, which must cover the data exactly."""
    placed = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)))
    end = 0
    for name, entry in placed.items():
        if entry.start < end:
            raise refusal(
                Rule.OVERLAP, f"starts at {entry.start}, before byte {end} where the last one ends", where, name
            )
        if entry.start > end:
            raise refusal(Rule.HOLE, f"starts at {entry.start}; bytes {end} to {entry.start} are nobody's", where, name)
        if entry.stop > room:
            raise refusal(Rule.RANGE, f"ends at {entry.stop}; the file has {room} bytes of data", where, name)
        end = entry.stop
    if end != room:
        raise refusal(Rule.TRAILING, f"{room - end} bytes follow the last tensor", where)
    return placed
