"""Accounts come from the ledger: what is deployed, looked at or waits is reserved; a rollback gives it back."""

from __future__ import annotations

from pathlib import Path

from lab_fixtures import PERSON, Place
from release_fixtures import change_policy
from studbook.lab import Lab
from studbook.lab.budget import Account


def account(lab: Lab, name: str) -> Account:
    return next(a for a in lab.budget() if a.account == name)


def test_what_is_deployed_and_its_way_back_is_reserved_and_given_back_by_a_rollback(old_lab: Place) -> None:
    with old_lab.open() as lab:
        reserve, size = lab.desk.policy[1].reserve, lab.desk.workspace.blob_size
        before = account(lab, "storage")
        assert before.capacity == reserve.capacity_bytes
        assert before.free == reserve.capacity_bytes - reserve.minimum_bytes - before.used
        child = lab.desk.channels()["shadow"].artifact
        assert child is not None
        lab.release("shadow", "champion", PERSON, "again")
        after = account(lab, "storage")
        assert after.used == before.used + size(child)
        assert {r.what.partition(":")[0] for r in after.reserved} == {"champion", "shadow", "way back of champion"}
        lab.rollback("champion", "back")
        assert account(lab, "storage").free == before.free


def test_looks_at_sealed_suites_and_what_waits_for_people_are_counted(old_lab: Place) -> None:
    with old_lab.open() as lab:
        sealed = account(lab, "evaluation")
        assert (sealed.capacity, sealed.used) == (lab.desk.policy[1].gates.sealed_openings, 1)
        assert account(lab, "memory").used > 0
        assert [r.what for r in account(lab, "memory").reserved if "observed" not in r.what] == []
        before = account(lab, "attention").used
        lab.proposals.new("a cascade", "the router ties", [lab.desk.policy[0]], PERSON)
        assert account(lab, "attention").used == before + 1


def test_an_account_shows_the_capacity_that_the_policy_states(old_lab: Place, tmp_path: Path) -> None:
    with old_lab.open() as lab:
        assert (account(lab, "memory").capacity, account(lab, "memory").free) == (None, None)
        stated = [
            {"account": "memory", "capacity": 10**9, "minimum": 10**6},
            {"account": "sealed-openings", "capacity": 5, "minimum": 2},
        ]
        change_policy(lab, tmp_path, reserve=lab.policies.show()["reserve"] | {"accounts": stated})
        memory = account(lab, "memory")
        assert memory.free == 10**9 - 10**6 - memory.used
        assert account(lab, "evaluation").free == 5 - 2 - 1
        assert account(lab, "attention").capacity is None
