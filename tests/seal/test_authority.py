"""Who may sign what at which position: zone, kind, expiry, revocation, and how many people."""

from __future__ import annotations

import pytest

from authority_fixtures import (
    APPROVAL,
    KEYS,
    LOCK,
    PAIR,
    ROOT,
    SHA,
    entry,
    refused,
    revocation,
    signed,
    successor,
)
from studbook.records import Revocation, RevokedSubject, replace
from studbook.seal import Authority, check_root, keys_in_force, revoked_since, unseal


def test_fixtures_keep_the_rules() -> None:
    check_root(ROOT)
    check_root(PAIR)


@pytest.mark.parametrize("signer", ["ann-policy", "registry", "candidate", "evaluation", "audit", "ann-root"])
def test_a_key_outside_its_zone_or_kind_is_refused(signer: str) -> None:
    with refused("authority.zone") as caught:
        unseal(signed(APPROVAL, signer), ROOT, "registry/x.json")
    assert "may not sign parent-approval/1" in caught.value.message
    assert caught.value.where == "registry/x.json"


def test_a_key_the_root_does_not_list_is_refused() -> None:
    with refused("authority.unknown-key"):
        unseal(signed(APPROVAL, "foreign"), ROOT)
    with refused("authority.unknown-key"):
        unseal(signed(APPROVAL, "ann-approval", "foreign"), ROOT)


def test_a_second_key_that_may_not_sign_this_spoils_the_first() -> None:
    with refused("authority.zone"):
        unseal(signed(APPROVAL, "ann-approval", "registry"), ROOT)


@pytest.mark.parametrize(
    ("day", "counts"), [("", True), ("2030-12-30", True), ("2030-12-31", True), ("2031-01-01", False)]
)
def test_a_root_counts_to_the_end_of_its_last_day(day: str, counts: bool) -> None:
    authority = Authority(ROOT, day=day)
    if counts:
        assert unseal(signed(APPROVAL, "ann-approval"), authority).record == APPROVAL
    else:
        with refused("authority.expired") as caught:
            unseal(signed(APPROVAL, "ann-approval"), authority)
        assert "key rotate" in caught.value.advice


def test_a_ledger_line_is_held_against_its_own_day() -> None:
    assert unseal(signed(entry(APPROVAL, SHA, 3, "2030-12-31"), "audit"), ROOT)
    with refused("authority.expired"):
        unseal(signed(entry(APPROVAL, SHA, 3, "2031-01-01"), "audit"), ROOT)


@pytest.mark.parametrize("position", range(8))
def test_a_revoked_key_counts_before_its_position_and_not_from_there_on(position: int) -> None:
    authority = Authority(ROOT, (revocation("ann-approval", 4),), position)
    in_force = {g.key for g in keys_in_force(ROOT, authority.revocations, position)}
    assert (KEYS["ann-approval"].public in in_force) == (position < 4)
    assert in_force | {KEYS["ann-approval"].public} == {g.key for g in ROOT.keys}
    if position < 4:
        assert unseal(signed(APPROVAL, "ann-approval"), authority).owners == {"ann"}
    else:
        with refused("authority.revoked"):
            unseal(signed(APPROVAL, "ann-approval"), authority)
    assert unseal(signed(LOCK, "ann-policy"), authority)


def test_of_several_revocations_the_earliest_position_counts() -> None:
    several = tuple(revocation("ann-approval", since) for since in (9, 4, 7))
    assert revoked_since(several) == {KEYS["ann-approval"].public: 4}
    with refused("authority.revoked"):
        unseal(signed(APPROVAL, "ann-approval"), Authority(ROOT, several, 4))


def test_a_revoked_artifact_is_not_a_revoked_key() -> None:
    subject = RevokedSubject(type="artifact", digest=KEYS["ann-approval"].public)
    record: Revocation = replace(revocation("ann-approval", 0), subject=subject)
    assert revoked_since([record]) == {}
    assert revoked_since([record], "artifact") == {subject.digest: 0}
    assert record.subjects() == (subject.digest,) and record.references() == ()
    assert unseal(signed(APPROVAL, "ann-approval"), Authority(ROOT, (record,), 5))


@pytest.mark.parametrize("kind", ["record", "data"])
def test_a_revoked_record_is_cited(kind: str) -> None:
    subject = RevokedSubject(type=kind, digest=SHA)  # type: ignore[arg-type]
    assert replace(revocation("registry", 0), subject=subject).references() == (SHA,)
    assert revocation("registry", 0).references() == revocation("registry", 0).subjects() == ()


def test_a_root_key_cannot_be_revoked_by_a_policy_key() -> None:
    with refused("authority.revocation-root"):
        unseal(signed(revocation("ann-root", 0), "ann-policy"), ROOT)


def test_an_audit_key_is_revoked_for_lines_to_come_only() -> None:
    for since in (6, 7):
        assert unseal(signed(revocation("audit", since), "ann-policy"), Authority(ROOT, (), 6))
    with refused("authority.revocation-audit"):
        unseal(signed(revocation("audit", 5), "ann-policy"), Authority(ROOT, (), 6))


@pytest.mark.parametrize(
    ("signers", "enough"),
    [
        (("ann-approval",), False),
        (("bob-approval",), False),
        (("ann-approval", "ann-approval-2"), False),
        (("ann-approval", "bob-approval"), True),
        (("ann-approval-2", "bob-approval"), True),
        (("ann-approval", "ann-approval-2", "bob-approval"), True),
    ],
)
def test_a_threshold_counts_people(signers: tuple[str, ...], enough: bool) -> None:
    data = signed(APPROVAL, *signers)
    if enough:
        assert unseal(data, PAIR).owners == {"ann", "bob"}
    else:
        with refused("authority.threshold") as caught:
            unseal(data, PAIR)
        assert "1 of 2" in caught.value.message


def test_a_revoked_signature_does_not_fill_a_threshold() -> None:
    authority = Authority(PAIR, (revocation("bob-approval", 3),), 3)
    with refused("authority.revoked"):
        unseal(signed(APPROVAL, "ann-approval", "bob-approval"), authority)


def test_another_roots_keys_do_not_count() -> None:
    other = successor(ROOT, keys=tuple(g for g in ROOT.keys if g.key != KEYS["ann-approval"].public))
    with refused("authority.unknown-key"):
        unseal(signed(APPROVAL, "ann-approval"), other)


def test_a_root_that_breaks_a_rule_gives_nobody_any_right() -> None:
    broken = replace(ROOT, keys=(*ROOT.keys, ROOT.keys[0]))
    with refused("authority.key-twice"):
        unseal(signed(APPROVAL, "ann-approval"), broken)
    with refused("authority.key-twice"):
        keys_in_force(broken, (), 0)
