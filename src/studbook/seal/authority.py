"""Who may sign what at one position of the ledger: the root in force there, less what was revoked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from studbook.errors import NotAuthorised
from studbook.records import KeyGrant, LedgerEntry, Record, Revocation, Root, Zone
from studbook.seal.roots import Signer, check_root

__all__ = ["Authority", "check_grants", "check_listed", "check_revocation", "keys_in_force", "revoked_since"]


class Authority(NamedTuple):
    """The authority at one position of the ledger; a value, so verifying needs no lab.

    Attributes:
        root: The root of keys in force; where the entry carries a root, that root.
        revocations: Every revocation that counts. For an entry that carries a revocation those before it, otherwise
            all, for a theft is often found later than it happened.
        position: Sequence number of the ledger entry that carries the envelope.
        day: The UTC day of that entry, YYYY-MM-DD. Empty means unknown; then only ledger entries, which carry their own
            time, are held against the root's expiry.
        previous: The root before ``root``, needed to verify a root after the first.
    """

    root: Root
    revocations: tuple[Revocation, ...] = ()
    position: int = 0
    day: str = ""
    previous: Root | None = None


class _Index(NamedTuple):
    """A root that keeps its rules, ready for look-ups."""

    grants: Mapping[str, KeyGrant]
    listed: frozenset[str]
    thresholds: Mapping[tuple[Zone, str], int]


# By identity, since every line asks and comparing equal roots takes longer than the look-up. The root is kept with its
# index, so that its identity stays its own.
_INDEXED: dict[int, tuple[Root, _Index]] = {}
_MOST_INDEXED = 16


def revoked_since(revocations: Iterable[Revocation], kind: str = "key") -> dict[str, int]:
    """Digest -> first ledger position at which it no longer counts, for one type of subject."""
    found: dict[str, int] = {}
    for record in revocations:
        if record.subject.type == kind:
            found[record.subject.digest] = min(record.since, found.get(record.subject.digest, record.since))
    return found


def keys_in_force(root: Root, revocations: Iterable[Revocation], position: int) -> tuple[KeyGrant, ...]:
    """The grants of a root that count at a position of the ledger, in the order of the root.

    Args:
        root: The root in force there.
        revocations: Those that count.
        position: Sequence number of a ledger entry.

    Raises:
        NotAuthorised: if the root breaks one of its rules.
    """
    gone = revoked_since(revocations)
    _index(root)
    return tuple(g for g in root.keys if gone.get(g.key, position + 1) > position)


def check_listed(keys: Sequence[str], authority: Authority, where: object) -> None:
    """Every signing key must be one that the root lists, or that the root before it listed.

    Raises:
        NotAuthorised: naming the first that is not; ``authority.unknown-key``.
    """
    listed = _index(authority.root).listed
    for key in keys:
        if key not in listed:
            text = f"signed by {key[:16]}..., which the root does not list"
            raise NotAuthorised(text, where=where, reason="authority.unknown-key")


def check_grants(record: Record, keys: Sequence[str], authority: Authority, where: object) -> tuple[Signer, ...]:
    """Whether keys that signed may sign this record, count at this position, and are enough people.

    Returns:
        Who signed.

    Raises:
        NotAuthorised: ``authority.zone``, ``authority.expired``, ``authority.revoked``, ``authority.threshold``.
    """
    root, kind = authority.root, record.kind()
    index = _index(root)
    grants = [index.grants[key] for key in keys if key in index.grants]
    outside = [grant.key for grant in grants if grant.zone != record.zone or kind not in grant.kinds]
    if outside or len(grants) != len(keys):
        key = outside[0] if outside else next(key for key in keys if key not in index.grants)
        text = f"key {key[:16]}... may not sign {kind} in zone {record.zone.value}"
        raise NotAuthorised(text, where=where, reason="authority.zone")
    day = authority.day or (record.time[:10] if isinstance(record, LedgerEntry) else "")
    if day > root.expires:
        raise NotAuthorised(
            f"the root of keys ended on {root.expires}, and this was signed on {day}",
            where=where,
            advice="Have the owners sign a new root: studbook key rotate.",
            reason="authority.expired",
        )
    if authority.revocations:
        _check_revoked(keys, authority, where)
    needed = index.thresholds.get((record.zone, kind), 1)
    # Key ids are key bytes and no key stands twice, so these are distinct keys; what is left to count is people.
    owners = {grant.owner for grant in grants}
    if len(owners) < needed:
        raise NotAuthorised(
            f"{len(owners)} of {needed} distinct owners signed this {kind}",
            where=where,
            advice="Have another owner sign it: studbook approve RECORD --as NAME.",
            reason="authority.threshold",
        )
    return tuple(Signer(grant.key, grant.owner) for grant in grants)


def check_revocation(record: Revocation, authority: Authority, where: object) -> None:
    """A root key is replaced by a new root, never revoked; and the ledger's own lines stand as they were witnessed.

    Raises:
        NotAuthorised: ``authority.revocation-root`` or ``authority.revocation-audit``.
    """
    key = record.subject.digest
    if record.subject.type != "key":
        return
    if any(k.key == key for k in authority.root.owners.keys):
        advice = "Have the owners sign a root without it: studbook key recover."
        text = "a root key is not revoked by a record that stands below the root"
        raise NotAuthorised(text, where=where, advice=advice, reason="authority.revocation-root")
    grant = _index(authority.root).grants.get(key)
    if grant is not None and grant.zone == Zone.AUDIT and record.since < authority.position:
        advice = (
            f"Revoke it from here on: --since {authority.position}, or further ahead where others write while it waits for "
            "signatures. The witness shows what the ledger held before."
        )
        text = "an audit key cannot be revoked for lines that were written already"
        raise NotAuthorised(text, where=where, advice=advice, reason="authority.revocation-audit")


def _check_revoked(keys: Sequence[str], authority: Authority, where: object) -> None:
    gone = revoked_since(authority.revocations)
    for key in keys:
        if key in gone and gone[key] <= authority.position:
            raise NotAuthorised(
                f"key {key[:16]}... is revoked since entry {gone[key]}, and this is entry {authority.position}",
                where=where,
                advice="Make and sign this again with a key that is in force.",
                reason="authority.revoked",
            )


def _index(root: Root) -> _Index:
    held = _INDEXED.get(id(root))
    if held is None:
        check_root(root)
        grants = {grant.key: grant for grant in root.keys}
        thresholds = {(t.zone, t.kind): t.owners for t in root.thresholds}
        listed = frozenset(grants) | {k.key for k in root.owners.keys}
        if len(_INDEXED) >= _MOST_INDEXED:
            _INDEXED.clear()
        held = _INDEXED[id(root)] = (root, _Index(grants, listed, thresholds))
    return held[1]
