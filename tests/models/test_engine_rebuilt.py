"""Compiled again from its sources, the engine computes the same logits. Needs the compiler's wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from studbook.models.engine import Engine, engine_bytes
from studbook.models.engine.compiled import compiled

pytestmark = pytest.mark.train
ROOT = Path(__file__).resolve().parents[2]
FOUNDERS = sorted((ROOT / "examples" / "founders").glob("*/*.slm"))


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    spec = importlib.util.spec_from_file_location("engine_tool", ROOT / "tools" / "engine.py")
    assert spec is not None
    assert spec.loader is not None
    tool: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    wasm, _ = tool.build(tmp_path_factory.mktemp("engine") / "engine.wasm")
    return wasm


def test_the_locked_compiler_gives_the_shipped_bytes(rebuilt: bytes) -> None:
    assert rebuilt == engine_bytes()


@pytest.mark.parametrize("path", FOUNDERS, ids=lambda path: path.stem)
def test_a_rebuilt_engine_gives_equal_logit_digests(
    rebuilt: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = path.read_bytes()
    with Engine(data) as engine:
        shipped = engine.logit_digest()
    compiled.cache_clear()
    monkeypatch.setattr("studbook.models.engine.compiled.engine_bytes", lambda: rebuilt)
    with Engine(data) as engine:
        assert engine.logit_digest() == shipped
    compiled.cache_clear()
