import ast
import configparser
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

MODULE_LINES = 400
FUNCTION_LINES = 50
MEDIAN_FUNCTION_LINES = 14
PICKLES = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
ROOT = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def length(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Every node below an ``if TYPE_CHECKING``: seen by the type checker, never run."""
    tests = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test).endswith("TYPE_CHECKING")]
    return {inner for test in tests for statement in test.body for inner in ast.walk(statement)}


def imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Every import that runs with the dotted names it may load."""
    quiet = for_types_only(tree)
    for node in ast.walk(tree):
        if node in quiet:
            continue
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield node, str(node.module)
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def graph(modules: Mapping[str, Any]) -> dict[str, set[str]]:
    """Module -> modules it imports. ``from a import b`` loads ``a.b`` where that is a module, and ``a`` otherwise."""
    found: dict[str, set[str]] = {}
    for module in modules.values():
        edges = set()
        for node, name in imports(module.tree):
            below = {f"{name}.{alias.name}" for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            if name in modules and not (below and below <= modules.keys()):
                edges.add(name)
        found[module.name] = edges - {module.name}
    return found


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public classes and functions of a module and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, (*Function.__args__, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                inner = [n for n in node.body if isinstance(n, (*Function.__args__, ast.ClassDef))]
                yield from ((f"{node.name}.{n.name}", n) for n in inner if not n.name.startswith("_"))


def test_no_module_is_longer_than_400_lines(modules):
    long = {name: len(m.text.splitlines()) for name, m in modules.items() if len(m.text.splitlines()) > MODULE_LINES}
    assert not long


def test_no_function_is_longer_than_50_lines_and_most_are_short(modules):
    lengths = {f"{name}.{f.name}": length(f) for name, m in modules.items() for f in functions(m.tree)}
    assert not {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION_LINES


def test_every_public_name_is_documented(modules):
    assert not [name for name, m in modules.items() if not ast.get_docstring(m.tree)]
    bare = [
        f"{module.name}.{name}"
        for module in modules.values()
        for name, node in public_definitions(module.tree)
        if not ast.get_docstring(node)
    ]
    assert not bare


def test_every_public_function_of_the_package_states_its_types(modules):
    untyped = [
        f"{name}.{f.name}"
        for name, m in modules.items()
        for f in functions(m.tree)
        if f.returns is None and f.name != "__init__"
    ]
    assert not untyped


def test_no_import_cycle(modules):
    try:
        TopologicalSorter(graph(modules)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_cycle_test_sees_a_cycle():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()


def test_no_import_inside_a_function(modules):
    hidden = [
        f"{name}: line {node.lineno}"
        for name, module in modules.items()
        for function in functions(module.tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not hidden


def test_only_the_front_door_imports_by_name(modules):
    """`importlib.import_module` would hide an edge from the import contracts."""
    users = {n for n, m in modules.items() for _, name in imports(m.tree) if name == "importlib.import_module"}
    assert users == {"studbook"}


def test_every_module_postpones_annotations(modules):
    assert not [n for n, m in modules.items() if "from __future__ import annotations" not in m.text]


def test_nothing_can_load_a_pickle(modules):
    loads = [(n, name) for n, m in modules.items() for _, name in imports(m.tree) if name.split(".")[0] in PICKLES]
    assert not loads
    assert not [name for name, module in modules.items() if "allow_pickle=True" in module.text]


def test_importing_studbook_stays_light():
    code = "import studbook, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "numba", "llvmlite", "click", "rich", "msgspec", "cryptography", "asyncio", "wasmtime"}
    assert not heavy & set(run.stdout.split())


def test_every_room_and_cellar_stands_in_the_import_contracts(modules):
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter", encoding="utf-8")
    layers = config["importlinter:contract:floors"]["layers"].replace("|", " ").replace(":", " ")
    planned = {name.strip("()") for name in layers.split()}
    built = {name.split(".")[1] for name in modules if name.count(".") >= 1} - {"__main__"}
    assert built <= planned
    required = {name for name in layers.split() if not name.startswith("(")}
    assert required <= built
    judges = config["importlinter:contract:judges"]["source_modules"].split()
    assert {f"studbook.{room}" for room in ("viability", "release", "population") if room in built} == set(judges)
    weights = config["importlinter:contract:judges"]["forbidden_modules"].split()
    assert {f"studbook.{name}" for name in ("models", "tensors", "adapters") if name in built} <= set(weights)
