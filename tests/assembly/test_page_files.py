"""The page's own files: complete, in step with the lab's rules, and asking for nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from studbook.assembly import rules
from studbook.assembly.page import page
from studbook.assembly.single import single_page
from studbook.errors import RecordRefused

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PAGE = {name: data.decode() for name, data in page().items()}
IMPORTED = re.compile(r'(?:from|import\()\s*"\./([a-z]+\.js)"|new URL\("([a-z]+\.js)"')


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("page_forms", TOOLS / "page_forms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_is_reached_from_the_page_and_every_one_that_is_asked_for_is_there() -> None:
    reached, new = set(), {"index.html"}
    while new:
        reached |= new
        asked = {found for name in new for pair in IMPORTED.findall(PAGE[name]) for found in pair if found}
        new = ({"index.js", "style.css"} if "index.html" in new else asked - {"bundle.js"}) - reached
    assert reached == set(PAGE)


def test_steps_are_those_of_the_lab_and_every_reason_has_a_sentence() -> None:
    words = PAGE["words.js"]
    steps = re.findall(r'^  \["([a-z]+)", "', words, flags=re.MULTILINE)
    assert tuple(steps) == rules.STEPS
    told = set(re.findall(r'^  "([a-z.-]+)":', words, flags=re.MULTILINE))
    assert {reason for reasons in rules.REASONS.values() for reason in reasons} <= told


def test_no_file_names_an_address_but_that_of_the_drawing_language() -> None:
    named = {address for text in PAGE.values() for address in re.findall(r"https?://[^\s\"'`]+", text)}
    assert named == {"http://www.w3.org/2000/svg"}


def test_no_style_or_script_stands_inside_the_page() -> None:
    html = PAGE["index.html"]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)
    assert "innerHTML" not in "".join(PAGE.values()).replace("outerHTML", "")


def test_forms_are_those_of_the_records(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--check"]) == 0, capsys.readouterr().out
    stale = tmp_path / "schemas.js"
    stale.write_text("export const SCHEMAS = {};\n", encoding="utf-8")
    assert tool.main(["--check", "--file", str(stale)]) == 1
    assert tool.main(["--file", str(stale)]) == 0
    assert stale.read_text(encoding="utf-8") == PAGE["schemas.js"]


def test_a_text_that_would_end_its_element_is_no_part_of_a_single_page() -> None:
    files = {**page(), "bundle.js": b'export const PLAN = {sha256: "", size: 1};\n'}
    assert b"</script" in single_page(files)
    with pytest.raises(RecordRefused):
        single_page(files | {"bundle.js": b'export const PLAN = "</script>";\n'})
    with pytest.raises(RecordRefused):
        single_page(files | {"index.html": b"<!doctype html>"})
