"""A file that is replaced again and again: whole at every moment, for whoever reads, whatever stops the writer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from studbook import files, rewritten
from studbook.errors import OverBudget, StudbookError, UsageError
from studbook.rewritten import Rewritten, read_rewritten


def test_two_files_take_turns_and_no_third_one_is_made(tmp_path: Path) -> None:
    path, aside = tmp_path / "note", tmp_path / "aside"
    writer, inodes = Rewritten(path, aside), []
    for turn in range(6):
        writer.replace(b"%d" % turn * (9 - turn))
        assert read_rewritten(path, 100) == b"%d" % turn * (9 - turn)
        inodes.append(path.stat().st_ino)
    assert inodes[0::2] == [inodes[0]] * 3
    assert inodes[1::2] == [inodes[1]] * 3
    assert path.stat().st_mode & 0o777 == 0o444
    assert [p.name for p in aside.iterdir()] == ["note.partial"]
    writer.close()
    writer.close()
    assert list(aside.iterdir()) == []
    assert path.read_bytes() == b"5555"


def test_handles_do_not_pile_up(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        writer = Rewritten(tmp_path / "note")
        for turn in range(5):
            writer.replace(b"%d" % turn)
        writer.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("thief", ["replaced", "linked", "gone", "link"])
def test_a_file_that_somebody_else_put_in_the_way_is_never_written_into(tmp_path: Path, thief: str) -> None:
    path, treasure = tmp_path / "note", tmp_path / "treasure"
    treasure.write_bytes(b"treasure")
    writer = Rewritten(path)
    writer.replace(b"one")
    writer.replace(b"two")
    waiting = tmp_path / "note.partial"
    if thief == "linked":
        os.link(waiting, tmp_path / "second name")
    else:
        waiting.unlink()
    if thief == "replaced":
        os.link(treasure, waiting)
    if thief == "link":
        waiting.symlink_to(treasure)
    writer.replace(b"three")
    writer.replace(b"four")
    assert path.read_bytes() == b"four"
    assert not path.is_symlink()
    assert treasure.read_bytes() == b"treasure"
    if thief == "linked":
        assert (tmp_path / "second name").read_bytes() == b"one"
    writer.close()


def test_a_live_file_that_somebody_else_put_there_is_replaced_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "note"
    writer = Rewritten(path)
    writer.replace(b"one")
    path.unlink()
    path.write_bytes(b"restored by hand")
    (tmp_path / "note.previous.partial").write_bytes(b"left by a crash")
    for turn in range(4):
        writer.replace(b"%d" % turn)
        assert path.read_bytes() == b"%d" % turn
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["note"]


def test_where_a_file_cannot_have_two_names_every_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    writer = Rewritten(tmp_path / "note")
    for turn in range(4):
        writer.replace(b"%d" % turn)
        assert (tmp_path / "note").read_bytes() == b"%d" % turn
        assert [p.name for p in tmp_path.iterdir()] == ["note"]
    writer.close()


def steps_of_the_third_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    writer, passed = Rewritten(path), list[str]()
    writer.replace(b"old")
    writer.replace(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(files, "boundary", passed.append)
        writer.replace(b"after")
    writer.close()
    return passed


def test_a_disk_that_refuses_any_step_leaves_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    steps = steps_of_the_third_turn(tmp_path / "whole" / "note", monkeypatch)
    assert len(steps) == 6
    for at, name in enumerate(steps):
        path = tmp_path / str(at) / "note"
        path.parent.mkdir()
        writer, left = Rewritten(path), [at]
        writer.replace(b"old")
        writer.replace(b"before")

        def fail(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files, "boundary", fail)
            with pytest.raises(OverBudget) as caught:
                writer.replace(b"after")
        assert caught.value.reason == "disk.full"
        assert path.read_bytes() in {b"before", b"after"}, name
        writer.replace(b"again")
        assert path.read_bytes() == b"again"
        writer.close()
        assert [p.name for p in path.parent.iterdir() if p.name != "note.previous.partial"] == ["note"]


def test_a_reader_beside_a_writer_never_sees_a_mixture(tmp_path: Path) -> None:
    path, stop = tmp_path / "note", threading.Event()
    writer = Rewritten(path)
    writer.replace(b"0" * 50_000)
    wrong: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            data = read_rewritten(path, 1 << 20)
            if len(set(data)) != 1:
                wrong.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(300):
        writer.replace(b"%d" % (turn % 10) * (50_000 + turn % 7 * 4_000))
    stop.set()
    reader.join()
    writer.close()
    assert wrong == []


def test_a_reader_that_was_overtaken_twice_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain, times = tmp_path / "note", rewritten.read_file, [0]
    writer = Rewritten(path)
    writer.replace(b"old")
    writer.replace(b"first")

    def overtaken(path: Path, limit: int) -> bytes:
        times[0] += 1
        if times[0] > 1:
            return plain(path, limit)
        # The file that was opened is out of its place, and half written, when it is read.
        with path.open("rb") as file:
            writer.replace(b"second")
            writer.replace(b"third")
            return file.read()[:2]

    monkeypatch.setattr(rewritten, "read_file", overtaken)
    assert read_rewritten(path, 100) == b"third"
    assert times == [2]
    writer.close()


def test_reading_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_rewritten(tmp_path / "note", 100)
    assert caught.value.reason == "file.missing"
    (tmp_path / "note").mkdir()
    with pytest.raises(StudbookError) as caught_other:
        read_rewritten(tmp_path / "note", 100)
    assert caught_other.value.reason == "file.type"
