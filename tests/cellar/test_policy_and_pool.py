"""What the policy says of operators and licences; and the pool that keeps results in order."""

from __future__ import annotations

import time
from typing import Any

import pytest

from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.executor import available_cores, in_order
from studbook.policy import check_operator, default_policy, inherited_licence, operator_refusals
from studbook.records import Header, LicenceRule, read_record, replace, write_record

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
POLICY = default_policy(HEADER)


def test_the_default_policy_is_a_record_without_routed_operators_or_canary() -> None:
    assert read_record(write_record(POLICY)) == POLICY
    assert {grant.status for grant in POLICY.operators} == {"offline"}
    assert [rule.stage for rule in POLICY.stages] == ["shadow", "champion"]


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ({"operator": "evolve/1"}, "not on the allowlist"),
        ({}, "not on the allowlist"),
        ({"operator": "prune/1", "fraction": 0.51}, "fraction = 0.51 is outside the allowed 0..0.5"),
        ({"operator": "task-delta/1", "scales": [0.3, 1.5]}, "scales = 1.5"),
        ({"operator": "mutation/1", "strength": float("nan")}, "strength = nan"),
        ({"operator": "mutation/1", "strength": float("inf")}, "strength = inf"),
    ],
)
def test_an_operator_outside_the_policy_is_refused_by_name(operator: dict[str, Any], words: str) -> None:
    with pytest.raises(OutsideAllowlist, match=words):
        check_operator(POLICY, operator)


def test_an_operator_at_its_bounds_is_allowed() -> None:
    assert operator_refusals(POLICY, {"operator": "prune/1", "fraction": 0.5}) == ()
    # What somebody wrote by hand is refused as well, whatever its shape.
    for rules in ([{}], [7], {"field": "t"}, [{"field": "t", "values": 3}]):
        made_up = {"operator": "scheduled/1", "inner": {"operator": "slerp/1", "t": 0.5}, "rules": rules}
        assert "without field and values" in operator_refusals(POLICY, made_up)[0]
    check_operator(POLICY, {"operator": "task-delta/1", "scales": [-1.0, 1.0]})


def test_a_child_inherits_the_strictest_licence() -> None:
    assert inherited_licence(POLICY, ["CC0-1.0", "Apache-2.0", "MIT"]) == "Apache-2.0"
    assert inherited_licence(POLICY, ["MIT", "MIT"]) == "MIT"


def test_an_unlisted_licence_is_refused_with_advice() -> None:
    with pytest.raises(ParentsDoNotFit, match=r"GPL-3\.0-only is not in the policy's table") as caught:
        inherited_licence(POLICY, ["GPL-3.0-only"])
    assert "listed licence" in caught.value.advice
    with pytest.raises(ParentsDoNotFit, match=r"GPL-3\.0-only"):
        inherited_licence(POLICY, ["CC0-1.0", "GPL-3.0-only"])


def test_licences_that_may_not_be_combined_are_refused() -> None:
    rules = (
        LicenceRule(spdx="MIT", strictness=0, combines_with=("GPL-2.0-only",)),
        LicenceRule(spdx="GPL-2.0-only", strictness=5, combines_with=("MIT",)),
        LicenceRule(spdx="Apache-2.0", strictness=1, combines_with=("MIT",)),
    )
    policy = replace(POLICY, licences=rules)
    assert inherited_licence(policy, ["MIT", "GPL-2.0-only"]) == "GPL-2.0-only"
    with pytest.raises(ParentsDoNotFit, match="may not be combined"):
        inherited_licence(policy, ["Apache-2.0", "GPL-2.0-only"])


def test_results_come_in_the_order_of_the_items_whatever_finished_first() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0.0)
        return item * item

    assert list(in_order(slow_first, range(6), workers=3)) == [0, 1, 4, 9, 16, 25]
    assert available_cores() >= 1


def test_the_first_failure_stops_the_rest() -> None:
    started: list[int] = []

    def fails_at_one(item: int) -> int:
        started.append(item)
        if item == 1:
            raise OutsideAllowlist("no")
        time.sleep(0.01)
        return item

    with pytest.raises(OutsideAllowlist):
        list(in_order(fails_at_one, range(100), workers=1))
    assert len(started) < 100
