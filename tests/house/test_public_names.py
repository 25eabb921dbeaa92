import ast
import importlib
import inspect
import re
import subprocess
import sys

import pytest

import studbook
from studbook import errors

BRANCH = re.compile(r"^(?P<indent> *)(?P<name>[A-Z]\w+) +(?P<code>\d+)(?:  +\S.*)?$", flags=re.MULTILINE)
CLASSES = {n: k for n, k in vars(errors).items() if isinstance(k, type) and issubclass(k, errors.StudbookError)}


def drawn_tree() -> dict[str, tuple[str | None, int]]:
    """Name -> parent and exit code, as the docstring of `studbook.errors` draws them."""
    found: dict[str, tuple[str | None, int]] = {}
    above: list[tuple[int, str]] = []
    for branch in BRANCH.finditer(errors.__doc__ or ""):
        depth, name = len(branch["indent"]), branch["name"]
        while above and above[-1][0] >= depth:
            above.pop()
        found[name] = (above[-1][1] if above else None, int(branch["code"]))
        above.append((depth, name))
    return found


@pytest.mark.parametrize("name", studbook.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(importlib.import_module("studbook"), name) is not None
    assert name in dir(studbook)


def test_the_public_names_hold_the_door_and_every_error():
    assert set(studbook.__all__) >= {"Lab", "Policy", "Record", "read_record", "digest", *CLASSES}
    assert list(studbook.__all__) == sorted(studbook.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Swan'"):
        studbook.Swan  # noqa: B018


def test_every_module_lists_exactly_its_public_classes_and_functions(modules):
    for module in modules.values():
        if not module.public or module.name == "studbook":
            continue
        tree = module.tree
        kinds = (ast.FunctionDef, ast.ClassDef)
        # A decorated function of the command line is reached through its group, not by name.
        named = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_") and not is_verb(n)]
        lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
        listed = ast.literal_eval(lists[0]) if lists else []
        assert {n.name for n in named} <= set(listed), module.name
        bound = {name for node in tree.body for name in names_bound(node)}
        assert set(listed) <= bound, module.name


def is_verb(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        re.search(r"\.(command|group)\(", ast.unparse(decorator)) for decorator in node.decorator_list
    )


def names_bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return {name for child in inner for name in names_bound(child)} if isinstance(node, ast.If | ast.Try) else set()


def test_the_drawn_error_tree_is_the_one_in_the_code():
    code = {
        name: (None if kind is errors.StudbookError else kind.__base__.__name__, kind.exit_code)
        for name, kind in CLASSES.items()
    }
    drawn = drawn_tree()
    # The root of the drawing carries the word "exit" instead of a number; nothing raises it with a code of its own.
    drawn.setdefault("StudbookError", (None, errors.StudbookError.exit_code))
    roots = {name: ("StudbookError" if above is None and name != "StudbookError" else above, code_)
             for name, (above, code_) in drawn.items()}  # fmt: skip
    assert roots == code


def test_every_error_class_has_advice_a_reason_and_its_own_words():
    for kind in CLASSES.values():
        assert kind.advice.endswith((".", "`", "?")) and len(kind.advice) > 10, kind
        assert re.fullmatch(r"[a-z-]+", kind.reason), kind
        assert inspect.getdoc(kind) and kind.__doc__
    assert set(CLASSES) <= set(errors.__all__)
    own = [kind.reason for kind in CLASSES.values()]
    assert len(own) == len(set(own))


def test_the_package_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "studbook", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("studbook, version ")
