"""The shared table, case by case: what has to be refused, by which rule and when, and what comes out of the others."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from studbook.adapters.fit import check_against, check_identity
from studbook.adapters.reader import Adapter, parse_adapter
from studbook.adapters.rules import FIT_RULES, FUSE_RULES
from studbook.adapters.source import chain
from studbook.adapters.stack import Stack
from studbook.errors import AdapterRefused
from studbook.models.slm import Slm, assemble_slm, parse_slm

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("cases.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = TABLE["cases"]
good = pytest.mark.parametrize("case", [c for c in CASES if "fused" in c], ids=lambda c: c["id"])
bad = pytest.mark.parametrize("case", [c for c in CASES if "refused" in c], ids=lambda c: c["id"])


@pytest.fixture(scope="module")
def models(cases_tool: ModuleType) -> Mapping[str, Slm]:
    return {name: parse_slm(cases_tool.build_model(recipe)) for name, recipe in TABLE["models"].items()}


@cache
def package(name: str) -> bytes:
    return base64.b64decode(TABLE["packages"][name], validate=True)


def packages(case: dict[str, Any]) -> list[Adapter]:
    return [parse_adapter(package(name), name) for name in case["packages"]]


def tensor_bytes(model: Slm) -> dict[str, tuple[bytes, bytes]]:
    return {name: (bytes(t.payload), bytes(t.scale_bytes)) for name, t in model.tensors.items()}


def file_of(model: Slm) -> str:
    return hashlib.sha256(assemble_slm(model.shape, model.tokenizer, model.tensors)).hexdigest()


def test_the_table_is_what_its_tool_writes(
    cases_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cases_tool.main(["--check"]) == 0, capsys.readouterr().out
    assert cases_tool.main(["--check", "--folder", str(tmp_path)]) == 1
    assert cases_tool.main(["--folder", str(tmp_path)]) == 0
    (tmp_path / "cases.json").write_text("{}", encoding="utf-8")
    assert cases_tool.main(["--check", "--folder", str(tmp_path)]) == 1


def test_every_model_of_the_table_has_the_stated_digest(models: Mapping[str, Slm]) -> None:
    assert {name: model.sha256 for name, model in models.items()} == {
        n: r["sha256"] for n, r in TABLE["models"].items()
    }


def test_the_table_holds_every_kind_and_every_storage_and_no_id_twice() -> None:
    assert len({case["id"] for case in CASES}) == len(CASES) >= 40
    for magic in (b"ADP1", b"ASP1", b"ALR1"):
        for storage in ("f32", "q8_0", "q4_0"):
            assert any(
                "fused" in c and c["model"] == storage and any(package(p)[:4] == magic for p in c["packages"])
                for c in CASES
            )
    assert {case["refused"]["stage"] for case in CASES if "refused" in case} == {"read", "fit", "fuse"}


@good
def test_a_good_case_gives_the_stated_digests_and_detaching_gives_the_base_back(
    case: dict[str, Any], models: Mapping[str, Slm]
) -> None:
    model = models[case["model"]]
    before, stack = tensor_bytes(model), Stack(model, case["accepted"])
    found = stack.apply(*packages(case))
    assert found.fused == case["fused"]
    assert found.state_sha256 == case["state_sha256"]
    assert list(found.applied) == [hashlib.sha256(package(name)).hexdigest() for name in case["packages"]]
    running = stack.model()
    for name in model.tensors:
        if name in case["fused"]:
            assert hashlib.sha256(running.dense(name).tobytes()).hexdigest() == case["fused"][name]
        else:
            assert running.tensors[name] is model.tensors[name]
    off = stack.detach()
    assert (off.applied, off.fused) == ((), {})
    assert tensor_bytes(stack.model()) == before
    assert file_of(stack.model()) == case["after_detach"] == stack.model().sha256


@good
def test_a_good_case_read_as_a_source_in_pieces_gives_the_same_digests(
    case: dict[str, Any], models: Mapping[str, Slm]
) -> None:
    model = models[case["model"]]
    last = chain(model, packages(case), case["accepted"])[-1]
    for name in last.names:
        size, step = last.size(name), 7 if last.size(name) < 200 else 501
        whole = np.concatenate([last.read(name, at, min(at + step, size)) for at in range(0, size, step)])
        wanted = case["fused"].get(name) or hashlib.sha256(model.dense(name).tobytes()).hexdigest()
        assert hashlib.sha256(whole.tobytes()).hexdigest() == wanted


@bad
def test_a_bad_case_is_refused_by_its_rule_and_stage_before_anything_changes(
    case: dict[str, Any], models: Mapping[str, Slm]
) -> None:
    model, wanted = models[case["model"]], case["refused"]
    before, stack = tensor_bytes(model), Stack(model, case["accepted"])
    untouched = stack.diagnostics()
    with pytest.raises(AdapterRefused) as refused:
        stack.apply(*packages(case))
    assert refused.value.reason == wanted["rule"]
    assert refused.value.where
    assert refused.value.advice
    assert stack.diagnostics() == untouched
    assert stack.model() is model
    assert tensor_bytes(model) == before
    assert wanted["stage"] == (
        "fit" if wanted["rule"] in FIT_RULES else "fuse" if wanted["rule"] in FUSE_RULES else "read"
    )


@bad
def test_the_packages_below_the_refused_one_are_good_and_stay_on(
    case: dict[str, Any], models: Mapping[str, Slm]
) -> None:
    place, stage = case["refused"]["package"], case["refused"]["stage"]
    stack = Stack(models[case["model"]], case["accepted"])
    below = [parse_adapter(package(name)) for name in case["packages"][:place]]
    if below:
        stack.apply(*below)
    standing, running = stack.diagnostics(), tensor_bytes(stack.model())
    with pytest.raises(AdapterRefused):
        adapter = parse_adapter(package(case["packages"][place]))
        assert stage != "read"
        stack.apply(adapter)
    assert stack.diagnostics() == standing
    assert tensor_bytes(stack.model()) == running


@pytest.mark.parametrize("case", [c for c in CASES if c.get("refused", {}).get("package") == 0], ids=lambda c: c["id"])
def test_one_package_held_against_the_model_alone_is_refused_at_the_same_stage(
    case: dict[str, Any], models: Mapping[str, Slm]
) -> None:
    with pytest.raises(AdapterRefused) as refused:
        adapter = packages(case)[0]
        assert case["refused"]["stage"] != "read"
        if case["refused"]["stage"] == "fuse":
            check_identity(adapter, models[case["model"]], case["accepted"])
        check_against(adapter, models[case["model"]], case["accepted"])
    assert refused.value.reason == case["refused"]["rule"]


def test_order_rounding_and_storage_show_in_the_digests() -> None:
    # A guard for the tests above: cases that all gave one digest would compare nothing.
    by_id = {case["id"]: case for case in CASES}
    one, other = by_id["stack-of-two"], by_id["stack-of-two-the-other-way"]
    assert one["state_sha256"] != other["state_sha256"]
    wq = "layers.0.wq.weight"
    assert one["fused"][wq] != other["fused"][wq]
    assert len({by_id[f"{kind}-low-rank-3"]["fused"][wq] for kind in ("f32", "q8_0", "q4_0")}) == 3
