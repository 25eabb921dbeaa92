"""Questions about the past: what was entered, what a channel pointed at when, and what descends from what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

from studbook.errors import OutOfOrder, UsageError, printable
from studbook.files import read_file, write_new
from studbook.lab.desk import Desk
from studbook.lab.index import Index
from studbook.records import KINDS, CandidateManifest, LedgerEntry, SourceManifest, Zone
from studbook.release import ChannelState

__all__ = [
    "Descendant",
    "Logged",
    "Moment",
    "Pointed",
    "at",
    "descendants",
    "log",
    "moment",
    "write_proof",
]

_LEDGER_LIMIT = 1 << 30
_ENVELOPE_LIMIT = 64 << 20


class Logged(Struct, frozen=True):
    """One line of the log.

    Attributes:
        sequence: Position in the ledger.
        time: UTC, as the ledger says.
        host: Machine.
        kind: Kind of record.
        zone: Its zone.
        record: Its digest.
        about: Names of the models it speaks about.
        void: Whether it counts no longer, because a key that signed it was revoked.
    """

    sequence: int
    time: str
    host: str
    kind: str
    zone: str
    record: str
    about: tuple[str, ...]
    void: bool


class Pointed(Struct, frozen=True):
    """What a channel pointed at.

    Attributes:
        channel: The channel.
        artifact: Digest; None when it was empty.
        name: What people called it.
        record: Digest of the record that put it there.
        sequence: That record's position in the ledger; None when nothing ever was.
        since: When that was, UTC.
    """

    channel: str
    artifact: str | None
    name: str
    record: str | None
    sequence: int | None
    since: str


class Moment(Struct, frozen=True):
    """The channels at a moment.

    Attributes:
        time: The moment, UTC.
        entries: How many ledger entries there were.
        channels: Every channel.
        proof: Files written to prove the entry of one channel; empty if none was asked for.
    """

    time: str
    entries: int
    channels: tuple[Pointed, ...]
    proof: tuple[str, ...]


class Descendant(Struct, frozen=True):
    """Something that was made from something else.

    Attributes:
        artifact: Digest.
        name: What people call it.
        depth: Generations down, the fewest there are.
        parents: Names of those above it through which it descends.
        channels: Channels that point at it now.
        revoked: Whether it was revoked or withdrawn itself.
    """

    artifact: str
    name: str
    depth: int
    parents: tuple[str, ...]
    channels: tuple[str, ...]
    revoked: bool


def log(desk: Desk, kinds: Sequence[str] = (), zone: str = "", about: str = "", since: str = "") -> tuple[Logged, ...]:
    """The ledger's entries, oldest first.

    Args:
        desk: The lab.
        kinds: Kinds of record, with or without version; all by default.
        zone: A zone; all by default.
        about: Name or digest of a model or record that an entry speaks about.
        since: First moment, as `moment` reads it.

    Raises:
        UsageError: if there is no such kind, zone or name, or the moment cannot be read.
    """
    wanted = [k for k in KINDS if k in kinds or k.split("/")[0] in kinds]
    if unknown := [k for k in kinds if k not in KINDS and k not in {w.split("/")[0] for w in wanted}]:
        known = ", ".join(sorted(k.split("/")[0] for k in KINDS))
        raise UsageError(
            f"{printable(unknown[0])!r} is not a kind of record", where="--kind", advice=f"Known: {known}."
        )
    if zone and zone not in list(Zone):
        raise UsageError(f"{printable(zone)!r} is not a zone", where="--zone", advice=f"Zones: {', '.join(Zone)}.")
    first = _stamp(moment(since, "--since")) if since else ""
    index = Index(desk)
    digests = _meant(desk, about) if about else []
    found = index.log(wanted, zone, digests, first)
    return tuple(_logged(desk, entry, index.void(entry.sequence)) for entry in found)


def at(desk: Desk, time: str, proof: Path | None = None, channel: str = "champion") -> Moment:
    """What the channels pointed at when.

    Args:
        desk: The lab.
        time: A moment as `moment` reads it; entries made up to it count.
        proof: Write the proof that the entry of one channel is in the ledger: see `write_proof`.
        channel: Which channel to prove.

    Raises:
        UsageError: if the moment cannot be read, or lies before the lab.
        OutOfOrder: if there is nothing to prove, because that channel was empty and never moved.
    """
    when = moment(time, "TIME")
    stamp = _stamp(when)
    entries = [e for e in desk.workspace.ledger.entries if e.time <= stamp]
    if not entries:
        first = desk.workspace.ledger.entries[0].time
        raise UsageError("lies before the lab", where="TIME", advice=f"Its first entry was made at {first}.")
    count = entries[-1].sequence + 1
    then = desk.at(count)
    channels = tuple(_pointed(then, name, state) for name, state in then.channels().items())
    files: tuple[str, ...] = ()
    if proof is not None:
        held = next(c for c in channels if c.channel == channel)
        if held.sequence is None:
            raise OutOfOrder(f"{channel} had never moved by then, so no entry says so", where="--output")
        files = write_proof(desk, held.sequence, proof)
    return Moment(stamp, count, channels, files)


def write_proof(desk: Desk, sequence: int, path: Path) -> tuple[str, ...]:
    """Prove an entry to somebody who does not have the lab, in three new files.

    ``PATH`` is the proof of inclusion (c2sp.org/tlog-proof) with the signed checkpoint, ``PATH.line`` the ledger's line
    without its newline, ``PATH.record`` the record's signed envelope, whose digest the line states. The first two are
    what `studbook.ledger.check_inclusion` takes.

    Raises:
        UsageError: if the checkpoint does not cover the entry, or a file is there already.
    """
    workspace = desk.workspace
    line = read_file(workspace.ledger.path, _LEDGER_LIMIT).split(b"\n")[sequence]
    envelope = read_file(workspace.record_path(workspace.ledger.entries[sequence]), _ENVELOPE_LIMIT)
    parts = {"": workspace.ledger.prove(sequence), ".line": line, ".record": envelope}
    places = {path.with_name(path.name + ending): data for ending, data in parts.items()}
    for place in places:
        if place.exists() or place.is_symlink():
            raise UsageError("exists already", where=place, advice="Name a new file.", reason="usage.exists")
    for place, data in places.items():
        write_new(place, data, 0o644)
    return tuple(str(place) for place in places)


def descendants(desk: Desk, name: str = "", *, only_revoked: bool = False) -> tuple[Descendant, ...]:
    """Everything that was made from a model or from data, at any depth, nearest first.

    Args:
        desk: The lab.
        name: Name or digest of a model, or of a data manifest; without one, of everything that was revoked or withdrawn.
        only_revoked: Begin at what was revoked or withdrawn; with a name, keep only what descends from that too.

    Raises:
        UsageError: if nothing, or more than one thing, is called that; or nothing is asked for.
    """
    if not name and not only_revoked:
        raise UsageError("names no model", where="NAME", advice="studbook descendants NAME, or --revoked alone.")
    index, bad = Index(desk), desk.gone()
    found = _below(index, _meant(desk, name)) if name else {}
    if only_revoked:
        tainted = _below(index, sorted(bad))
        found = {a: v for a, v in found.items() if a in tainted or a in bad} if name else tainted
    channels = desk.channels()
    return tuple(
        Descendant(
            artifact,
            desk.name_of(artifact),
            depth,
            tuple(sorted(desk.called(p) for p in above)),
            tuple(c for c, state in channels.items() if state.artifact == artifact),
            artifact in bad,
        )
        for artifact, (depth, above) in found.items()
    )


def moment(text: str, where: str) -> datetime:
    """A moment: ``2026-07-14`` (its last instant for TIME, its first for --since), or ``2026-07-14T09:30[:00]``; UTC.

    Raises:
        UsageError: if it is neither.
    """
    advice = "Write a day or a moment in UTC, such as 2026-07-14 or 2026-07-14T09:30:00Z."
    whole_day = re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", text) is not None
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        return found + timedelta(days=1, microseconds=-1) if whole_day and where == "TIME" else found
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{printable(text)!r} is not a moment", where=where, advice=advice) from error


def _stamp(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _meant(desk: Desk, name: str) -> list[str]:
    """Digests that a name may stand for: a model, a record, or the manifests and bytes of a source such as data."""
    entry = desk.workspace.entry(name)
    if entry is not None:
        record = desk.workspace.get(name, KINDS[entry.record_kind])
        return [name, record.artifact.sha256] if isinstance(record, SourceManifest | CandidateManifest) else [name]
    manifests = [(d, m) for d, m in desk.all(SourceManifest) if name in (m.name, m.artifact.sha256)]
    try:
        artifact = desk.find_model(name)
    except UsageError:
        if not manifests:
            raise
        return sorted({digest for d, m in manifests for digest in (d, m.artifact.sha256)})
    return [artifact]


def _logged(desk: Desk, entry: LedgerEntry, void: bool) -> Logged:
    subjects = () if void else desk.workspace.get(entry.record, KINDS[entry.record_kind]).subjects()
    names = tuple(dict.fromkeys(desk.name_of(s) for s in subjects))
    zone = entry.record_zone.value
    return Logged(entry.sequence, entry.time, entry.host, entry.record_kind, zone, entry.record, names, void)


def _pointed(desk: Desk, name: str, state: ChannelState) -> Pointed:
    entry = desk.workspace.entry(state.record) if state.record else None
    title = desk.name_of(state.artifact) if state.artifact else ""
    sequence, since = (entry.sequence, entry.time) if entry else (None, "")
    return Pointed(name, state.artifact, title, state.record, sequence, since)


def _below(index: Index, roots: Sequence[str]) -> dict[str, tuple[int, set[str]]]:
    """Everything below some digests: fewest generations down, and those above it; nearest first."""
    found: dict[str, tuple[int, set[str]]] = {}
    level, seen, depth = list(roots), set(roots), 0
    while level:
        depth += 1
        following = []
        for parent in level:
            for child, _ in index.children(parent):
                if child in roots:
                    continue
                found.setdefault(child, (depth, set()))[1].add(parent)
                if child not in seen:
                    seen.add(child)
                    following.append(child)
        level = following
    return found
