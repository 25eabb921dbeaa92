from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from types import ModuleType

from studbook.models.engine import ENGINE_SHA256, engine_bytes


def test_what_is_shipped_belongs_to_its_sources_and_to_its_digest(tool: Callable[[str], ModuleType]) -> None:
    engine = tool("engine")
    assert engine.stale(engine.FOLDER) == []
    stated = json.loads((engine.FOLDER / "engine.json").read_text(encoding="utf-8"))
    assert stated["sha256"] == ENGINE_SHA256 == hashlib.sha256(engine_bytes()).hexdigest()


def test_another_engine_or_another_source_is_stale(tool: Callable[[str], ModuleType], tmp_path, monkeypatch) -> None:
    engine = tool("engine")
    (tmp_path / "engine.wasm").write_bytes(engine_bytes() + b"\0")
    (tmp_path / "engine.json").write_bytes((engine.FOLDER / "engine.json").read_bytes())
    assert engine.stale(tmp_path) == ["engine.json states another sha256"]
    monkeypatch.setattr(engine, "COMMAND", "zig cc -ffast-math")
    assert engine.stale(engine.FOLDER) == ["engine.json states another command"]
