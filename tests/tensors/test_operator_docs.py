from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from studbook.breeding.operators import operator_types
from studbook.tensors.contract import CONTRACT_SHA256

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("operator_docs", ROOT / "tools" / "operator_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_in_the_repository_are_up_to_date(tool, capsys):
    assert tool.main(["--check"]) == 0, capsys.readouterr().out


def test_pages_are_written_once_and_then_found_up_to_date(tool, tmp_path, capsys):
    arguments = ["--folder", str(tmp_path / "pages")]
    assert tool.main(["--check", *arguments]) == 1
    assert not (tmp_path / "pages").exists()
    assert tool.main(arguments) == 0
    assert tool.main(["--check", *arguments]) == 0
    capsys.readouterr()
    assert tool.main(arguments) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", ["edit", "delete", "add"])
def test_a_page_that_is_edited_missing_or_left_over_is_stale(tool, tmp_path, capsys, damage):
    arguments = ["--folder", str(tmp_path)]
    tool.main(arguments)
    page = tmp_path / ("blend-1.md" if damage != "add" else "slerp-0.md")
    if damage == "delete":
        page.unlink()
    else:
        page.write_text("another text", encoding="utf-8")
    capsys.readouterr()
    assert tool.main(["--check", *arguments]) == 1
    assert page.name in capsys.readouterr().out
    assert tool.main(arguments) == 0
    assert tool.main(["--check", *arguments]) == 0


@pytest.mark.parametrize("kind", operator_types(), ids=lambda kind: kind.tag())
def test_a_page_names_every_field_and_the_index_every_operator(tool, kind):
    page = tool.page(kind)
    assert all(f"| `{field}` |" in page for field in kind.__struct_fields__)
    assert kind.tag() in tool.pages()["README.md"]
    assert CONTRACT_SHA256 in tool.pages()["README.md"]


def test_a_docstring_without_a_section_is_refused(tool):
    with pytest.raises(SystemExit, match="Failure modes"):
        tool.sections("Do something.\n\nFormula:\n    child = p\n")
