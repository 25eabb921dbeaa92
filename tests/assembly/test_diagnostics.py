from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assembly.drafts import canonical, sha
from assembly.drifts import EVIL
from studbook.lab.bundles import Bundles


def exported(folder: Path, count: int, logits: dict[str, Any]) -> dict[str, Any]:
    """What a page exports of a bundle with the first few packages on the model."""
    plan = json.loads((folder / "plan.json").read_bytes())
    modules = {m["id"]: m for m in plan["modules"]}
    model = json.loads((folder / modules["model-manifest"]["path"]).read_bytes())
    below = [json.loads((folder / modules[f"adapter-manifest-{k}"]["path"]).read_bytes()) for k in range(1, count + 1)]
    return {
        "kind": "bundle-diagnostics/1",
        "plan": sha((folder / "plan.json").read_bytes()),
        "page_build": plan["page"]["build"],
        "browser": "Chromium",
        "engine": plan["execution"]["engine"],
        "model": model["artifact"]["sha256"],
        "quantisation": model["storage"],
        "applied": plan["stack"][:count],
        "fused": below[-1]["fused"] if below else {},
        "state_sha256": below[-1]["state_sha256"] if below else sha(bytes.fromhex(model["artifact"]["sha256"])),
        "logits": logits or model["logits"],
        "calls": [{**c, "sha256": modules[c["module"]]["sha256"], "status": "passed"} for c in plan["calls"]],
        "calls_sha256": sha(canonical(plan["calls"])),
        "kv_length": 12,
        "tokens": 5,
        "tokens_per_second": 811.25,
    }


@pytest.fixture(scope="session")
def whole(good_bundle: Path) -> dict[str, Any]:
    """The diagnostics with the whole stack in force."""
    plan = json.loads((good_bundle / "plan.json").read_bytes())
    path = next(m["path"] for m in plan["modules"] if m["id"] == "adapter-family")
    return exported(good_bundle, 3, json.loads((good_bundle / path).read_bytes())["logits"])


def refusal(folder: Path, tmp_path: Path, value: Any) -> str:
    path = tmp_path / "diagnostics.json"
    path.write_bytes(value if isinstance(value, bytes) else canonical(value))
    found = Bundles.verify(folder, diagnostics=path)
    assert found.refusal is None or found.refusal.step == "diagnostics"
    return found.refusal.reason if found.refusal else ""


def test_what_a_page_exports_is_computed_again(good_bundle, whole, tmp_path):
    assert refusal(good_bundle, tmp_path, whole) == ""


def test_so_it_is_with_every_package_taken_off(good_bundle, tmp_path):
    assert refusal(good_bundle, tmp_path, exported(good_bundle, 0, {})) == ""


FORGED: list[tuple[str, Any, str]] = [
    ("kind", "bundle-diagnostics/2", "form"),
    ("plan", EVIL, "plan"),
    ("plan", "", "form"),
    ("page_build", EVIL, "plan"),
    ("engine", EVIL, "plan"),
    ("model", EVIL, "model"),
    ("quantisation", "q4_0", "model"),
    ("applied", lambda v: v[::-1], "state"),
    ("applied", lambda v: v[:-1], "state"),
    ("applied", lambda v: v[1:], "state"),
    ("state_sha256", EVIL, "state"),
    ("kv_length", 100_000, "state"),
    ("tokens", 100_000, "state"),
    ("calls", lambda v: v[:-1], "calls"),
    ("calls", lambda v: [*v, v[-1]], "calls"),
    ("calls", lambda v: [{**v[0], "status": "skipped"}, *v[1:]], "calls"),
    ("calls", lambda v: [{**v[0], "sha256": EVIL}, *v[1:]], "calls"),
    ("calls", lambda v: [v[1], v[0], *v[2:]], "calls"),
    ("calls_sha256", EVIL, "calls"),
    ("fused", lambda v: {}, "fused"),
    ("fused", lambda v: dict.fromkeys(v, EVIL), "fused"),
    ("logits", lambda v: {**v, "sha256": EVIL}, "logits"),
    ("logits", lambda v: {**v, "positions": v["positions"] - 1}, "logits"),
    ("logits", lambda v: {**v, "positions": 0}, "logits"),
    ("tokens", -1, "form"),
    ("tokens_per_second", "fast", "form"),
    ("note", "hello", "form"),
]


@pytest.mark.parametrize(("field", "to", "rule"), FORGED, ids=[f"{f}-{n}" for n, (f, _, _) in enumerate(FORGED)])
def test_a_forged_field_is_found(good_bundle, whole, tmp_path, field, to, rule):
    forged = {**whole, field: to(whole[field]) if callable(to) else to}
    assert refusal(good_bundle, tmp_path, forged) == f"diagnostics.{rule}"


def test_a_page_cannot_keep_a_field_to_itself(good_bundle, whole, tmp_path):
    for field in whole:
        reason = refusal(good_bundle, tmp_path, {k: v for k, v in whole.items() if k != field})
        assert reason == "diagnostics.form", field


def test_another_spelling_is_no_export(good_bundle, whole, tmp_path):
    assert refusal(good_bundle, tmp_path, json.dumps(whole, indent=2).encode()) == "diagnostics.form"
