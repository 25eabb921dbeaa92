"""From a pinned root of keys to the newest one: every root is signed by enough owners of the one before it."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from studbook.errors import DigestDiffers, NotAuthorised, RecordRefused
from studbook.lab.mirror import Reader
from studbook.lab.publication import line_name, root_name
from studbook.lab.seen import Seen
from studbook.records import LedgerEntry, Root, digest
from studbook.seal import Succession, peek

__all__ = ["LINE_LIMIT", "Roots", "entry_of", "follow_roots"]

LINE_LIMIT = 8 << 20
_ROOT_LIMIT = 1 << 20
_ADVICE = "Name the publication of the lab whose root you were given; compare the root with its owner by another way."


class Roots(NamedTuple):
    """The roots of a publication.

    Attributes:
        succession: Who held authority when, as far as roots say it.
        digests: Digest of every root, the first first.
        lines: Their ledger lines, whose place in the ledger is still to be checked.
    """

    succession: Succession
    digests: tuple[str, ...]
    lines: tuple[bytes, ...]


def follow_roots(reader: Reader, version: int, pin: bytes, pin_name: object, seen: Seen | None, today: str) -> Roots:
    """Follow the roots of a publication up to a version.

    Args:
        reader: The publication.
        version: Version of the newest root; a publication that says too much breaks off where a root is missing.
        pin: The sealed root that somebody handed over.
        pin_name: Its file, for errors.
        seen: What was seen of the lab before.
        today: The UTC day, YYYY-MM-DD.

    Raises:
        RecordRefused: if the pin holds no root of keys; ``pull.pin``.
        DigestDiffers: if the roots do not lead through the pin (``pull.lab``, ``pull.pin``), or not through what was seen
            (``pull.rollback``, ``pull.fork``).
        NotAuthorised: if a root is not signed by the owners it takes, or the newest has ended; ``authority.expired``.
        StudbookError: as `Reader.read`.
    """
    pinned = peek(pin, pin_name)
    if not isinstance(pinned, Root):
        advice = "It is the file roots/1.json of the publication, as the lab's owner handed it over."
        text = f"holds a {pinned.kind()}, not a root of keys"
        raise RecordRefused(text, where=pin_name, advice=advice, reason="pull.pin")
    if seen is not None and seen.lab != pinned.lab:
        text = "is the root of another lab than the one pulled from before"
        raise DigestDiffers(text, where=pin_name, advice="Pull into a folder of its own.", reason="pull.lab")
    succession: Succession | None = None
    digests: list[str] = []
    lines: list[bytes] = []
    for number in range(1, version + 1):
        succession, entry, line = _next(reader, number, succession)
        digests.append(entry.record)
        lines.append(line)
    assert succession is not None
    where = reader.where(root_name(version))
    _check_through(succession.root, digests, pinned, where)
    _check_seen(digests, seen, where)
    if succession.root.expires < today:
        text = f"the newest root of keys ended on {succession.root.expires}"
        advice = "Ask whoever runs the lab to sign a new root and publish again."
        raise NotAuthorised(text, where=where, advice=advice, reason="authority.expired")
    return Roots(succession, tuple(digests), tuple(lines))


def entry_of(line: bytes, where: object) -> LedgerEntry:
    """The entry of a ledger line whose signature has NOT been checked.

    Raises:
        RecordRefused: if it is malformed, or no ledger line.
    """
    record = peek(line, where)
    if not isinstance(record, LedgerEntry):
        raise RecordRefused("is not a ledger entry", where=where)
    return record


def _next(reader: Reader, number: int, before: Succession | None) -> tuple[Succession, LedgerEntry, bytes]:
    name = root_name(number)
    where = reader.where(name)
    line = reader.read(line_name(name), LINE_LIMIT)
    entry = entry_of(line, reader.where(line_name(name)))
    data = reader.read(name, _ROOT_LIMIT, entry.envelope.size)
    if sha256(data).hexdigest() != entry.envelope.sha256:
        text = "is not the envelope that its ledger line names"
        raise DigestDiffers(text, where=where, advice=_ADVICE, reason="pull.envelope")
    if before is None:
        return Succession(entry, data, where), entry, line
    before.enter(entry, data, where)
    return before, entry, line


def _check_through(newest: Root, digests: list[str], pinned: Root, where: object) -> None:
    if newest.lab != pinned.lab:
        text = "is of another lab than the root that was pinned"
        raise DigestDiffers(text, where=where, advice=_ADVICE, reason="pull.lab")
    if digest(pinned) not in digests:
        text = "the root that was pinned is none of this publication's"
        raise DigestDiffers(text, where=where, advice=_ADVICE, reason="pull.pin")


def _check_seen(digests: list[str], seen: Seen | None, where: object) -> None:
    if seen is None:
        return
    advice = "Somebody shows an old or another state of the lab. Nothing was changed; ask whoever runs it."
    if seen.root_version > len(digests):
        text = f"its newest root of keys is version {len(digests)}, and version {seen.root_version} was seen before"
        raise DigestDiffers(text, where=where, advice=advice, reason="pull.rollback")
    if digests[seen.root_version - 1] != seen.root:
        text = f"root version {seen.root_version} is not the one that was seen before"
        raise DigestDiffers(text, where=where, advice=advice, reason="pull.fork")
