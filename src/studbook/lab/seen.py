"""What was seen of a lab before, and what may follow it. Values in, refusals out; no file is touched.

Whoever shows an older state, another past, or a version that cannot be, is refused. What was seen stops counting only
when the key that signed it does: then a thief with that key may have shown it, and the lab must be able to come back
(the recovery from a fast-forward attack in The Update Framework 1.0, section 5.3.11).
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from studbook.errors import BytesLie, DigestDiffers, StudbookError
from studbook.ledger.merkle import Tree
from studbook.ledger.note import read_checkpoint
from studbook.records import ChannelSnapshot, Digest, digest, read_struct

__all__ = ["Seen", "hold_against", "read_seen"]

_ADVICE = "Somebody shows an old or another state of the lab. Nothing was changed; ask whoever runs it."


class Seen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="pull-state/1"):
    """What was seen of a lab before; a file of another version has another ``kind``.

    Attributes:
        lab: Its identity.
        root_version: Version of the newest root of keys.
        root: Digest of that root.
        snapshot_version: Version of the newest snapshot.
        snapshot: Digest of that snapshot.
        position: Its ledger position.
        signers: The keys that signed it.
        checkpoint: The signed checkpoint that ends with it.
        audit_key: The key that signed the checkpoint.
        revocations: Digests of the revocations it listed.
        source: Where it was read from.
    """

    lab: Digest
    root_version: int
    root: Digest
    snapshot_version: int
    snapshot: Digest
    position: int
    signers: tuple[Digest, ...]
    checkpoint: str
    audit_key: Digest
    revocations: tuple[Digest, ...]
    source: str


def read_seen(data: bytes, where: object) -> Seen:
    """What a file says that was seen.

    Raises:
        BytesLie: if it cannot be read, or is of another version; ``pull.state``.
    """
    try:
        found = read_struct(data, Seen, where)
        read_checkpoint(found.checkpoint.encode(), where)
    except StudbookError as error:
        advice = (
            "Put it back from a copy, or use the version of studbook that wrote it. Without it pull works, and takes the "
            "first state it is shown for the newest, however old: remove it only where you can tell otherwise."
        )
        text = f"what was seen of the lab cannot be read: {error.message}"
        raise BytesLie(text, where=where, advice=advice, reason="pull.state") from error
    return found


def hold_against(
    seen: Seen | None, new: ChannelSnapshot, tree: Tree, keys: Collection[str], where: object
) -> tuple[str, ...]:
    """Refuse a snapshot that cannot follow what was seen.

    Args:
        seen: What was seen; None the first time.
        new: A snapshot whose signature was verified.
        tree: The tree of its checkpoint.
        keys: Public keys in force at its position.
        where: Its file, for errors.

    Returns:
        What a person should know, in sentences.

    Raises:
        DigestDiffers: ``pull.rollback`` (older), ``pull.fork`` (another past), ``pull.revocations`` (one was dropped), or
            ``pull.fast-forward`` (a version for which the ledger has no room: each one is an entry of its own).
    """
    version, position, notes = 0, 0, []
    if seen is not None:
        try:
            _check_past(seen, tree, where)
        except DigestDiffers as error:
            if seen.audit_key in keys:
                raise
            notes.append(
                f"What was seen before is given up, for the audit key that signed it is gone: {error.message}."
            )
        try:
            _check_version(seen, new, where)
            version, position = seen.snapshot_version, seen.position
        except DigestDiffers as error:
            if set(seen.signers) <= set(keys):
                raise
            notes.append(f"Versions are counted anew, for the key that signed the last one is gone: {error.message}.")
    if new.snapshot_version - version > max(new.entries - position, 0):
        text = f"version {new.snapshot_version} cannot follow version {version}: the ledger has no room for it"
        raise _refused(text, "pull.fast-forward", where)
    return tuple(notes)


def _check_past(seen: Seen, tree: Tree, where: object) -> None:
    old = read_checkpoint(seen.checkpoint.encode(), "the checkpoint seen last")[0]
    if old.size > tree.size:
        text = f"its ledger has {tree.size} entries, and {old.size} were seen before"
        raise _refused(text, "pull.rollback", where)
    if tree.root(old.size) != old.root:
        raise _refused(f"its first {old.size} ledger entries are not those seen before", "pull.fork", where)


def _check_version(seen: Seen, new: ChannelSnapshot, where: object) -> None:
    if new.snapshot_version < seen.snapshot_version:
        text = f"is version {new.snapshot_version}, and version {seen.snapshot_version} was seen before"
        raise _refused(text, "pull.rollback", where)
    if new.snapshot_version == seen.snapshot_version and digest(new) != seen.snapshot:
        raise _refused(f"is another version {new.snapshot_version} than the one seen before", "pull.fork", where)
    if not set(seen.revocations) <= set(new.revocations):
        raise _refused("leaves out a revocation that was seen before", "pull.revocations", where)


def _refused(text: str, reason: str, where: object) -> DigestDiffers:
    return DigestDiffers(text, where=where, advice=_ADVICE, reason=reason)
