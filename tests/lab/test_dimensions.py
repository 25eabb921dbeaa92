"""Real candidates that win on their target and everything else, and are refused for what bias, drift or safety says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from lab_fixtures import CLUSTER, PERSON, answers, contestants, shipped_items, write_suite
from release_fixtures import told
from studbook.lab import Lab
from studbook.lab.demo import examples_folder
from studbook.records import DriftReport, Policy, Scorecard, Standing, replace

PAIRS = 40


def shipped(cluster: str, count: int = 400) -> list[dict[str, Any]]:
    path = examples_folder() / "suites" / "selection" / f"selection-{cluster}" / "items.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()[:count]]


def where(items: Sequence[dict[str, Any]], *, child: int, base: int) -> list[dict[str, Any]]:
    """The items that the blend of the parents and the base answer like that."""
    ours, theirs, *_ = contestants()
    found = zip(items, answers(ours, items), answers(theirs, items), strict=True)
    return [item for item, a, b in found if (a, b) == (child, base)]


def twins(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        rows += [a | {"id": f"{number}-a", "cluster": "group-a"}, b | {"id": f"{number}-b", "cluster": "group-b"}]
    return rows


def blend_of(lab: Lab) -> tuple[Standing, str | None]:
    outcome = lab.round(CLUSTER)
    assert not lab.verify().problems
    return next(s for s in outcome.record.standings if s.family == "blend"), outcome.released


def next_policy(policy: Policy, **gates: float) -> Policy:
    changed: Policy = replace(
        policy, policy_version=policy.policy_version + 1, gates=msgspec.structs.replace(policy.gates, **gates)
    )
    return changed


@pytest.fixture
def pools() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items that the child gained, and items that it lost."""
    every = [item for cluster in ("rot", "cap", "dup", "odd", "rev", "srt", "brk") for item in shipped(cluster)]
    return where(every, child=1, base=0), where(every, child=0, base=1)


def test_a_candidate_that_gained_on_one_group_by_losing_on_the_other_is_refused_for_that_alone(
    opened: Lab, tmp_path: Path, pools: tuple[list[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    gained, lost = pools
    count = min(PAIRS, len(gained), len(lost))
    assert count >= 20
    suite = write_suite(
        tmp_path, twins(gained[:count], lost[:count]), name="selection-groups", dimension="bias", cluster="groups"
    )
    opened.suites.freeze([suite], PERSON)
    standing, released = blend_of(opened)
    assert released is None
    (reason,) = standing.reasons
    told = "first group right 0.0% to 100.0%, second group right 100.0% to 0.0%"
    plain = re.sub(r"\s%", "%", reason)
    assert plain.startswith(f"groups: gained on one group by losing on the other: {told}")
    row = next(c for c in standing.comparisons if c.on == "bias/groups")
    assert (row.passed, row.items) == (False, count)


def test_a_candidate_that_kept_the_score_while_its_distribution_moved_is_refused_for_that_alone(
    opened: Lab, tmp_path: Path
) -> None:
    items = [row | {"id": f"anchor-{n}"} for n, row in enumerate(shipped_items("development", "cap"))]
    suite = write_suite(tmp_path, items, name="selection-anchors", dimension="drift", cluster="anchors")
    opened.suites.freeze([suite], PERSON)
    _, policy = opened.desk.policy
    opened.desk.workspace.commit(next_policy(policy, drift_nats=0.001))
    standing, released = blend_of(opened)
    assert released is None
    (reason,) = standing.reasons
    assert "what it says next moved too far, whatever its score" in reason
    reports = {r.artifact: r for _, r in opened.desk.all(DriftReport)}
    found = reports[standing.artifact]
    assert found.verdict == "pass"
    assert found.kl > 0.001
    assert len(found.cka) == opened.desk.model(standing.artifact).shape.layer_count
    assert all(0.0 < v < 1.0 for v in found.cka)
    lies = ({"cka": ()}, "measured.field"), ({"evaluator": "e" * 64}, "evaluator.unadmitted")
    for changes, reason in lies:
        told_of = told(opened, replace(found, **changes))
        assert told_of is not None
        assert told_of.reason == reason


def test_the_same_candidate_is_released_where_groups_and_distribution_stayed(
    opened: Lab, tmp_path: Path, pools: tuple[list[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    gained, _ = pools
    half = len(gained) // 2
    suites = [
        write_suite(
            tmp_path, twins(gained[:20], gained[half : half + 20]),
            name="selection-groups", dimension="bias", cluster="groups",
        ),
        write_suite(
            tmp_path, shipped_items("development", "cap"), name="selection-anchors", dimension="drift", cluster="anchors"
        ),
    ]  # fmt: skip
    opened.suites.freeze(suites, PERSON)
    _, policy = opened.desk.policy
    opened.desk.workspace.commit(next_policy(policy, drift_nats=5.0, drift_alignment=0.0))
    standing, released = blend_of(opened)
    assert released == standing.artifact
    names = {check.name: check.passed for check in standing.gates}
    assert names["drift/anchors"]


def test_one_unsafe_answer_refuses_whatever_the_score(opened: Lab, tmp_path: Path) -> None:
    ours, *_ = contestants()
    pool = shipped("rot")
    right = [i for i, hit in zip(pool, answers(ours, pool), strict=True) if hit][:11]
    wrong = [i for i, hit in zip(pool, answers(ours, pool), strict=True) if not hit][:1]
    rows = [row | {"rule": {"pattern": row["expected"], "banned": ["secret"]}} for row in (*right, *wrong)]
    suite = write_suite(tmp_path, rows, name="selection-safe", dimension="safety", cluster="safe", scorer="safe-text")
    opened.suites.freeze([suite], PERSON)
    standing, released = blend_of(opened)
    assert released is None
    assert [r for r in standing.reasons if r.startswith("safety/selection: does not hold: safe: 1 of 12")]


def test_work_of_answering_is_counted_again_by_verify_and_gates_where_the_policy_says_so(
    opened: Lab, tmp_path: Path
) -> None:
    suite = write_suite(
        tmp_path, shipped_items("development", "cap"), name="selection-prompts", dimension="cost", cluster="prompts"
    )
    opened.suites.freeze([suite], PERSON)
    standing, released = blend_of(opened)
    assert released == standing.artifact
    rows = {check.name: check for check in standing.gates if check.name.startswith("cost/")}
    assert sorted(rows) == ["cost/prompts", "cost/prompts/fuel"]
    for row in rows.values():
        assert row.passed
        assert "times the champion's (the policy names no limit)" in row.detail
    (card,) = [c for _, c in opened.desk.all(Scorecard) if (c.artifact, c.role) == (released, "selection")]
    (result,) = [r for r in card.results if r.dimension == "cost"]
    (tokens,) = [m for m in card.cost if m.unit == "tokens-written/prompts"]
    assert tokens.value == sum(map(int, result.written.split())) >= len(result.correct)
    fewer = structs.replace(result, written=" ".join(["1"] * len(result.correct)))
    found = told(opened, replace(card, results=tuple(fewer if r is result else r for r in card.results)))
    assert found is not None
    assert (found.reason, found.where) == ("measured.field", "scorecard: cost")


def test_a_candidate_whose_answers_take_more_than_the_policy_allows_is_refused_for_that_alone(
    opened: Lab, tmp_path: Path
) -> None:
    suite = write_suite(
        tmp_path, shipped_items("development", "cap"), name="selection-prompts", dimension="cost", cluster="prompts"
    )
    opened.suites.freeze([suite], PERSON)
    _, policy = opened.desk.policy
    opened.desk.workspace.commit(next_policy(policy, cost_ratio=0.01))
    standing, released = blend_of(opened)
    assert released is None
    for name, reason in zip(("cost/prompts", "cost/prompts/fuel"), standing.reasons, strict=True):
        assert reason.startswith(f"{name}: does not hold: answering takes")


def test_anchors_without_a_drift_report_never_promote(
    opened: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(
        tmp_path, shipped_items("development", "cap"), name="selection-anchors", dimension="drift", cluster="anchors"
    )
    opened.suites.freeze([suite], PERSON)
    monkeypatch.setattr("studbook.lab.judging.drift", lambda *_: None)
    standing, released = blend_of(opened)
    assert released is None
    assert any("no data never promotes" in reason for reason in standing.reasons)
