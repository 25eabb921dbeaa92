"""A command that cannot be read, a full disk and Ctrl-C are told in the house's form: what, where, what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from studbook.cli import main

SIGNALLED = """
import importlib.abc, os, runpy, signal, sys

module = sys.argv[1]

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Finder())
sys.argv[:] = ["studbook", "--version"]
runpy.run_module("studbook", run_name="__main__")
"""


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code of one command, and the lines on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    shown = capsys.readouterr()
    assert shown.out == ""
    return ended.value.code, shown.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["lst"], "studbook: no such command 'lst'. Did you mean 'list'?"),
        (["--frob"], "studbook: no such option '--frob'"),
        (["list", "--frob"], "studbook: list: no such option '--frob'"),
        (["register"], "studbook: register: missing argument 'PATHS...'"),
        (["init", "lab"], "studbook: init: missing option '--owner'"),
        (["suite", "thaw"], "studbook: suite: no such command 'thaw'"),
        (["diff", "a", "b", "c"], "studbook: diff: got unexpected extra argument (c)"),
        (
            ["breed", "--threads", "x"],
            "studbook: breed: invalid value for '--threads': 'x' is not a valid integer range",
        ),
    ],
)
def test_a_command_that_cannot_be_read_is_told_in_two_lines(
    arguments: list[str], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = told(arguments, capsys)
    assert code == 2
    # Versions of click differ in what they add behind the message.
    assert lines[0].startswith(first.split(". Did")[0])
    assert lines[1].startswith("  what to do: Write `studbook ")
    assert lines[1].endswith(" --help` shows every option.")
    assert len(lines) == 2


def test_a_verb_is_named_in_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = told(["suite", "freeze"], capsys)
    assert lines[0].startswith("studbook: suite freeze: missing argument")
    assert "`studbook suite freeze [OPTIONS] FOLDERS...`; `studbook suite freeze --help`" in lines[1]


def test_control_characters_of_a_command_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = told(["li\x1b[2Jst"], capsys)
    assert "\x1b" not in "".join(lines)


def test_nothing_asked_for_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    shown = capsys.readouterr()
    assert "register" in shown.out + shown.err
    assert "what to do" not in shown.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_has_the_code_of_a_budget_wherever_it_is_met() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "studbook", "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 7
    first, second = ended.stderr.splitlines()
    assert first == "studbook: the system refused: No space left on device"
    assert second.startswith("  what to do: Free some space")


@pytest.mark.parametrize("module", ["numba", "studbook.cli.commands", "studbook.lab"])
def test_ctrl_c_while_the_program_is_loaded_is_one_line_and_code_130(module: str) -> None:
    command = [sys.executable, "-c", SIGNALLED, module]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 130
    assert ended.stderr == "studbook: interrupted before anything was done\n"
    assert ended.stdout == ""


def test_ctrl_c_works_as_ever_when_the_program_is_loaded() -> None:
    code = "import signal, sys\nfrom studbook.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
    code += "sys.exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
