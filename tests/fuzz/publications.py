"""A small publication in memory, and what `pull` does with it: with a file of it broken, or with its keys stolen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from studbook.errors import RecordRefused, UsageError
from studbook.lab import Lab, publish
from studbook.lab.beside import write_beside
from studbook.lab.consumer import Publication
from studbook.lab.demo import examples_folder
from studbook.lab.mirror import Reader
from studbook.lab.publication import POINTER, Pointer, carried, tile_names
from studbook.lab.seen import read_seen
from studbook.ledger.merkle import Tree, leaf_hash
from studbook.ledger.note import origin_of, write_checkpoint
from studbook.records import Blob, ChannelSnapshot, LedgerEntry, canonical, digest, read_struct
from studbook.seal import SigningKey, peek, seal

PIN, STATE, OWNER = "pin", "state.json", "ann"


class Stolen(NamedTuple):
    """A publication, and what a thief has.

    Attributes:
        files: Path -> bytes, artifacts left out; the pinned root and what was seen stand last.
        lines: Ledger lines before the snapshot.
        snapshot: Key of snapshots.
        audit: Key of ledger lines and checkpoints.
        lab: The lab's identity.
    """

    files: Mapping[str, bytes]
    lines: tuple[bytes, ...]
    snapshot: SigningKey
    audit: SigningKey
    lab: str


class Held:
    """A publication in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def open(self, name: str, _limit: int) -> Iterator[bytes]:
        if name not in self._files:
            raise UsageError("no such file", where=name, advice="Name another.", reason="fetch.missing")
        yield self._files[name]


@cache
def stolen() -> Stolen:
    """A lab with a champion, a revocation and two roots, published twice."""
    with tempfile.TemporaryDirectory(prefix="studbook-fuzz-") as name:
        home = Path(name)
        Lab.init(home / "lab", OWNER, home / "keys")
        with Lab(home / "lab", home / "keys") as lab:
            for founder in ("base", "cap-rot"):
                lab.register(examples_folder() / "founders" / founder)
            lab.approve("base", OWNER)
            lab.release("base", "champion", OWNER)
            lab.keys.revoke("cap-rot", OWNER, "it leaks")
            lab.publish(home / "live")
            first = Publication(*_sources(home / "live"), None)
            lab.keys.rotate(OWNER)
            record = publish.draw(lab.desk, _in_days(300))
            lab.desk.workspace.commit(record)
            found = publish.gather(lab.desk, record)
            lines = lab.desk.workspace.ledger.path.read_bytes().split(b"\n")[:-2]
            ring = lab.desk.workspace.keys
            keys = [
                ring.held({str(ring.public_of(f"process/{path}"))})[0] for path in ("release/snapshot", "audit/audit")
            ]
        files = {n: data for n, data in found.items() if isinstance(data, bytes)}
        files |= {PIN: files["roots/1.json"], STATE: canonical(first.seen("public"))}
        return Stolen(files, tuple(lines), *keys, record.lab)


@cache
def true() -> ChannelSnapshot:
    """The snapshot that the lab signed."""
    return _read(stolen().files)


def whole() -> list[bytes]:
    """Every file behind its number."""
    return [bytes([number]) + data for number, data in enumerate(stolen().files.values())]


def states() -> list[bytes]:
    """What was seen, as a file."""
    return [stolen().files[STATE]]


def signed() -> list[bytes]:
    """The snapshot and its ledger entry, unsigned, as one JSON object."""
    pointer = read_struct(stolen().files[POINTER], Pointer)
    parts = {"entry": peek(pointer.line.encode()), "snapshot": peek(pointer.envelope.encode())}
    return [canonical(msgspec.to_builtins(parts))]


def read_broken(data: bytes) -> ChannelSnapshot:
    """A good publication of which one file was replaced by the input; its first byte says which."""
    files = dict(stolen().files)
    files[list(files)[data[0] % len(files) if data else 0]] = data[1:]
    return _read(files)


def read_state(data: bytes) -> bytes:
    """What was seen, written again."""
    return canonical(read_seen(data, STATE))


def read_signed(data: bytes) -> ChannelSnapshot:
    """A publication whose snapshot and ledger entry are the input's, signed with the stolen keys.

    Raises:
        RecordRefused: if the input holds no such two records.
    """
    held = stolen()
    try:
        parts = json.loads(data)
        entry, snapshot = (canonical(parts[name]) for name in ("entry", "snapshot"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RecordRefused("is no such object", where="input", reason="record.json") from error
    record = read_struct(snapshot, ChannelSnapshot, "snapshot")
    envelope = seal(record, held.snapshot)
    blob = Blob(sha256=sha256(envelope).hexdigest(), size=len(envelope))
    listed = msgspec.structs.replace(read_struct(entry, LedgerEntry, "entry"), record=digest(record), envelope=blob)
    line = seal(listed, held.audit)
    leaves, tree = [leaf_hash(one) for one in (*held.lines, line)], Tree()
    tree.extend_hashes(leaves)
    note = write_checkpoint(origin_of(held.lab), len(leaves), tree.root(), held.audit)
    pointer = Pointer(checkpoint=note.decode(), envelope=envelope.decode(), line=line.decode())
    tiles = {name: b"".join(leaves[:width]) for name, width in tile_names(len(leaves))}
    return _read({**held.files, **tiles, POINTER: canonical(pointer)})


def _read(files: Mapping[str, bytes]) -> ChannelSnapshot:
    """Everything that `pull` does but fetching artifacts."""
    reader = Reader(Held(files), "public")
    found = Publication(reader, files[PIN], PIN, datetime.now(UTC), read_seen(files[STATE], STATE))
    for held in found.snapshot.channels:
        write_beside(found, held, carried(held, found.get))
    canonical(found.seen("public"))
    return found.snapshot


def _sources(folder: Path) -> tuple[Reader, bytes, str, datetime]:
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return Reader(Held(files), "public"), files["roots/1.json"], PIN, datetime.now(UTC)


def _in_days(days: int) -> Any:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
