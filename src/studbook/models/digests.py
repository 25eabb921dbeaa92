r"""Digests of tensors that do not depend on files: leaves, a root for each tensor, one root for a model.

All are SHA-256 behind a domain prefix that ends in a zero byte; ``u64`` is little-endian, ``text`` is a u64 length and
that many bytes of UTF-8. How a model is cut into shards, and how many threads hash it, changes none of them.

    leaf   = H("studbook/leaf/1\0" | bytes of at most 2^21 elements, on a grid from element 0)
    tensor = H("studbook/tensor/1\0" | u64 byte length | leaves, 32 bytes each, in order)
    model  = H("studbook/model/1\0" | u64 count | for each tensor in byte order of its name:
               text name | text storage | u64 rank | u64 each dimension | tensor root, 32 bytes)
    layout = H("studbook/layout/1\0" | u64 count | for each tensor in byte order of its name:
               text name | u64 rank | u64 each dimension)
    files  = H(domain "\0" | u64 count | for each file in byte order of its path: text path | SHA-256, 32 bytes)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = [
    "LEAF_ELEMENTS",
    "TensorRoot",
    "files_sha256",
    "layout_sha256",
    "leaf_digest",
    "model_root",
    "tensor_root",
]

# 4 MiB of a 16-bit type: large enough to hash at full speed, small enough that a few of them fit in memory.
LEAF_ELEMENTS: Final = 1 << 21


class TensorRoot(NamedTuple):
    """One tensor as the model root sees it.

    Attributes:
        name: Its name.
        storage: How it is stored: ``f32``, ``f16``, ``bf16``, or the format's own word for what is carried.
        dims: Its shape.
        root: Its root, 64 hex digits.
    """

    name: str
    storage: str
    dims: tuple[int, ...]
    root: str


def leaf_digest(data: Any) -> bytes:
    """Digest of one leaf, 32 bytes; ``data`` is any contiguous buffer."""
    hasher = hashlib.sha256(b"studbook/leaf/1\0")
    hasher.update(data)
    return hasher.digest()


def tensor_root(byte_length: int, leaves: Iterable[bytes]) -> str:
    """Root of a tensor of ``byte_length`` bytes from its leaves in order, 64 hex digits."""
    hasher = hashlib.sha256(b"studbook/tensor/1\0" + struct.pack("<Q", byte_length))
    for leaf in leaves:
        hasher.update(leaf)
    return hasher.hexdigest()


def model_root(tensors: Iterable[TensorRoot]) -> str:
    """Root of a model, 64 hex digits; the order in which the tensors are given does not matter."""
    ordered = sorted(tensors, key=lambda t: t.name.encode())
    hasher = hashlib.sha256(b"studbook/model/1\0" + struct.pack("<Q", len(ordered)))
    for tensor in ordered:
        hasher.update(_text(tensor.name) + _text(tensor.storage) + _dims(tensor.dims) + bytes.fromhex(tensor.root))
    return hasher.hexdigest()


def layout_sha256(dims: Mapping[str, Sequence[int]]) -> str:
    """Digest of names and shapes, 64 hex digits: equal for models whose tensors can be added up."""
    hasher = hashlib.sha256(b"studbook/layout/1\0" + struct.pack("<Q", len(dims)))
    for name in sorted(dims, key=str.encode):
        hasher.update(_text(name) + _dims(dims[name]))
    return hasher.hexdigest()


def files_sha256(domain: str, digests: Mapping[str, str]) -> str:
    """Digest of some files under a domain, 64 hex digits, from path -> SHA-256."""
    hasher = hashlib.sha256(f"{domain}\0".encode() + struct.pack("<Q", len(digests)))
    for path in sorted(digests, key=str.encode):
        hasher.update(_text(path) + bytes.fromhex(digests[path]))
    return hasher.hexdigest()


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _dims(dims: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(dims) + 1}Q", len(dims), *dims)
