"""The route log in a lab: router states entered, the log opened for writing, closed segments kept with their bytes.

The log's open segment lies in ``host/routes``; a closed one moves into the store with a record that names its chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from studbook.errors import DigestDiffers
from studbook.files import read_file
from studbook.lab.desk import Desk
from studbook.records import Blob, Header, RouterState, RouteSeal, RouteSegment, RouteThreshold
from studbook.runtime.routelog import RouteLog, Segment, Tail, segment_files, segments, verify_segment
from studbook.runtime.routing.embeddings import Embedder
from studbook.runtime.routing.router import Router
from studbook.runtime.routing.state import open_state
from studbook.workspace import Accession

__all__ = ["all_segments", "install_router", "keep_segments", "loose_files", "open_log", "open_router", "routes_folder"]

_MOST_BYTES = 1 << 30


def install_router(
    desk: Desk,
    state: RouterState,
    centroids: bytes = b"",
    threshold: RouteThreshold | None = None,
    encoder: Embedder | None = None,
) -> Router:
    """Enter a router's state, its centroids, its margin and its sentence encoder's record; the router they make.

    Raises:
        StudbookError: any of its kinds, if they do not fit each other; nothing is entered then.
    """
    router = Router(open_state(state, centroids), threshold, encoder)
    records = [Accession(encoder.model)] if encoder else []
    records.append(Accession(state, {state.centroids.sha256: centroids} if state.centroids else {}))
    if threshold is not None:
        records.append(Accession(threshold))
    desk.workspace.commit_all(records)
    return router


def open_router(desk: Desk, state: str, threshold: str | None = None, encoder: Embedder | None = None) -> Router:
    """The router of a state and a margin that were entered, by their digests, and of the sentence encoder if it is open.

    Raises:
        StudbookError: any of its kinds, if one of them is not here, or not as it was.
    """
    found = desk.workspace.get(state, RouterState)
    data = desk.workspace.blob(found.centroids.sha256) if found.centroids else b""
    margin = desk.workspace.get(threshold, RouteThreshold) if threshold else None
    return Router(open_state(found, data), margin, encoder)


def open_log(desk: Desk) -> RouteLog:
    """The log, to write to; what an earlier process left is sealed and kept first.

    Raises:
        StudbookError: any of its kinds, if what is there does not hold, or no key is at hand.
    """
    authority = desk.workspace.authority(RouteSeal.kind())
    key = desk.workspace.keys.find(authority, RouteSeal.zone, RouteSeal.kind())
    log = RouteLog(routes_folder(desk.workspace.path), desk.header, key, authority, _tail(desk))
    keep_segments(desk)
    return log


def keep_segments(desk: Desk) -> tuple[str, ...]:
    """Enter every closed segment into the ledger, bytes and all; digests of the records.

    Raises:
        StudbookError: any of its kinds, if one does not hold, or does not follow the one before.
    """
    kept: list[str] = []
    for number in segments(routes_folder(desk.workspace.path)):
        files, tail = segment_files(routes_folder(desk.workspace.path), number), _tail(desk)
        if number <= tail.segment:
            # A crash came between the ledger and this.
            _remove(files)
            continue
        found, lines, seals = _loose(desk, number)
        if not found.closed:
            continue
        _follows(found, tail)
        record = _record(desk.header, found, lines, seals)
        kept.append(desk.workspace.commit(record, {record.lines.sha256: lines, record.seals.sha256: seals}))
        _remove(files)
    return tuple(kept)


def all_segments(desk: Desk) -> Iterator[tuple[Segment, bool]]:
    """Every segment, verified and following the one before, and whether it is in the ledger.

    Raises:
        StudbookError: any of its kinds, at the first that does not hold.
    """
    tail = Tail()
    for digest, record in desk.all(RouteSegment):
        found = _kept(desk, digest, record)
        _follows(found, tail)
        tail = Tail(found.number, found.head)
        yield found, True
    for number in segments(routes_folder(desk.workspace.path)):
        # Where the disk refused the first seal, a name without a whole line is left, and the next host begins there.
        if number > tail.segment and _begun(segment_files(routes_folder(desk.workspace.path), number)):
            found = _loose(desk, number)[0]
            _follows(found, tail)
            tail = Tail(found.number, found.head)
            yield found, False


def routes_folder(lab: Path) -> Path:
    """Where a lab's open segment lies."""
    return lab / RouteSegment.zone / "routes"


def loose_files(lab: Path) -> tuple[Path, ...]:
    """The files of segments that are not in the ledger; what lies beside the store."""
    folder = routes_folder(lab)
    paths = [path for number in segments(folder) for path in segment_files(folder, number)]
    return tuple(path for path in paths if path.is_file())


def _kept(desk: Desk, digest: str, record: RouteSegment) -> Segment:
    entry = desk.workspace.entry(digest)
    assert entry is not None
    lines, seals = desk.workspace.blob(record.lines.sha256), desk.workspace.blob(record.seals.sha256)
    authority = desk.workspace.ledger.authority(entry.sequence, entry.time[:10], RouteSeal.kind())
    found = verify_segment(record.segment, lines, seals, authority, f"segment {record.segment}")
    if _record(record.header, found, lines, seals) != record:
        text, advice = "its record says otherwise than its lines", "Look who holds the host's key."
        raise DigestDiffers(text, where=f"segment {record.segment}", reason="route.segment", advice=advice)
    return found


def _loose(desk: Desk, number: int) -> tuple[Segment, bytes, bytes]:
    """A segment that lies in the folder, its lines and its seals."""
    files = segment_files(routes_folder(desk.workspace.path), number)
    # Seals first: while somebody writes, lines that came later are merely unsealed.
    seals, lines = (read_file(path, _MOST_BYTES) if path.is_file() else b"" for path in reversed(files))
    authority = desk.workspace.authority(RouteSeal.kind())
    return verify_segment(number, lines, seals, authority, files[0]), lines, seals


def _tail(desk: Desk) -> Tail:
    """Where the kept segments end."""
    kept = [record for _, record in desk.all(RouteSegment)]
    return Tail(kept[-1].segment, kept[-1].head) if kept else Tail()


def _follows(found: Segment, tail: Tail) -> None:
    if (found.number, found.begins) != (tail.segment + 1, tail.head):
        text = f"does not follow segment {tail.segment}"
        advice = "A segment is missing or another one; restore the log from a backup."
        raise DigestDiffers(text, where=f"segment {found.number}", reason="route.chain", advice=advice)


def _record(header: Header, found: Segment, lines: bytes, seals: bytes) -> RouteSegment:
    return RouteSegment(
        header=header,
        segment=found.number,
        begins=found.begins,
        count=len(found.records),
        head=found.head,
        lines=_blob(lines),
        seals=_blob(seals),
        states=tuple(sorted({r.state for r in found.records})),
        thresholds=tuple(sorted({r.threshold for r in found.records if r.threshold})),
    )


def _begun(files: Sequence[Path]) -> bool:
    """Whether a whole line or seal lies in a segment."""
    return any(b"\n" in read_file(path, _MOST_BYTES) for path in files if path.is_file())


def _remove(files: Sequence[Path]) -> None:
    """The seals last: without them nobody sees the segment."""
    for path in files:
        path.unlink(missing_ok=True)


def _blob(data: bytes) -> Blob:
    return Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
