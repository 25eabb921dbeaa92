"""Opening an envelope: one pipeline without any I/O, every step with a reason of its own.

1. size, strict JSON, canonical bytes, payload type, list of signatures   `open_envelope`
2. every signing key is listed, and every signature verifies               `check_listed`, `check_signatures`
3. the statement is canonical and holds one known record                   `read_statement`
4. zone and kind are granted, the root has not expired, no key is revoked,
   enough distinct people signed                                           `check_grants`
5. the statement's subjects are those of the record                        `Statement.require_bound`

What the record cites and what the policy says about it is for the lab, which has the ledger. A root of keys is signed
by root keys: as many owners as it says itself and as many as the root before it said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studbook.errors import NotAuthorised, RecordRefused
from studbook.records import Owners, Record, Revocation, Root
from studbook.seal.authority import Authority, check_grants, check_listed, check_revocation
from studbook.seal.envelope import check_signatures, open_envelope
from studbook.seal.roots import Signer, check_root
from studbook.seal.statement import Statement, read_statement, speaks_of_root

__all__ = ["Sealed", "follow_root", "open_root", "unseal"]


class Sealed(NamedTuple):
    """What came out of a verified envelope.

    Attributes:
        record: The record.
        digest: Its digest.
        signers: Who signed it, in the order of their keys.
    """

    record: Record
    digest: str
    signers: tuple[Signer, ...]

    @property
    def owners(self) -> frozenset[str]:
        """The people who signed, each once."""
        return frozenset(signer.owner for signer in self.signers)


def unseal(data: bytes, authority: Authority | Root, where: object = "") -> Sealed:
    """Verify an envelope against the authority at its position and return its record.

    Args:
        data: The envelope.
        authority: Who may sign what there; a root alone stands for itself without revocations, at no known day.
        where: File and entry, for errors.

    Raises:
        RecordRefused: if envelope or statement are malformed; ``record.size``, ``record.decode``, ``record.canonical``,
            ``record.payload-type``.
        NotAuthorised: if the signatures do not make it count; ``authority.unsigned``, ``authority.signature-twice``,
            ``authority.signature-order``, ``authority.unknown-key``, ``authority.signature``, ``authority.zone``,
            ``authority.expired``, ``authority.revoked``, ``authority.threshold``, and those of a root.
        DigestDiffers: if the statement speaks of something other than its record; ``record.subjects``.
    """
    if isinstance(authority, Root):
        authority = Authority(authority)
    envelope = open_envelope(data, where)
    keys = [signature.keyid for signature in envelope.signatures]
    # A root may be signed by keys that only it, or only the one before it, lists: they are checked once it was read.
    if not speaks_of_root(envelope.payload):
        check_listed(keys, authority, where)
    check_signatures(envelope, where)
    statement = read_statement(envelope.payload, where)
    record = statement.record
    if isinstance(record, Root):
        signers = _check_new_root(record, keys, authority, where)
    else:
        signers = check_grants(record, keys, authority, where)
    if isinstance(record, Revocation):
        check_revocation(record, authority, where)
    statement.require_bound(where)
    return Sealed(record, statement.digest, signers)


def open_root(data: bytes, where: object = "") -> tuple[Root, str]:
    """Verify the first root of a lab against the owners it names itself.

    Returns:
        The root and its digest. Trust in it comes from a pin kept outside the lab.

    Raises:
        RecordRefused: if it is not a root record.
        NotAuthorised: if it is not the first, breaks one of its rules, or too few of its owners signed it.
        DigestDiffers: if its statement speaks of something else.
    """
    root, keys, statement = _read_root(data, where)
    if root.root_version != 1:
        text = f"is root version {root.root_version}; a lab begins with version 1"
        raise NotAuthorised(text, where=where, reason="authority.root-first")
    check_root(root, where)
    _count(root.owners, _signers(keys, where, root.owners), where, "authority.root-threshold")
    statement.require_bound(where)
    return root, statement.digest


def follow_root(old: Root, data: bytes, *, entered: str = "", where: object = "") -> Root:
    """Verify the root that follows another one.

    Args:
        old: The root in force.
        data: Envelope of the new one.
        entered: The UTC day on which the old one entered the ledger, YYYY-MM-DD; the new one must outlast it.
        where: File, for errors.

    Returns:
        The new root.

    Raises:
        RecordRefused: if it is not a root record.
        NotAuthorised: ``authority.root-lab``, ``authority.root-replay`` (older or the same), ``authority.root-skip``,
            ``authority.root-expiry``, ``authority.root-old-threshold``, ``authority.root-threshold``,
            ``authority.unknown-key``, and the reasons of `check_root`.
        DigestDiffers: if its statement speaks of something else.
    """
    new, keys, statement = _read_root(data, where)
    _check_step(old, new, entered, where)
    _check_owners(old, new, keys, where)
    statement.require_bound(where)
    return new


def _read_root(data: bytes, where: object) -> tuple[Root, list[str], Statement]:
    envelope = open_envelope(data, where)
    if not speaks_of_root(envelope.payload):
        raise RecordRefused("holds no root of keys", where=where, reason="record.kind")
    check_signatures(envelope, where)
    statement = read_statement(envelope.payload, where)
    if not isinstance(statement.record, Root):
        raise RecordRefused("holds no root of keys", where=where, reason="record.kind")
    return statement.record, [signature.keyid for signature in envelope.signatures], statement


def _check_new_root(record: Root, keys: Sequence[str], authority: Authority, where: object) -> tuple[Signer, ...]:
    """A root inside the ledger: the one in force there, or the one that is about to follow it."""
    current = authority.root
    if record.root_version > current.root_version:
        _check_step(current, record, authority.day, where)
        return _check_owners(current, record, keys, where)
    if record != current:
        raise _replayed(current, record, where)
    if current.root_version > 1 and authority.previous is None:
        text = f"root version {current.root_version} cannot be verified without the one before it"
        raise NotAuthorised(text, where=where, reason="authority.root-first")
    if authority.previous is not None:
        _check_step(authority.previous, record, "", where)
    return _check_owners(authority.previous or record, record, keys, where)


def _check_step(old: Root, new: Root, day: str, where: object) -> None:
    if new.lab != old.lab:
        raise NotAuthorised("is the root of another lab", where=where, reason="authority.root-lab")
    if new.root_version <= old.root_version:
        raise _replayed(old, new, where)
    if new.root_version != old.root_version + 1:
        text = f"root version {new.root_version} does not follow version {old.root_version}"
        advice = f"Hand in version {old.root_version + 1} first; every root is signed by the one before it."
        raise NotAuthorised(text, where=where, advice=advice, reason="authority.root-skip")
    if day and new.expires <= day:
        text = f"ends on {new.expires}, not after {day}"
        raise NotAuthorised(text, where=where, reason="authority.root-expiry")
    check_root(new, where)


def _check_owners(old: Root, new: Root, keys: Sequence[str], where: object) -> tuple[Signer, ...]:
    signers = _signers(keys, where, new.owners, old.owners)
    _count(old.owners, signers, where, "authority.root-old-threshold")
    _count(new.owners, signers, where, "authority.root-threshold")
    return signers


def _signers(keys: Sequence[str], where: object, *lists: Owners) -> tuple[Signer, ...]:
    owners = {k.key: k.owner for owners in reversed(lists) for k in owners.keys}
    for key in keys:
        if key not in owners:
            text = f"signed by {key[:16]}..., which is no root key; a root is signed by persons who hold root keys"
            raise NotAuthorised(text, where=where, reason="authority.unknown-key")
    return tuple(Signer(key, owners[key]) for key in keys)


def _count(owners: Owners, signers: Sequence[Signer], where: object, reason: str) -> None:
    signed = {signer.key for signer in signers}
    people = {k.owner for k in owners.keys if k.key in signed}
    if len(people) < owners.threshold:
        advice = "Have another owner of a root key sign it: studbook approve RECORD --as NAME."
        text = f"{len(people)} of {owners.threshold} distinct owners signed this root of keys"
        raise NotAuthorised(text, where=where, advice=advice, reason=reason)


def _replayed(current: Root, found: Root, where: object) -> NotAuthorised:
    text = f"is root version {found.root_version}, and version {current.root_version} is in force"
    advice = "An older root is never put back; hand in the one that follows."
    return NotAuthorised(text, where=where, advice=advice, reason="authority.root-replay")
