"""Routers learnt, and the route log looked into: its segments, one route, and every choice derived again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from msgspec import Struct

from studbook.errors import OutOfOrder, UsageError
from studbook.lab.advice import Advice, advise
from studbook.lab.desk import Desk
from studbook.lab.route_learning import SHARE, Learned, learn
from studbook.lab.segments import all_segments, open_router
from studbook.records import RouteRecord, RouteRule
from studbook.runtime.routelog import Segment
from studbook.runtime.routing.router import Router
from studbook.runtime.routing.tell import replay

__all__ = ["Listed", "Routes", "Told"]


class Listed(Struct, frozen=True):
    """One segment of the log.

    Attributes:
        segment: Its number.
        lines: Its records.
        sealed: How many a seal covers.
        recovered: How many of these a process that ended had left unsealed.
        head: Digest of its last line.
        where: ``kept`` in the ledger, ``closed``, or ``open``.
    """

    segment: int
    lines: int
    sealed: int
    recovered: int
    head: str
    where: str


class Told(Struct, frozen=True):
    """What became of checking one or more routes.

    Attributes:
        segments: Segments looked at.
        routes: Records in them.
        replayed: How many choices were derived again and came out the same.
        from_prompts: How many of these from the prompt, scores and all.
        arranged: How many were answered by several models, whose choice is not replayed.
        unsealed: Records no seal covers yet.
    """

    segments: int
    routes: int
    replayed: int
    from_prompts: int
    arranged: int
    unsealed: int


class Routes:
    """The routes of one lab.

    Args:
        desk: The lab.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def learn(self, rules: Sequence[RouteRule] = (), fallback: str | None = None, share: float = SHARE) -> Learned:
        """Learn a router for the installed packages from the development suites, and enter it.

        Args:
            rules: Asked before the n-grams.
            fallback: Id of the package that answers when nobody leads; None for the model of the channel.
            share: Share of the choices that have to be right from the margin on.

        Raises:
            UsageError: if there is nothing to choose between, or a name is none.
        """
        return learn(self._desk, rules, fallback, share)

    def list(self) -> tuple[Listed, ...]:
        """Every segment, oldest first."""
        return tuple(
            Listed(s.number, len(s.records), s.sealed, s.recovered, s.head, "kept" if kept else _state(s))
            for s, kept in all_segments(self._desk)
        )

    def show(self, route: str) -> RouteRecord:
        """One route record by ``SEGMENT:LINE``, such as ``3:0``.

        Raises:
            UsageError: if there is none.
        """
        segment, line = _place(route)
        records = next((s.records for s, _ in all_segments(self._desk) if s.number == segment), ())
        if line is None or line >= len(records):
            text = f"{len(records)} records in segment {segment}"
            advice = "Name one as SEGMENT:LINE, counted from 0; `studbook routes list` shows the segments."
            raise UsageError(text, where=route, reason="route.place", advice=advice)
        return records[line]

    def replay(self, route: str = "", prompt: str | None = None) -> Told:
        """Derive choices again: of one record, of a segment, or of all.

        Args:
            route: ``SEGMENT:LINE``, ``SEGMENT``, or empty for all of them.
            prompt: The prompt of the one record, where the log does not hold it.

        Raises:
            DigestDiffers: naming the record whose choice comes out otherwise.
            UsageError: if there is no such record.
        """
        segment, line = _place(route) if route else (None, None)
        if line is not None:
            self.show(route)
        elif prompt is not None:
            advice = "Name the one record it belongs to, as SEGMENT:LINE."
            raise UsageError("belongs to one record", where="--prompt", reason="usage.ignored", advice=advice)
        chosen = [s for s, _ in all_segments(self._desk) if segment in (None, s.number)]
        if segment is not None and not chosen:
            self.show(f"{segment}:0")
        records = [r for s in chosen for r in (s.records if line is None else s.records[line : line + 1])]
        router = cache(partial(open_router, self._desk))
        depths = [_depth(record, router(record.state, record.threshold), prompt) for record in records]
        return Told(
            segments=len(chosen),
            routes=len(records),
            replayed=sum(d != "arranged" for d in depths),
            from_prompts=depths.count("prompt"),
            arranged=depths.count("arranged"),
            unsealed=sum(len(s.records) - s.sealed for s in chosen),
        )

    def advise(self, window: int = 500, budget: int | None = None) -> Advice:
        """What the structural controller would change after the newest requests; see `studbook.lab.advice.advise`."""
        return advise(self._desk, window, budget)

    def verify(self) -> Told:
        """Check chain, seals and order of all segments, and derive every choice again.

        Raises:
            StudbookError: any of its kinds, naming the first line or seal that does not hold.
        """
        return self.replay()


def _depth(record: RouteRecord, router: Router, prompt: str | None) -> str:
    try:
        return replay(record, router, prompt).depth
    except OutOfOrder as error:
        if error.reason != "route.replay-kind":
            raise
        return "arranged"


def _state(found: Segment) -> str:
    return "closed" if found.closed else "open"


def _place(text: str) -> tuple[int, int | None]:
    segment, colon, line = text.partition(":")
    if not segment.isdecimal() or (colon and not line.isdecimal()) or len(text) > 24:
        advice = "Write SEGMENT, or SEGMENT:LINE, such as 3:0."
        raise UsageError("is no place in the log", where=text[:24], reason="route.place", advice=advice)
    return int(segment), int(line) if colon else None
