"""Hashes that are begun before anybody knows which files count."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_fixtures import Place, rewrite
from studbook.errors import BytesLie, UsageError
from studbook.lab import Lab
from studbook.workspace import Ahead


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    folder = tmp_path / "registry" / "blobs"
    folder.mkdir(parents=True)
    for number in range(20):
        (folder / f"{number:02}").write_bytes(bytes([number]) * (1 << number % 8))
    return folder


@pytest.fixture
def ahead(tmp_path: Path, blobs: Path) -> Iterator[Ahead]:
    found = Ahead(tmp_path)
    yield found
    found.close()


def true(path: Path) -> tuple[str, int]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), len(data)


def test_every_digest_is_the_files_also_when_it_is_asked_for_twice(ahead: Ahead, blobs: Path) -> None:
    for path in (*sorted(blobs.iterdir()), *sorted(blobs.iterdir())):
        assert ahead.take(path) == true(path)


@pytest.mark.parametrize("swap", ["in place", "by rename", "with the old times"])
def test_a_file_that_changed_after_it_was_hashed_is_hashed_again(ahead: Ahead, blobs: Path, swap: str) -> None:
    time.sleep(0.05)
    for path in sorted(blobs.iterdir()):
        before, data = path.stat(), bytes(b ^ 1 for b in path.read_bytes())
        if swap == "by rename":
            path.with_name("other").write_bytes(data)
            path.with_name("other").replace(path)
        else:
            path.write_bytes(data)
        if swap == "with the old times":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert ahead.take(path) == true(path)


def test_a_file_that_is_gone_or_became_a_link_is_refused_as_if_nobody_had_looked(ahead: Ahead, blobs: Path) -> None:
    time.sleep(0.05)
    (blobs / "03").unlink()
    with pytest.raises(UsageError):
        ahead.take(blobs / "03")
    (blobs / "03").symlink_to(blobs / "04")
    with pytest.raises(BytesLie):
        ahead.take(blobs / "03")


def test_strangers_files_of_any_length_hold_nothing_up(tmp_path: Path, blobs: Path) -> None:
    for number in range(64):
        with (blobs / f"holes-{number}").open("wb") as file:
            file.truncate(1 << 40)
    (blobs / "fifo").unlink(missing_ok=True)
    os.mkfifo(blobs / "fifo")
    (tmp_path / "candidate").mkdir()
    (tmp_path / "candidate" / "blobs").symlink_to(blobs)
    found = Ahead(tmp_path)
    try:
        assert found.take(blobs / "05") == true(blobs / "05")
    finally:
        found.close()


def test_verify_finds_what_changed_after_a_still_lab_was_opened(old_lab: Place) -> None:
    path = sorted(old_lab.path.glob("*/blobs/*"))[0]
    with Lab(old_lab.path, old_lab.keys, writer=False, still=True) as lab:
        time.sleep(0.2)
        data = path.read_bytes()
        rewrite(path, bytes([data[0] ^ 1]) + data[1:])
        assert str(path) in [p.where for p in lab.verify().problems]
        rewrite(path, data)
        assert lab.verify().ok
