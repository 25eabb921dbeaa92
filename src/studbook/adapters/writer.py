"""Writing a package: one file for one set of changes, identity and meta block."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from studbook.adapters.changes import Change, LowRank, Sparse
from studbook.adapters.layout import CHECKSUM_AT, ENTRY, HEADER, MAX_FILE_BYTES, TIED, align
from studbook.adapters.meta import Mask, Meta, retention_text
from studbook.adapters.reader import mask_sha256, parse_adapter
from studbook.adapters.rules import AdapterRule, refusal
from studbook.errors import UsageError
from studbook.models.checksum import checksum64
from studbook.models.shape import SlmShape

__all__ = ["write_adapter"]


def write_adapter(
    shape: SlmShape,
    tokenizer_sha256: str,
    changes: Mapping[str, Change],
    *,
    base_sha256: str,
    licence: str,
    kind: str,
    digests: Mapping[str, str],
    rule: str = "",
    seed: int | None = None,
) -> bytes:
    """The bytes of a package; equal arguments give equal bytes, and what is written reads back.

    Args:
        shape: Dimensions of the model.
        tokenizer_sha256: Digest of its tokenizer section.
        changes: What to do to which tensors, by canonical name, all of one kind; the kind decides the magic.
        base_sha256: Digest of the f32 model.
        licence: SPDX identifier.
        kind: ``task-delta``, ``trained`` or ``peft``.
        digests: Name -> SHA-256 of what the package was made from.
        rule: How elements were chosen, such as ``top/tensor/0.1``; for sparse changes only.
        seed: Seed of a random rule; for sparse changes only.

    Raises:
        UsageError: if there is no change, they differ in kind, or a name or shape is not the model's.
        AdapterRefused: if a value is not finite, the meta block is not sound, or the file would be too large.
    """
    ordered = _ordered(shape, changes)
    meta = Meta(base_sha256, licence, kind, digests)
    sparse = [change for _, change in ordered if isinstance(change, Sparse)]
    if sparse:
        retention = retention_text(sum(change.count for change in sparse), shape.parameter_count)
        meta = Meta(base_sha256, licence, kind, digests, retention, Mask(rule, seed, mask_sha256(sparse)))
    data = _assemble(shape, tokenizer_sha256, ordered, meta.to_bytes())
    parse_adapter(data, "the package to be written")
    return data


def _ordered(shape: SlmShape, changes: Mapping[str, Change]) -> list[tuple[int, Change]]:
    specs = {spec.name: spec for spec in shape.tensors()}
    if not changes or len({type(change) for change in changes.values()}) != 1:
        message = "a package holds at least one change, and all of one kind"
        raise UsageError(message, reason="adapter.write.kind", advice="Write one package for each kind.")
    for name, change in changes.items():
        if name not in specs or specs[name].dims != change.dims:
            wanted = f"the model has {specs[name].dims}" if name in specs else "the model has no such tensor"
            raise UsageError(f"a change of shape {change.dims}; {wanted}", where=name, reason="adapter.write.tensor")
        _check_arrays(name, change)
    return [(spec.name_hash, changes[spec.name]) for spec in specs.values() if spec.name in changes]


def _check_arrays(name: str, change: Change) -> None:
    arrays = [change.a, change.b] if isinstance(change, LowRank) else [change.values]
    sound = all(array.dtype == np.float32 for array in arrays)
    if isinstance(change, Sparse):
        sound = sound and change.indices.dtype == np.uint32 and change.indices.shape == change.values.shape
        sound = sound and change.indices.ndim == 1
    if isinstance(change, LowRank):
        sound = sound and change.a.ndim == change.b.ndim == 2 and change.b.shape[1] == change.a.shape[0]
    if not sound:
        message = f"the arrays of a {type(change).__name__} change are not of the documented types and shapes"
        raise UsageError(
            message, where=name, reason="adapter.write.values", advice="Convert them to f32 (indices u32)."
        )


def _assemble(shape: SlmShape, tokenizer: str, ordered: Sequence[tuple[int, Change]], meta: bytes) -> bytes:
    directory_at = align(HEADER.size + len(meta))
    data_at = end = align(directory_at + ENTRY.size * len(ordered))
    entries, payloads = [], []
    for name_hash, change in ordered:
        payload = change.payload()
        at, end = end, align(end + len(payload))
        dims = change.dims + (0,) * (4 - len(change.dims))
        numbers = (change.code, len(change.dims), *dims, at, len(payload), change.count, change.alpha, 0)
        entries.append(ENTRY.pack(name_hash, *numbers))
        payloads.append((at, payload))
    if end > MAX_FILE_BYTES:
        raise refusal(AdapterRule.SIZE, f"{end} bytes; at most {MAX_FILE_BYTES}", "the package to be written")
    magic = ordered[0][1].magic
    data = bytearray(end)
    identity = (TIED if shape.tied else 0, shape.tensor_count, len(ordered), shape.parameter_count)
    digests = (bytes.fromhex(shape.layout_sha256()), bytes.fromhex(tokenizer))
    HEADER.pack_into(data, 0, magic, 1, HEADER.size, *identity, *digests, len(meta), 0, directory_at, data_at, 0)
    data[HEADER.size : HEADER.size + len(meta)] = meta
    data[directory_at : directory_at + ENTRY.size * len(entries)] = b"".join(entries)
    for at, payload in payloads:
        data[at : at + len(payload)] = payload
    struct.pack_into("<Q", data, CHECKSUM_AT, checksum64(bytes(data), CHECKSUM_AT))
    return bytes(data)
