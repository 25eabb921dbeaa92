from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")


def written() -> set[str]:
    """Every test function of the project."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def test_every_threat_names_a_test_that_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 40
    assert named <= written(), named - written()


def test_every_file_of_attacks_is_in_the_table_somewhere():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    for path in (ROOT / "tests" / "attacks").glob("test_*.py"):
        own = set(re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert named & own, f"{path.name} stands nowhere in docs/threats.md"
