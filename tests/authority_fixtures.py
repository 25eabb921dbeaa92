"""People with keys, a root that lists them, records to sign, and envelopes that somebody changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from studbook.errors import StudbookError
from studbook.records import (
    Blob,
    Header,
    KeyGrant,
    LedgerEntry,
    OwnerKey,
    Owners,
    ParentApproval,
    Record,
    Revocation,
    RevokedSubject,
    Root,
    SuitesLock,
    Threshold,
    Zone,
    canonical,
    replace,
)
from studbook.seal import PEOPLES_KINDS, SigningKey, seal

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
SHA = "a" * 64
AUDIT_KINDS = ("ledger-entry/1",)


def made(seed: int) -> SigningKey:
    """The same key for the same seed, so that failures repeat."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


KEYS = {
    name: made(seed)
    for seed, name in enumerate(
        (
            "ann-root", "bob-root", "eve-root", "ann-policy", "bob-policy", "ann-approval", "bob-approval",
            "ann-approval-2", "registry", "candidate", "evaluation", "audit", "foreign",
        ),
        start=1,
    )
}  # fmt: skip


def grant(name: str, zone: Zone, *kinds: str, owner: str = "") -> KeyGrant:
    """A grant; people's kinds are held by a person, the rest by a process."""
    holder: Any = "person" if set(kinds) & PEOPLES_KINDS else "process"
    owner = owner or ("bob" if name.startswith("bob") else "ann")
    return KeyGrant(key=KEYS[name].public, owner=owner, holder=holder, zone=zone, kinds=kinds)


def owners(*names: str, threshold: int = 1) -> Owners:
    """Root keys, each of the person its name begins with."""
    keys = tuple(OwnerKey(key=KEYS[name].public, owner=name.partition("-")[0]) for name in names)
    return Owners(keys=keys, threshold=threshold)


def needs(zone: Zone, kind: str, people: int) -> Threshold:
    """A threshold."""
    return Threshold(zone=zone, kind=kind, owners=people)


ROOT = Root(
    header=HEADER,
    lab=SHA,
    root_version=1,
    expires="2030-12-31",
    owners=owners("ann-root"),
    keys=(
        grant("ann-policy", Zone.POLICY, "policy/1", "revocation/1", "suites-lock/1"),
        grant("ann-approval", Zone.REGISTRY, "parent-approval/1"),
        grant("registry", Zone.REGISTRY, "source-manifest/1"),
        grant("candidate", Zone.CANDIDATE, "candidate-manifest/1"),
        grant("evaluation", Zone.EVALUATION, "scorecard/1"),
        grant("audit", Zone.AUDIT, *AUDIT_KINDS),
    ),
    thresholds=(),
)
# Two owners: approvals take both, and a root takes both.
PAIR: Root = replace(
    ROOT,
    owners=owners("ann-root", "bob-root", threshold=2),
    keys=(
        *(k for k in ROOT.keys if k.zone != Zone.EVALUATION),
        grant("evaluation", Zone.EVALUATION, "scorecard/1", owner="bob"),
        grant("bob-approval", Zone.REGISTRY, "parent-approval/1"),
        grant("ann-approval-2", Zone.REGISTRY, "parent-approval/1"),
    ),
    thresholds=(needs(Zone.REGISTRY, "parent-approval/1", 2),),
)
APPROVAL = ParentApproval(
    header=HEADER, artifact=SHA, source="b" * 64, approved_by="ann", clusters=("*",), until="2030-01-31", reason=""
)
LOCK = SuitesLock(header=HEADER, lock_version=1, suites=())


def signed(record: Record, *names: str) -> bytes:
    """An envelope signed by these keys."""
    return seal(record, *(KEYS[name] for name in names))


def successor(root: Root = ROOT, **changes: Any) -> Root:
    """The root after another."""
    found: Root = replace(root, **{"root_version": root.root_version + 1, "expires": "2032-12-31"} | changes)
    return found


def revocation(name: str, since: int) -> Revocation:
    """A revocation of a key from a position on."""
    subject = RevokedSubject(type="key", digest=KEYS[name].public)
    return Revocation(header=HEADER, subject=subject, reason="stolen", since=since)


def entry(record: Record, record_digest: str, sequence: int, day: str = "2029-01-01") -> LedgerEntry:
    """The ledger entry of a record."""
    return LedgerEntry(
        header=HEADER,
        sequence=sequence,
        previous="0" * 64,
        time=f"{day}T12:00:00.000000Z",
        host="host",
        record_zone=record.zone,
        record_kind=record.kind(),
        record=record_digest,
        envelope=Blob(sha256="c" * 64, size=1),
        blobs=(),
    )


def resigned(
    change: Callable[[dict[str, Any], dict[str, Any]], object],
    name: str = "ann-approval",
    record: Record = APPROVAL,
    *,
    sign: bool = True,
) -> bytes:
    """The envelope of a record with envelope and statement changed, and signed again by the right key."""
    envelope = json.loads(signed(record, name))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(envelope, statement)
    payload = canonical(statement)
    kind = envelope["payloadType"].encode()
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    if sign and envelope["signatures"]:
        envelope["signatures"][0]["sig"] = base64.b64encode(KEYS[name].sign(encoded)).decode()
    return canonical(envelope)


def refused(reason: str) -> pytest.RaisesExc[StudbookError]:
    """A typed refusal with this reason, a place and advice."""
    return pytest.raises(StudbookError, check=lambda error: error.reason == reason and bool(error.advice))
