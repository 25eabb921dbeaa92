"""Lies about authority, each named after itself: none opens, and every refusal says which rule it broke."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from authority_fixtures import (
    APPROVAL,
    KEYS,
    LOCK,
    PAIR,
    ROOT,
    SHA,
    entry,
    grant,
    owners,
    refused,
    resigned,
    revocation,
    signed,
    successor,
)
from studbook.policy import default_policy
from studbook.records import KeyGrant, OwnerKey, Owners, ParentApproval, Root, Zone, canonical, digest, replace
from studbook.seal import Authority, KeyRing, Succession, follow_root, open_root, seal, unseal

PLACE = "registry/parent-approval-1/x.json"


def envelope_of(data: bytes) -> tuple[dict[str, object], bytes]:
    envelope = json.loads(data)
    return envelope, base64.b64decode(envelope["payload"])


def test_a_key_that_signs_outside_its_zone() -> None:
    for name in ("ann-policy", "candidate", "evaluation", "audit"):
        with refused("authority.zone") as caught:
            unseal(signed(APPROVAL, name), ROOT, PLACE)
        assert caught.value.where == PLACE


def test_a_key_that_signs_another_kind_in_its_own_zone() -> None:
    with refused("authority.zone"):
        unseal(signed(APPROVAL, "registry"), ROOT, PLACE)


def test_a_policy_key_that_signs_a_root() -> None:
    with refused("authority.unknown-key"):
        unseal(signed(successor(), "ann-policy"), ROOT)


def test_a_root_key_that_signs_a_policy() -> None:
    with refused("authority.zone"):
        unseal(signed(default_policy(ROOT.header), "ann-root"), ROOT)


def test_one_key_in_two_zones() -> None:
    both = replace(ROOT, keys=(*ROOT.keys, grant("candidate", Zone.EVALUATION, "scorecard/1", owner="ann")))
    with refused("authority.key-zones"):
        open_root(signed(both, "ann-root"))


def test_one_person_with_two_keys() -> None:
    with refused("authority.threshold"):
        unseal(signed(APPROVAL, "ann-approval", "ann-approval-2"), PAIR, PLACE)


def test_one_person_with_two_root_keys() -> None:
    listed = Owners(keys=(*PAIR.owners.keys, OwnerKey(key=KEYS["eve-root"].public, owner="ann")), threshold=2)
    root = replace(PAIR, owners=listed)
    with refused("authority.root-threshold"):
        open_root(signed(root, "ann-root", "eve-root"))


def test_one_person_under_two_spellings() -> None:
    twin = grant("ann-approval-2", Zone.REGISTRY, "parent-approval/1", owner="Ann")
    with refused("authority.owner-twins"):
        open_root(signed(replace(ROOT, keys=(*ROOT.keys, twin)), "ann-root"))


SPELLINGS: dict[str, tuple[Callable[[str], str], str]] = {
    "the same id": (lambda key: key, "authority.signature-twice"),
    "capitals": (str.upper, "record.decode"),
    "a prefix": (lambda key: "0x" + key, "record.decode"),
    "a space": (lambda key: key + " ", "record.decode"),
    "the sign bit of a coordinate": (
        lambda key: (bytes.fromhex(key)[:31] + bytes([bytes.fromhex(key)[31] ^ 0x80])).hex(),
        "authority.unknown-key",
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_key_under_two_ids_meeting_a_threshold_of_two(spelling: str) -> None:
    change, reason = SPELLINGS[spelling]
    envelope = json.loads(signed(APPROVAL, "ann-approval"))
    again = dict(envelope["signatures"][0])
    again["keyid"] = change(again["keyid"])
    envelope["signatures"] = sorted([*envelope["signatures"], again], key=lambda s: s["keyid"])
    with refused(reason):
        unseal(canonical(envelope), PAIR, PLACE)


def test_one_key_listed_for_two_people() -> None:
    shared = KeyGrant(
        key=KEYS["ann-approval"].public, owner="bob", holder="person", zone=Zone.REGISTRY, kinds=("parent-approval/1",)
    )
    with refused("authority.key-twice"):
        unseal(signed(APPROVAL, "ann-approval"), replace(PAIR, keys=(*PAIR.keys, shared)))


def test_a_key_that_anybody_can_sign_for() -> None:
    """Order one: R = the neutral point and S = 0 verify for every message, so the rule is not only a precaution."""
    neutral = "01" + "00" * 31
    forged = bytes.fromhex(neutral) + bytes(32)
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(neutral)).verify(forged, b"anything at all")
    envelope = json.loads(signed(APPROVAL, "ann-approval"))
    envelope["signatures"] = [{"keyid": neutral, "sig": base64.b64encode(forged).decode()}]
    everybody = KeyGrant(key=neutral, owner="ann", holder="person", zone=Zone.REGISTRY, kinds=("parent-approval/1",))
    with refused("authority.key-weak"):
        unseal(canonical(envelope), replace(ROOT, keys=(*ROOT.keys, everybody)))


def test_an_expired_key() -> None:
    with refused("authority.expired"):
        unseal(signed(APPROVAL, "ann-approval"), Authority(ROOT, day="2031-01-01"), PLACE)
    with refused("authority.expired"):
        unseal(signed(entry(APPROVAL, SHA, 7, "2031-01-01"), "audit"), ROOT)


def test_a_revoked_key() -> None:
    stolen = (revocation("ann-approval", 3),)
    assert unseal(signed(APPROVAL, "ann-approval"), Authority(ROOT, stolen, 2))
    for position in (3, 4, 10**9):
        with refused("authority.revoked"):
            unseal(signed(APPROVAL, "ann-approval"), Authority(ROOT, stolen, position), PLACE)


def test_a_revoked_key_listed_again_by_a_later_root() -> None:
    again = Authority(successor(), (revocation("ann-approval", 3),), 9, previous=ROOT)
    with refused("authority.revoked"):
        unseal(signed(APPROVAL, "ann-approval"), again, PLACE)


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.in-toto+json ", "", "text/plain\r\n"])
def test_payload_type_confusion(kind: str) -> None:
    with refused("record.payload-type"):
        unseal(resigned(lambda e, _: e.update(payloadType=kind)), ROOT, PLACE)


def test_a_signature_made_for_another_payload_type() -> None:
    envelope, payload = envelope_of(signed(APPROVAL, "ann-approval"))
    other = KEYS["ann-approval"].sign(b"DSSEv1 16 application/json %d " % len(payload) + payload)
    bare = KEYS["ann-approval"].sign(payload)
    for signature in (other, bare):
        changed = {**envelope, "signatures": [{"keyid": KEYS["ann-approval"].public, "sig": ""}]}
        changed["signatures"][0]["sig"] = base64.b64encode(signature).decode()
        with refused("authority.signature"):
            unseal(canonical(changed), ROOT, PLACE)


def test_cross_type_replay() -> None:
    """What was signed as one kind of record is shown as another: the kind is part of what was signed."""
    with refused("record.subjects"):
        unseal(
            resigned(lambda _, s: s.update(predicateType="urn:studbook:record:policy/1"), "ann-policy", LOCK),
            ROOT,
            PLACE,
        )
    with refused("record.decode"):
        unseal(resigned(lambda _, s: s["predicate"].update(kind="policy/1"), "ann-policy", LOCK), ROOT, PLACE)
    with refused("authority.signature"):
        unseal(
            resigned(lambda _, s: s["predicate"].update(kind="policy/1"), "ann-policy", LOCK, sign=False), ROOT, PLACE
        )


def test_a_record_dressed_as_a_root_in_its_predicate_type() -> None:
    """A payload that calls itself a root passes the list of keys, and then is held to what it is."""

    def dressed(_envelope: object, statement: dict[str, object]) -> None:
        statement["predicateType"] = f"urn:studbook:record:{Root.kind()}"

    with refused("authority.zone"):
        unseal(resigned(dressed, "foreign"), ROOT, PLACE)
    with refused("record.subjects"):
        unseal(resigned(dressed, "ann-approval"), ROOT, PLACE)
    with refused("record.kind"):
        open_root(resigned(dressed, "ann-approval"))


def test_an_envelope_reused_for_another_subject() -> None:
    other = replace(APPROVAL, artifact="d" * 64)
    _, payload = envelope_of(signed(other, "ann-approval"))
    reused = json.loads(signed(APPROVAL, "ann-approval")) | {"payload": base64.b64encode(payload).decode()}
    with refused("authority.signature"):
        unseal(canonical(reused), ROOT, PLACE)
    for place in (0, 1):
        with refused("record.subjects"):
            unseal(resigned(lambda _, s, at=place: s["subject"][at]["digest"].update(sha256="d" * 64)), ROOT, PLACE)


def test_signatures_of_two_envelopes_put_together() -> None:
    one, two = signed(APPROVAL, "ann-approval"), signed(replace(APPROVAL, reason="another"), "bob-approval")
    mixed = json.loads(one)
    mixed["signatures"] = sorted([*mixed["signatures"], *json.loads(two)["signatures"]], key=lambda s: s["keyid"])
    with refused("authority.signature"):
        unseal(canonical(mixed), PAIR, PLACE)


def test_a_threshold_lowered_in_a_root_of_ones_own() -> None:
    mine = replace(PAIR, thresholds=(), owners=owners("eve-root"))
    with refused("authority.root-old-threshold"):
        follow_root(PAIR, signed(successor(mine), "eve-root"))
    with refused("authority.root-old-threshold"):
        follow_root(PAIR, signed(successor(replace(PAIR, thresholds=())), "ann-root"))


def test_an_older_root_shown_again() -> None:
    second = successor()
    reign = Succession(entry(ROOT, digest(ROOT), 0), signed(ROOT, "ann-root"))
    reign.enter(entry(second, digest(second), 4), signed(second, "ann-root"))
    for root in (ROOT, second):
        with refused("authority.root-replay"):
            reign.enter(entry(root, digest(root), 6), signed(root, "ann-root"))


def test_a_root_of_another_lab_with_the_same_owners() -> None:
    with refused("authority.root-lab"):
        follow_root(ROOT, signed(successor(lab="b" * 64), "ann-root"))


def test_a_policy_key_that_revokes_the_owners() -> None:
    with refused("authority.revocation-root"):
        unseal(signed(revocation("ann-root", 0), "ann-policy"), ROOT)


def test_a_policy_delivered_by_whoever_made_the_artifact() -> None:
    for name in ("candidate", "registry", "foreign"):
        with refused("authority.unknown-key" if name == "foreign" else "authority.zone"):
            unseal(signed(default_policy(ROOT.header), name), ROOT)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o602])
def test_a_world_readable_key_file(tmp_path: Path, mode: int) -> None:
    ring = KeyRing(tmp_path / "keys")
    key = ring.create("people/registry/approval")
    listed = KeyGrant(key=key.public, owner="ann", holder="person", zone=Zone.REGISTRY, kinds=(ParentApproval.kind(),))
    root = replace(ROOT, keys=(listed,))
    assert unseal(seal(APPROVAL, ring.find(root, Zone.REGISTRY, ParentApproval.kind())), root)
    path = tmp_path / "keys" / "people" / "registry" / "approval.pem"
    path.chmod(mode)
    with refused("authority.key-mode") as caught:
        ring.find(root, Zone.REGISTRY, ParentApproval.kind())
    assert (caught.value.where, caught.value.advice) == (str(path), f"chmod 600 {path}")
