"""A cache of magnitude cuts: parents recur in a breeding loop, and their cuts with them.

One file a pair of parent and base, canonical JSON, under a digest of its own content; what is damaged, foreign, or of
another selection rule or numeric contract is not used and is written anew. A cut says which elements are kept, and how
many that are is known: whoever uses one counts them, so a cache that lies costs time and never a wrong byte.

A worker reads the lab's cache and writes only into its own folder; the lab takes over what is sound (`take_over`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from studbook.errors import StudbookError
from studbook.files import read_file, replace_file
from studbook.records.doors import canonical, read_struct
from studbook.tensors.contract import CONTRACT_SHA256
from studbook.tensors.selection import Cut

__all__ = ["SELECTION", "CutStore", "cut_files", "take_over"]

# The rules of the cuts; another number makes every cached one foreign.
SELECTION: Final = "studbook/selection/1"
LIMIT = 1 << 26
_DIGEST = re.compile(r"[0-9a-f]{64}")
Pair = tuple[str, str]


class _Cuts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the cache.

    Attributes:
        selection: Rules the cuts follow.
        contract: Digest of the numeric contract they were found under.
        parent: Digest of the parent.
        base: Digest of the base.
        cuts: Tensor -> count kept, in decimal -> (bits, last index).
        sha256: SHA-256 of the canonical bytes with this field empty.
    """

    selection: str
    contract: str
    parent: str
    base: str
    cuts: dict[str, dict[str, tuple[int, int]]]
    sha256: str


class CutStore:
    """The cuts of pairs of models, in memory and perhaps in a folder.

    Safe to use from several threads; two processes may lose each other's latest cuts, nothing else.

    Args:
        folder: Where the files are; made when the first one is written. None keeps everything in memory.
        writes: Where new ones are written, ``folder`` by default.
    """

    def __init__(self, folder: Path | None = None, writes: Path | None = None) -> None:
        self.folder, self.writes = folder, writes or folder
        self._known: dict[Pair, dict[str, dict[str, tuple[int, int]]]] = {}
        self._changed: set[Pair] = set()
        self._lock = Lock()

    def find(self, parent: str, base: str, name: str, k: int) -> Cut | None:
        """The cut that keeps k elements of a tensor's differences; None if it is not known.

        Args:
            parent: Digest of the parent, 64 hex digits.
            base: Digest of the base.
            name: The tensor.
            k: How many are kept.
        """
        with self._lock:
            found = self._pair((parent, base)).get(name, {}).get(str(k))
        return Cut(*found) if found else None

    def keep(self, parent: str, base: str, name: str, k: int, cut: Cut) -> None:
        """Remember a cut, until `save` in memory only; arguments as for `find`."""
        with self._lock:
            self._pair((parent, base)).setdefault(name, {})[str(k)] = (cut.bits, cut.last_index)
            self._changed.add((parent, base))

    def save(self) -> None:
        """Write what is new. A disk that refuses is ignored: the cuts will be found again."""
        with self._lock:
            changed, self._changed = self._changed, set()
            files = {pair: _encoded(pair, self._known[pair]) for pair in changed}
        if self.writes is None:
            return
        for pair, data in files.items():
            with suppress(StudbookError, OSError):
                replace_file(_path(self.writes, pair), data)

    def forget(self, parent: str, base: str) -> None:
        """Drop everything about a pair, its file included: it was found to lie."""
        with self._lock:
            self._known[parent, base] = {}
            self._changed.discard((parent, base))
            for folder in filter(None, {self.folder, self.writes}):
                with suppress(OSError):
                    _path(folder, (parent, base)).unlink(missing_ok=True)

    def _pair(self, pair: Pair) -> dict[str, dict[str, tuple[int, int]]]:
        if pair not in self._known:
            self._known[pair] = self._read(pair)
        return self._known[pair]

    def _read(self, pair: Pair) -> dict[str, dict[str, tuple[int, int]]]:
        return _sound(self.folder, pair) or {} if self.folder else {}


def cut_files(folder: Path, pairs: Iterable[tuple[str, str]]) -> list[Path]:
    """The files of a cache that hold the cuts of some pairs, digests of (parent, base), in their order.

    Raises:
        StudbookError: if a pair is not named by two digests.
    """
    return [path for pair in dict.fromkeys(pairs) if (path := _path(folder, pair)).is_file()]


def take_over(source: Path, target: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Move the cuts that a worker wrote into a cache; what is not sound, or was not asked for, is left behind.

    A disk that refuses is ignored: the cuts will be found again.

    Args:
        source: The worker's folder of cuts; it need not exist.
        target: The cache's folder; made where it is missing.
        pairs: Digests of (parent, base) whose cuts are expected.
    """
    for pair in dict.fromkeys(pairs):
        if cuts := _sound(source, pair):
            with suppress(StudbookError, OSError):
                replace_file(_path(target, pair), _encoded(pair, cuts))


def _sound(folder: Path, pair: Pair) -> dict[str, dict[str, tuple[int, int]]] | None:
    """The cuts of a pair as a file holds them; None where there is none, or it is not exactly as one is written."""
    path = _path(folder, pair)
    try:
        found = read_struct(read_file(path, LIMIT), _Cuts, where=path)
    except (StudbookError, OSError):
        return None
    sound = _encoded(pair, found.cuts) == canonical(found) and all(map(_possible, found.cuts.values()))
    return found.cuts if sound else None


def _path(folder: Path, pair: Pair) -> Path:
    if not all(_DIGEST.fullmatch(digest) for digest in pair):
        raise StudbookError("a pair of models is named by two digests", where=folder, reason="cuts.digest")
    return folder / f"{pair[0]}-{pair[1]}.json"


def _encoded(pair: Pair, cuts: Mapping[str, Mapping[str, tuple[int, int]]]) -> bytes:
    names = {"selection": SELECTION, "contract": CONTRACT_SHA256, "parent": pair[0], "base": pair[1]}
    content = {**names, "cuts": cuts, "sha256": ""}
    return canonical({**content, "sha256": hashlib.sha256(canonical(content)).hexdigest()})


def _possible(cuts: Mapping[str, tuple[int, int]]) -> bool:
    return all(0 <= bits < 1 << 32 and -1 <= last < 1 << 53 for bits, last in cuts.values())
