import re
from collections.abc import Iterator
from pathlib import Path

ALLOWED = Path(__file__).with_name("allowed_wording.txt")
# The words must not stand in this file either: nothing of the project claims them, not even a test.
STEMS = ("auto" + "nom", "self-" + "modif", "self " + "modif", "self-repl" + "ic", "repl" + "icat", "swa" + "rm")
CLAIM = re.compile(r"\b(" + "|".join(STEMS) + r")\w*", flags=re.IGNORECASE)
READ_BY_USERS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/", "schemas/", "src/", "examples/", "Makefile")
SUFFIXES = {".md", ".py", ".json", ".toml", ".txt", ".manifest", ""}


def claims(texts: dict[Path, str]) -> Iterator[str]:
    """Every line a user may read that holds one of the words."""
    for path, text in texts.items():
        name = path.as_posix()
        if name.startswith((*READ_BY_USERS, "pyproject.toml")) and path.suffix in SUFFIXES:
            for line in text.splitlines():
                if CLAIM.search(line):
                    yield f"{name}: {line.strip()}"


def allowed() -> list[str]:
    return [line for line in ALLOWED.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def test_no_claim_stands_anywhere_a_user_reads(texts):
    found = set(claims(texts))
    assert found <= set(allowed()), "reword, or if the sentence denies it, add the exact line to allowed_wording.txt"


def test_every_allowed_line_still_stands_and_denies(texts):
    found = set(claims(texts))
    for line in allowed():
        assert line in found, f"no longer there: {line}"
        assert re.search(r"\b(not|no|never|nothing|nor|without)\b", line), f"denies nothing: {line}"


def test_the_wording_test_sees_a_claim():
    planted = {Path("README.md"): "An " + STEMS[0].title() + "ous lab.\nA lab.\n", Path("tests/x.py"): STEMS[0] + "y"}
    assert [line.partition(": ")[0] for line in claims(planted)] == ["README.md"]
