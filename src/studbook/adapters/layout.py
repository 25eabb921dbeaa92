"""Where things lie in a package: header, directory, spans; every rule that needs neither meta block nor values.

All three kinds share one layout, little-endian: a header of 128 bytes, a block of canonical JSON, a directory of 64-byte
entries, payloads on a grid of 64 bytes. The checksum is the one of the SLM1 container with the field at 120 as zero.
Offsets and lengths are Python integers, so no sum can overflow, and a number from the file sizes nothing before it has
been held against the length of the file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from studbook.adapters.changes import KINDS, Dense, LowRank, Sparse, payload_bytes
from studbook.adapters.rules import AdapterRule, refusal
from studbook.models.checksum import checksum64
from studbook.models.slm_layout import ALIGNMENT, MAX_FILE_BYTES, TIED, align

__all__ = [
    "CHECKSUM_AT",
    "ENTRY",
    "HEADER",
    "MAX_FILE_BYTES",
    "MAX_META_BYTES",
    "TIED",
    "Entry",
    "Head",
    "align",
    "check_spans",
    "parse_directory",
    "parse_head",
]

HEADER = struct.Struct("<4s5IQ32s32s2I3Q")
ENTRY = struct.Struct("<Q6I2QIfQ")
CHECKSUM_AT = 120
MAX_META_BYTES = 65_536
_CODES = {kind.magic: kind.code for kind in KINDS}


@dataclass(frozen=True)
class Head:
    """The header of a package whose every field has been checked by itself.

    Attributes:
        magic: ``ADP1``, ``ASP1`` or ``ALR1``.
        flags: Flags of the model: bit 0 is a tied output projection.
        tensor_count: Tensors of the model.
        entry_count: Entries of the directory, 1..tensor_count.
        parameter_count: Elements of all tensors of the model.
        layout_sha256: Digest of the model's names and shapes.
        tokenizer_sha256: Digest of the model's tokenizer section.
        meta_length: Bytes of the meta block, which stands at 128.
        directory_offset: Where the directory starts.
        data_offset: Where payloads may start.
    """

    magic: str
    flags: int
    tensor_count: int
    entry_count: int
    parameter_count: int
    layout_sha256: str
    tokenizer_sha256: str
    meta_length: int
    directory_offset: int
    data_offset: int

    @property
    def code(self) -> int:
        """The kind all entries must have: 1 dense, 2 sparse, 3 low-rank."""
        return _CODES[self.magic.encode()]

    @property
    def meta_end(self) -> int:
        """First byte after the meta block."""
        return HEADER.size + self.meta_length

    @property
    def directory_end(self) -> int:
        """First byte after the directory."""
        return self.directory_offset + self.entry_count * ENTRY.size


@dataclass(frozen=True)
class Entry:
    """One checked entry of the directory.

    Attributes:
        name_hash: FNV-1a 64 of the tensor's name.
        code: Its kind: 1 dense, 2 sparse, 3 low-rank.
        dims: Dimensions of the tensor.
        byte_offset: Where its payload lies.
        byte_length: Bytes of payload.
        count: Elements that change (sparse), the rank (low-rank), or 0.
        alpha: f32 value; 0 unless low-rank.
    """

    name_hash: int
    code: int
    dims: tuple[int, ...]
    byte_offset: int
    byte_length: int
    count: int
    alpha: float


def parse_head(data: bytes, where: object) -> Head:
    """Read and check the header, then the checksum of the whole file.

    Raises:
        AdapterRefused: naming the first field that breaks a rule.
    """
    _check_length(data, where)
    magic, version, length, flags, tensors, entries, parameters, *rest = HEADER.unpack_from(data)
    layout, tokenizer, meta_length, reserved, directory_at, data_at, checksum = rest
    if magic not in _CODES:
        raise refusal(AdapterRule.MAGIC, f"{magic!r} is none of ADP1, ASP1, ALR1", where, "magic")
    if version != 1:
        raise refusal(AdapterRule.VERSION, f"{version}; only 1 is known", where, "version")
    if length != HEADER.size:
        raise refusal(AdapterRule.HEADER_LENGTH, f"{length}; always {HEADER.size}", where, "header_length")
    if flags & ~TIED:
        raise refusal(AdapterRule.FLAGS, f"{flags:#x}; only bit 0, tied output, is known", where, "flags")
    if not 1 <= entries <= tensors:
        raise refusal(AdapterRule.ENTRY_COUNT, f"{entries}; 1 to {tensors}, the tensor count", where, "entry_count")
    if parameters == 0:
        raise refusal(AdapterRule.PARAMETER_COUNT, "zero; no model has no elements", where, "parameter_count")
    if reserved:
        raise refusal(AdapterRule.RESERVED, f"{reserved}; must be 0", where, "reserved")
    head = Head(
        magic.decode(), flags, tensors, entries, parameters, layout.hex(), tokenizer.hex(), meta_length,
        directory_at, data_at,
    )  # fmt: skip
    _check_places(head, len(data), where)
    _check_checksum(data, checksum, where)
    return head


def _check_length(data: bytes, where: object) -> None:
    if len(data) > MAX_FILE_BYTES:
        raise refusal(AdapterRule.SIZE, f"{len(data)} bytes; at most {MAX_FILE_BYTES}", where)
    if len(data) < HEADER.size:
        raise refusal(AdapterRule.SHORT, f"{len(data)} bytes; the header alone has {HEADER.size}", where)
    if len(data) % ALIGNMENT:
        raise refusal(AdapterRule.FILE_ALIGNMENT, f"{len(data)} bytes; not a multiple of {ALIGNMENT}", where)


def _check_places(head: Head, size: int, where: object) -> None:
    if head.meta_length > MAX_META_BYTES or head.meta_end > size:
        message = f"{head.meta_length}; at most {MAX_META_BYTES} and inside the file's {size} bytes"
        raise refusal(AdapterRule.META_LENGTH, message, where, "meta_length")
    if head.directory_offset != align(head.meta_end):
        message = f"{head.directory_offset}; the meta block puts it at {align(head.meta_end)}"
        raise refusal(AdapterRule.DIRECTORY_OFFSET, message, where, "directory_offset")
    if head.data_offset != align(head.directory_end):
        message = f"{head.data_offset}; the directory puts it at {align(head.directory_end)}"
        raise refusal(AdapterRule.DATA_OFFSET, message, where, "data_offset")
    if head.directory_end > size:
        message = f"directory ends at {head.directory_end}, the file at {size}"
        raise refusal(AdapterRule.DIRECTORY_RANGE, message, where, "entry_count")


def _check_checksum(data: bytes, stated: int, where: object) -> None:
    if stated == 0:
        raise refusal(AdapterRule.CHECKSUM_ZERO, "zero; every file carries one", where, "checksum")
    found = checksum64(data, CHECKSUM_AT)
    if stated != found:
        message = f"header says {stated:#018x}, the bytes give {found:#018x}"
        raise refusal(AdapterRule.CHECKSUM, message, where, "checksum")


def parse_directory(data: bytes, head: Head, where: object) -> tuple[Entry, ...]:
    """Read and check every entry by itself, then that none is there twice.

    Raises:
        AdapterRefused: naming entry and field.
    """
    table = memoryview(data)[head.directory_offset : head.directory_end]
    entries: dict[int, Entry] = {}
    for index, (name_hash, code, rank, d0, d1, d2, d3, at, length, count, alpha, reserved) in enumerate(
        ENTRY.iter_unpack(table)
    ):
        place = f"directory entry {index}"
        if code != head.code:
            raise refusal(AdapterRule.KIND, f"{code}; {head.magic} holds kind {head.code}", where, f"{place} kind")
        dims = _dims(rank, (d0, d1, d2, d3), where, place)
        if reserved:
            raise refusal(AdapterRule.ENTRY_RESERVED, f"{reserved}; must be 0", where, f"{place} reserved")
        entry = Entry(name_hash, code, dims, at, length, count, alpha)
        _check_numbers(entry, where, place)
        if name_hash in entries:
            raise refusal(AdapterRule.DUPLICATE, f"{name_hash:#018x} stands twice", where, f"{place} name_hash")
        _check_range(entry, head.data_offset, len(data), where, place)
        entries[name_hash] = entry
    return tuple(entries.values())


def _dims(rank: int, dims: tuple[int, ...], where: object, place: str) -> tuple[int, ...]:
    if not 1 <= rank <= 4:
        raise refusal(AdapterRule.RANK, f"{rank}; 1 to 4", where, f"{place} rank")
    if 0 in dims[:rank]:
        raise refusal(AdapterRule.DIMS_ZERO, f"{dims[:rank]} holds a zero", where, f"{place} dims")
    if any(dims[rank:]):
        raise refusal(AdapterRule.DIMS_UNUSED, f"{dims} has more than {rank} dimensions", where, f"{place} dims")
    return dims[:rank]


def _check_numbers(entry: Entry, where: object, place: str) -> None:
    if entry.code == LowRank.code:
        if len(entry.dims) != 2:
            message = f"{len(entry.dims)} dimensions; only a matrix has factors"
            raise refusal(AdapterRule.MATRIX, message, where, f"{place} rank")
        fewest, most = 1, min(entry.dims)
    elif entry.code == Sparse.code:
        fewest, most = 1, math.prod(entry.dims)
    else:
        fewest, most = 0, 0
    if not fewest <= entry.count <= most:
        raise refusal(AdapterRule.COUNT, f"{entry.count}; {fewest} to {most}", where, f"{place} count")
    bits = struct.pack("<f", entry.alpha)
    if not math.isfinite(entry.alpha) or (entry.code != LowRank.code and bits != bytes(4)):
        wanted = "a finite number" if entry.code == LowRank.code else "0"
        raise refusal(AdapterRule.ALPHA, f"{entry.alpha}; must be {wanted}", where, f"{place} alpha")


def _check_range(entry: Entry, data_at: int, size: int, where: object, place: str) -> None:
    wanted = payload_bytes(entry.code, entry.dims, entry.count)
    if entry.byte_length != wanted:
        name = KINDS[entry.code - Dense.code].__name__.lower()
        message = f"{entry.byte_length}; {name} of shape {entry.dims} and count {entry.count} has {wanted} bytes"
        raise refusal(AdapterRule.LENGTH, message, where, f"{place} byte_length")
    field = f"{place} byte_offset"
    if entry.byte_offset % ALIGNMENT:
        message = f"{entry.byte_offset} is not a multiple of {ALIGNMENT}"
        raise refusal(AdapterRule.ALIGNMENT, message, where, field)
    if entry.byte_offset + entry.byte_length > size:
        message = f"payload ends at {entry.byte_offset + entry.byte_length}, the file at {size}"
        raise refusal(AdapterRule.RANGE, message, where, field)
    if entry.byte_offset < data_at:
        raise refusal(AdapterRule.BEFORE_DATA, f"{entry.byte_offset}; data start at {data_at}", where, field)


def check_spans(data: bytes, head: Head, entries: tuple[Entry, ...], where: object) -> None:
    """Check that no payloads overlap, that every gap is zero, and that the file ends with its last payload.

    Raises:
        AdapterRefused: naming where the overlap, the stray byte or the trailing block lies.
    """
    spans = [(0, head.meta_end), (head.directory_offset, head.directory_end)]
    spans += sorted((entry.byte_offset, entry.byte_offset + entry.byte_length) for entry in entries)
    end = 0
    for start, stop in spans:
        if start < end:
            raise refusal(AdapterRule.OVERLAP, f"two ranges share bytes {start} to {min(end, stop)}", where)
        _check_zero(data, end, start, where)
        end = stop
    _check_zero(data, end, min(align(end), len(data)), where)
    if len(data) > align(end):
        raise refusal(AdapterRule.TRAILING, f"the last payload ends at {end}, the file at {len(data)}", where)


def _check_zero(data: bytes, start: int, stop: int, where: object) -> None:
    gap = data[start:stop]
    if gap.count(0) != len(gap):
        raise refusal(AdapterRule.PADDING, f"bytes {start} to {stop} belong to nothing but are not zero", where)
