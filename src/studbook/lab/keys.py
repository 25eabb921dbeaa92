"""The lab's keys: who may sign what, changed only by the owners together.

A change is a record: a new root, or a revocation. Where one person is not enough it waits (`studbook.lab.pending`)
until enough of them signed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import count
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace as with_fields

from studbook.errors import NotAuthorised, UsageError, printable
from studbook.lab.channels import finish_aliases
from studbook.lab.desk import Desk
from studbook.lab.founding import LIFETIME
from studbook.lab.pending import Signed, sign, signers_here
from studbook.lab.words import plain_name, plain_text
from studbook.records import (
    KINDS,
    DataSource,
    KeyGrant,
    OwnerKey,
    Owners,
    Revocation,
    RevokedSubject,
    Root,
    SourceManifest,
    Threshold,
    Zone,
    replace,
)
from studbook.seal import PEOPLES_KINDS, SigningKey, check_root, keys_in_force

__all__ = ["Keys"]

_HEX = re.compile(r"[0-9a-f]{8,64}")
_ROOT = Root.kind()
# Entries that may be written while the revocation of an audit key waits for signatures.
_AHEAD = 10_000
_FOLDERS = {"person": "people", "process": "process"}


class Keys:
    """The facet behind ``studbook key``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def new(
        self,
        owner: str,
        kinds: Sequence[str],
        person: str,
        public: str | None = None,
        passphrase: bytes | None = None,
    ) -> Signed:
        """List a key of somebody for some kinds of record; ``root/1`` makes it a root key.

        Args:
            owner: Who answers for the key.
            kinds: The kinds it shall sign, all of one zone.
            person: Who proposes it; their root key signs.
            public: The public key, 64 hex digits, that the owner handed over; made in this ring otherwise.
            passphrase: The new key file is encrypted with it, if given.

        Raises:
            UsageError: if a kind does not exist, or two belong to different zones.
            NotAuthorised: if the person holds no root key here, or the new root would break a rule.
        """
        plain_name(owner, "OWNER")
        zone = _zone_of(kinds)
        desk, root = self._desk, self._desk.workspace.authority().root
        holder: Literal["person", "process"] = "person" if {*kinds} & {*PEOPLES_KINDS, _ROOT} else "process"

        def listed(key: str) -> Root:
            if _ROOT in kinds:
                return _next(desk, owners=_with_owners(root, (*root.owners.keys, OwnerKey(key=key, owner=owner))))
            grant = KeyGrant(key=key, owner=owner, holder=holder, zone=zone, kinds=tuple(kinds))
            return _next(desk, keys=(*root.keys, grant))

        stem = f"{_FOLDERS[holder]}/{zone.value}/{owner.replace('/', '_')}"
        return _propose(desk, listed, stem, person, public, passphrase)

    def rotate(
        self,
        person: str,
        key: str | None = None,
        *,
        owner: str | None = None,
        public: str | None = None,
        needs: Mapping[str, int] | None = None,
        until: str = "",
        passphrase: bytes | None = None,
    ) -> Signed:
        """Sign the next root: a later end, and if wanted one key replaced, and other thresholds.

        Args:
            person: Who proposes it; their root key signs.
            key: The key to replace: its path in the ring, or the start of its public key. None replaces no key.
            owner: Who owns the new key; the owner of the old one by default.
            public: The new public key, 64 hex digits; made in this ring otherwise.
            needs: Kind of record -> how many distinct owners it takes from now on; ``root/1`` for the root itself.
            until: Last day of the new root, YYYY-MM-DD; two years from today by default.
            passphrase: A new key file is encrypted with it, if given.

        Raises:
            UsageError: if no such key is listed, or a kind does not exist.
            NotAuthorised: if the person holds no root key here, or the new root would break a rule.
        """
        root = _with_needs(_next(self._desk, until), needs or {})
        if key is None:
            return sign(self._desk, root, person)
        owner = plain_name(owner, "--owner") if owner else None
        return self._replace(root, self._find(key), owner, person, public, passphrase)

    def revoke(self, what: str, person: str, reason: str, since: int | None = None) -> Signed:
        """Say that a key, an artifact, a data manifest or a record counts no longer; never undone.

        Args:
            what: A key (its path in the ring, or the start of its public key), or the name or digest of something here.
            person: Who revokes; their policy key signs.
            reason: Why, for people.
            since: Ledger position from which on a key's signatures do not count; from here on by default. Only for an audit
                key may it lie ahead: its revocation cannot reach back, and may wait for signatures while others write.

        Raises:
            UsageError: if there is no such thing, or a position is named that means nothing for it.
            NotAuthorised: if it is a root key, or a key without which something could no longer be signed.
        """
        desk = self._desk
        here, subject = len(desk.entries()), self._subject(what)
        _check_since([root for _, root in desk.all(Root)], subject, since, here)
        record = Revocation(
            header=desk.header,
            subject=subject,
            reason=plain_text(reason, "--reason"),
            since=here if since is None else since,
        )
        if record.subject.type == "key":
            _check_replaced(desk.workspace.authority().root, [r for _, r in desk.all(Revocation)], record, here)
        signed = sign(desk, record, person)
        if signed.committed:
            # What it made void may be what an alias still names.
            finish_aliases(desk)
        return signed

    def recover(
        self, key: str, person: str, *, public: str | None = None, drop: bool = False, passphrase: bytes | None = None
    ) -> Signed:
        """After a root key was lost or stolen: a root without it, signed by the owners who remain.

        Args:
            key: The root key that is gone: its path in the ring, or the start of its public key.
            person: Who proposes it; another root key of theirs signs.
            public: The new public key of the same owner, 64 hex digits; made in this ring otherwise.
            drop: Put no key in its place.
            passphrase: A new key file is encrypted with it, if given.

        Raises:
            UsageError: if it is not a root key.
            NotAuthorised: if too few owners remain to sign a root; then nobody can, and that is the point of a root.
        """
        root, lost = _next(self._desk), self._find(key)
        left = tuple(k for k in root.owners.keys if k.key != lost)
        if len(left) == len(root.owners.keys):
            advice = "Replace it: studbook key rotate. Then, if it was stolen: studbook key revoke."
            raise UsageError("is not a root key", where=printable(key), advice=advice)
        people = {k.owner for k in left}
        if len(people) < root.owners.threshold:
            raise NotAuthorised(
                f"owners left: {len(people)}; a root of this lab takes {root.owners.threshold}",
                where=printable(key),
                advice="Restore the key from a backup. Without it, export what matters and make a new lab.",
                reason="authority.beyond-recovery",
            )
        if drop:
            return sign(self._desk, replace(root, owners=_with_owners(root, left)), person)
        return self._replace(root, lost, None, person, public, passphrase)

    def _replace(
        self, root: Root, old: str, owner: str | None, person: str, public: str | None, passphrase: bytes | None
    ) -> Signed:
        """A root in which one key stands wherever another one stood, signed and settled."""

        def listed(key: str) -> Root:
            def instead(entry: Any) -> Any:
                return with_fields(entry, key=key, owner=owner or entry.owner) if entry.key == old else entry

            owners = _with_owners(root, [instead(k) for k in root.owners.keys])
            changed: Root = replace(root, owners=owners, keys=tuple(instead(g) for g in root.keys))
            return changed

        grant = next((g for g in root.keys if g.key == old), None)
        named = owner or _owner_of(root)[old]
        folder, zone = _FOLDERS[grant.holder if grant else "person"], grant.zone if grant else Zone.POLICY
        stem = self._desk.workspace.keys.name_of(old) or f"{folder}/{zone.value}/{named.replace('/', '_')}"
        return _propose(self._desk, listed, re.sub(r"-\d+\Z", "", stem), person, public, passphrase)

    def _find(self, key: str) -> str:
        """A listed public key by its path in the ring or the start of its hex digits."""
        root = self._desk.workspace.authority().root
        listed = set(_owner_of(root))
        found = {k for k in listed if _HEX.fullmatch(key) and k.startswith(key)}
        if not found and not _HEX.fullmatch(key):
            found = {self._desk.workspace.keys.public_of(plain_name(key, "KEY")) or ""} & listed
        if len(found) != 1:
            advice = "`studbook list root` lists the keys; name one by the first digits of its public key."
            raise UsageError("is not one key that the root lists", where=printable(key), advice=advice)
        return found.pop()

    def _subject(self, what: str) -> RevokedSubject:
        desk = self._desk
        once = {key for _, root in desk.all(Root) for key in _owner_of(root)}
        public = what if _HEX.fullmatch(what) else desk.workspace.keys.public_of(plain_name(what, "WHAT")) or ""
        if keys := [k for k in once if public and k.startswith(public)]:
            if len(keys) > 1:
                raise UsageError("is the start of more than one key", where=what, advice="Give more digits.")
            return RevokedSubject(type="key", digest=keys[0])
        if entry := desk.workspace.entry(what):
            data = entry.record_kind == SourceManifest.kind() and isinstance(
                desk.workspace.get(what, SourceManifest).source, DataSource
            )
            return RevokedSubject(type="data" if data else "record", digest=what)
        return RevokedSubject(type="artifact", digest=desk.find_model(what))


def _owner_of(root: Root) -> dict[str, str]:
    """Every key that a root lists, with its owner."""
    return {k.key: k.owner for k in root.owners.keys} | {g.key: g.owner for g in root.keys}


def _day(text: str) -> str:
    try:
        found = date.fromisoformat(text).isoformat()
    except ValueError:
        found = ""
    if found != text:
        raise UsageError(f"{printable(text)!r} is not a day such as 2027-01-31", where="--until")
    return text


def _next(desk: Desk, until: str = "", **changes: Any) -> Root:
    """The root after the one in force, with fields changed; it ends two years from today if nothing is said."""
    root = desk.workspace.authority().root
    day = until or max((datetime.now(UTC).date() + LIFETIME).isoformat(), root.expires)
    following: Root = replace(
        root, header=desk.header, root_version=root.root_version + 1, expires=_day(day), **changes
    )
    return following


def _with_owners(root: Root, keys: Sequence[OwnerKey]) -> Owners:
    return Owners(keys=tuple(keys), threshold=root.owners.threshold)


def _with_needs(root: Root, needs: Mapping[str, int]) -> Root:
    """The root with other numbers of people for some kinds of record."""
    thresholds = {t.kind: t for t in root.thresholds}
    owners = root.owners
    for kind, people in needs.items():
        if not 1 <= people <= 100:
            raise UsageError(f"{people} is not a number of people from 1 to 100", where=printable(kind))
        if kind == _ROOT:
            owners = Owners(keys=owners.keys, threshold=people)
        else:
            thresholds[kind] = Threshold(zone=_zone_of([kind]), kind=kind, owners=people)
    kept = tuple(thresholds[kind] for kind in sorted(thresholds) if thresholds[kind].owners > 1)
    changed: Root = replace(root, owners=owners, thresholds=kept)
    return changed


def _zone_of(kinds: Sequence[str]) -> Zone:
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        advice = f"Kinds: {', '.join(sorted(KINDS))}."
        raise UsageError(f"{printable(unknown[0])!r} is not a kind of record", where="--kind", advice=advice)
    zones = {KINDS[kind].zone for kind in kinds}
    if len(zones) != 1 or (_ROOT in kinds and len(kinds) > 1):
        advice = "Make a key for each zone; a root key signs roots only."
        raise UsageError("a key signs for one zone", where="--kind", advice=advice)
    return zones.pop()


def _propose(
    desk: Desk, listed: Callable[[str], Root], stem: str, person: str, public: str | None, passphrase: bytes | None
) -> Signed:
    """Make the key that a new root shall list, unless it was handed over, and sign that root."""
    root = desk.workspace.authority().root
    signers_here(desk, root, person)
    if public is not None and not re.fullmatch(r"[0-9a-f]{64}", public):
        raise UsageError("is not a public key of 64 hex digits", where="--public")
    # Refused on a trial, before a key file is made for nothing.
    check_root(listed(public or SigningKey(Ed25519PrivateKey.generate()).public))
    if public is None:
        ring = desk.workspace.keys
        numbers = count(root.root_version + 1)
        name = next(n for n in (f"{stem}-{number}" for number in numbers) if not (ring.folder / f"{n}.pem").exists())
        public = ring.create(name, passphrase).public
    return sign(desk, listed(public), person)


def _check_since(roots: Sequence[Root], subject: RevokedSubject, since: int | None, here: int) -> None:
    """Which positions mean something: any up to now for a key, for an audit key any from now on, none for other things.

    Until a position that lies ahead a thief could sign; and what an audit key wrote is what everybody has seen.

    Raises:
        UsageError: if the one that is named does not.
    """
    if since is None:
        return
    if subject.type != "key":
        text = f"only a key is revoked from a position on; this is an {subject.type}"
        raise UsageError(text, where="--since", advice="Leave --since out: it counts no longer at once.")
    audit = any(g.key == subject.digest and g.zone == Zone.AUDIT for root in roots for g in root.keys)
    low, high = (here, here + _AHEAD) if audit else (0, here)
    if not low <= since <= high:
        text = f"the ledger has {here} entries; this key can be revoked from an entry between {low} and {high} on"
        raise UsageError(text, where="--since", advice=f"Leave it out: from entry {here} on.")


def _check_replaced(root: Root, revocations: Sequence[Revocation], record: Revocation, position: int) -> None:
    """Whether what a key signs can still be signed without it."""
    needed = {(t.zone, t.kind): t.owners for t in root.thresholds}
    before = keys_in_force(root, revocations, position)
    left = keys_in_force(root, [*revocations, record], max(position, record.since))
    for grant in [g for g in before if g.key == record.subject.digest]:
        for kind in grant.kinds:
            people = {g.owner for g in left if g.zone == grant.zone and kind in g.kinds}
            if len(people) < needed.get((grant.zone, kind), 1):
                raise NotAuthorised(
                    f"without this key too few people could sign {kind}",
                    where=grant.key,
                    advice="Put a new key in its place first: studbook key rotate.",
                    reason="authority.revocation-last",
                )
