"""The route log: one line a decision, chained by digest, sealed by a signature now and then; append-only.

A segment is two files: ``NNNNNN.jsonl`` holds the records, each naming the digest of the line before it, and
``NNNNNN.seals`` the envelopes of its seals. Every line is on disk before the append returns. A seal covers all lines so
far; it is written every 64 lines, when `RouteLog.tick` finds one older than a second, and at the end. What a process that
ended left unsealed holds by its chain alone: the next one seals it, says how much that was, and begins a new segment.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder, RecordRefused, StudbookError
from studbook.files import append_line, make_folder, read_file, truncate
from studbook.records import Header, RouteRecord, RouteSeal, canonical, read_struct, replace
from studbook.runtime.routing.tell import ZERO
from studbook.seal import Authority, SigningKey, seal, unseal

__all__ = [
    "MAX_LINES",
    "SEAL_LINES",
    "RouteLog",
    "Segment",
    "Tail",
    "segment_files",
    "segments",
    "verify_segment",
]

SEAL_LINES = 64
"""Most lines without a seal."""
MAX_LINES = 16384
"""Lines of a segment, after which another begins."""
_SEAL_AGE = timedelta(seconds=1)
_MOST_BYTES = 1 << 30
_NAME = re.compile(r"([0-9]{6,12})\.(?:jsonl|seals)")

Clock = Callable[[], datetime]


class Tail(NamedTuple):
    """Where a log ended.

    Attributes:
        segment: Number of its last closed segment; 0 before the first.
        head: Digest of that one's last line.
    """

    segment: int = 0
    head: str = ZERO


class Segment(NamedTuple):
    """A segment whose chain and seals hold.

    Attributes:
        number: Its number.
        begins: What its first line follows.
        head: Digest of its last line; ``begins`` where it has none.
        records: Its records, in order.
        sealed: How many of them a seal covers.
        recovered: How many of these a process had left unsealed.
        closed: Whether the last seal says that no line follows.
        torn: Bytes behind the last whole line, which a crash left.
    """

    number: int
    begins: str
    head: str
    records: tuple[RouteRecord, ...]
    sealed: int
    recovered: int
    closed: bool
    torn: int


def segment_files(folder: Path, number: int) -> tuple[Path, Path]:
    """The file of a segment's lines, and that of its seals."""
    return folder / f"{number:06d}.jsonl", folder / f"{number:06d}.seals"


def segments(folder: Path) -> tuple[int, ...]:
    """Numbers of the segments in a folder, in order, those of which only lines or only seals are left too."""
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return tuple(sorted({int(name[1]) for name in names if name}))


def verify_segment(number: int, lines: bytes, seals: bytes, authority: Authority, where: object = "") -> Segment:
    """Check every line against the one before it, and every seal against lines, keys and the seal before it.

    Args:
        number: Number of the segment.
        lines: Its lines; bytes behind the last line feed are counted and not read.
        seals: Its seals.
        authority: Who may sign seals.
        where: What to call it in errors.

    Raises:
        RecordRefused: if a line or a seal is no such record.
        NotAuthorised: if a seal's signature does not count.
        DigestDiffers: if the chain breaks (``route.chain``), or lines are not those that were sealed (``route.seal``).
    """
    whole, _, torn = lines.rpartition(b"\n")
    kept = seals.rpartition(b"\n")[0]
    found = tuple(_seal(line, authority, f"{where}: seal {n}") for n, line in _numbered(kept))
    if not found:
        raise _unsealed(where, "carries no seal, not even of its beginning")
    begins = found[0].begins
    records, digests = _chain(whole, begins, where)
    _check_seals(number, found, digests, begins, where)
    last = found[-1]
    return Segment(
        number, begins, digests[-1], records, last.count, sum(s.recovered for s in found), last.closed, len(torn)
    )


class RouteLog:
    """The log a host writes; safe for several threads.

    Args:
        folder: Where its segments lie.
        header: The header of its seals.
        key: Signs them.
        authority: Who may sign them, to check what an earlier process left.
        after: Where the closed segments ended that lie elsewhere.
        clock: The time in UTC.

    Raises:
        StudbookError: as `verify_segment`, if what an earlier process left does not hold.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        key: SigningKey,
        authority: Authority,
        after: Tail = Tail(),  # noqa: B008 - a tuple, never changed
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self.folder, self._header, self._key, self._clock = folder, header, key, clock
        self._lock = threading.Lock()
        self._number, self._begins, self._head = after.segment, after.head, after.head
        self._count = self._sealed = 0
        self._sealed_at, self._closed = clock(), False
        make_folder(folder)
        for number in segments(folder):
            after = self._close_left(number, authority, after)
        self._begin(after)

    @property
    def number(self) -> int:
        """Number of the segment that is written to."""
        return self._number

    def append(self, record: RouteRecord) -> RouteRecord:
        """Enter a record at the end; it is on disk before this returns.

        Returns:
            The record with its place.

        Raises:
            OutOfOrder: if the log was closed; ``route.closed``.
            StudbookError: if the disk refuses the line, which is not entered then, or a seal, which the next line brings.
        """
        with self._lock:
            if self._closed:
                raise OutOfOrder("the route log is closed", reason="route.closed", advice="Open the log again.")
            if self._sealed < 0:
                # The disk refused the seal of its beginning, and lines without one belong to nobody.
                self._seal()
            placed: RouteRecord = replace(record, sequence=self._count, previous=self._head)
            line = canonical(placed)
            append_line(segment_files(self.folder, self._number)[0], line)
            self._count, self._head = self._count + 1, hashlib.sha256(line).hexdigest()
            if self._count - self._sealed >= SEAL_LINES:
                self._seal()
            if self._count >= MAX_LINES:
                self._seal(closed=True)
                self._begin(Tail(self._number, self._head))
            return placed

    def tick(self) -> bool:
        """Seal what is older than a second; to be called about as often. Returns whether there was anything."""
        with self._lock:
            due = self._count > self._sealed and self._clock() - self._sealed_at >= _SEAL_AGE
            if due:
                self._seal()
            return due

    def close(self) -> None:
        """Seal the segment for good; a second time is nothing."""
        with self._lock:
            if not self._closed:
                self._seal(closed=True)
                self._closed = True

    def _begin(self, after: Tail) -> None:
        self._number, self._begins, self._head = after.segment + 1, after.head, after.head
        self._count, self._sealed = 0, -1
        self._seal()

    def _seal(self, *, closed: bool = False, recovered: int = 0) -> None:
        now = self._clock()
        made = RouteSeal(
            header=self._header,
            segment=self._number,
            begins=self._begins,
            count=self._count,
            head=self._head,
            recovered=recovered,
            closed=closed,
            time=now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )
        append_line(segment_files(self.folder, self._number)[1], seal(made, self._key))
        self._sealed, self._sealed_at = self._count, now

    def _close_left(self, number: int, authority: Authority, after: Tail) -> Tail:
        """Close a segment that an earlier process left, unless it is closed; where it ended."""
        lines, seals = segment_files(self.folder, number)
        for path in (lines, seals):
            if path.is_file() and _whole(path) < path.stat().st_size:
                truncate(path, _whole(path))
        if not _read(seals) and not _read(lines):
            # Nothing was acknowledged in it: its first seal never reached the disk.
            return after
        found = verify_segment(number, _read(lines), _read(seals), authority, lines)
        if not found.closed:
            self._number, self._begins, self._head, self._count = number, found.begins, found.head, len(found.records)
            self._seal(closed=True, recovered=len(found.records) - found.sealed)
        return Tail(number, found.head)


def _read(path: Path) -> bytes:
    return read_file(path, _MOST_BYTES) if path.is_file() else b""


def _whole(path: Path) -> int:
    """Length of a file up to its last line feed."""
    return _read(path).rfind(b"\n") + 1


def _numbered(data: bytes) -> Iterator[tuple[int, bytes]]:
    return enumerate(data.split(b"\n") if data else ())


def _seal(line: bytes, authority: Authority, where: str) -> RouteSeal:
    record = unseal(line, authority, where).record
    if not isinstance(record, RouteSeal):
        raise RecordRefused(f"is {record.kind()}, and no seal", where=where, reason="route.seal")
    return record


def _chain(whole: bytes, begins: str, where: object) -> tuple[tuple[RouteRecord, ...], list[str]]:
    """Every record, and the digest of what each follows and of the last."""
    records: list[RouteRecord] = []
    digests = [begins]
    for number, line in _numbered(whole):
        place = f"{where}: line {number + 1}"
        record = read_struct(line, RouteRecord, place)
        if (record.sequence, record.previous) != (number, digests[-1]):
            text = "does not follow the line before it"
            raise DigestDiffers(text, where=place, reason="route.chain", advice=_ADVICE)
        records.append(record)
        digests.append(hashlib.sha256(line).hexdigest())
    return tuple(records), digests


def _check_seals(number: int, seals: tuple[RouteSeal, ...], digests: list[str], begins: str, where: object) -> None:
    before = 0
    for place, found in enumerate(seals):
        at = f"{where}: seal {place}"
        if (found.segment, found.begins) != (number, begins) or found.count < before:
            raise _unsealed(at, "belongs to another segment, or stands out of order")
        if found.closed and place != len(seals) - 1:
            raise _unsealed(at, "closes the segment, and another seal follows")
        if found.count >= len(digests) or digests[found.count] != found.head:
            raise _unsealed(at, f"covers {found.count} lines, and those are gone or others")
        before = found.count
    if seals[-1].closed and seals[-1].count != len(digests) - 1:
        raise _unsealed(where, "lines follow the seal that closes the segment")


_ADVICE = "Lines were changed, moved or cut off. Restore the log from a backup, and find out who could write there."


def _unsealed(where: object, text: str) -> StudbookError:
    return DigestDiffers(text, where=where, reason="route.seal", advice=_ADVICE)
