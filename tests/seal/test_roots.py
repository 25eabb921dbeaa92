"""Roots of keys: the rules each keeps, and the step from one to the next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authority_fixtures import (
    APPROVAL,
    KEYS,
    LOCK,
    PAIR,
    ROOT,
    SHA,
    entry,
    grant,
    needs,
    owners,
    refused,
    revocation,
    signed,
    successor,
)
from studbook.errors import DigestDiffers, StudbookError
from studbook.records import KeyGrant, OwnerKey, Owners, Zone, digest, replace
from studbook.seal import Authority, Succession, check_root, follow_root, open_root, unseal


def weak(point: str) -> KeyGrant:
    return KeyGrant(key=point, owner="ann", holder="person", zone=Zone.POLICY, kinds=("policy/1",))


def held(zone: Zone, kind: str) -> KeyGrant:
    """A process that holds a key for a people's kind."""
    return KeyGrant(key=KEYS["foreign"].public, owner="ann", holder="process", zone=zone, kinds=(kind,))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "one key in two zones": ({"keys": (*ROOT.keys, grant("ann-policy", Zone.RELEASE, "release-record/1"))}, "key-zones"),
    "a root key in another zone": ({"keys": (*ROOT.keys, grant("ann-root", Zone.AUDIT, "checkpoint/1"))}, "key-zones"),
    "one key of two owners": ({"owners": owners("ann-root", "bob-root"), "keys": (
        *ROOT.keys, KeyGrant(key=KEYS["bob-root"].public, owner="ann", holder="person", zone=Zone.POLICY, kinds=()),
    )}, "key-twice"),
    "one grant twice": ({"keys": (*ROOT.keys, ROOT.keys[0])}, "key-twice"),
    "one root key twice": ({"owners": owners("ann-root", "ann-root")}, "key-twice"),
    "one person under two spellings": ({"keys": (*ROOT.keys, grant("bob-policy", Zone.POLICY, owner="ANN"))}, "owner-twins"),
    "a point of order one": ({"keys": (*ROOT.keys, weak("01" + "00" * 31))}, "key-weak"),
    "a point of order two": ({"keys": (*ROOT.keys, weak("ec" + "ff" * 30 + "7f"))}, "key-weak"),
    "a point of order four": ({"keys": (*ROOT.keys, weak("00" * 32))}, "key-weak"),
    "a point of order eight": ({"keys": (*ROOT.keys, weak(
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))}, "key-weak"),
    "the same with the other sign": ({"keys": (*ROOT.keys, weak(
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"))}, "key-weak"),
    "a point in two spellings": ({"keys": (*ROOT.keys, weak("ee" + "ff" * 30 + "7f"))}, "key-weak"),
    "a kind of another zone": ({"keys": (*ROOT.keys, grant("bob-policy", Zone.POLICY, "scorecard/1"))}, "kind-zone"),
    "a grant for roots": ({"keys": (*ROOT.keys, grant("bob-policy", Zone.POLICY, "root/1"))}, "root-kind"),
    "a root that nobody can sign": ({"owners": owners("ann-root", threshold=2)}, "threshold-unreachable"),
    "a root without owners": ({"owners": owners()}, "threshold-unreachable"),
    "two root keys of one person for two": (
        {"owners": Owners(keys=tuple(OwnerKey(key=KEYS[n].public, owner="ann") for n in ("ann-root", "eve-root")),
                          threshold=2)}, "threshold-unreachable"),
    "a kind that nobody can sign": ({"thresholds": (needs(Zone.POLICY, "policy/1", 2),)}, "threshold-unreachable"),
    "two thresholds of one kind": ({"thresholds": (needs(Zone.POLICY, "policy/1", 1),) * 2}, "threshold-twice"),
    "candidate and evaluation of one of two owners": ({"owners": owners("ann-root", "bob-root")}, "separation"),
    "an evaluator change as light as a promotion": (
        {"keys": (*ROOT.keys, grant("bob-policy", Zone.POLICY, "evaluator-change/1"))}, "evaluator-threshold"),
    **{f"{kind} held by a process": ({"keys": (*ROOT.keys, held(zone, kind))}, "person-kind") for zone, kind in (
        (Zone.POLICY, "policy/1"), (Zone.POLICY, "revocation/1"), (Zone.POLICY, "suites-lock/1"),
        (Zone.POLICY, "evaluator-change/1"), (Zone.RELEASE, "champion-promotion/1"),
        (Zone.REGISTRY, "parent-approval/1"))},
}  # fmt: skip


@pytest.mark.parametrize("lie", BROKEN)
def test_a_root_that_breaks_a_rule_is_refused_wherever_it_is_read(lie: str) -> None:
    changes, reason = BROKEN[lie]
    root = replace(ROOT, **changes)
    with refused(f"authority.{reason}"):
        check_root(root)
    with refused(f"authority.{reason}") as caught:
        open_root(signed(root, "ann-root", "bob-root"), "policy/root.json")
    assert caught.value.where == "policy/root.json"
    with refused(f"authority.{reason}"):
        follow_root(ROOT, signed(replace(root, root_version=2), "ann-root"))
    with refused(f"authority.{reason}"):
        unseal(signed(replace(root, root_version=2), "ann-root"), ROOT)
    with refused(f"authority.{reason}"):
        unseal(signed(LOCK, "ann-policy"), root)


def test_a_root_key_and_a_policy_key_of_one_person_may_be_one_key() -> None:
    same = (*ROOT.keys, KeyGrant(key=KEYS["ann-root"].public, owner="ann", holder="person", zone=Zone.POLICY, kinds=()))
    check_root(replace(ROOT, keys=same))


def test_an_evaluator_change_takes_more_people_than_a_promotion() -> None:
    both = [grant(name, Zone.POLICY, "evaluator-change/1") for name in ("bob-policy", "foreign")]
    check_root(replace(ROOT, keys=(*ROOT.keys, *both), thresholds=(needs(Zone.POLICY, "evaluator-change/1", 2),)))


# -- the first root ----------------------------------------------------------------------------------------------


def test_a_first_root_is_signed_by_the_owners_it_names() -> None:
    assert open_root(signed(ROOT, "ann-root")) == (ROOT, digest(ROOT))
    assert open_root(signed(PAIR, "bob-root", "ann-root"))[0] == PAIR
    with refused("authority.root-threshold"):
        open_root(signed(PAIR, "ann-root"))
    for name in ("ann-policy", "audit", "foreign"):
        with refused("authority.unknown-key"):
            open_root(signed(ROOT, name))


def test_a_lab_does_not_begin_with_a_later_root() -> None:
    with refused("authority.root-first"):
        open_root(signed(successor(), "ann-root"))


def test_a_record_that_is_not_a_root_opens_nothing() -> None:
    for data in (signed(APPROVAL, "ann-approval"), signed(LOCK, "ann-policy")):
        with refused("record.kind"):
            open_root(data)
        with refused("record.kind"):
            follow_root(ROOT, data)


# -- the next root -----------------------------------------------------------------------------------------------


def test_the_next_root_is_signed_by_the_old_owners_and_the_new() -> None:
    new = successor(ROOT, owners=owners("eve-root"))
    assert follow_root(ROOT, signed(new, "ann-root", "eve-root")) == new
    with refused("authority.root-old-threshold"):
        follow_root(ROOT, signed(new, "eve-root"))
    with refused("authority.root-threshold"):
        follow_root(ROOT, signed(new, "ann-root"))
    with refused("authority.unknown-key"):
        follow_root(ROOT, signed(new, "ann-root", "eve-root", "foreign"))


def test_both_thresholds_count_people_not_keys() -> None:
    twice = Owners(keys=(*PAIR.owners.keys, OwnerKey(key=KEYS["eve-root"].public, owner="ann")), threshold=2)
    pair = replace(PAIR, owners=twice)
    new = successor(pair)
    with refused("authority.root-old-threshold"):
        follow_root(pair, signed(new, "ann-root", "eve-root"))
    assert follow_root(pair, signed(new, "bob-root", "eve-root")) == new


STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "of another lab": ({"lab": "b" * 64}, "authority.root-lab"),
    "that skips a version": ({"root_version": 5}, "authority.root-skip"),
    "of the same version": ({"root_version": 3}, "authority.root-replay"),
    "of an older version": ({"root_version": 2}, "authority.root-replay"),
    "that ends on the day the old one entered": ({"expires": "2029-06-01"}, "authority.root-expiry"),
    "that ended before the old one entered": ({"expires": "2019-06-01"}, "authority.root-expiry"),
}


@pytest.mark.parametrize("lie", STEPS)
def test_a_root_that_does_not_follow_is_refused(lie: str) -> None:
    old = replace(ROOT, root_version=3)
    changes, reason = STEPS[lie]
    with refused(reason):
        follow_root(old, signed(successor(old, **changes), "ann-root"), entered="2029-06-01")
    with refused(reason):
        unseal(signed(successor(old, **changes), "ann-root"), Authority(old, day="2029-06-01"))


def test_a_root_that_has_ended_can_still_be_followed() -> None:
    assert unseal(signed(successor(), "ann-root"), Authority(ROOT, day="2031-06-01")).owners == {"ann"}


@given(st.integers(1, 4), st.integers(1, 4), st.sets(st.sampled_from(["ann-root", "bob-root", "eve-root"])))
def test_a_step_is_taken_exactly_when_enough_of_both_sign(before: int, after: int, names: set[str]) -> None:
    everyone = ("ann-root", "bob-root", "eve-root")
    old = replace(PAIR, owners=owners(*everyone, threshold=min(before, 3)))
    new = successor(old, owners=owners(*everyone, threshold=min(after, 3)))
    if not names:
        return
    enough = len(names) >= max(min(before, 3), min(after, 3))
    try:
        assert follow_root(old, signed(new, *sorted(names))) == new
    except StudbookError:
        assert not enough
    else:
        assert enough


# -- inside the ledger -------------------------------------------------------------------------------------------


def succession() -> Succession:
    """A first root at entry 0, a second one with another audit key and another root key at entry 5."""
    found = Succession(entry(ROOT, digest(ROOT), 0), signed(ROOT, "ann-root"))
    found.enter(entry(SECOND, digest(SECOND), 5), signed(SECOND, "ann-root", "eve-root"))
    return found


SECOND = successor(
    ROOT,
    owners=owners("eve-root"),
    keys=(*(g for g in ROOT.keys if g.zone != Zone.AUDIT), grant("foreign", Zone.AUDIT, "ledger-entry/1")),
)


def test_a_root_is_in_force_from_its_own_entry_on() -> None:
    found = succession()
    assert [found.at(position).root.root_version for position in range(8)] == [1] * 5 + [2] * 3
    assert [found.at(position).previous for position in (4, 5)] == [None, ROOT]
    line = entry(APPROVAL, SHA, 9)
    assert unseal(signed(line, "audit"), found.at(4))
    assert unseal(signed(line, "foreign"), found.at(5))
    for name, position in (("audit", 5), ("foreign", 4)):
        with refused("authority.unknown-key"):
            unseal(signed(line, name), found.at(position))


def test_every_root_of_a_ledger_can_be_opened_again_at_its_place() -> None:
    found = succession()
    assert unseal(signed(ROOT, "ann-root"), found.at(0)).record == ROOT
    assert unseal(signed(SECOND, "ann-root", "eve-root"), found.at(5)).record == SECOND
    with refused("authority.root-first"):
        unseal(signed(SECOND, "ann-root", "eve-root"), Authority(SECOND))
    with refused("authority.root-replay"):
        unseal(signed(ROOT, "ann-root"), found.at(6))


def test_a_root_that_is_refused_changes_nothing() -> None:
    found = succession()
    third = successor(SECOND)
    with refused("authority.unknown-key"):
        found.enter(entry(third, digest(third), 7), signed(third, "ann-root"))
    with pytest.raises(DigestDiffers):
        found.enter(entry(third, SHA, 7), signed(third, "eve-root"))
    assert found.root == found.at(9).root == SECOND


def test_a_theft_found_later_counts_for_what_was_signed_before_it_was_found() -> None:
    found = succession()
    record = revocation("registry", 3)
    found.enter(entry(record, digest(record), 8), signed(record, "ann-policy"))
    assert found.at(2, kind="source-manifest/1").revocations == (record,)
    for kind, known in (("ledger-entry/1", 8), ("revocation/1", 9)):
        assert found.at(known - 1, kind=kind).revocations == ()
        assert found.at(known, kind=kind).revocations == (record,)


def test_a_thief_can_neither_revoke_with_a_revoked_key_nor_undo() -> None:
    found = succession()
    first, second = revocation("ann-policy", 6), revocation("registry", 0)
    found.enter(entry(first, digest(first), 6), signed(first, "ann-policy"))
    with refused("authority.revoked"):
        found.enter(entry(second, digest(second), 7), signed(second, "ann-policy"))
    assert found.at(9).revocations == (first,)


def test_only_roots_and_revocations_enter() -> None:
    found = succession()
    with refused("record.kind"):
        found.enter(entry(LOCK, digest(LOCK), 7), signed(LOCK, "ann-policy"))
    with pytest.raises(DigestDiffers):
        Succession(entry(ROOT, SHA, 0), signed(ROOT, "ann-root"))
