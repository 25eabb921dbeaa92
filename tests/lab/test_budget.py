"""Accounts come from the ledger: what is deployed, looked at or waits is reserved; a rollback gives it back."""

from __future__ import annotations

from pathlib import Path

from lab_fixtures import PERSON, Place
from release_fixtures import change_policy
from studbook.lab import Lab
from studbook.lab.budget import Account
from studbook.records import Scorecard


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
        sealed = account(lab, "sealed-openings")
        assert (sealed.capacity, sealed.used) == (lab.desk.policy[1].gates.sealed_openings, 1)
        assert account(lab, "memory").used > 0
        assert [r.what for r in account(lab, "memory").reserved if "observed" not in r.what] == []
        before = account(lab, "attention").used
        lab.proposals.new("a cascade", "the router ties", [lab.desk.policy[0]], PERSON)
        assert account(lab, "attention").used == before + 1


def test_an_account_shows_the_capacity_that_the_policy_states(old_lab: Place, tmp_path: Path) -> None:
    with old_lab.open() as lab:
        assert (account(lab, "latency").capacity, account(lab, "latency").free) == (None, None)
        stated = [
            {"account": "memory", "capacity": 10**9, "minimum": 10**6},
            {"account": "sealed-openings", "capacity": 5, "minimum": 2},
        ]
        change_policy(lab, tmp_path, reserve=lab.policies.show()["reserve"] | {"accounts": stated})
        memory = account(lab, "memory")
        assert memory.free == 10**9 - 10**6 - memory.used
        assert account(lab, "sealed-openings").free == 5 - 2 - 1
        assert account(lab, "attention").capacity is None
        # A round's, and the policy's budget limits them where no account is named.
        assert account(lab, "model-calls").free == lab.desk.policy[1].budget.evaluations


def test_costs_are_those_that_decisions_are_held_against(old_lab: Place) -> None:
    with old_lab.open() as lab:
        cards = {c.artifact: c for _, c in lab.desk.all(Scorecard) if c.role == "selection"}
        champion, shadow = (lab.desk.channels()[c].artifact for c in ("champion", "shadow"))
        assert champion and shadow
        for name, unit in (("memory", "decoded-bytes"), ("latency", "multiply-adds")):
            wanted = [m.value for a in (champion, shadow) for m in cards[a].cost if m.unit == unit]
            assert account(lab, name).used == sum(wanted)
        lab.release("shadow", "champion", PERSON, "again")
        # The way back counts, and whoever stands in two channels counts once.
        assert account(lab, "latency").used == sum(wanted)
        assert not any("not measured" in r.what for r in account(lab, "latency").reserved)
