"""A page whose own checks are all gone: what is hostile still bounces, for the engine is the authority."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from page_site import harness

if TYPE_CHECKING:
    from conftest import Open, Serve

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS: dict[str, Any] = json.loads((ROOT / "tests" / "adapters" / "cases.json").read_text(encoding="utf-8"))
CONTAINERS: dict[str, Any] = json.loads((ROOT / "tests" / "models" / "slm_cases.json").read_text(encoding="utf-8"))
# The gate of all of the page's checks (checks.js), standing open.
OPEN_GATE = """export class Refusal extends Error {
  constructor(reason, detail, module = null, cause = undefined) {
    super(detail, { cause });
    Object.assign(this, { reason, module });
  }
}
export function demand() {}
"""
# A sound file may still make logits that are no numbers; the engine says so when it computes them.
NOT_FINITE = {"ready": False, "engine": "engine.non-finite"}
Verified = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def verified(good_bundle: Path, tmp_path: Path, serve: Serve, visit: Open) -> Verified:
    """Verify variants of the good bundle, with the gate open unless it is asked for."""
    files = {
        str(path.relative_to(good_bundle)): text(path.read_bytes())
        for path in good_bundle.rglob("*.*")
        if path.is_file()
    }

    def run(variants: list[dict[str, Any]], *, gate: bool = False) -> list[dict[str, Any]]:
        folder = harness(tmp_path / f"gate-{gate}", **({} if gate else {"checks": OPEN_GATE}))
        page = visit(serve(folder).address, wait=None)
        ask = "what => import('./engine_page.js').then((module) => module.verified(what))"
        found = page.evaluate(ask, {"files": files, "variants": variants})
        return [{field: value for field, value in one.items() if value is not None} for one in found]

    return run


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def variant(pieces: list[Any], whole: str | None = None, **rest: Any) -> dict[str, Any]:
    """A model put together of pieces of a whole file, and what else is exchanged."""
    return {"model": {"pieces": pieces, "whole": whole}, "packages": [], "base": None, **rest}


def test_the_gate_is_open_and_nothing_but_the_engine_is_left(good_bundle: Path, verified: Verified) -> None:
    model = text(next((good_bundle / "models").iterdir()).read_bytes())
    garbage = variant([model])
    assert verified([garbage]) == [{"ready": True, "fused": {}}]
    assert verified([garbage], gate=True) == [{"ready": False, "step": "plan", "reason": "plan.size"}]


def test_every_hostile_container_is_refused_by_the_engine_alone(verified: Verified) -> None:
    cases = CONTAINERS["cases"]
    found = verified([variant(case["pieces"], CONTAINERS["bases"][case["base"]]) for case in cases])
    for case, result in zip(cases, found, strict=True):
        wanted = case.get("refused")
        if wanted is None:
            not_finite = NOT_FINITE | {"step": "smoke", "reason": "smoke.logits"}
            assert result in ({"ready": True, "fused": {}}, not_finite), case["id"]
        else:
            assert result == {"ready": False, "step": "model", "reason": wanted, "engine": wanted}, case["id"]


def test_every_hostile_package_is_refused_by_the_engine_alone(verified: Verified, cases_tool: ModuleType) -> None:
    models = {name: cases_tool.build_model(recipe) for name, recipe in ADAPTERS["models"].items()}
    asked = []
    for case in ADAPTERS["cases"]:
        model = models[case["model"]]
        files = [ADAPTERS["packages"][name] for name in case["packages"]]
        base = case["accepted"].get(hashlib.sha256(model).hexdigest())
        asked.append(variant([text(model)], packages=files, base=base))
    for case, result in zip(ADAPTERS["cases"], verified(asked), strict=True):
        wanted = case.get("refused")
        if wanted is None:
            not_finite = NOT_FINITE | {"step": "adapters", "reason": "smoke.stack"}
            assert result in ({"ready": True, "fused": case["fused"]}, not_finite), case["id"]
        else:
            refused = {"step": "adapters", "reason": "adapter.validation", "engine": wanted["rule"]}
            assert result == {"ready": False, **refused}, case["id"]
