"""Who is judged does not choose the judge: suites dropped and thresholds loosened by too few owners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from lab_fixtures import CLUSTER, PERSON, Place, problems
from release_fixtures import OTHER, change_policy, decisions, told
from studbook.lab import Lab
from studbook.lab.judge_owners import loosens, owned
from studbook.policy import default_policy, loosened
from studbook.records import (
    Allowance,
    Header,
    LicenceRule,
    OperatorGrant,
    Policy,
    SuiteManifest,
    SuitesLock,
    replace,
)

HEADER = Header(source="studbook", version="0.1.0", environment="test", owner=PERSON)
BASE = default_policy(HEADER)
JUDGED = [Policy.kind(), SuitesLock.kind()]


@pytest.fixture(scope="module")
def pair_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab with a second person who may sign policies and locks; only copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("pair"))
    with place.open() as lab:
        lab.keys.new(OTHER, JUDGED, PERSON)
    return place


@pytest.fixture
def pair(pair_lab: Place, tmp_path: Path) -> Place:
    return pair_lab.copy(tmp_path / "pair")


def gates(lab: Lab, **changes: Any) -> dict[str, Any]:
    return lab.policies.show()["gates"] | changes


def next_lock(lab: Lab, drop: str) -> SuitesLock:
    """The lock in force without the suites of a role."""
    lock = lab.desk.suites_lock[1]
    left = tuple(d for d in lock.suites if lab.desk.workspace.get(d, SuiteManifest).role != drop)
    return replace(lock, suites=left, lock_version=lock.lock_version + 1)


def test_a_looser_gate_waits_for_more_owners_than_a_promotion_takes(pair: Place, tmp_path: Path) -> None:
    with pair.open() as lab:
        before = lab.desk.policy[0]
        signed = change_policy(lab, tmp_path, gates=gates(lab, finalists=9))
        assert not signed.committed and lab.desk.policy[0] == before
        assert "1 owners signed it; it loosens gates.finalists, and that takes more than the 1" in signed.waiting
        assert not lab.approve(signed.digest, PERSON).committed  # type: ignore[union-attr]
        assert lab.approve(signed.digest, OTHER).committed  # type: ignore[union-attr]
        assert lab.desk.policy[1].gates.finalists == 9
        assert "independent: false" in owned(lab.desk).told  # of an evaluator, one person alone could still say yes
    assert problems(pair) == []


def test_a_stricter_gate_takes_what_the_root_asks_for_and_no_more(pair: Place, tmp_path: Path) -> None:
    with pair.open() as lab:
        assert change_policy(lab, tmp_path, gates=gates(lab, margin=0.4)).committed
    assert problems(pair) == []


def test_a_looser_gate_that_one_owner_put_in_by_hand_is_found_by_verify(pair: Place) -> None:
    with pair.open() as lab:
        policy = lab.desk.policy[1]
        looser = structs.replace(policy.gates, finalists=9)
        found = told(lab, replace(policy, policy_version=policy.policy_version + 1, gates=looser))
        assert found is not None and found.reason == "judge.owners" and found.advice
    assert len(problems(pair)) == 1


@pytest.mark.parametrize("role", ["development", "selection", "sealed"])
def test_gating_suites_that_one_owner_dropped_by_hand_are_found_by_verify(pair: Place, role: str) -> None:
    with pair.open() as lab:
        lock = next_lock(lab, role)
        assert len(loosens(lab.desk, lock)) > 1
        found = told(lab, lock)
        assert found is not None and found.reason == "judge.owners" and f"suite {role}-" in found.message


@pytest.mark.parametrize(("version", "twice", "reason"), [(1, 0, "overtaken"), (9, 0, "overtaken"), (2, 1, "twice")])
def test_a_lock_put_in_by_hand_that_follows_none_or_names_a_suite_twice_is_found(
    opened: Lab, version: int, twice: int, reason: str
) -> None:
    lock = opened.desk.suites_lock[1]
    found = told(opened, replace(lock, lock_version=version, suites=(*lock.suites[::-1], *lock.suites[:twice])))
    assert found is not None and found.reason == f"order.lock-{reason}" and found.advice


def test_a_lock_that_only_adds_suites_loosens_nothing(pair: Place) -> None:
    with pair.open(writer=False) as lab:
        lock = lab.desk.suites_lock[1]
        assert loosens(lab.desk, replace(lock, lock_version=2)) == ()


def test_one_owner_alone_loosens_and_readiness_and_review_say_so(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open() as lab:
        assert change_policy(lab, tmp_path, gates=gates(lab, finalists=4)).committed
        ready = {c.name: c.detail for c in lab.ready().criteria}
        assert "one owner alone can change what judges" in ready["verify"]
        assert "independent: false" in ready["verify"]
        lab.round(CLUSTER)
        found = lab.review_pack(decisions(lab)[-1].standings[0].artifact, tmp_path / "pack")
        assert not found.review.judges.independent
        pages = [p.read_text() for p in (tmp_path / "pack").rglob("*.md")]
        assert any("Who may change it: one owner alone" in page for page in pages)
    assert problems(new_lab) == []


def having(section: str, **changes: Any) -> Policy:
    return replace(BASE, **{section: structs.replace(getattr(BASE, section), **changes)})


LOOSER = (
    ("gates.alpha", having("gates", alpha=0.1)),
    ("gates.drift_alignment", having("gates", drift_alignment=0.4)),
    ("utility.switching_threshold", having("utility", switching_threshold=0.0)),
    ("reserve.minimum_bytes", having("reserve", minimum_bytes=0)),
    ("budget.relative_delta", having("budget", relative_delta=2.0)),
    ("budget.output_bytes", having("budget", output_bytes=32 << 30)),
    ("budget.worker_seconds", having("budget", worker_seconds=6000)),
    ("population.descendants", having("population", descendants="admitted")),
    ("protected", replace(BASE, protected=("rot",))),
    ("minimum_isolation", replace(BASE, minimum_isolation=BASE.minimum_isolation[1:])),
    ("recompute", replace(BASE, recompute="receipt")),
    ("stages: champion", replace(BASE, stages=(BASE.stages[0], structs.replace(BASE.stages[1], approvals=0)))),
    (
        "operators: mutation/1",
        replace(
            BASE,
            operators=tuple(
                structs.replace(g, bounds={"strength": (0.0, 0.2)}) if g.operator == "mutation/1" else g
                for g in BASE.operators
            ),
        ),
    ),
    (
        "operators: new/1",
        replace(
            BASE, operators=(*BASE.operators, OperatorGrant(operator="new/1", status="offline", admitted=(), bounds={}))
        ),
    ),
    (
        "licences: X",
        replace(BASE, licences=(*BASE.licences, LicenceRule(spdx="X", strictness=9, combines_with=()))),
    ),
)


# What loosens whichever way it is moved.
EITHER = (
    ("gates.finalists", having("gates", finalists=1), having("gates", finalists=9)),
    ("utility.accuracy", having("utility", accuracy=0.5), having("utility", accuracy=2.0)),
    ("utility.compute", having("utility", compute=0.0), having("utility", compute=0.2)),
)


@pytest.mark.parametrize(("field", "less", "more"), EITHER, ids=[f for f, _, _ in EITHER])
def test_what_lets_another_candidate_pass_either_way_is_looser_either_way(
    field: str, less: Policy, more: Policy
) -> None:
    for before, after in ((BASE, less), (less, BASE), (BASE, more), (more, BASE)):
        assert loosened(before, after) == (field,)


@pytest.mark.parametrize(("field", "after"), LOOSER, ids=[f for f, _ in LOOSER])
def test_every_field_that_lets_more_pass_is_told_one_way_and_not_the_other(field: str, after: Policy) -> None:
    assert loosened(BASE, after) == (field,)
    assert loosened(after, BASE) == ()


def test_an_account_is_loosened_by_leaving_it_out_by_capacity_and_by_minimum() -> None:
    def of(*rows: tuple[int, int]) -> Policy:
        made = (Allowance(account="memory", capacity=c, minimum=m) for c, m in rows)
        return having("reserve", accounts=tuple(made))

    for after in (of(), of((11, 5)), of((10, 4))):
        assert loosened(of((10, 5)), after) == ("reserve.accounts: memory",)
    assert loosened(of(), of((10, 5))) == loosened(of((10, 5)), of((9, 6))) == ()


def test_a_limit_on_the_work_of_answering_is_loosened_by_a_larger_one_and_by_none() -> None:
    def of(limit: float) -> Policy:
        return having("gates", cost_ratio=limit)

    for after in (1.5, 0.0):
        assert loosened(of(1.1), of(after)) == ("gates.cost_ratio",)
    assert loosened(of(0.0), of(1.1)) == loosened(of(1.1), of(1.0)) == loosened(of(0.0), of(0.0)) == ()


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.integers(0, 99), st.integers(0, 99))
def test_of_two_different_policies_one_at_least_is_looser(one: float, other: float, days: int, more: int) -> None:
    first = replace(having("gates", margin=one), hysteresis=structs.replace(BASE.hysteresis, cooldown_hours=days))
    second = replace(having("gates", margin=other), hysteresis=structs.replace(BASE.hysteresis, cooldown_hours=more))
    assert bool(loosened(first, second) or loosened(second, first)) == ((one, days) != (other, more))
