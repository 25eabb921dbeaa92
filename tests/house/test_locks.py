import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", flags=re.MULTILINE)
HASHED = ("build", "core", "test", "check", "engine", "browser")


def text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    return dict(PINNED.findall(text(name)))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("name", HASHED)
def test_every_requirement_of_a_lock_is_exact_and_hashed(name):
    entries = re.split(r"\n(?=[A-Za-z0-9])", text(name).strip())
    assert len(entries) == len(pins(name))
    for entry in entries:
        assert PINNED.match(entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_the_locks_cover_what_the_project_declares():
    declared = project()
    assert names(declared["project"]["dependencies"]) <= pins("core").keys()
    assert names(declared["dependency-groups"]["test"]) <= pins("test").keys()
    assert names(declared["dependency-groups"]["check"]) <= pins("check").keys()
    assert pins("train")["torch"] == "2.13.0"
    assert declared["project"]["optional-dependencies"]["train"] == ["torch==2.13.0"]


def test_two_locks_never_pin_two_versions_of_one_package():
    seen: dict[str, str] = {}
    for name in (*HASHED, "train"):
        for package, version in pins(name).items():
            assert seen.setdefault(package, version) == version, package


def test_the_project_is_built_with_the_locked_backend():
    backend = project()["build-system"]["requires"]
    assert backend == [f"hatchling=={pins('build')['hatchling']}"]
