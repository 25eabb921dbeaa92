import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skip(reason="needs a swan")
def test_swan(): pass

@pytest.mark.xfail(reason="not yet")
def test_later(): assert False

def test_plain(): pass
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JUnit report of a real run with one skip and one expected failure."""
    tmp_path = tmp_path_factory.mktemp("birds")
    (tmp_path / "test_birds.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    path = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return path


def verdict(tool, report: Path, *lines: str) -> int:
    allowed = report.with_name("allowed.txt")
    allowed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tool("skips").main([str(report), str(allowed)])


def test_a_skip_that_nobody_allowed_fails_and_is_named(tool, report, capsys):
    assert verdict(tool, report, "# test_birds.py: needs a swan") == 1
    said = capsys.readouterr().err
    assert "test_birds.test_swan" in said and "needs a swan" in said
    assert "test_birds.test_later" in said


def test_a_skip_on_the_list_passes(tool, report):
    assert verdict(tool, report, "test_birds.py::test_swan: needs a swan", "test_birds.py: not yet") == 0


def test_the_list_binds_test_and_reason(tool, report):
    assert verdict(tool, report, "test_birds.py: needs a goose", "test_birds.py: not yet") == 1
    assert verdict(tool, report, "test_other.py: needs a swan", "test_birds.py: not yet") == 1


def test_a_report_without_tests_is_not_a_pass(tool, tmp_path):
    path = tmp_path / "report.xml"
    path.write_text("<testsuites/>", encoding="utf-8")
    assert verdict(tool, path) == 2
