"""Written programs run in workers of their own: they never see a right value, and nothing they do decides for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from studbook.errors import StudbookError
from studbook.evaluation.items import Item
from studbook.evaluation.programs import run_programs
from studbook.evaluation.scoring import KINDS
from studbook.sandbox import KERNEL, Limits, level_of, run_worker

RULE = {"calls": ["add(1, 2)", "add('a', 'b')"], "gives": ["3", "'ab'"]}
ITEM = Item("add", "code", "Write add.", "def add(a, b): return a + b", "none", RULE)
LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)

CHEATS = {
    "ends early": "import os; os._exit(0)",
    "raises the end": "raise SystemExit(0)",
    "writes a verdict": "import os, json\nopen('result.json', 'w').write(json.dumps({'answer': {'values': ['3', '3']}}))\n"
    "os._exit(0)",
    "is always equal": "class A:\n  def __eq__(s, o): return True\n  def __repr__(s): return '3'\ndef add(a, b): return A()",
    "gives one right": "def add(a, b): return 3",
    "does not parse": "def add(a, b) return",
    "never ends": "while True: pass",
    "looks for the answers": "import sys\ndef add(a, b):\n  f = sys._getframe()\n  while f:\n"
    "    if 'job' in f.f_locals and 'gives' in str(f.f_locals['job']): return 3\n    f = f.f_back\n",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_that_does_not_compute_the_values_is_wrong(tmp_path: Path, cheat: str) -> None:
    limits = Limits(seconds=1, memory_bytes=4 << 30, file_bytes=1 << 20)
    (said,) = run_programs(KINDS["code"], [ITEM], [CHEATS[cheat]], tmp_path, limits)
    assert not KINDS["code"].right(ITEM, said, 12)


def test_a_program_that_computes_the_values_is_right_however_it_is_written(tmp_path: Path) -> None:
    programs = [ITEM.expected, "add = lambda *x: x[0] + x[1]", "import operator\nadd = operator.add", None]
    said = run_programs(KINDS["code"], [ITEM] * 4, programs, tmp_path, LIMITS)
    assert [KINDS["code"].right(ITEM, found, 12) for found in said] == [True, True, True, False]


def test_a_program_reaches_no_network_no_other_program_and_no_file(tmp_path: Path) -> None:
    probe = run_worker(
        "studbook.evaluation.code_worker", {"program": "", "calls": []}, _new(tmp_path / "probe"), LIMITS
    )
    if level_of(probe.isolation) != "kernel":
        pytest.skip("this system shuts workers in by portable measures only")
    secret = tmp_path / "secret.txt"
    secret.write_text("4")
    tries = [
        "import socket; socket.socket()",
        f"open({str(secret)!r}).read()",
        f"open({str(tmp_path / 'written')!r}, 'w')",
    ]
    for text in tries:
        program = f"def add(a, b):\n  try:\n    {text}\n    return 'reached'\n  except OSError:\n    return 'refused'\n"
        (said,) = run_programs(KINDS["code"], [ITEM], [program], tmp_path, LIMITS)
        assert said == ["'refused'"] * 2, text
    hostile = "import os\nos.execv('/bin/true', ['true'])"
    limits = Limits(seconds=5, memory_bytes=4 << 30, file_bytes=1 << 20, demands=KERNEL)
    try:
        (said,) = run_programs(KINDS["code"], [ITEM], [hostile], tmp_path, limits)
    except StudbookError as error:
        assert error.reason.startswith("sandbox.")
    else:
        assert not KINDS["code"].right(ITEM, said, 12)


def _new(path: Path) -> Path:
    path.mkdir()
    return path
