"""What a worker leaves is looked at before anybody takes it over."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from studbook.errors import BytesLie, OverBudget
from studbook.sandbox import Limits
from studbook.sandbox.outputs import check_output, contents

LIMITS = Limits(seconds=1, memory_bytes=1, file_bytes=1 << 20, folder_bytes=4 << 20, files=20)


def linked(folder: Path) -> None:
    (folder / "one").write_bytes(b"x")
    (folder / "two").hardlink_to(folder / "one")


def listening(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)
        made.bind("door")
        os.chdir(here)


def marked(folder: Path) -> None:
    (folder / "tool").write_bytes(b"x")
    (folder / "tool").chmod(0o4755)


def deep(folder: Path) -> None:
    for _ in range(40):
        folder = folder / "d"
        folder.mkdir()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to a file": (lambda f: (f / "l").symlink_to("/etc/passwd"), "sandbox.output-type"),
    "a link to a folder": (lambda f: (f / "l").symlink_to("/etc"), "sandbox.output-type"),
    "a link that loops": (lambda f: (f / "l").symlink_to("l"), "sandbox.output-type"),
    "a fifo": (lambda f: os.mkfifo(f / "p"), "sandbox.output-type"),
    "a socket": (listening, "sandbox.output-type"),
    "two names for one file": (linked, "sandbox.output-link"),
    "a set-user bit": (marked, "sandbox.output-mode"),
    "a terminal escape": (lambda f: (f / "a\x1b[2J").write_bytes(b""), "sandbox.output-name"),
    "a line end": (lambda f: (f / "a\nb").write_bytes(b""), "sandbox.output-name"),
    "a direction override": (lambda f: (f / "a\u202eb").write_bytes(b""), "sandbox.output-name"),
    "a backslash": (lambda f: (f / "a\\b").write_bytes(b""), "sandbox.output-name"),
    "bytes that are no text": (lambda f: Path(os.fsdecode(bytes(f) + b"/\xff")).touch(), "sandbox.output-name"),
    "a long name": (lambda f: (f / ("n" * 250)).touch(), "sandbox.output-name"),
    "folders without end": (deep, "sandbox.output-depth"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("below", [".", "child/inner"])
def test_what_a_worker_may_not_leave_is_refused_with_its_name(tmp_path: Path, what: str, below: str) -> None:
    make, reason = REFUSED[what]
    place = tmp_path / below
    place.mkdir(parents=True, exist_ok=True)
    make(place)
    limits = Limits(seconds=1, memory_bytes=1, file_bytes=1 << 20)
    with pytest.raises(BytesLie) as caught:
        check_output(tmp_path, limits)
    assert caught.value.reason == reason
    assert caught.value.where.startswith(str(tmp_path))
    assert caught.value.where.isprintable()
    assert caught.value.advice


def test_plain_files_and_folders_pass(tmp_path: Path) -> None:
    (tmp_path / "child" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "child" / "1_Pooling" / "config.json").write_bytes(b"{}")
    (tmp_path / "candidate.slm").write_bytes(b"x" * 1000)
    check_output(tmp_path, LIMITS)


def test_a_folder_that_inherits_its_groups_bit_passes(tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    (tmp_path / "child").chmod(0o2755)
    check_output(tmp_path, LIMITS)


@pytest.mark.parametrize(("files", "passes"), [(20, True), (21, False)])
def test_no_more_files_than_allowed(tmp_path: Path, files: int, passes: bool) -> None:
    for number in range(files):
        (tmp_path / str(number)).touch()
    if passes:
        check_output(tmp_path, LIMITS)
    else:
        with pytest.raises(OverBudget, match="more than 20 files"):
            check_output(tmp_path, LIMITS)


@pytest.mark.parametrize(("size", "passes"), [(4 << 20, True), ((4 << 20) + 1, False), (1 << 40, False)])
def test_a_file_with_holes_counts_in_full(tmp_path: Path, size: int, passes: bool) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(size)
    if passes:
        check_output(tmp_path, LIMITS)
    else:
        with pytest.raises(OverBudget, match=f"holds {size} bytes"):
            check_output(tmp_path, LIMITS)


def test_while_a_worker_writes_its_files_are_counted_no_further_than_needed(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"x" * 8192)
    found = contents(tmp_path, 100)
    assert found.files == 10
    assert found.disk_bytes >= 10 * 8192
    assert contents(tmp_path, 3).files == 4
    assert contents(tmp_path / "nowhere", 3) == (0, 0)


@pytest.mark.parametrize(("given", "total"), [(0, 2 * (1 << 20) + (64 << 20)), (123, 123)])
def test_all_files_together_have_a_limit_of_their_own(given: int, total: int) -> None:
    assert Limits(seconds=1, memory_bytes=1, file_bytes=7, folder_bytes=given).total_bytes == total
