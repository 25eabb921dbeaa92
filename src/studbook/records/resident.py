"""Which models were in memory, what they took of which limit, and which set is known to be good."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, Name, Record, Text, Zone

__all__ = ["KnownGood", "ResidentLine", "ResidentSetRecord"]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class ResidentLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arithmetic of one limit: before + brought - freed, never above most.

    Attributes:
        limit: ``active`` in modules; ``host.weights`` and the like in bytes, ``host.total`` while old and new both stand.
        before: What was taken of it.
        brought: What was added.
        freed: What was given back.
        most: The limit.
    """

    limit: Name
    before: Count
    brought: Count
    freed: Count
    most: Count


class KnownGood(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A set that somebody vouched for; kept, so that one act brings it back.

    Attributes:
        revisions: Packages that were active, sorted.
        pins: Those that had to stay, sorted.
        current: Those that their id stood for, sorted.
    """

    revisions: tuple[Digest, ...]
    pins: tuple[Digest, ...]
    current: tuple[Digest, ...]


class ResidentSetRecord(Record, frozen=True, kw_only=True, tag="resident-set/1"):
    """One committed change of what is in memory.

    Attributes:
        previous: Digest of the record before; null for the first.
        engine: Digest of the engine that runs the models.
        act: What was asked for; ``settle`` vouches for what is active and changes nothing in memory.
        reason: Why.
        before: Packages that were active, sorted.
        brought: Packages that were staged, in this order.
        dropped: Packages given up because something took their place or somebody asked for it.
        victims: Packages given up because something was short: the smallest sufficient set.
        after: Packages that are active, sorted.
        pins: Packages that have to stay, sorted.
        current: Packages that their id stands for, sorted.
        lines: The arithmetic, as it was planned before anything was taken.
        host_bytes: Bytes of memory that the engines on the host held afterwards, as they said when they were staged.
        device_bytes: The same of the device.
        known_good: The set that one act brings back; null while none is.
    """

    zone: ClassVar[Zone] = Zone.HOST
    previous: Digest | None
    engine: Digest
    act: Literal["activate", "evict", "restore", "settle"]
    reason: Text
    before: tuple[Digest, ...]
    brought: tuple[Digest, ...]
    dropped: tuple[Digest, ...]
    victims: tuple[Digest, ...]
    after: tuple[Digest, ...]
    pins: tuple[Digest, ...]
    current: tuple[Digest, ...]
    lines: tuple[ResidentLine, ...]
    host_bytes: Count
    device_bytes: Count
    known_good: KnownGood | None

    def references(self) -> tuple[str, ...]:
        """The record before, and every package."""
        good = self.known_good.revisions if self.known_good else ()
        packages = (*self.before, *self.brought, *self.after, *good)
        return tuple(dict.fromkeys(d for d in (self.previous, *packages) if d))
