"""The durable file layer: one descriptor, limits first, all or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studbook import files
from studbook.errors import BytesLie, OverBudget, StudbookError, UsageError


def test_a_file_is_read_whole_up_to_exactly_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert files.read_file(path, 5) == b"12345"
    with pytest.raises(OverBudget, match="5 bytes; at most 4"):
        files.read_file(path, 4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        files.read_file(tmp_path / "gone", 1)
    assert caught.value.where == str(tmp_path / "gone")


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "loop"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    (tmp_path / "real").write_bytes(b"1")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "real"),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path),
    }
    make[kind]()
    with pytest.raises(BytesLie) as caught:
        files.read_file(path, 10)
    assert caught.value.where == str(path)


def test_a_sparse_terabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OverBudget):
        files.read_file(path, 1 << 27)


def test_a_new_file_is_read_only_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "new"
    files.write_new(path, b"first")
    assert path.stat().st_mode & 0o777 == 0o444
    with pytest.raises(StudbookError, match="disk refused"):
        files.write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert files.sha256_file(path) == hashlib.sha256(b"first").hexdigest()


def test_a_half_written_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudbookError) as caught:
        files.write_new(tmp_path / "half", b"data")
    assert (caught.value.reason, caught.value.exit_code) == ("disk.full", 7)
    assert "Free some space" in caught.value.advice
    assert not (tmp_path / "half").exists()


def test_a_line_that_did_not_fit_is_cut_off_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    files.append_line(path, b"one")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StudbookError):
            files.append_line(path, b"two")
    assert path.read_bytes() == b"one\n"
    files.append_line(path, b"three")
    assert path.read_bytes() == b"one\nthree\n"


def test_replacing_leaves_the_old_bytes_until_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alias"
    files.replace_file(path, b"old")
    seen: list[tuple[str, bytes]] = []
    monkeypatch.setattr(files, "boundary", lambda step: seen.append((step, path.read_bytes())))
    files.replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [step for step, _ in seen] == [
        "create alias.partial",
        "fsync alias.partial",
        "rename alias",
        f"sync folder {tmp_path.name}",
    ]
    assert [data for _, data in seen] == [b"old", b"old", b"old", b"new"]


def test_a_leftover_partial_file_does_not_stop_the_next_replacement(tmp_path: Path) -> None:
    (tmp_path / "alias.partial").write_bytes(b"torn")
    files.replace_file(tmp_path / "alias", b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alias"]


def test_truncating_keeps_exactly_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nto")
    files.truncate(path, 8)
    assert path.read_bytes() == b"one\ntwo\n"


def test_appending_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((StudbookError, OSError)):
        files.append_line(tmp_path / "link", b"x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_written_in_pieces_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise BytesLie("the line broke", where="somewhere")

    files.write_new(tmp_path / "whole", (piece for piece in (b"one", b"", b"two")))
    assert (tmp_path / "whole").read_bytes() == b"onetwo"
    with pytest.raises(BytesLie, match="the line broke"):
        files.write_new(tmp_path / "half", broken())
    assert not (tmp_path / "half").exists()
