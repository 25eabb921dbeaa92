import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADRS = ROOT / "docs" / "adr"
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
PAGES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if p.is_file()]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def decisions() -> list[Path]:
    return sorted(ADRS.glob("[0-9]*.md"))


@pytest.mark.parametrize("name", ["docs", "schemas", "operator_docs"])
def test_generated_files_are_up_to_date(tool, name, capsys):
    code = tool(name).main(["--check"])
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", ["docs", "schemas", "operator_docs"])
def test_a_generated_file_that_was_edited_is_noticed_and_mended(tool, name, tmp_path, capsys):
    script = tool(name)
    assert script.main(["--folder", str(tmp_path)]) == 0
    edited = sorted(tmp_path.iterdir())[0]
    written = edited.read_text(encoding="utf-8")
    edited.write_text(written + "edited\n", encoding="utf-8")
    assert script.main(["--check", "--folder", str(tmp_path)]) == 1
    assert str(edited) in capsys.readouterr().out
    assert script.main(["--folder", str(tmp_path)]) == 0
    assert edited.read_text(encoding="utf-8") == written


def test_decisions_are_numbered_without_a_gap_and_all_listed():
    numbers = [int(path.name[:4]) for path in decisions()]
    assert numbers == list(range(1, len(numbers) + 1))
    listed = re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", (ADRS / "README.md").read_text(encoding="utf-8"))
    assert listed == [path.name for path in decisions()]


@pytest.mark.parametrize("path", decisions(), ids=lambda p: p.stem)
def test_a_decision_has_its_four_parts_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {int(path.name[:4])}\. \S", text)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]
    assert 15 <= len(text.splitlines()) <= 45


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_task_that_is_named_exists(page):
    tasks = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(
        re.findall(r"^ *\$? ?make ([a-z-]+)", text, flags=re.MULTILINE)
    )
    assert named <= tasks


def test_the_makefile_lists_every_task():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    tasks = set(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE)) - {"help"}
    assert set(re.findall(r"'make ([a-z-]+) ", text)) == tasks
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == {*tasks, "help"}
