"""What the lab offers to those outside: a folder of plain files that any server can hand out and nobody has to trust.

Each publication is a record in the ledger, so versions are counted there and two publishers cannot fork. Files are
written first and ``snapshot.json`` last: a publication that was cut short leaves the one before it whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from msgspec import Struct, structs

from studbook.errors import DigestDiffers, UsageError
from studbook.files import copy_new, hash_file, make_folder, place, read_file, replace_file
from studbook.lab.desk import Desk
from studbook.lab.publication import (
    MOST_DAYS,
    PARTS,
    POINTER,
    POINTER_LIMIT,
    Pointer,
    artifact_name,
    carried,
    ends_in_time,
    line_name,
    manifest_of,
    record_name,
    rests_on,
    root_name,
    tile_names,
)
from studbook.lab.routing import kept_inside
from studbook.ledger.merkle import leaf_hash
from studbook.records import (
    KINDS,
    Blob,
    CandidateManifest,
    ChannelSnapshot,
    LineageTemplate,
    PublishedChannel,
    Record,
    Revocation,
    Root,
    SourceManifest,
    canonical,
    digest,
    read_struct,
)
from studbook.release import ChannelState
from studbook.seal import peek

__all__ = ["DAYS", "Published", "check_snapshot", "draw", "gather", "publish", "write"]

DAYS = 14
_LEDGER_LIMIT = 1 << 30
_ENVELOPE_LIMIT = 64 << 20


class Published(Struct, frozen=True):
    """What was published.

    Attributes:
        folder: The folder.
        snapshot: Digest of the ChannelSnapshot.
        version: Its version.
        expires: When it ends, UTC.
        entries: Ledger entries that its checkpoint covers.
        channels: What the channels offer.
        left_out: Channels that offer nothing, with the reason: a revocation, or an operator that is offline.
        root: The file to hand over, once and by a way of its own, to whoever shall pull.
        root_sha256: Digest of the root of keys in it, as in the pin beside the keys.
        files: How many files were written.
    """

    folder: str
    snapshot: str
    version: int
    expires: str
    entries: int
    channels: tuple[PublishedChannel, ...]
    left_out: tuple[str, ...]
    root: str
    root_sha256: str
    files: int


def publish(desk: Desk, folder: Path, days: int = DAYS) -> Published:
    """Enter a snapshot of the channels, and bring a folder up to it.

    Args:
        desk: The lab, opened for writing.
        folder: A new or empty folder outside the lab, or one that this lab published to before.
        days: How many days the snapshot counts; whoever pulls refuses an older one.

    Raises:
        UsageError: if the folder holds anything else, or the days are none.
        NotAuthorised: if no key at hand may sign a snapshot.
        DigestDiffers: if the folder was written by a lab that went on differently, or a file of the lab is gone.
    """
    if not 1 <= days <= MOST_DAYS:
        raise UsageError(f"{days} is not a number of days from 1 to {MOST_DAYS}", where="--days")
    _check_target(desk, folder)
    record = draw(desk, (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ"))
    for held in record.channels:
        # What would be refused outside is not published.
        _papers(desk, held)
        if not desk.workspace.blob_path(held.artifact.sha256).is_file():
            advice = (
                f"Bred here: studbook reproduce {held.artifact.sha256[:12]} --restore. A source: register it again."
            )
            text = f"the bytes of {desk.name_of(held.artifact.sha256)} are gone"
            raise DigestDiffers(text, where=held.channel, advice=advice, reason="digest.missing")
    found = desk.workspace.commit(record)
    count = write(folder, gather(desk, record))
    return Published(
        folder=str(folder),
        snapshot=found,
        version=record.snapshot_version,
        expires=record.expires,
        entries=record.entries + 1,
        channels=record.channels,
        left_out=tuple(_left_out(desk).values()),
        root=str(folder / root_name(1)),
        root_sha256=desk.entries()[0].record,
        files=count,
    )


def draw(desk: Desk, expires: str) -> ChannelSnapshot:
    """The snapshot of the channels as they stand, not yet entered.

    Args:
        desk: The lab, now or as it was before an entry.
        expires: When it shall end, ``YYYY-MM-DDTHH:MM:SSZ``.
    """
    workspace, position = desk.workspace, len(desk.entries())
    earlier = list(desk.all(ChannelSnapshot))
    previous, version = (earlier[-1][0], earlier[-1][1].snapshot_version) if earlier else (None, 0)
    silent = _left_out(desk)
    return ChannelSnapshot(
        header=desk.header,
        lab=workspace.root.lab,
        snapshot_version=version + 1,
        expires=expires,
        root_version=workspace.ledger.authority(position - 1).root.root_version,
        entries=position,
        tree=workspace.ledger.tree.root(position).hex(),
        previous=previous,
        channels=tuple(
            _offered(desk, name, state)
            for name, state in desk.channels().items()
            if state.artifact and name not in silent
        ),
        revocations=tuple(d for d, _ in desk.all(Revocation)),
    )


def check_snapshot(desk: Desk, record: ChannelSnapshot) -> None:
    """Draw a snapshot again: its every field follows from the ledger, but for its end, which is no more than a year off.

    Args:
        desk: The lab as it was before the record.
        record: The snapshot.

    Raises:
        DigestDiffers: naming the field that differs; ``snapshot.field``, and ``snapshot.expires`` for its end.
    """
    again = draw(desk, record.expires)
    fields = ["lab", "root_version", "entries", "tree", "channels", "revocations"]
    before = desk.workspace.entry(record.previous or "")
    if before is None or not desk.workspace.void(before):
        # One whose key was revoked since is counted no longer, but was when this one followed it.
        fields += ["snapshot_version", "previous"]
    entry = desk.workspace.entry(digest(record))
    entered = entry.time if entry else datetime.now(UTC).isoformat()
    if not ends_in_time(record, entered, datetime.max.replace(tzinfo=UTC)):
        advice = "The key of snapshots signed what `studbook publish` never asks for; look who holds it."
        text = f"is {record.expires}, more than {MOST_DAYS} days after the snapshot entered"
        raise DigestDiffers(text, where="snapshot: expires", advice=advice, reason="snapshot.expires")
    for field in fields:
        if getattr(record, field) != getattr(again, field):
            advice = "The record does not speak of this lab's channels. Publish again, and look who holds its key."
            text = f"{field} is not what the ledger says"
            raise DigestDiffers(text, where=f"snapshot: {field}", advice=advice, reason="snapshot.field")


def gather(desk: Desk, record: ChannelSnapshot) -> dict[str, bytes | Path]:
    """Every file of the publication of a snapshot that is the ledger's last entry; ``snapshot.json`` stands last.

    Raises:
        StudbookError: any of its kinds, if a file of the lab is not what was recorded.
    """
    workspace = desk.workspace
    lines = read_file(workspace.ledger.path, _LEDGER_LIMIT)[: workspace.ledger.length].split(b"\n")[:-1]
    places = {root_name(root.root_version): d for d, root in desk.all(Root)}
    places |= {record_name(d): d for d in record.revocations}
    files: dict[str, bytes | Path] = {}
    for held in record.channels:
        places |= {record_name(d): d for d in _papers(desk, held)}
        files[artifact_name(held.artifact.sha256)] = workspace.blob_path(held.artifact.sha256)
    for name, named in places.items():
        files[name], files[line_name(name)] = _sealed(desk, named, lines)
    leaves, start = [leaf_hash(line) for line in lines], 0
    for name, width in tile_names(len(leaves)):
        files[name] = b"".join(leaves[start : start + width])
        start += width
    note = read_file(workspace.ledger.checkpoint_path, POINTER_LIMIT).decode()
    envelope, line = _sealed(desk, digest(record), lines)
    files[POINTER] = canonical(Pointer(checkpoint=note, envelope=envelope.decode(), line=line.decode()))
    return files


def write(folder: Path, files: Mapping[str, bytes | Path]) -> int:
    """Bring a folder up to some files, in their order; what lies there already stays.

    Args:
        folder: The folder.
        files: Path in it -> bytes, or a file of the store, whose name is its SHA-256.

    Returns:
        How many files were written.

    Raises:
        DigestDiffers: if a file of the store is not what its name says.
        StudbookError: if the disk refuses; what was there before is whole.
    """
    count = 0
    for name, content in files.items():
        target = folder / name
        make_folder(target.parent)
        plain = target.is_file() and not target.is_symlink()
        if isinstance(content, bytes):
            if plain and hash_file(target) == (sha256(content).hexdigest(), len(content)):
                continue
            replace_file(target, content, 0o644)
        elif plain and hash_file(target)[0] == content.name:
            continue
        else:
            _copy(content, target)
        count += 1
    return count


def _sealed(desk: Desk, named: str, lines: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The envelope of a record as it was recorded, and its ledger line."""
    entry = desk.workspace.entry(named)
    assert entry is not None
    path = desk.workspace.record_path(entry)
    data = read_file(path, _ENVELOPE_LIMIT)
    if sha256(data).hexdigest() != entry.envelope.sha256:
        raise DigestDiffers("is not the envelope that was recorded", where=path)
    return data, lines[entry.sequence]


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    if copy_new(source, partial)[0] != source.name:
        partial.unlink()
        raise DigestDiffers("is not the file that was stored", where=source)
    partial.chmod(0o644)
    place(partial, target)


def _left_out(desk: Desk) -> dict[str, str]:
    """Channels that offer nothing although they point at something: channel -> why."""
    states = {name: state.artifact for name, state in desk.channels().items() if state.artifact}
    reasons = {name: desk.revoked(artifact) or kept_inside(desk, artifact) for name, artifact in states.items()}
    # Who is in a cohort is nobody's business outside.
    reasons |= dict.fromkeys(states.keys() & {"canary"}, "is on trial here")
    gone = desk.taken_back()
    for name, state in desk.channels().items() if gone else ():
        if state.artifact and state.record and not reasons[name]:
            held = _offered(desk, name, state)
            bad = sorted(rests_on(_get(desk, d) for d in _papers(desk, held)) & gone)
            reasons[name] = f"rests on record {bad[0][:16]}..., which was revoked" if bad else ""
    return {n: f"{n}: {desk.name_of(states[n])} {reason}" for n, reason in reasons.items() if reason}


def _offered(desk: Desk, name: str, state: ChannelState) -> PublishedChannel:
    assert state.artifact and state.record
    artifact = Blob(sha256=state.artifact, size=desk.workspace.blob_size(state.artifact))
    bare = PublishedChannel(channel=name, artifact=artifact, record=state.record, lineage=())  # type: ignore[arg-type]
    lineage = _lineage(desk, manifest_of(bare, lambda named: _get(desk, named)))
    return structs.replace(bare, lineage=lineage)


def _lineage(desk: Desk, own: CandidateManifest | SourceManifest) -> tuple[str, ...]:
    """The newest manifest of every model that one descends from; what was bred here is not taken for a source."""
    manifests = {a: d for a, (d, _) in desk.registered().items()}
    manifests |= {c.artifact.sha256: d for d, c in desk.candidates()}
    found, pending = set[str](), [own]
    while pending:
        current = pending.pop()
        if isinstance(current, SourceManifest):
            continue
        for artifact in desk.workspace.get(current.template, LineageTemplate).subjects():
            if (named := manifests.get(artifact)) and named not in found:
                found.add(named)
                pending.append(_get(desk, named))  # type: ignore[arg-type]
    return tuple(sorted(found))


def _papers(desk: Desk, held: PublishedChannel) -> tuple[str, ...]:
    return carried(held, lambda named: _get(desk, named))


def _get(desk: Desk, named: str) -> Record:
    entry = desk.workspace.entry(named)
    if entry is None:
        raise UsageError(f"the lab holds no record {named[:16]}...")
    return desk.workspace.get(named, KINDS[entry.record_kind])


def _check_target(desk: Desk, folder: Path) -> None:
    lab, target = Path(os.path.realpath(desk.workspace.path)), Path(os.path.realpath(folder))
    advice = "Name a new or empty folder outside the lab, or one that this lab published to."
    if target.is_relative_to(lab) or lab.is_relative_to(target):
        raise UsageError("lies in the lab, or holds it", where=folder, advice=advice, reason="usage.folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError("is not a folder", where=folder, advice=advice, reason="usage.folder")
    pointer = folder / POINTER
    if not pointer.exists():
        if folder.exists() and not {p.name for p in folder.iterdir()} <= {*PARTS, f"{POINTER}.partial"}:
            raise UsageError("holds something else", where=folder, advice=advice, reason="usage.folder")
        return
    found = peek(read_struct(read_file(pointer, POINTER_LIMIT), Pointer, pointer).envelope.encode(), pointer)
    if not isinstance(found, ChannelSnapshot) or found.lab != desk.workspace.root.lab:
        raise UsageError("is no publication of this lab", where=pointer, advice=advice, reason="usage.folder")
    if digest(found) not in desk.workspace:
        text = f"holds snapshot {found.snapshot_version}, which this lab never entered"
        advice = "The lab was put back to an older copy, or went on twice. Restore the newest copy of the lab."
        raise DigestDiffers(text, where=pointer, advice=advice, reason="snapshot.fork")
