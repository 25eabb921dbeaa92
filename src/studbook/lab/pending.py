"""What waits for more signatures: envelopes under ``policy/pending``, outside the ledger.

A record that takes more people than have signed it lies there until ``studbook approve RECORD --as NAME`` has brought it
to its threshold; only then it is committed. What waits changes nothing, and may be deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from studbook.errors import DigestDiffers, NotAuthorised, RecordRefused, StudbookError, UsageError, printable
from studbook.files import make_folder, read_file, replace_file
from studbook.lab import clock
from studbook.lab.desk import Desk
from studbook.lab.judge_owners import check_lock, lacking
from studbook.records import Record, Root, SuitesLock, digest
from studbook.records.doors import MAX_RECORD_BYTES
from studbook.seal import Signer, SigningKey, add_signature, peek, seal, signing_keys, unseal
from studbook.seal.envelope import check_signatures, open_envelope

__all__ = [
    "Check",
    "Signed",
    "accept",
    "approve_pending",
    "read_waiting",
    "require_key",
    "sign",
    "signers_here",
    "waiting",
    "waits",
]

# Refuses a record by these signers at this time, in UTC; see `studbook.lab.entering`.
Check = Callable[[Desk, Record, Sequence[Signer], datetime], None]
# What one more signature can still mend.
_SHORT = frozenset(("authority.threshold", "authority.root-threshold", "authority.root-old-threshold"))
_FILE = re.compile(r"[0-9a-f]{64}\.json")


class Signed(Struct, frozen=True):
    """What became of a record that people sign.

    Attributes:
        record: The record.
        digest: Its digest; the name under which it waits.
        committed: Whether it reached its threshold and is in the ledger.
        waiting: What it still lacks, in words; empty once committed.
    """

    record: Record
    digest: str
    committed: bool
    waiting: str


def waiting(desk: Desk) -> dict[str, Path]:
    """Every record that waits for signatures: digest -> file, in order of digest. Other files do not count."""
    folder = desk.workspace.pending
    found = sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    return {p.stem: p for p in found if _FILE.fullmatch(p.name) and p.is_file() and not p.is_symlink()}


def waits(desk: Desk, name: str) -> list[str]:
    """Digests of the records that wait under a name: a digest, or the first eight or more digits of one."""
    return [d for d in waiting(desk) if d.startswith(name)] if re.fullmatch(r"[0-9a-f]{8,64}", name) else []


def sign(desk: Desk, record: Record, person: str | None) -> Signed:
    """Sign a record as a person: it is committed if that is enough, and waits otherwise.

    Args:
        desk: The lab.
        record: What to sign.
        person: Who signs; whoever's key is at hand if nobody is named, which a root does not allow.

    Raises:
        NotAuthorised: if the person's key is not at hand, or no further signature could make the record count.
        StudbookError: any of its kinds, if the lab refuses the record.
    """
    return _settle(desk, record, seal(record, *signers_here(desk, record, person)))


def accept(desk: Desk, envelope: bytes, kinds: tuple[type[Record], ...], check: Check) -> Signed:
    """Take in a record that was signed elsewhere, by the same checks as what is signed here.

    Args:
        desk: The lab.
        envelope: The record with its signatures.
        kinds: What it may be.
        check: Refuses a record with enough signatures that the lab does not carry.

    Raises:
        NotAuthorised: if no further signature could make it count.
        RecordRefused: if it is of another kind; ``pending.kind``.
        StudbookError: any of its kinds, if the lab refuses it.
    """
    where = "the signed record"
    record = peek(envelope, where)
    if not isinstance(record, kinds):
        known = " or ".join(kind.kind() for kind in kinds)
        raise RecordRefused(f"is no {known}", where=where, advice="Sign it in the lab itself.", reason="pending.kind")
    return _settle(desk, record, envelope, check)


def approve_pending(desk: Desk, name: str, person: str, check: Check | None = None) -> Signed:
    """A person signs a record that waits; with the last signature it takes, it is committed.

    Args:
        desk: The lab.
        name: Its digest, or the first eight or more digits of it.
        person: Who signs. One who signed already signs nothing anew, but what has enough signatures is committed.
        check: Refuses a record with enough signatures that the lab, which went on meanwhile, does not carry any more.

    Raises:
        UsageError: if nothing of that name waits.
        DigestDiffers: if the waiting file holds another record than its name says.
        NotAuthorised: if the person's key is not at hand, or no further signature could make the record count.
    """
    there, found = waiting(desk), waits(desk, name)
    if len(found) != 1:
        text = "is not the name of one record that waits"
        raise UsageError(text, where=printable(name), advice=f"They lie in {desk.workspace.pending}.")
    path = there[found[0]]
    record, data = read_waiting(path)
    already = signing_keys(data, path)
    for key in signers_here(desk, record, person):
        if key.public not in already:
            data = add_signature(data, key, path)
    return _settle(desk, record, data, check)


def read_waiting(path: Path) -> tuple[Record, bytes]:
    """A record that waits, and its envelope; whether whoever signed it may is asked when it enters.

    Raises:
        DigestDiffers: if it is another record than its name says.
        NotAuthorised: if a signature does not verify.
        StudbookError: any of its kinds, if it is no envelope of a record.
    """
    data = read_file(path, MAX_RECORD_BYTES)
    record = peek(data, path)
    if digest(record) != path.stem:
        advice = "Delete it, and propose the change again."
        raise DigestDiffers("holds another record than its name says", where=path, advice=advice)
    check_signatures(open_envelope(data, path), path)
    return record, data


def signers_here(desk: Desk, record: Record, person: str | None) -> list[SigningKey]:
    """The keys at hand with which a person signs a record; for a root, all their root keys in it and in the one before.

    Raises:
        NotAuthorised: if there is none.
    """
    now, ring = desk.workspace.authority(record.kind()), desk.workspace.keys
    if not isinstance(record, Root):
        return [ring.find(now, record.zone, record.kind(), person)]
    allowed = {k.key for root in (now.root, record) for k in root.owners.keys if k.owner == person}
    if found := ring.held(allowed):
        return found
    advice = "Name the folder that holds the key with --keys, or ask its owner to do this step."
    text = f"no root key of {printable(person)} is here"
    raise NotAuthorised(text, where=ring.folder, advice=advice, reason="authority.key-missing")


def require_key(desk: Desk, *kinds: type[Record], person: str | None = None) -> None:
    """Refuse, before long work, what nobody here could sign at its end; a passphrase is asked for now.

    Args:
        desk: The lab.
        kinds: What the work writes.
        person: Whose key it takes; anybody's at hand by default.

    Raises:
        NotAuthorised: if there is no such key, or the root of keys has ended.
    """
    for kind in kinds:
        desk.workspace.keys.find(desk.workspace.authority(kind.kind()), kind.zone, kind.kind(), person)


def _settle(desk: Desk, record: Record, envelope: bytes, check: Check | None = None) -> Signed:
    """Commit a record that enough people signed; let it wait otherwise."""
    name = digest(record)
    path = desk.workspace.pending / f"{name}.json"
    try:
        sealed = unseal(envelope, desk.workspace.authority(record.kind()), path)
    except NotAuthorised as error:
        if error.reason not in _SHORT:
            raise
        make_folder(path.parent)
        replace_file(path, envelope)
        return Signed(record, name, False, error.message)
    if short := lacking(desk, record, sealed.signers):
        make_folder(path.parent)
        replace_file(path, envelope)
        return Signed(record, name, False, short)
    # A crash may have come between its commit and the end of its file: what is in the ledger entered by these checks.
    new = name not in desk.workspace
    if check is not None and new:
        check(desk, record, sealed.signers, clock.now())
    if path.exists():
        # Whoever signs last may not hold the audit key: what they signed is kept for the one who does.
        replace_file(path, envelope)
    if isinstance(record, SuitesLock) and new:
        check_lock(desk, record, path)
    desk.workspace.commit(record, envelope=envelope)
    path.unlink(missing_ok=True)
    if isinstance(record, Root | SuitesLock):
        _drop_overtaken(desk, type(record))
    return Signed(record, name, True, "")


def _drop_overtaken(desk: Desk, kind: type[Record]) -> None:
    """Remove what waits of a kind: what it wanted to follow is no longer in force, so it can never count."""
    for path in waiting(desk).values():
        # What cannot be read is nobody's proposal; verify names it.
        with suppress(StudbookError):
            if isinstance(peek(read_file(path, MAX_RECORD_BYTES), path), kind):
                path.unlink()
