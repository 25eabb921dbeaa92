import ast
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "studbook"
SKIPPED_FOLDERS = {"build", "dist", "demo", "node_modules", "__pycache__"}
KEPT_DOTS = {".ci", ".gitignore", ".importlinter", ".github"}


class Module(NamedTuple):
    """One module of the package, parsed."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))


def read_modules() -> dict[str, Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, text, ast.parse(text))
    return found


def project_files(folder: Path = ROOT) -> Iterator[Path]:
    """Every file of the project, without environments, caches and what `make` leaves."""
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in KEPT_DOTS
        if hidden or path.name in SKIPPED_FOLDERS or path.name.startswith("demo-") or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from project_files(path)
        elif path.is_file():
            yield path


@pytest.fixture(scope="session")
def modules() -> dict[str, Module]:
    return read_modules()


@pytest.fixture(scope="session")
def texts() -> dict[Path, str]:
    """Every text file of the project by its path below the root; files with NUL bytes are no text."""
    found = {}
    for path in project_files():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            found[path.relative_to(ROOT)] = data.decode("utf-8")
    return found


@pytest.fixture(scope="session")
def tool() -> Callable[[str], ModuleType]:
    """Load a script of ``tools/`` as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"studbook_tools_{name}", ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
