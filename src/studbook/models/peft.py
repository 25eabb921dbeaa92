"""PEFT LoRA folders, and a model seen through one: the base's tensors with the adapter fused in while they are read.

Fusion: w + s * sum_k B[:, k] A[k, :], ranks ascending, all in f64, rounded once to f32, with s = alpha / r or, for
rank-stabilised LoRA, alpha / sqrt(r). Sources: Hu et al. 2106.09685; Kalajdzievski 2312.03732; PEFT's file format.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.errors import BytesLie, ParentsDoNotFit, UsageError
from studbook.models.checkpoint_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FileEntry, FileStore, listing_bytes
from studbook.models.lowrank import fuse
from studbook.models.peft_config import LoraConfig, read_config
from studbook.models.safetensors import STORAGE, SafetensorsFile, open_safetensors
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import RAW, Raw, Storage, non_finite, widen

__all__ = ["Factors", "LoraAdapter", "LoraView", "read_peft"]

_PREFIX: Final = "base_model.model."
# Suffixes of the two factors, of layers and of embeddings; the embedding's product is the transposed one.
_SUFFIXES: Final = {
    ".lora_A.weight": ("a", False),
    ".lora_B.weight": ("b", False),
    ".lora_embedding_A": ("a", True),
    ".lora_embedding_B": ("b", True),
}
_CHUNK = 1 << 20
_KEPT = 8


class Factors(NamedTuple):
    """What an adapter adds to one tensor: scale * left @ right.

    Attributes:
        left: f32, shape (rows, rank), row-major.
        right: f32, shape (rank, columns), row-major.
        scale: f64.
    """

    left: NDArray[np.float32]
    right: NDArray[np.float32]
    scale: float


class _Pair(NamedTuple):
    a: str
    b: str
    transposed: bool
    rank: int
    scale: float
    dims: tuple[int, int]


class LoraAdapter:
    """A checked LoRA folder. Make one with `read_peft`; safe to read from several threads.

    Attributes:
        sha256: SHA-256 of `manifest`.
        names: The tensors of the base that it changes, in byte order.
        config: What adapter_config.json says.
        base_name: What it calls its base; empty where it does not say.
    """

    def __init__(
        self,
        store: FileStore,
        config: LoraConfig,
        file: SafetensorsFile,
        pairs: Mapping[str, _Pair],
        sha256: str | None,
    ) -> None:
        self._store, self._file, self._pairs = store, file, dict(pairs)
        self.config, self.base_name = config, config.base_name
        self.names = tuple(sorted(pairs))
        self.sha256 = sha256 or hashlib.sha256(self.manifest).hexdigest()

    @property
    def manifest(self) -> bytes:
        """Canonical list of all files of the folder with size and SHA-256; the first time they are hashed."""
        for path in self._store.files:
            if path == ADAPTER_WEIGHTS and path not in self._store.entries:
                self._store.entries[path] = FileEntry(path=path, sha256=self._file.sha256(), size=self._file.size)
            elif path != ADAPTER_WEIGHTS:
                self._store.sha256(path)
        return listing_bytes(self._store.entries)

    def ranks(self) -> dict[str, int]:
        """Rank of the change of every tensor."""
        return {name: self._pairs[name].rank for name in self.names}

    def scale(self, name: str) -> float:
        """What the product of a tensor's factors is multiplied with."""
        return self._pairs[name].scale

    def dims(self, name: str) -> tuple[int, int]:
        """Shape of the change of one tensor, which is the shape of the tensor."""
        return self._pairs[name].dims

    def factors(self, name: str) -> Factors:
        """The change of one tensor, read from the file.

        Raises:
            BytesLie: if the file became shorter.
            StudbookError: if the disk fails.
        """
        pair = self._pairs[name]
        a, b = (_matrix(self._file, part) for part in (pair.a, pair.b))
        left, right = (a.T, b.T) if pair.transposed else (b, a)
        return Factors(np.ascontiguousarray(left), np.ascontiguousarray(right), pair.scale)


class LoraView(TensorSource):
    """A model with an adapter fused into it while it is read.

    Tensors the adapter changes are f32; all others are the base's, as they are stored. Its digest is
    SHA-256("studbook/lora-view/1" NUL | raw base digest | raw adapter digest).

    Args:
        base: The model.
        adapter: The adapter.

    Raises:
        ParentsDoNotFit: naming a tensor that the base does not have, or has in another shape.
    """

    def __init__(self, base: TensorSource, adapter: LoraAdapter) -> None:
        self.base, self.adapter = base, adapter
        self.names = base.names
        known = frozenset(base.names)
        for name in adapter.names:
            if name not in known:
                raise ParentsDoNotFit(
                    "the base has no such tensor",
                    where=f"adapter: {name}",
                    advice=f"Use the base it was trained on: {adapter.base_name or 'the adapter does not say which'}.",
                    reason="peft.base",
                )
            if base.dims(name) != adapter.dims(name):
                message = f"is {list(adapter.dims(name))}; the base has {list(base.dims(name))}"
                raise ParentsDoNotFit(message, where=f"adapter: {name}", reason="peft.base")
        domain = b"studbook/lora-view/1\0"
        self.sha256 = hashlib.sha256(domain + bytes.fromhex(base.sha256) + bytes.fromhex(adapter.sha256)).hexdigest()
        self._touched = frozenset(adapter.names)
        # Threads work on neighbouring tensors; a factor is read once and not once a chunk.
        self._factors = lru_cache(_KEPT)(adapter.factors)

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self.base.dims(name)

    def storage(self, name: str) -> Storage:
        """f32 for a tensor the adapter changes, the base's storage for any other."""
        return "f32" if name in self._touched else self.base.storage(name)

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`."""
        if name not in self._touched:
            self.base.fill(name, start, out)
            return
        left, right, scale = self._factors(name)
        fuse(self.base.read(name, start, start + out.size), start, left, right, scale, out)

    def span(self, name: str, start: int, size: int) -> Raw | None:
        """See `TensorSource.span`; None for a tensor the adapter changes."""
        return None if name in self._touched else self.base.span(name, start, size)


def read_peft(files: Mapping[str, Path], sha256: str | None = None) -> LoraAdapter:
    """Read a LoRA folder that can be fused exactly; anything else is refused.

    Args:
        files: Relative path -> file, with ``adapter_config.json`` and ``adapter_model.safetensors``.
        sha256: Its digest, if somebody has checked the files against it; they are hashed now if it is None.

    Raises:
        UsageError: if one of the two files is missing, or the adapter is of a kind that cannot be fused.
        BytesLie: if a file breaks a rule of its format, config and tensors disagree, or a factor is not finite.
    """
    store = FileStore(files)
    for needed in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if needed not in store.files:
            raise UsageError(f"has no {needed}", where=", ".join(sorted(files)[:4]), reason="peft.files")
    config = read_config(store.read(ADAPTER_CONFIG), store.files[ADAPTER_CONFIG])
    file = open_safetensors(store.files[ADAPTER_WEIGHTS])
    pairs = {name: _pair(name, found, file, config) for name, found in _group(file).items()}
    for name in file.entries:
        _require_finite(file, name)
    return LoraAdapter(store, config, file, pairs, sha256)


def _group(file: SafetensorsFile) -> dict[str, dict[str, tuple[str, bool]]]:
    """Tensor of the base -> which of its factors lies under which name."""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for name in file.entries:
        suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
        inner = name[len(_PREFIX) : -len(suffix)] if suffix else ""
        if not name.startswith(_PREFIX) or not suffix or not inner:
            raise UsageError(
                "is no factor of a LoRA; what it adds cannot be fused",
                where=f"{file.path}: {name[:120]}",
                advice="Save the adapter without modules_to_save, DoRA, or trained embeddings.",
                reason="peft.tensor",
            )
        part, transposed = _SUFFIXES[suffix]
        factors = found.setdefault(f"{inner}.weight", {})
        if part in factors:
            raise BytesLie("has the same factor twice", where=f"{file.path}: {name[:120]}", reason="peft.twice")
        factors[part] = (name, transposed)
    return found


def _pair(name: str, found: Mapping[str, tuple[str, bool]], file: SafetensorsFile, config: LoraConfig) -> _Pair:
    place = f"{file.path}: {name[:120]}"
    if found.keys() != {"a", "b"} or found["a"][1] != found["b"][1]:
        raise BytesLie("has one factor and not the other", where=place, reason="peft.pair")
    (a, embedding), (b, _) = found["a"], found["b"]
    first, second = file.entries[a], file.entries[b]
    if first.dtype not in STORAGE or second.dtype not in STORAGE:
        message = f"is stored as {first.dtype} and {second.dtype}; F32, F16 and BF16 are read"
        raise UsageError(message, where=place, reason="peft.storage")
    if len(first.shape) != 2 or len(second.shape) != 2:
        message = f"has factors of shape {list(first.shape)} and {list(second.shape)}; only matrices are fused"
        raise UsageError(message, where=place, reason="peft.shape")
    (rank, inputs), (outputs, twin) = first.shape, second.shape
    module = name.removesuffix(".weight")
    wanted = config.rank(module)
    if not rank == twin == wanted:
        message = f"A has rank {rank} and B {twin}; field r or rank_pattern says {wanted}"
        raise BytesLie(message, where=place, reason="peft.rank")
    transposed = embedding or config.fan_in_fan_out
    alpha = config.alpha(module)
    scale = alpha / math.sqrt(rank) if config.rank_stabilised else alpha / rank
    return _Pair(a, b, transposed, rank, scale, (inputs, outputs) if transposed else (outputs, inputs))


def _matrix(file: SafetensorsFile, name: str) -> NDArray[np.float32]:
    shape = file.entries[name].shape
    raw = np.empty(math.prod(shape), RAW[file.storage(name)])
    file.fill(name, 0, raw)
    return widen(raw).reshape(shape)


def _require_finite(file: SafetensorsFile, name: str) -> None:
    size = math.prod(file.entries[name].shape)
    for start in range(0, size, _CHUNK):
        raw = np.empty(min(_CHUNK, size - start), RAW[file.storage(name)])
        file.fill(name, start, raw)
        count, first = non_finite(raw)
        if count:
            message = f"holds NaN or infinity, first at {start + first}"
            raise BytesLie(message, where=f"{file.path}: {name[:120]}", reason="peft.non-finite")
