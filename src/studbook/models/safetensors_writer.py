"""Writing a checkpoint's shards so that a killed run goes on where it stopped.

A journal of canonical JSON lines lies beside the shards: its first line binds the folder to a recipe, every other line
states a finished shard. A shard that is listed is read again and hashed, and one that is not exactly what is listed is
made again. Who can change both the shard and its line is believed: only computing the child anew would notice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from studbook.errors import BytesLie, RecordRefused, UsageError
from studbook.files import append_line, make_folder, read_file, truncate
from studbook.models.digests import LEAF_ELEMENTS, TensorRoot, leaf_digest, model_root, tensor_root
from studbook.models.pages import drop_pages
from studbook.models.safetensors import SafetensorsFile, open_safetensors
from studbook.models.safetensors_layout import INDEX, Placed, Shard, TensorSpec, index_bytes, plan_shards
from studbook.models.safetensors_sink import ShardDigest, ShardSink, refused
from studbook.records import canonical
from studbook.records.doors import decode_json
from studbook.tensors.sinks import Sink

__all__ = [
    "INDEX",
    "JOURNAL",
    "JOURNAL_BYTES",
    "Shard",
    "ShardDigest",
    "ShardSink",
    "TensorSpec",
    "Written",
    "index_bytes",
    "plan_shards",
    "write_shards",
]

JOURNAL: Final = ".shards.jsonl"
_KIND = "studbook.shards/1"
# A journal is read whole; ten thousand shards take less than 2 MiB of lines.
JOURNAL_BYTES: Final = 64 << 20
_Stated = tuple[object, object]
_OURS = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors(\.partial)?\Z")


class Written(NamedTuple):
    """A checkpoint's weights on disk.

    Attributes:
        shards: Its files, in order.
        root: Its model root; the same however it is cut into shards.
        resumed: How many of the shards an earlier run had finished.
    """

    shards: tuple[ShardDigest, ...]
    root: str
    resumed: int


def write_shards(
    shards: Sequence[Shard],
    compute: Callable[[Sink], None],
    folder: Path,
    recipe_sha256: str,
    *,
    shown: Callable[[Shard], None] = lambda _: None,
    drop_over: int | None = None,
) -> Written:
    """Write every shard that an earlier run of the same recipe has not finished.

    Args:
        shards: The plan.
        compute: Streams the tensors that a sink names into it.
        folder: Where; made if missing. It must be empty of weights, or hold what an earlier run left.
        recipe_sha256: What the weights follow from, 64 hex digits; shards of another recipe are removed.
        shown: Called with every shard that was finished earlier and is skipped, before anything is computed.
        drop_over: Shards of more bytes leave the page cache once they are on disk; none by default.

    Raises:
        UsageError: if the folder holds weights that no journal speaks of.
        OverBudget: if there is no room for a shard.
        StudbookError: if the disk refuses, or what ``compute`` raises; finished shards stay, nothing else does.
    """
    make_folder(folder)
    journal = _Journal(folder / JOURNAL, recipe_sha256)
    finished = journal.open([s.name for s in shards])
    found: dict[str, ShardDigest] = {}
    for shard in shards:
        stated = finished.get(shard.name)
        if stated is not None and (kept := _kept(shard, folder / shard.name, stated)) is not None:
            found[shard.name] = kept
            shown(shard)
    _clear(folder, keep=set(found))
    resumed = len(found)
    for shard in shards:
        if shard.name in found:
            continue
        with ShardSink(shard, folder) as sink:
            compute(sink)
            found[shard.name] = sink.finish()
        if drop_over is not None and shard.size > drop_over:
            drop_pages(folder / shard.name)
        journal.add(found[shard.name])
    done = tuple(found[s.name] for s in shards)
    return Written(done, model_root(root for shard in done for root in shard.roots.values()), resumed)


class _Journal:
    """The lines beside the shards."""

    def __init__(self, path: Path, recipe: str) -> None:
        self.path, self.recipe = path, recipe

    def open(self, names: Sequence[str]) -> dict[str, _Stated]:
        """Finished shards of this recipe: name -> size and SHA-256; a new journal where there is none."""
        head = {"kind": _KIND, "recipe": self.recipe, "shards": list(names)}
        if not self.path.exists():
            if strangers := [p.name for p in self.path.parent.iterdir() if _OURS.match(p.name)]:
                raise UsageError(
                    "holds weights that were not written by this work",
                    where=self.path.parent / min(strangers),
                    advice="Name an empty or new folder.",
                    reason="safetensors.folder",
                )
            self._append(head)
            return {}
        lines = list(self._lines())
        if not lines or lines[0] != head:
            _remove(self.path)
            _clear(self.path.parent, keep=set())
            self._append(head)
            return {}
        return {str(line.get("name")): (line.get("size"), line.get("sha256")) for line in lines[1:]}

    def add(self, shard: ShardDigest) -> None:
        """State that a shard is finished."""
        self._append({"name": shard.name, "sha256": shard.sha256, "size": shard.size})

    def _append(self, line: Mapping[str, object]) -> None:
        try:
            append_line(self.path, canonical(line))
        except OSError as error:
            raise refused(error, self.path) from error

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Every whole line; what a kill left of the last one is cut off."""
        data = read_file(self.path, JOURNAL_BYTES)
        at = 0
        for line in data.splitlines(keepends=True):
            value = _whole(line)
            if value is None:
                truncate(self.path, at)
                return
            at += len(line)
            yield value


def _whole(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = decode_json(line[:-1])
    except RecordRefused:
        return None
    return value if isinstance(value, dict) else None


def _kept(shard: Shard, path: Path, stated: _Stated) -> ShardDigest | None:
    """The digests of a shard an earlier run finished, from its bytes; None if they are not what the journal states."""
    try:
        with open_safetensors(path) as file:
            if file.size != shard.size or file.size != stated[0] or dict(file.entries) != _entries(shard):
                return None
            digest = _digest(shard, file)
    except (BytesLie, UsageError):
        return None
    return digest if digest.sha256 == stated[1] else None


def _entries(shard: Shard) -> dict[str, Any]:
    with_header = len(shard.header)
    dtypes = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
    return {
        p.name: (dtypes.get(p.storage, p.storage), p.dims, p.start - with_header, p.stop - with_header)
        for p in shard.placed
    }


def _digest(shard: Shard, file: SafetensorsFile) -> ShardDigest:
    hasher, roots = hashlib.sha256(file.header()), {}
    for placed in shard.placed:
        leaves = []
        for data in _leaves(placed, file):
            hasher.update(data)
            leaves.append(leaf_digest(data))
        root = tensor_root(placed.stop - placed.start, leaves)
        roots[placed.name] = TensorRoot(placed.name, placed.storage, placed.dims, root)
    return ShardDigest(shard.name, shard.size, hasher.hexdigest(), roots)


def _leaves(placed: Placed, file: SafetensorsFile) -> Iterator[bytes]:
    length, step = placed.stop - placed.start, LEAF_ELEMENTS * placed.item_bytes
    for at in range(0, length, step):
        yield file.read_bytes(placed.name, at, min(at + step, length))


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove partial shards and shards that are not to be kept."""
    for path in sorted(folder.iterdir()):
        if _OURS.match(path.name) and path.name not in keep:
            _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise refused(error, path) from error
