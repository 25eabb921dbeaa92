"""What the system itself refuses is told in two lines with exit code 1, a full disk with 7; never as a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lab_fixtures import Place, run_cli


def check_told(ended: subprocess.CompletedProcess[str], words: str, code: int = 1) -> None:
    assert ended.returncode == code, ended
    lines = ended.stderr.splitlines()
    assert len(lines) == 2, ended.stderr
    assert lines[0].startswith("studbook: ")
    assert words in lines[0]
    assert lines[1].startswith("  what to do: ")


def test_a_path_the_system_cannot_name_is_told_with_its_place(new_lab: Place) -> None:
    long = Place(new_lab.path.parent / ("a" * 300), new_lab.keys)
    check_told(run_cli(long, "list"), f"{long.path}/audit/ledger.jsonl: the system refused: File name too long")


def test_a_path_that_is_no_text_is_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"lab\xff")
    check_told(run_cli(Place(tmp_path, tmp_path / "keys"), "init", str(tmp_path / name), "--owner", "ann"), "not UTF-8")


def test_a_full_disk_is_told_and_the_same_command_goes_on_later(new_lab: Place) -> None:
    """A limit on the size of files stands for the disk: the next ledger line does not fit."""
    size = (new_lab.path / "audit" / "ledger.jsonl").stat().st_size + 100
    command = [sys.executable, "-m", "studbook", "--lab", str(new_lab.path), "--keys", str(new_lab.keys)]
    arguments = ["approve", "base", "--as", "ann", "--reason", "again"]
    ended = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    check_told(ended, "there is no room for it", 7)
    assert run_cli(new_lab, *arguments).returncode == 0


@pytest.mark.parametrize("target", ["elsewhere", "a file"])
def test_a_cache_that_is_not_the_labs_own_folder_is_refused(new_lab: Place, tmp_path: Path, target: str) -> None:
    path = new_lab.path / "cache"
    if target == "elsewhere":
        path.symlink_to(tmp_path)
    else:
        path.write_text("not a folder")
    before = sorted(tmp_path.iterdir())
    ended = run_cli(new_lab, "approve", "base", "--as", "ann")
    assert ended.returncode == 3 and "is not a folder" in ended.stderr
    assert "Traceback" not in ended.stderr and sorted(tmp_path.iterdir()) == before


def test_a_lab_that_cannot_be_written_is_told(new_lab: Place) -> None:
    path = new_lab.path / "cache" / "lock"
    path.parent.mkdir(exist_ok=True)
    # A link to itself refuses even those who may do everything.
    path.symlink_to(path)
    check_told(run_cli(new_lab, "approve", "base", "--as", "ann"), "cannot be locked")
