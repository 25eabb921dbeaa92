"""Bringing a channel's artifact to a machine that has no lab: verified first, put in place in one step, never half.

The folder holds the artifact, ``CHANNEL.slm``; the records that carry it there with proofs, ``CHANNEL.records.json``; and
``.studbook/``, what was seen of the lab so far. What was seen is kept as soon as the publication was verified, so that an
older one is refused also after a download that failed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder, UsageError
from studbook.files import hash_file, lock_folder, make_folder, place, read_file, replace_file, write_new
from studbook.lab.beside import look, write_beside
from studbook.lab.consumer import Publication
from studbook.lab.mirror import Reader, open_mirror
from studbook.lab.progress import Progress, Silent
from studbook.lab.publication import artifact_name, carried, rests_on
from studbook.lab.seen import Seen, read_seen
from studbook.records import PublishedChannel, RollbackRecord, canonical

__all__ = ["Pulled", "Request", "pull"]

_STATE_LIMIT = 8 << 20
_PIN_LIMIT = 1 << 20


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        channel: ``shadow`` or ``champion``.
        folder: Where it shall lie.
        root: File of the sealed root of keys that somebody handed over.
        source: Folder or address of the publication; empty means where it came from last.
        allow_remote: Take addresses of other machines too.
    """

    channel: str
    folder: Path
    root: Path
    source: str = ""
    allow_remote: bool = False


class Pulled(Struct, frozen=True):
    """What was pulled.

    Attributes:
        channel: The channel.
        artifact: SHA-256 of the artifact.
        size: Its bytes.
        file: Where it lies.
        records: File of the records that carry it there.
        outcome: ``installed``; ``refreshed`` where a newer snapshot offers the same artifact; ``unchanged``.
        version: Version of the snapshot.
        expires: When it ends, UTC.
        entries: Ledger entries that its checkpoint covers.
        root_version: Version of the root of keys.
        moved_by: Kind of the record that moved the channel there.
        notes: What a person should know, in sentences.
    """

    channel: str
    artifact: str
    size: int
    file: str
    records: str
    outcome: str
    version: int
    expires: str
    entries: int
    root_version: int
    moved_by: str
    notes: tuple[str, ...]


def pull(request: Request, progress: Progress | None = None) -> Pulled:
    """Verify a publication and bring one channel's artifact to a folder.

    Args:
        request: What is asked for.
        progress: Where the download is shown; nowhere by default.

    Raises:
        UsageError: if there is no such file, folder or address.
        OutOfOrder: if the channel offers nothing; ``pull.channel``.
        NotAuthorised: if what it offers was revoked (``pull.revoked``), has ended, or is signed by a key that may not.
        DigestDiffers: if anything is not what the signed records say, or older than what was seen.
        OverBudget: if a server gives more than it may, or takes too long.
        Busy: if another process pulls into the same folder.
        StudbookError: any of its kinds; the artifact that was there before still is.
    """
    own = request.folder / ".studbook"
    for folder in (request.folder, own):
        if (folder.is_symlink() and folder == own) or (folder.exists() and not folder.is_dir()):
            raise UsageError("is not a folder", where=folder, advice="Name a new folder.", reason="usage.folder")
    pin = read_file(request.root, _PIN_LIMIT)
    make_folder(own)
    lock = lock_folder(own, own / "lock", exclusive=True)
    try:
        seen = _read_state(own / "state.json")
        source = request.source or (seen.source if seen else "")
        if not source:
            advice = "Name the folder that `studbook publish` wrote, or its address: --from PLACE."
            raise UsageError("is not known: nothing was pulled here before", where="--from", advice=advice)
        reader = open_mirror(source, allow_remote=request.allow_remote)
        if Path(source).is_dir():
            # The next pull may be asked for from another folder.
            source = str(Path(source).absolute())
        found = Publication(reader, pin, request.root, datetime.now(UTC), seen)
        _keep(own / "state.json", canonical(found.seen(source)))
        return _install(request, reader, found, progress or Silent())
    finally:
        os.close(lock)


def _install(request: Request, reader: Reader, found: Publication, progress: Progress) -> Pulled:
    file = request.folder / f"{request.channel}.slm"
    records = request.folder / f"{request.channel}.records.json"
    held = _offered(found, request.channel, file, records)
    evidence = carried(held, found.get)
    _check_order(found, evidence)
    if reason := found.revoked(rests_on(map(found.get, evidence))):
        raise _revoked(f"{request.channel} offers what counts no longer: {reason}", reader.name)
    fresh = not _is(file, held.artifact.sha256, held.artifact.size)
    if fresh:
        _download(reader, held, request.folder / ".studbook" / "artifact.partial", file, progress)
    changed = _keep(records, write_beside(found, held, evidence))
    move = found.get(held.record)
    notes = list(found.notes)
    if isinstance(move, RollbackRecord):
        why = f": {move.reason}" if move.reason else ""
        notes.append(f"The lab went back to this artifact on {found.show(held.record).entry.time[:10]}{why}.")
    return Pulled(
        channel=request.channel,
        artifact=held.artifact.sha256,
        size=held.artifact.size,
        file=str(file),
        records=str(records),
        outcome="installed" if fresh else "refreshed" if changed else "unchanged",
        version=found.snapshot.snapshot_version,
        expires=found.snapshot.expires,
        entries=found.checkpoint.size,
        root_version=found.snapshot.root_version,
        moved_by=move.kind(),
        notes=tuple(notes),
    )


def _offered(found: Publication, channel: str, file: Path, records: Path) -> PublishedChannel:
    """What a channel offers; where it offers nothing, whether what lies here, or what it rests on, was revoked."""
    offered = [c for c in found.snapshot.channels if c.channel == channel]
    if len(offered) == 1:
        return offered[0]
    here = look(file, records)
    if reason := found.revoked(here.rests):
        raise _revoked(f"the lab offers nothing in its place: {reason}", file)
    text = f"snapshot {found.snapshot.snapshot_version} offers nothing in {channel}"
    advice = "Ask whoever runs the lab; what was pulled before stays where it is."
    if here.rests and (new := set(found.snapshot.revocations) - here.known):
        advice = (
            f"Do not use {file.name} before you asked whoever runs the lab: revocations came since it was pulled "
            f"({len(new)}), and its records do not say whether one of them concerns it."
        )
    raise OutOfOrder(text, where=found.reader.name, advice=advice, reason="pull.channel")


def _check_order(found: Publication, evidence: tuple[str, ...]) -> None:
    """Every record stands in the ledger behind those it cites, and before the snapshot."""
    places = {named: found.show(named).entry.sequence for named in evidence}
    for named, place_ in places.items():
        later = [d for d in found.get(named).references() if places.get(d, -1) >= place_]
        if later or place_ >= found.snapshot.entries:
            text = "cites what entered after it"
            raise DigestDiffers(text, where=found.reader.where(named), reason="pull.evidence")


def _download(reader: Reader, held: PublishedChannel, partial: Path, target: Path, progress: Progress) -> None:
    """Hash the artifact as it comes, never more of it than its record says, and put it in place when it is whole."""
    name, (sha, size) = artifact_name(held.artifact.sha256), (held.artifact.sha256, held.artifact.size)
    hasher, count = sha256(), 0
    partial.unlink(missing_ok=True)
    with progress.measure(f"fetching {held.channel}", size) as shown:

        def pieces() -> Iterator[bytes]:
            nonlocal count
            for piece in reader.stream(name, size):
                hasher.update(piece)
                count += len(piece)
                shown(len(piece))
                yield piece
            if count != size:
                raise reader.short(name, count, size)
            if hasher.hexdigest() != sha:
                advice = "Do not use this copy. Fetch it again from whoever runs the lab."
                text = "is not the artifact that the snapshot names"
                raise DigestDiffers(text, where=reader.where(name), advice=advice, reason="pull.artifact")

        write_new(partial, pieces(), 0o644)
    place(partial, target)


def _keep(path: Path, data: bytes) -> bool:
    """Replace a file unless it holds these bytes already; whether it was replaced."""
    if _is(path, sha256(data).hexdigest(), len(data)):
        return False
    replace_file(path, data, 0o644)
    return True


def _is(path: Path, digest_: str, size: int) -> bool:
    plain = path.is_file() and not path.is_symlink() and path.stat().st_size == size
    return plain and hash_file(path)[0] == digest_


def _read_state(path: Path) -> Seen | None:
    if not path.exists() and not path.is_symlink():
        return None
    return read_seen(read_file(path, _STATE_LIMIT), path)


def _revoked(text: str, where: object) -> NotAuthorised:
    advice = "Do not use it any more. A revocation is never undone; ask whoever runs the lab what takes its place."
    return NotAuthorised(text, where=where, advice=advice, reason="pull.revoked")
