"""Where every tensor of a checkpoint goes, known before anything is computed: shards, headers, the index.

Equal weights are equal bytes: tensors are cut into shards in the byte order of their names, a shard's header has sorted
keys and fixed metadata and is padded with spaces until the data begin at a multiple of 64, where systems copy fastest.
Inside a file wider types come first, so that every element lies aligned, then the byte order of names. Format: the
safetensors README; the names of shards and the index are those of the Hugging Face hub.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from studbook.errors import UsageError
from studbook.models.safetensors_header import BITS, HEADER_CAP, check_name
from studbook.tensors.storage import Storage

__all__ = ["INDEX", "Carrier", "Placed", "Shard", "TensorSpec", "index_bytes", "plan_shards"]

INDEX: Final = "model.safetensors.index.json"
_ALIGN = 64
_PREFIX = 8
_DTYPES: Final[Mapping[str, str]] = MappingProxyType({"f32": "F32", "f16": "F16", "bf16": "BF16"})


class TensorSpec(NamedTuple):
    """A weight that will be written.

    Attributes:
        name: Its name.
        storage: How its elements are stored.
        dims: Its shape.
    """

    name: str
    storage: Storage
    dims: tuple[int, ...]


class Carrier(Protocol):
    """Where tensors that are no weights (positions, masks) are copied from, as they are."""

    def dtype(self, name: str) -> str:
        """The dtype as the format spells it."""
        ...

    def dims(self, name: str) -> tuple[int, ...]:
        """The shape."""
        ...

    def read_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop-1 of the tensor."""
        ...


class Placed(NamedTuple):
    """A tensor in a shard.

    Attributes:
        name: Its name.
        storage: ``f32``, ``f16``, ``bf16``, or the format's dtype for a tensor that is carried.
        dims: Its shape.
        start: First byte in the file.
        stop: The byte after the last one.
    """

    name: str
    storage: str
    dims: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return (self.stop - self.start) // self.elements


@dataclass(frozen=True)
class Shard:
    """One file that will be written.

    Attributes:
        name: Its file name.
        header: Its first bytes: length, JSON, padding.
        placed: Its tensors in the order of their bytes.
        carried: Where those that are no weights come from.
        size: Its length in bytes.
    """

    name: str
    header: bytes
    placed: tuple[Placed, ...]
    carried: Mapping[str, Carrier]
    size: int

    @property
    def weights(self) -> tuple[Placed, ...]:
        """The tensors that are computed, in the order of their bytes."""
        return tuple(p for p in self.placed if p.name not in self.carried)


class _Item(NamedTuple):
    name: str
    storage: str
    dtype: str
    dims: tuple[int, ...]
    size: int


def plan_shards(
    specs: Sequence[TensorSpec], shard_bytes: int, carried: Mapping[str, Carrier] | None = None
) -> tuple[Shard, ...]:
    """Cut a checkpoint into files by a fixed rule.

    Args:
        specs: Its weights, in any order.
        shard_bytes: Most bytes of tensors in one file; a file with more holds a single tensor.
        carried: Tensors that are copied and not computed, and where from.

    Raises:
        UsageError: if nothing is to be written, a tensor is named twice or has no elements, or ``shard_bytes`` is below 1.
        BytesLie: if a name could not be read back.
    """
    items = _items(specs, carried or {})
    if not items or shard_bytes < 1:
        raise UsageError(f"{len(items)} tensors in shards of {shard_bytes} bytes", reason="safetensors.plan")
    groups: list[list[_Item]] = [[]]
    used = 0
    for item in items:
        if groups[-1] and used + item.size > shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(item)
        used += item.size
    return tuple(_shard(group, _file_name(i, len(groups)), carried or {}) for i, group in enumerate(groups, 1))


def index_bytes(shards: Sequence[Shard]) -> bytes:
    """The file `INDEX`: which tensor lies in which shard, and the bytes of all tensors together."""
    where = {placed.name: shard.name for shard in shards for placed in shard.placed}
    total = sum(placed.stop - placed.start for shard in shards for placed in shard.placed)
    index = {"metadata": {"total_size": total}, "weight_map": {n: where[n] for n in sorted(where, key=str.encode)}}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()


def _items(specs: Sequence[TensorSpec], carried: Mapping[str, Carrier]) -> list[_Item]:
    items = [_item(s.name, s.storage, _DTYPES[s.storage], s.dims) for s in specs]
    items += [_item(n, c.dtype(n), c.dtype(n), c.dims(n)) for n, c in carried.items()]
    items.sort(key=lambda i: i.name.encode())
    for one, other in pairwise(items):
        if one.name == other.name:
            raise UsageError("is to be written twice", where=one.name, reason="safetensors.plan")
    return items


def _item(name: str, storage: str, dtype: str, dims: tuple[int, ...]) -> _Item:
    check_name(name, "plan")
    if name == "__metadata__" or math.prod(dims) < 1 or BITS[dtype] % 8:
        raise UsageError(f"cannot be written as {dtype} of shape {list(dims)}", where=name, reason="safetensors.plan")
    return _Item(name, storage, dtype, tuple(dims), math.prod(dims) * BITS[dtype] // 8)


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _shard(items: list[_Item], name: str, carried: Mapping[str, Carrier]) -> Shard:
    ordered = sorted(items, key=lambda i: (-BITS[i.dtype], i.name.encode()))
    entries: dict[str, dict[str, object]] = {}
    at = 0
    for item in ordered:
        entries[item.name] = {"data_offsets": [at, at + item.size], "dtype": item.dtype, "shape": list(item.dims)}
        at += item.size
    header = _header(entries, name)
    first = len(header)
    placed, at = [], first
    for item in ordered:
        placed.append(Placed(item.name, item.storage, item.dims, at, at + item.size))
        at += item.size
    ours = {item.name: carried[item.name] for item in ordered if item.name in carried}
    return Shard(name, header, tuple(placed), MappingProxyType(ours), at)


def _header(entries: Mapping[str, Mapping[str, object]], name: str) -> bytes:
    plain: dict[str, object] = {"__metadata__": {"format": "pt"}}
    plain |= {key: entries[key] for key in sorted(entries, key=str.encode)}
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_PREFIX + len(text)) % _ALIGN)
    if len(text) > HEADER_CAP:
        advice = "Write smaller shards."
        raise UsageError(f"{len(entries)} tensors need a header of {len(text)} bytes", where=name, advice=advice)
    return struct.pack("<Q", len(text)) + text
