"""The engine in Chromium and in wasmtime: the same logits to the bit, and the same verdict on every hostile file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from page_site import harness

from studbook.adapters.changes import Dense, LowRank
from studbook.adapters.make import low_rank, random_delta
from studbook.adapters.writer import write_adapter
from studbook.models.engine import Engine
from studbook.models.slm import Slm, parse_slm
from studbook.models.slm_writer import write_slm

if TYPE_CHECKING:
    from conftest import Open, Serve

ROOT = Path(__file__).resolve().parents[2]
FOUNDERS = sorted(path.parent.name for path in (ROOT / "examples" / "founders").glob("*/*.slm"))
STORAGES = ("f32", "q8_0", "q4_0")
# Grouped heads, its own output matrix, and the longest context of these tests.
SEEDED = {
    "vocab_size": 260, "hidden_size": 64, "layer_count": 2, "head_count": 4, "kv_head_count": 2, "head_dim": 16,
    "ffn_size": 160, "max_context": 256, "rope_theta": 10000.0, "rms_norm_epsilon": 1e-05, "tied": False,
    "tokenizer": "BTOK", "dtype": "f32", "seed": 11,
}  # fmt: skip
ADAPTERS: dict[str, Any] = json.loads((ROOT / "tests" / "adapters" / "cases.json").read_text(encoding="utf-8"))
CONTAINERS: dict[str, Any] = json.loads((ROOT / "tests" / "models" / "slm_cases.json").read_text(encoding="utf-8"))
Ask = Callable[[str, dict[str, Any]], Any]


@pytest.fixture
def ask(tmp_path: Path, serve: Serve, visit: Open) -> Ask:
    """Ask a function of the tests' own module, which stands on the page's engine."""
    page = visit(serve(harness(tmp_path / "harness")).address, wait=None)
    return lambda name, what: page.evaluate(
        "([name, what]) => import('./engine_page.js').then((module) => module[name](what))", [name, what]
    )


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def founder(name: str) -> Slm:
    return parse_slm((ROOT / "examples" / "founders" / name / f"{name}.slm").read_bytes())


def stored(model: Slm, storage: str) -> bytes:
    return write_slm(model.shape, model.tokenizer, {name: model.dense(name) for name in model.tensors}, storage)


def in_wasmtime(data: bytes, base: str | None, files: list[bytes], positions: int) -> dict[str, str]:
    found: dict[str, str] = {}
    with Engine(data) as engine:
        if base:
            engine.accept(base)
        found["none"] = engine.logit_digest(positions)
        for name, chosen in (*((str(i), [file]) for i, file in enumerate(files)), ("all", files)):
            engine.apply(*chosen)
            found[name] = engine.logit_digest(positions)
            engine.detach()
    return found


def made_for(model: Slm, tuned: Slm) -> list[bytes]:
    """A dense, a sparse and a low-rank package for a model, in the order of a stack."""
    name = "layers.1.w1.weight"
    rows, columns = model.dense(name).shape
    change = Dense(tuned.dense("norm.weight") - model.dense("norm.weight") + np.float32(0.125))
    factors = LowRank(wave(2, columns), wave(rows, 2), 2.0)
    identity = {"base_sha256": model.sha256, "licence": "CC0-1.0"}
    return [
        write_adapter(model.shape, model.tokenizer_sha256, {"norm.weight": change}, **identity, kind="task-delta",
                      digests={"tuned_sha256": tuned.sha256}),
        random_delta(model, tuned, licence="CC0-1.0", keep=0.05, seed=7),
        low_rank(model, {name: factors}, licence="CC0-1.0", kind="trained", digests={"data_sha256": tuned.sha256}),
    ]  # fmt: skip


def wave(rows: int, columns: int) -> NDArray[np.float32]:
    return (np.sin(np.arange(rows * columns, dtype=np.float32)) * np.float32(0.1)).reshape(rows, columns)


def pair(name: str, tool: ModuleType) -> tuple[Slm, Slm]:
    """A model, and another of its shape."""
    if name == "seeded":
        return parse_slm(tool.build_model(SEEDED)), parse_slm(tool.build_model(SEEDED | {"seed": 12}))
    return founder(name), founder(FOUNDERS[FOUNDERS.index(name) - 1])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", [*FOUNDERS, "seeded"])
def test_logits_are_those_of_wasmtime_with_and_without_every_kind_of_package(
    name: str, storage: str, ask: Ask, cases_tool: ModuleType
) -> None:
    model, tuned = pair(name, cases_tool)
    data, base = stored(model, storage), None if storage == "f32" else model.sha256
    files = made_for(model, tuned)
    assert [file[:4] for file in files] == [b"ADP1", b"ASP1", b"ALR1"]
    positions = model.shape.max_context - 1
    wanted = in_wasmtime(data, base, files, positions)
    assert len(set(wanted.values())) == 5, "every package changes the logits, and so does the stack"
    what = {"model": text(data), "base": base, "packages": [text(file) for file in files], "positions": positions}
    assert ask("digests", what) == wanted | {"again": wanted["none"]}


def test_every_case_of_the_table_of_packages_ends_as_it_says(ask: Ask, cases_tool: ModuleType) -> None:
    models = {name: text(cases_tool.build_model(recipe)) for name, recipe in ADAPTERS["models"].items()}
    found = ask("adapters", {"models": models, "packages": ADAPTERS["packages"], "cases": ADAPTERS["cases"]})
    assert len(found) == len(ADAPTERS["cases"]) >= 136
    for case in ADAPTERS["cases"]:
        result, wanted = found[case["id"]], case.get("refused")
        if wanted is None:
            assert result["refused"] is None, case["id"]
            assert result["alone"] == [None] * len(case["packages"])
            assert result["stack"]["fused"] == case["fused"], case["id"]
            assert result["stack"]["state_sha256"] == case["state_sha256"]
            assert result["restored"], case["id"]
        else:
            assert (result["refused"], result["place"]) == (wanted["rule"], wanted["package"]), case["id"]
            alone = wanted["rule"] if wanted["stage"] == "read" else None
            assert result["alone"][wanted["package"]] == alone, case["id"]
            assert result["unchanged"], case["id"]


def test_every_case_of_the_table_of_containers_ends_as_it_says_and_leaves_the_model_before(ask: Ask) -> None:
    found = ask("containers", CONTAINERS)
    assert len(found) == len(CONTAINERS["cases"])
    for case in CONTAINERS["cases"]:
        result, wanted = found[case["id"]], case.get("refused")
        assert (result["checked"], result["loaded"]) == (wanted, wanted), case["id"]
        if wanted is None:
            facts = {"parameter_count": result["info"]["parameters"], **result["info"]}
            assert {field: facts[field] for field in case["read"]} == case["read"], case["id"]
        else:
            assert result["standing"], case["id"]
