"""Reading a package: once, whole, and refused at the first rule that it breaks.

Order of checks: size, header and places, checksum, meta block, directory and ranges, spans and padding, values. Whether
it fits a model is the business of `fit`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from studbook.adapters.changes import Change, Sparse, decode
from studbook.adapters.layout import HEADER, MAX_FILE_BYTES, Head, check_spans, parse_directory, parse_head
from studbook.adapters.meta import Meta, parse_meta, retention_text
from studbook.adapters.rules import AdapterRule, refusal
from studbook.errors import DigestDiffers, OverBudget
from studbook.files import read_file

__all__ = ["Adapter", "mask_sha256", "parse_adapter", "read_adapter"]


@dataclass(frozen=True, eq=False)
class Adapter:
    """A package that keeps every rule a file can keep by itself.

    Attributes:
        head: Its header; says which models it fits.
        meta: Its meta block; says which model it was made for, and from what.
        changes: Name hash and change of every entry, in the order of the file.
        sha256: SHA-256 of the file, its identity.
        size: Bytes of the file.
    """

    head: Head
    meta: Meta
    changes: tuple[tuple[int, Change], ...]
    sha256: str
    size: int


def read_adapter(path: Path | str, sha256: str | None = None) -> Adapter:
    """Read a package from disk.

    Args:
        path: The file.
        sha256: The digest it was promised under, 64 hex digits; None if nothing was promised.

    Raises:
        DigestDiffers: if it is not the file that was promised.
        UsageError: if there is no such file.
        BytesLie: if it is a link, a fifo or a device, or changes while it is read.
        AdapterRefused: if it is too long, which is seen before reading, or breaks a rule.
    """
    try:
        data = read_file(Path(path), MAX_FILE_BYTES)
    except OverBudget as error:
        raise refusal(AdapterRule.SIZE, error.message, path) from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DigestDiffers(f"is not the package {sha256[:12]}... that was promised", where=path)
    return parse_adapter(data, path)


def parse_adapter(data: bytes, where: object = "") -> Adapter:
    """Read a package from its bytes.

    Args:
        data: The whole file.
        where: What to call it in errors.

    Raises:
        AdapterRefused: naming field and rule.
    """
    head = parse_head(data, where)
    meta = parse_meta(data[HEADER.size : head.meta_end], head.magic, where)
    entries = parse_directory(data, head, where)
    check_spans(data, head, entries, where)
    view, changes = memoryview(data), []
    for index, entry in enumerate(entries):
        payload = view[entry.byte_offset : entry.byte_offset + entry.byte_length]
        change = decode(entry.code, entry.dims, entry.count, entry.alpha, payload)
        change.check(where, f"directory entry {index} payload")
        changes.append((entry.name_hash, change))
    _check_mask(head, meta, [change for _, change in changes if isinstance(change, Sparse)], where)
    return Adapter(head, meta, tuple(changes), hashlib.sha256(data).hexdigest(), len(data))


def mask_sha256(changes: list[Sparse]) -> str:
    """SHA-256 over the little-endian u32 indices of all changes in order."""
    hasher = hashlib.sha256()
    for change in changes:
        hasher.update(change.indices.astype("<u4").tobytes())
    return hasher.hexdigest()


def _check_mask(head: Head, meta: Meta, changes: list[Sparse], where: object) -> None:
    if meta.mask is None:
        return
    kept = sum(change.count for change in changes)
    if kept > head.parameter_count or meta.retention != retention_text(kept, head.parameter_count):
        message = f"{meta.retention}; {kept} of {head.parameter_count} elements are kept"
        raise refusal(AdapterRule.RETENTION, message, where, "meta retention")
    if meta.mask.sha256 != (found := mask_sha256(changes)):
        message = f"{meta.mask.sha256[:12]}...; the indices give {found[:12]}..."
        raise refusal(AdapterRule.MASK, message, where, "meta mask")
