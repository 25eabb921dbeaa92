from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cases_tool() -> ModuleType:
    """The tool that writes the table: recipes of models, packing by hand, fusion in plain floats."""
    spec = importlib.util.spec_from_file_location("adapter_cases", ROOT / "tools" / "adapter_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
