"""Which files belong to a Hugging Face checkpoint or a PEFT folder, and the list of them that is its identity.

Only names that are known are picked; nothing is opened here. Weights in formats that can run code are never touched.
File names: those that transformers, sentence-transformers and PEFT read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from studbook.errors import BytesLie, RecordRefused, UsageError, printable
from studbook.files import read_file
from studbook.models.digests import files_sha256
from studbook.models.safetensors_layout import INDEX
from studbook.models.safetensors_writer import JOURNAL
from studbook.records import canonical
from studbook.records.base import Digest
from studbook.records.doors import read_struct

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "CONFIG",
    "SMALL_FILE",
    "TOKENIZER_FILES",
    "FileEntry",
    "FileStore",
    "is_weights",
    "list_files",
    "list_folder",
    "listing_bytes",
    "parse_listing",
    "tokenizer_sha256",
]

CONFIG: Final = "config.json"
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
# Files that are read whole: configs, tokenizers, cards.
SMALL_FILE: Final = 256 << 20
TOKENIZER_FILES: Final = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
        "chat_template.json",
    }
)
_KNOWN = TOKENIZER_FILES | {
    CONFIG,
    INDEX,
    ADAPTER_CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "README.md",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
}
_LICENCE = re.compile(r"(LICENSE|LICENCE|NOTICE)[A-Za-z0-9._-]{0,40}\Z")
_WEIGHTS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}\.safetensors\Z")
_MODULE = re.compile(r"[0-9]{1,3}_[A-Za-z]{1,40}\Z")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_RUNS_CODE = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a listing.

    Attributes:
        path: Relative to the folder, at most one folder deep, with ``/``.
        sha256: SHA-256 of its bytes.
        size: Its length in bytes.
    """

    path: str
    sha256: Digest
    size: int


class _Listing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="files/1"):
    files: tuple[FileEntry, ...]


class FileStore:
    """Files by relative path, wherever they lie; what was read of one is what its digest is of.

    Args:
        files: Relative path -> file.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        self.entries: dict[str, FileEntry] = {}

    def read(self, path: str) -> bytes:
        """The whole of a small file.

        Raises:
            UsageError: if it is missing.
            BytesLie: if it is no regular file.
            OverBudget: if it is longer than `SMALL_FILE`.
        """
        data = read_file(self.files[path], SMALL_FILE)
        entry = FileEntry(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        if self.entries.setdefault(path, entry) != entry:
            raise BytesLie("changed while it was used", where=self.files[path], reason="file.changed")
        return data

    def sha256(self, path: str) -> str:
        """SHA-256 of a small file."""
        if path not in self.entries:
            self.read(path)
        return self.entries[path].sha256

    def tokenizer_sha256(self) -> str:
        """Digest of the tokenizer files, as `tokenizer_sha256`."""
        return _tokenizer({path: self.sha256(path) for path in self.files if path in TOKENIZER_FILES})


def list_folder(folder: Path) -> dict[str, Path]:
    """The files of a folder that belong to a checkpoint or a PEFT adapter: relative path -> file, sorted.

    Raises:
        UsageError: if the folder holds neither, only weights that are not safetensors, or weights in folders.
        BytesLie: if one of the files is a link or a device, or two names differ in case only.
    """
    found: dict[str, Path] = {}
    strange: list[str] = []
    for path, entry in _walk(folder):
        if not _belongs(path):
            strange.append(path)
        elif entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            raise BytesLie(
                "is a link or no regular file",
                where=printable(Path(entry.path)),
                advice="Copy the files themselves, as `cp -RL` does.",
                reason="checkpoint.link",
            )
        else:
            found[path] = Path(entry.path)
    _check_twins(found, folder)
    _check_complete(found, strange, folder)
    return dict(sorted(found.items()))


def list_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint folder in which nothing else may lie, such as a worker's output.

    Raises:
        UsageError: as `list_folder`.
        BytesLie: as `list_folder`, or if there is any other file.
    """
    for path, entry in _walk(folder):
        if not _belongs(path) and path != JOURNAL and not _module_folder(entry):
            raise BytesLie(
                "does not belong to a checkpoint",
                where=printable(Path(entry.path)),
                advice="Do not use this folder; it was not written by the worker that was asked for it.",
                reason="checkpoint.extra-file",
            )
    return list_folder(folder)


def is_weights(path: str) -> bool:
    """Whether a file holds weights or says where they are."""
    return path.endswith((".safetensors", ".safetensors.index.json"))


def tokenizer_sha256(files: Mapping[str, bytes]) -> str:
    """Digest of the tokenizer among some files (relative path -> bytes), 64 hex digits; other files are skipped.

    It is the digest ``files`` of the module `digests` in the domain ``studbook/tokenizer/1``.
    """
    return _tokenizer({p: hashlib.sha256(data).hexdigest() for p, data in files.items() if p in TOKENIZER_FILES})


def listing_bytes(entries: Mapping[str, FileEntry]) -> bytes:
    """The canonical list of files whose SHA-256 is the digest of a checkpoint or adapter."""
    return canonical(_Listing(files=tuple(entries[path] for path in sorted(entries))))


def parse_listing(data: bytes, where: object = "") -> tuple[FileEntry, ...]:
    """Read a list of files.

    Raises:
        RecordRefused: if it is not canonical, not sorted, or a path is not a plain relative one, or is there twice.
    """
    files = read_struct(data, _Listing, where).files
    paths = [entry.path for entry in files]
    bad = [p for p in paths if p.count("/") > 1 or not all(_PART.match(part) for part in p.split("/"))]
    if bad or paths != sorted(paths) or len({p.casefold() for p in paths}) != len(paths):
        message = f"{bad[0][:80]!r} is no plain path" if bad else "the files are not sorted, or one stands twice"
        raise RecordRefused(message, where=where, reason="checkpoint.listing")
    if any(entry.size < 0 for entry in files):
        raise RecordRefused("a size is negative", where=where, reason="checkpoint.listing")
    return files


def _tokenizer(digests: Mapping[str, str]) -> str:
    return files_sha256("studbook/tokenizer/1", digests)


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything in a folder and in its module folders, by relative path; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                yield entry.name, entry
                if _module_folder(entry):
                    with os.scandir(entry.path) as inner:
                        yield from ((f"{entry.name}/{e.name}", e) for e in sorted(inner, key=lambda e: e.name))
    except OSError as error:
        raise UsageError(f"cannot be listed: {error.strerror}", where=folder, reason="checkpoint.folder") from error


def _module_folder(entry: os.DirEntry[str]) -> bool:
    """A sentence-transformers module, such as ``1_Pooling``."""
    return bool(_MODULE.match(entry.name)) and entry.is_dir(follow_symlinks=False)


def _belongs(path: str) -> bool:
    head, _, tail = path.rpartition("/")
    if head:
        return tail == CONFIG
    return path in _KNOWN or bool(_WEIGHTS.match(path) or _LICENCE.match(path))


def _check_twins(found: Mapping[str, Path], folder: Path) -> None:
    seen: dict[str, str] = {}
    for path in found:
        if (twin := seen.setdefault(path.casefold(), path)) != path:
            message = f"{twin!r} and {path!r} are one file on some machines"
            raise BytesLie(message, where=folder, reason="checkpoint.twin")


def _check_complete(found: Mapping[str, Path], strange: list[str], folder: Path) -> None:
    """Some weights must be there, beside the config that says what they are, and none that would be left behind."""
    if CONFIG not in found and ADAPTER_CONFIG not in found:
        raise UsageError(f"holds neither {CONFIG} nor {ADAPTER_CONFIG}", where=folder, reason="checkpoint.config")
    if nested := [p for p in strange if "/" in p and p.endswith((".safetensors", *_RUNS_CODE))]:
        raise UsageError(
            "holds weights in a module's folder; only those of the model itself are read",
            where=folder / printable(nested[0]),
            advice="Leave that module out, or keep this model as it is.",
            reason="checkpoint.nested-weights",
        )
    wanted = [p for p in found if _WEIGHTS.match(p) and (p == ADAPTER_WEIGHTS) == (CONFIG not in found)]
    if wanted:
        return
    if code := [p for p in strange if p.endswith(_RUNS_CODE)]:
        raise UsageError(
            "holds its weights in a format that can run code; it was not opened",
            where=folder / printable(code[0]),
            advice="Convert it to safetensors in a place you can throw away, and register the result.",
            reason="checkpoint.pickle",
        )
    raise UsageError("holds no safetensors weights", where=folder, reason="checkpoint.weights")
