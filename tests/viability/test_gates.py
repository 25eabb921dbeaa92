from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace

from studbook.records import Agreement, Blob, Check, ContaminationReceipt, Expected, InputDigest, Measure, WorkerLimits
from studbook.viability import gate
from studbook.viability.costs import cost_checks

NAN = float("nan")
OTHER = "f" * 64
SLICE = "e" * 64


def failing(world: Any, contender: Any) -> list[str]:
    checks = gate(contender, world.card(world.champion, "development"), world.policy)
    return [check.name for check in checks if not check.passed]


def expected(**changes: Any) -> Expected:
    fields = {"layout_sha256": OTHER, "tokenizer_sha256": OTHER, "label": "f32", "size_bytes": 1}
    return Expected(**{**fields, "delta_norm": 10.0, "relative_delta": 0.5, **changes})


def limits(**changes: int) -> WorkerLimits:
    return WorkerLimits(**{"seconds": 1, "memory_bytes": 1, "output_bytes": 1, **changes})


def compared(world: Any, suites: tuple[str, ...] = (), shared: int = 0) -> ContaminationReceipt:
    return ContaminationReceipt(
        header=world.policy.header,
        training=SLICE,
        training_rows=9,
        suites=suites or world.suites.suites,
        items=9,
        shared_prompts=shared,
        shared_items=0,
        shared_runs=0,
        clean=not shared,
    )


def test_a_child_of_rows_that_stand_in_a_suite_or_were_compared_with_none_is_refused(world: Any, good: Any) -> None:
    plain = world.contender("taught", good)
    for receipts, told in (
        ((), "was not compared with the suites"),
        ((compared(world, (OTHER,)),), "was not compared with the suites"),
        ((compared(world, shared=2),), "shares 2 prompts (0 with their answer) and runs of words of 0 items"),
        ((compared(world), compared(world, shared=1)), "shares 1 prompts"),
    ):
        child = dataclasses.replace(plain, slices=(SLICE,), receipts=receipts)
        (row,) = [c for c in gate(child, world.card(world.champion, "development"), world.policy) if not c.passed]
        assert row.name == "contamination"
        assert told in row.detail
    assert failing(world, dataclasses.replace(plain, slices=(SLICE,), receipts=(compared(world),))) == []


def answering(work: float, method: str = "closed form", fuel: float = 1e6) -> tuple[Measure, ...]:
    rows = (("multiply-adds/rot", work, "estimated", method), ("fuel/rot", fuel, "observed", "one engine"))
    return tuple(Measure(value=value, unit=unit, basis=basis, method=how) for unit, value, basis, how in rows)


@pytest.mark.parametrize(
    ("limit", "cost", "passed", "told"),
    [
        (0.0, answering(3e6), True, "3,000,000 multiply-adds, 3.000 times the champion's (the policy names no limit)"),
        (0.0, (), True, "were not measured by one method"),
        (1.1, answering(1.1e6), True, "1.100 times the champion's (at most 1.1 times)"),
        (1.1, answering(1.2e6), False, "does not hold: answering takes 1,200,000 multiply-adds"),
        (1.1, answering(1e6, "a clock"), False, "no data never promotes"),
        (1.1, answering(NAN), False, "no data never promotes"),
        (1.1, (), False, "no data never promotes"),
    ],
)
def test_what_answering_costs_is_shown_and_stops_a_candidate_where_the_policy_says_so(
    world: Any, limit: float, cost: Any, passed: bool, told: str
) -> None:
    asked = {"rot": {"dimension": "cost", "written": " ".join(["3"] * 1000)}}
    champion = world.card(world.champion, "development", results=asked, cost=answering(1e6))
    card = world.card(OTHER, "development", results=asked, cost=cost)
    row, _ = cost_checks(card, champion, world.having(cost_ratio=limit).policy.gates)
    assert (row.name, row.passed) == ("cost/rot", passed)
    assert told in row.detail
    assert cost_checks(champion, champion, world.policy.gates) == ()


@pytest.mark.parametrize(("fuel", "passed"), [(1.1e6, True), (1.2e6, False), (0.0, False)])
def test_fuel_of_answering_stops_a_candidate_as_its_multiply_adds_do(world: Any, fuel: float, passed: bool) -> None:
    asked = {"rot": {"dimension": "cost", "written": " ".join(["3"] * 1000)}}
    champion = world.card(world.champion, "development", results=asked, cost=answering(1e6))
    card = world.card(OTHER, "development", results=asked, cost=answering(1e6, fuel=fuel))
    work, row = cost_checks(card, champion, world.having(cost_ratio=1.1).policy.gates)
    assert work.passed
    assert (row.name, row.passed) == ("cost/rot/fuel", passed)
    assert ("answering takes" in row.detail) == (fuel > 0)


def test_answers_that_were_not_counted_are_no_evidence(world: Any, good: Any) -> None:
    asked = {"rot": {"dimension": "cost", "written": " ".join(["3"] * 1000)}}
    short = {"rot": {"dimension": "cost", "written": "3 3"}}
    champion = world.card(world.champion, "development", results=asked)
    contender = world.contender("short", good, development_card={"results": short})
    broken = [c.name for c in gate(contender, champion, world.policy) if not c.passed]
    assert "integrity/development-results" in broken


def test_a_sound_candidate_passes_every_gate(world: Any, good: Any) -> None:
    assert failing(world, world.contender("sound", good)) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("integrity/bindings", {"manifest": {"receipt": OTHER}}),
        ("integrity/bindings", {"manifest": {"template": OTHER}}),
        ("integrity/bindings", {"receipt": {"template": OTHER}}),
        ("integrity/bindings", {"receipt": {"operator": {"operator": "blend/1", "weights": [0.4, 0.6]}}}),
        ("integrity/bindings", {"receipt": {"numeric_contract": OTHER}}),
        ("integrity/bindings", {"template": {"policy": OTHER}}),
        ("integrity/inputs", {"receipt": {"inputs": (InputDigest(role="base", before=OTHER, after=OTHER),)}}),
        ("integrity/output", {"manifest": {"checks": ()}}),
        ("integrity/output", {"manifest": {"checks": (Check(name="size", passed=False, detail="1 byte more"),)}}),
        ("integrity/operator", {"template": {"operator": {"operator": "nobody/1", "t": 0.5}}}),
        ("integrity/operator", {"template": {"operator": {"operator": "blend/1", "weights": [1.5, -0.5]}}}),
        ("integrity/breeding-isolation", {"receipt": {"isolation": ("no-keys-in-environment",)}}),
        ("integrity/development-isolation", {"development_card": {"isolation": ()}}),
        ("integrity/delta", {"receipt": {"delta_norm": 10.5}}),
        ("mutation-budget", {"template": {"expected": expected(relative_delta=1.6)}}),
        ("resources", {"template": {"limits": limits(seconds=10_000)}}),
        ("resources", {"template": {"limits": limits(memory_bytes=1 << 50)}}),
        ("licence", {"manifest": {"licence": "GPL-3.0-only"}}),
        ("compatibility", {"template": {"compatibility": None}}),
        ("family", {"manifest": {"family": "blend+prune"}}),
        ("purpose", {"template": {"purpose": "ablation"}}),
        ("purpose", {"manifest": {"purpose": "ablation"}}),
        ("smoke", {"smoke": {"passed": False}}),
        ("smoke", {"smoke": {"finite": False}}),
        ("smoke", {"smoke": {"deterministic": False}}),
        ("smoke", {"smoke": {"artifact": OTHER}}),
        ("integrity/development-owner", {"development_card": {"artifact": OTHER}}),
        ("integrity/development-owner", {"development_card": {"role": "selection"}}),
        ("evidence/development-evaluator", {"development_card": {"evaluator": OTHER}}),
        ("integrity/development-suites", {"development_card": {"results": {"rot": {"suite": OTHER}}}}),
        ("integrity/development-suites", {"development_card": {"results": {"rot": {"items_before": OTHER}}}}),
        ("integrity/development-items", {"development_card": {"results": {"rot": {"items_after": OTHER}}}}),
        ("integrity/development-calls", {"development_card": {"results": {"srt": {"actual_calls": 999}}}}),
        (
            "integrity/development-calls",
            {"development_card": {"results": {"srt": {"actual_calls": 500, "expected_calls": 500}}}},
        ),
        ("integrity/development-results", {"development_card": {"results": {"rot": {"correct": "1" * 999}}}}),
        ("integrity/development-results", {"development_card": {"results": {"rot": {"brier_micro": ""}}}}),
        (
            "integrity/development-results",
            {"development_card": {"results": {"rot": {"brier_micro": " ".join(["2000001"] * 1000)}}}},
        ),
        (
            "integrity/development-results",
            {"development_card": {"results": {"rot": {"loglik_micro": " ".join(["1"] * 1000)}}}},
        ),
        ("integrity/development-agreement", {"development_card": {"agreement": Agreement(sampled=32, agreed=31)}}),
        ("integrity/development-agreement", {"development_card": {"agreement": Agreement(sampled=0, agreed=0)}}),
        ("evidence/development", {"development_card": {"results": {"rot": {"verdict": "error"}}}}),
        ("evidence/development", {"development_card": {"results": {"mixture": {"verdict": "no-data"}}}}),
    ],
)
def test_one_broken_thing_fails_its_gate(world: Any, good: Any, name: str, told: dict[str, Any]) -> None:
    assert name in failing(world, world.contender("broken", good, **told))


def test_a_measured_change_that_is_no_number_fails(world: Any, good: Any) -> None:
    sound = world.contender("nan", good)
    names = failing(world, dataclasses.replace(sound, receipt=replace(sound.receipt, delta_norm=NAN)))
    assert names == ["integrity/bindings", "integrity/delta"]


def test_a_declared_change_that_is_no_number_fails(world: Any, good: Any) -> None:
    sound = world.contender("nan", good)
    template = replace(sound.template, expected=expected(relative_delta=NAN, delta_norm=NAN))
    names = failing(world, dataclasses.replace(sound, template=template))
    assert {"integrity/bindings", "integrity/delta", "mutation-budget"} <= set(names)


def test_an_input_that_changed_during_the_run_fails(world: Any, good: Any) -> None:
    sound = world.contender("raced", good)
    first, *rest = sound.receipt.inputs
    receipt = replace(sound.receipt, inputs=(replace(first, after=OTHER), *rest))
    assert "integrity/inputs" in failing(world, dataclasses.replace(sound, receipt=receipt))


def test_parents_in_another_order_are_not_the_declared_ones(world: Any, good: Any) -> None:
    sound = world.contender("swapped", good)
    base, first, second = sound.receipt.inputs
    receipt = replace(sound.receipt, inputs=(base, second, first))
    assert "integrity/inputs" in failing(world, dataclasses.replace(sound, receipt=receipt))


def test_a_file_larger_than_the_ceiling_fails(world: Any, good: Any) -> None:
    sound = world.contender("large", good)
    ceiling = world.policy.gates.maximum_bytes
    for size, passes in ((ceiling, True), (ceiling + 1, False), (0, False)):
        manifest = replace(sound.manifest, artifact=Blob(sha256=sound.artifact, size=size))
        names = failing(world, dataclasses.replace(sound, manifest=manifest))
        assert ("resources" not in names) is passes


def test_one_parent_needs_no_compatibility_report(world: Any, good: Any) -> None:
    alone = {"parents": (world.parent,), "compatibility": None}
    assert failing(world, world.contender("mutant", good, template=alone)) == []


def test_what_was_never_smoked_or_scored_fails(world: Any, good: Any) -> None:
    bare = dataclasses.replace(world.contender("bare", good), smoke=None, development=None)
    assert failing(world, bare) == ["smoke", "evidence/development"]


def test_the_champion_itself_is_told_apart_from_a_candidate(world: Any) -> None:
    twin = world.contender("twin", artifact=world.champion)
    checks = gate(twin, world.card(world.champion, "development"), world.policy)
    assert [c.detail for c in checks if not c.passed] == ["identical to the champion"]


def test_a_run_cut_short_is_no_sign_of_tampering(world: Any, good: Any) -> None:
    cut = {
        "results": {
            "rot": {"verdict": "error", "correct": "", "loglik_micro": "", "brier_micro": "", "actual_calls": 3}
        },
        "agreement": Agreement(sampled=0, agreed=0),
    }
    assert failing(world, world.contender("cut", good, development_card=cut)) == ["evidence/development"]


def test_a_manifest_that_names_another_file_than_the_receipt_fails(world: Any, good: Any) -> None:
    names = failing(world, world.contender("other", good, receipt={"output": Blob(sha256=OTHER, size=700_000)}))
    assert names == ["integrity/bindings"]


def test_another_base_than_the_declared_one_fails(world: Any, good: Any) -> None:
    sound = world.contender("rebased", good)
    first, *rest = sound.receipt.inputs
    receipt = replace(sound.receipt, inputs=(replace(first, before=OTHER, after=OTHER), *rest))
    assert "integrity/inputs" in failing(world, dataclasses.replace(sound, receipt=receipt))
