"""Where things lie in a container: header, directory, spans; every rule that needs no tensor value.

Pure functions over the bytes of one file. Offsets and lengths are Python integers, so no sum can overflow, and nothing
is allocated by a number from the header before that number has been checked against the length of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from studbook.models.checksum import checksum64
from studbook.models.rules import SlmRule, refusal
from studbook.models.shape import SlmShape
from studbook.models.stored import Dtype, lengths

__all__ = [
    "ALIGNMENT",
    "CHECKSUM_AT",
    "ENTRY",
    "HEADER",
    "MAX_FILE_BYTES",
    "TIED",
    "Entry",
    "Header",
    "align",
    "check_spans",
    "parse_directory",
    "parse_header",
]

MAX_FILE_BYTES = 134_217_728
ALIGNMENT = 64
CHECKSUM_AT = 100
HEADER = struct.Struct("<4s13I2f3QI2Q")
ENTRY = struct.Struct("<Q6I3Q2I")
TIED = 1
_DTYPES = {dtype.code: dtype for dtype in Dtype}


@dataclass(frozen=True)
class Header:
    """The header of a container whose every field has been checked.

    Attributes:
        shape: Dimensions of the model.
        length: Bytes of the header; 108 when written here.
        tokenizer_offset: Where the tokenizer section starts.
        tokenizer_length: Its bytes.
        directory_offset: Where the tensor directory starts.
        tensor_count: Its entries, 64 bytes each.
        data_offset: Where payloads may start.
    """

    shape: SlmShape
    length: int
    tokenizer_offset: int
    tokenizer_length: int
    directory_offset: int
    tensor_count: int
    data_offset: int

    @property
    def tokenizer_end(self) -> int:
        """First byte after the tokenizer section."""
        return self.tokenizer_offset + self.tokenizer_length

    @property
    def directory_end(self) -> int:
        """First byte after the directory."""
        return self.directory_offset + self.tensor_count * ENTRY.size


class Entry(NamedTuple):
    """One checked entry of the directory.

    Attributes:
        name_hash: FNV-1a 64 of the tensor's name.
        dtype: How it is stored.
        dims: Dimensions in use.
        byte_offset: Where its payload lies.
        byte_length: Bytes of payload.
        scale_offset: Where its scales lie; 0 for f32.
        scale_length: Bytes of scales; 0 for f32.
        block: Elements that share a scale; 0 for f32.
    """

    name_hash: int
    dtype: Dtype
    dims: tuple[int, ...]
    byte_offset: int
    byte_length: int
    scale_offset: int
    scale_length: int
    block: int


def align(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def parse_header(data: bytes, where: object) -> Header:
    """Read and check the header, then the checksum of the whole file.

    Raises:
        SlmRefused: naming the first field that breaks a rule.
    """
    _check_length(data, where)
    magic, version, length, model_type, flags, *numbers = HEADER.unpack_from(data)
    *dims, theta, epsilon, tok_at, tok_length, dir_at, count, data_at, checksum = numbers
    if magic != b"SLM1":
        raise refusal(SlmRule.MAGIC, f"{magic!r} is not SLM1", where, "magic")
    if version != 1:
        raise refusal(SlmRule.VERSION, f"{version}; only 1 is known", where, "version")
    if not HEADER.size <= length <= len(data):
        message = f"{length}; at least {HEADER.size} and inside the file's {len(data)} bytes"
        raise refusal(SlmRule.HEADER_LENGTH, message, where, "header_length")
    if model_type != 1:
        raise refusal(SlmRule.MODEL_TYPE, f"{model_type}; only 1 is known", where, "model_type")
    if flags & ~TIED:
        raise refusal(SlmRule.FLAGS, f"{flags:#x}; only bit 0, tied output, is known", where, "flags")
    vocab, special, hidden, layers, heads, kv_heads, head_dim, ffn, context = dims
    shape = SlmShape(
        vocab, hidden, layers, heads, kv_heads, head_dim, ffn, context, theta, epsilon, bool(flags), special, where
    )
    header = Header(shape, length, tok_at, tok_length, dir_at, count, data_at)
    _check_sections(header, len(data), where)
    _check_checksum(data, checksum, where)
    return header


def _check_length(data: bytes, where: object) -> None:
    if len(data) > MAX_FILE_BYTES:
        raise refusal(SlmRule.SIZE, f"{len(data)} bytes; at most {MAX_FILE_BYTES}", where)
    if len(data) < HEADER.size:
        raise refusal(SlmRule.SHORT, f"{len(data)} bytes; the header alone has {HEADER.size}", where)
    if len(data) % ALIGNMENT:
        raise refusal(SlmRule.FILE_ALIGNMENT, f"{len(data)} bytes; not a multiple of {ALIGNMENT}", where)


def _check_sections(header: Header, size: int, where: object) -> None:
    if header.tokenizer_end > size:
        message = f"section ends at {header.tokenizer_end}, the file at {size}"
        raise refusal(SlmRule.TOKENIZER_RANGE, message, where, "tokenizer_offset")
    if header.directory_offset % ALIGNMENT:
        message = f"{header.directory_offset} is not a multiple of {ALIGNMENT}"
        raise refusal(SlmRule.DIRECTORY_ALIGNMENT, message, where, "tensor_directory_offset")
    if header.directory_end > size:
        message = f"directory ends at {header.directory_end}, the file at {size}"
        raise refusal(SlmRule.DIRECTORY_RANGE, message, where, "tensor_count")
    if header.data_offset % ALIGNMENT:
        message = f"{header.data_offset} is not a multiple of {ALIGNMENT}"
        raise refusal(SlmRule.DATA_ALIGNMENT, message, where, "tensor_data_offset")
    if header.data_offset > size:
        message = f"{header.data_offset}, but the file ends at {size}"
        raise refusal(SlmRule.DATA_RANGE, message, where, "tensor_data_offset")
    # A hostile layer count stops here, before any name is built.
    if header.tensor_count != header.shape.tensor_count:
        message = f"{header.tensor_count}; this shape has {header.shape.tensor_count} tensors"
        raise refusal(SlmRule.TENSOR_COUNT, message, where, "tensor_count")
    _check_order(header, where)


def _check_order(header: Header, where: object) -> None:
    sections = (
        ("header", 0, header.length),
        ("tokenizer", header.tokenizer_offset, header.tokenizer_end),
        ("tensor directory", header.directory_offset, header.directory_end),
        ("tensor data", header.data_offset, header.data_offset + 1),
    )
    for (first, start, end), (second, begin, stop) in pairwise(sections):
        if begin < end and stop > start:
            raise refusal(SlmRule.OVERLAP, f"{second} at {begin} overlaps {first} up to {end}", where, second)
        if begin < end:
            raise refusal(SlmRule.ORDER, f"{second} at {begin} stands before {first} at {start}", where, second)


def _check_checksum(data: bytes, stated: int, where: object) -> None:
    if stated == 0:
        raise refusal(SlmRule.CHECKSUM_ZERO, "zero; every file carries one", where, "checksum")
    found = checksum64(data, CHECKSUM_AT)
    if stated != found:
        raise refusal(SlmRule.CHECKSUM, f"header says {stated:#018x}, the bytes give {found:#018x}", where, "checksum")


def parse_directory(data: bytes, header: Header, where: object) -> tuple[Entry, ...]:
    """Read and check every entry by itself: known values, exact lengths, aligned ranges inside the file.

    Raises:
        SlmRefused: naming entry and field.
    """
    table = memoryview(data)[header.directory_offset : header.directory_end]
    entries = []
    for index, (name_hash, code, rank, d0, d1, d2, d3, at, length, scale_at, block, reserved) in enumerate(
        ENTRY.iter_unpack(table)
    ):
        place = f"tensor directory entry {index}"
        dims = _entry_dims(code, rank, (d0, d1, d2, d3), reserved, where, place)
        dtype = _DTYPES[code]
        _check_block(dtype, block, scale_at, dims[-1], where, place)
        payload, scales = lengths(dtype, dims, block)
        if length != payload:
            message = f"{length}; {dtype} of shape {dims} has {payload} bytes"
            raise refusal(SlmRule.PAYLOAD_LENGTH, message, where, f"{place} byte_length")
        entry = Entry(name_hash, dtype, dims, at, length, scale_at, scales, block)
        _check_ranges(entry, header.data_offset, len(data), where, place)
        entries.append(entry)
    return tuple(entries)


def _entry_dims(
    code: int, rank: int, dims: tuple[int, ...], reserved: int, where: object, place: str
) -> tuple[int, ...]:
    if code not in _DTYPES:
        raise refusal(SlmRule.DTYPE, f"{code}; 1, 2 and 3 are known", where, f"{place} dtype")
    if not 1 <= rank <= 4:
        raise refusal(SlmRule.RANK, f"{rank}; 1 to 4", where, f"{place} rank")
    if 0 in dims[:rank]:
        raise refusal(SlmRule.DIMS_ZERO, f"{dims[:rank]} holds a zero", where, f"{place} dims")
    if any(dims[rank:]):
        raise refusal(SlmRule.DIMS_UNUSED, f"{dims} has more than {rank} dimensions", where, f"{place} dims")
    if reserved:
        raise refusal(SlmRule.RESERVED, f"{reserved}; must be 0", where, f"{place} reserved")
    return dims[:rank]


def _check_block(dtype: Dtype, block: int, scale_at: int, columns: int, where: object, place: str) -> None:
    field = f"{place} block_size"
    if dtype is Dtype.F32:
        if block:
            raise refusal(SlmRule.BLOCK_F32, f"{block}; f32 has none", where, field)
        if scale_at:
            raise refusal(SlmRule.SCALE_OFFSET_F32, f"{scale_at}; f32 has none", where, f"{place} scale_offset")
    elif dtype is Dtype.Q8_0:
        if block != columns:
            raise refusal(SlmRule.BLOCK_Q8, f"{block}; the row has {columns}", where, field)
    elif block == 0 or block % 2:
        raise refusal(SlmRule.BLOCK_Q4_ODD, f"{block}; must be even and positive", where, field)
    elif columns % block:
        raise refusal(SlmRule.BLOCK_Q4_DIVIDE, f"{block} does not divide the row of {columns}", where, field)


def _check_ranges(entry: Entry, data_at: int, size: int, where: object, place: str) -> None:
    field = f"{place} byte_offset"
    if entry.byte_offset % ALIGNMENT:
        message = f"{entry.byte_offset} is not a multiple of {ALIGNMENT}"
        raise refusal(SlmRule.PAYLOAD_ALIGNMENT, message, where, field)
    if entry.byte_offset + entry.byte_length > size:
        message = f"payload ends at {entry.byte_offset + entry.byte_length}, the file at {size}"
        raise refusal(SlmRule.PAYLOAD_RANGE, message, where, field)
    if entry.byte_offset < data_at:
        raise refusal(SlmRule.PAYLOAD_BEFORE_DATA, f"{entry.byte_offset}; data start at {data_at}", where, field)
    if entry.dtype is Dtype.F32:
        return
    field = f"{place} scale_offset"
    if entry.scale_offset % ALIGNMENT:
        message = f"{entry.scale_offset} is not a multiple of {ALIGNMENT}"
        raise refusal(SlmRule.SCALE_ALIGNMENT, message, where, field)
    if entry.scale_offset + entry.scale_length > size:
        message = f"scales end at {entry.scale_offset + entry.scale_length}, the file at {size}"
        raise refusal(SlmRule.SCALE_RANGE, message, where, field)
    if entry.scale_offset < data_at:
        raise refusal(SlmRule.SCALE_BEFORE_DATA, f"{entry.scale_offset}; data start at {data_at}", where, field)


def check_spans(data: bytes, header: Header, entries: tuple[Entry, ...], where: object) -> None:
    """Check that nothing overlaps, that every gap is zero, and that the file ends with its last span.

    Raises:
        SlmRefused: naming where the overlap, the stray byte or the trailing block lies.
    """
    spans = [
        (0, header.length),
        (header.tokenizer_offset, header.tokenizer_end),
        (header.directory_offset, header.directory_end),
    ]
    for entry in entries:
        spans.append((entry.byte_offset, entry.byte_offset + entry.byte_length))
        if entry.scale_length:
            spans.append((entry.scale_offset, entry.scale_offset + entry.scale_length))
    spans.sort()
    end = 0
    for start, stop in spans:
        if start < end:
            raise refusal(SlmRule.OVERLAP, f"two ranges share bytes {start} to {min(end, stop)}", where)
        _check_zero(data, end, start, where)
        end = stop
    _check_zero(data, end, min(align(end), len(data)), where)
    if len(data) > align(end):
        raise refusal(SlmRule.TRAILING, f"the last range ends at {end}, the file at {len(data)}", where)


def _check_zero(data: bytes, start: int, stop: int, where: object) -> None:
    gap = data[start:stop]
    if gap.count(0) != len(gap):
        raise refusal(SlmRule.PADDING, f"bytes {start} to {stop} belong to nothing but are not zero", where)
