"""A Hugging Face checkpoint as a source of tensors: its shards open and checked, its config read, nothing else loaded.

The files may lie anywhere; `list_folder` finds them in a folder, a content-addressed store hands them over by digest.
The identity of a checkpoint is the SHA-256 of the canonical list of its files.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from studbook.errors import BytesLie, DigestDiffers, UsageError
from studbook.models.checkpoint_checks import check_dtypes, check_index, check_shards, find_homes, read_index
from studbook.models.checkpoint_folder import (
    ADAPTER_WEIGHTS,
    CONFIG,
    TOKENIZER_FILES,
    FileEntry,
    FileStore,
    is_weights,
    list_files,
    list_folder,
    listing_bytes,
    parse_listing,
    tokenizer_sha256,
)
from studbook.models.digests import layout_sha256
from studbook.models.safetensors import STORAGE, SafetensorsFile, open_safetensors
from studbook.models.safetensors_layout import INDEX
from studbook.models.strict_json import read_object
from studbook.models.windows import Windows
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import RAW, Raw, Storage, non_finite

__all__ = [
    "TOKENIZER_FILES",
    "Checkpoint",
    "FileEntry",
    "is_weights",
    "label_of",
    "layout_sha256",
    "list_files",
    "list_folder",
    "open_checkpoint",
    "parse_listing",
    "tokenizer_sha256",
]

Label = Literal["f32", "f16", "bf16", "mixed"]
_CHUNK: Final = 1 << 20
_HEADS = ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight")


class Checkpoint(TensorSource):
    """An open checkpoint. Make one with `open_checkpoint`; safe to read from several threads.

    Attributes:
        sha256: SHA-256 of `manifest`.
        names: Its weights, in byte order.
        others: Its tensors that are no weights (positions, masks), in byte order: they are carried, not computed with.
        config: config.json.
        architectures: What the config calls the model.
        vocab_size: Rows of the vocabulary by the config, padding included; None where it does not say.
        parameters: Number of elements of all weights.
        label: How all weights are stored, or ``mixed``.
        tied_flag: ``tie_word_embeddings`` of the config; None where it does not say.
        head: Name of the output projection among the weights; None if there is none.
        tied: Whether transformers would use the embedding as output projection: what the config says, and where it is
            silent, that no projection is stored.
        layout_sha256: Digest of names and shapes of the weights.
    """

    def __init__(
        self,
        store: FileStore,
        weights: Mapping[str, SafetensorsFile],
        homes: Mapping[str, SafetensorsFile],
        sha256: str | None,
    ) -> None:
        self._store, self._weights = store, weights
        self._home = homes
        self.config: dict[str, Any] = read_object(store.read(CONFIG), store.files[CONFIG], "checkpoint.config")
        found = {name: file.entries[name].dtype for name, file in self._home.items()}
        check_dtypes(found, self.config, self._home)
        self.names = tuple(sorted(name for name, dtype in found.items() if dtype in STORAGE))
        self.others = tuple(sorted(name for name, dtype in found.items() if dtype not in STORAGE))
        self.architectures = _texts(self.config.get("architectures"))
        self.vocab_size = _count(_setting(self.config, "vocab_size"))
        self.parameters = sum(self.size(name) for name in self.names)
        self.label: Label = label_of(self.storage(name) for name in self.names)
        flag = _setting(self.config, "tie_word_embeddings")
        self.tied_flag = flag if isinstance(flag, bool) else None
        self.head = next((name for name in _HEADS if name in self._home), None)
        self.tied = self.head is None if self.tied_flag is None else self.tied_flag
        self.layout_sha256 = layout_sha256({name: self.dims(name) for name in self.names})
        self._declared = sha256
        if sha256 is not None:
            self.sha256 = sha256

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, carried ones included."""
        return self._file(name).entries[name].shape

    def dtype(self, name: str) -> str:
        """How the file spells the dtype of one tensor, carried ones included."""
        return self._file(name).entries[name].dtype

    def storage(self, name: str) -> Storage:
        """How one weight's elements are stored.

        Raises:
            UsageError: if it is none of f32, f16 and bf16.
        """
        return self._file(name).storage(name)

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`; the elements go from the disk into the array.

        Raises:
            BytesLie: if the file became shorter.
            StudbookError: if the disk fails.
        """
        self._file(name).fill(name, start, out)

    def span(self, name: str, start: int, size: int) -> Raw | None:
        """See `TensorSource.span`; None in a checkpoint that was not opened mapped."""
        return self._file(name).span(name, start, size)

    def read_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop-1 of one tensor of any dtype."""
        return self._file(name).read_bytes(name, start, stop)

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Digest of the tokenizer files, see `tokenizer_sha256`.

        Raises:
            BytesLie: if one of them is no regular file.
        """
        return self._store.tokenizer_sha256()

    @property
    def manifest(self) -> bytes:
        """Canonical list of all files with size and SHA-256; reading it the first time hashes them.

        Raises:
            DigestDiffers: if its SHA-256 is not the digest the checkpoint was opened under.
            BytesLie: if a file changed since it was opened.
        """
        return self.hash_files()

    def hash_files(self, threads: int | None = None, shown: Callable[[int], None] = lambda _: None) -> bytes:
        """Hash every file that was not hashed yet; the list of them, as `manifest`.

        Args:
            threads: Files hashed at once; as many as there are processors by default.
            shown: Called with the number of bytes of every step, one call at a time.

        Raises:
            DigestDiffers: as `manifest`.
            BytesLie: as `manifest`.
        """
        lock = threading.Lock()

        def told(count: int) -> None:
            with lock:
                shown(count)

        def work(path: str) -> None:
            if path in self._weights:
                file = self._weights[path]
                entry = FileEntry(path=path, sha256=file.sha256(told), size=file.size)
                self._store.entries.setdefault(path, entry)
            else:
                self._store.sha256(path)
                told(self._store.entries[path].size)

        todo = [p for p in sorted(self._store.files) if p not in self._store.entries]
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            for _ in pool.map(work, todo):
                pass
        data = listing_bytes(self._store.entries)
        found = hashlib.sha256(data).hexdigest()
        if self._declared is not None and found != self._declared:
            where = self._store.files[CONFIG].parent
            raise DigestDiffers(f"the files are {found[:16]}..., not {self._declared[:16]}...", where=where)
        return data

    def count_non_finite(self, threads: int = 1) -> dict[str, int]:
        """NaN and infinite elements of every weight, read in chunks.

        Args:
            threads: Weights read at once.
        """
        with ThreadPoolExecutor(threads) as pool:
            return dict(zip(self.names, pool.map(self._non_finite, self.names), strict=True))

    def close(self) -> None:
        """Close the files; nothing can be read afterwards."""
        for file in self._weights.values():
            file.close()

    def _file(self, name: str) -> SafetensorsFile:
        try:
            return self._home[name]
        except KeyError as error:
            raise UsageError("no such tensor", where=name, reason="checkpoint.tensor") from error

    def _non_finite(self, name: str) -> int:
        size = self.size(name)
        room = np.empty(min(size, _CHUNK), RAW[self.storage(name)])
        count = 0
        for start in range(0, size, _CHUNK):
            part = room[: min(_CHUNK, size - start)]
            self.fill(name, start, part)
            count += non_finite(part)[0]
        return count


def open_checkpoint(
    files: Mapping[str, Path],
    sha256: str | None = None,
    *,
    threads: int | None = None,
    shown: Callable[[int], None] = lambda _: None,
    mapped: bool = False,
) -> Checkpoint:
    """Open a checkpoint from its files.

    Args:
        files: Relative path -> file, as `list_folder` gives them, or wherever a store keeps them.
        sha256: Its digest, if somebody has checked the files against it; they are hashed now if it is None.
        threads: Files hashed at once.
        shown: Called with the number of bytes of every step of hashing.
        mapped: Let kernels read the files' pages where they lie. A file that is cut meanwhile ends the process with
            SIGBUS, so this is for a process that does nothing else.

    Raises:
        UsageError: if the config or the weights are missing, or weights are stored in a way that cannot be computed with.
        BytesLie: if a file breaks a rule of its format, the index disagrees with the shards, or two hold one tensor.
        StudbookError: if the disk fails.
    """
    store = FileStore(files)
    if CONFIG not in store.files:
        raise UsageError(f"has no {CONFIG}", where=", ".join(sorted(files)[:4]), reason="checkpoint.config")
    paths = [p for p in sorted(files) if p.endswith(".safetensors") and p != ADAPTER_WEIGHTS]
    if not paths:
        raise UsageError("has no safetensors weights", where=store.files[CONFIG].parent, reason="checkpoint.weights")
    index = read_index(store) if INDEX in store.files else None
    if index is not None:
        check_shards(set(index.values()), set(paths), store.files[INDEX])
    elif len(paths) > 1:
        message = f"{len(paths)} files of weights and no {INDEX} to say which belong together"
        raise BytesLie(message, where=store.files[CONFIG].parent, reason="checkpoint.index.missing")
    windows = Windows() if mapped else None
    weights = {path: open_safetensors(store.files[path], windows) for path in paths}
    homes = find_homes(weights)
    if index is not None:
        check_index(index, weights, store.files[INDEX])
    opened = Checkpoint(store, weights, homes, sha256)
    if sha256 is None:
        opened.sha256 = hashlib.sha256(opened.hash_files(threads, shown)).hexdigest()
    return opened


def label_of(storages: Iterable[Storage]) -> Label:
    """How some tensors are stored, in one word."""
    kinds = set(storages)
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _setting(config: Mapping[str, Any], field: str) -> object:
    """A field of the config, or of its part about text."""
    inner = config.get("text_config")
    if field in config or not isinstance(inner, dict):
        return config.get(field)
    return inner.get(field)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 < value < math.inf else None
