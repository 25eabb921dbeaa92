"""What every primitive of the file layer promises, on a disk that forgets: safe when it returns, whole at any moment."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from crash.layer import Log, Recorder, State
from studbook import files

OLD, NEW = b"what it was " * 9, b"what it is now, and longer " * 9


def left(log: Log, until: int) -> list[State]:
    """Everything that may be left after some events."""
    return [state for _, state in log.states(until, Random(1), samples=8)]


def watched(folder: Path, act: Callable[[Path], object]) -> tuple[Log, int]:
    """The log of an act in a folder that holds ``old`` and an empty ``inner``, and where it begins."""
    files.write_new(folder / "old", OLD, mode=0o644)
    files.make_folder(folder / "inner")
    recorder = Recorder(folder)
    start = len(recorder.log.events)
    with recorder:
        act(folder)
    return recorder.log, start


def take(folder: Path) -> None:
    """What a worker left, which nobody synced, becomes a file of the store."""
    (folder / "left").write_bytes(NEW)
    files.take_file(folder / "left", folder / "inner" / "new", hashlib.sha256(NEW).hexdigest(), move=True)


def copy(folder: Path) -> None:
    files.copy_new(folder / "old", folder / "inner" / "new")
    files.sync_folder(folder / "inner")


def write(folder: Path) -> None:
    files.write_new(folder / "inner" / "new", NEW)
    files.sync_folder(folder / "inner")


def deep(folder: Path) -> None:
    files.make_folder(folder / "a" / "b")
    files.replace_file(folder / "a" / "b" / "new", NEW)


PROMISES: dict[str, tuple[Callable[[Path], object], str, bytes]] = {
    "write_new": (write, "inner/new", NEW),
    "copy_new": (copy, "inner/new", OLD),
    "take_file": (take, "inner/new", NEW),
    "replace_file": (lambda folder: files.replace_file(folder / "old", NEW), "old", NEW),
    "make_folder": (deep, "a/b/new", NEW),
    "append_line": (lambda folder: files.append_line(folder / "old", b"line"), "old", OLD + b"line\n"),
    "append_line, the first": (lambda folder: files.append_line(folder / "lines", b"line"), "lines", b"line\n"),
    "truncate": (lambda folder: files.truncate(folder / "old", 5), "old", OLD[:5]),
}


@pytest.mark.parametrize("name", PROMISES)
def test_what_a_primitive_wrote_is_safe_when_it_returns(name: str, tmp_path: Path) -> None:
    act, path, content = PROMISES[name]
    log, _ = watched(tmp_path, act)
    for state in left(log, len(log.events)):
        assert state[path][0] == content


def test_a_replaced_file_is_the_old_one_or_the_new_one_at_every_moment(tmp_path: Path) -> None:
    log, start = watched(tmp_path, lambda folder: files.replace_file(folder / "old", NEW))
    found = {state["old"][0] for until in range(start, len(log.events) + 1) for state in left(log, until)}
    assert found == {OLD, NEW}


def test_an_appended_line_never_changes_what_stood_before_it(tmp_path: Path) -> None:
    log, start = watched(tmp_path, lambda folder: files.append_line(folder / "old", NEW))
    found = {state["old"][0] for until in range(start, len(log.events) + 1) for state in left(log, until)}
    assert all(content.startswith(OLD) for content in found)
    assert len(found) == 5, "all of it, nothing, zeros, a beginning, and zeros before the end"


def test_the_disk_forgets_what_was_not_synced(tmp_path: Path) -> None:
    def act(folder: Path) -> None:
        (folder / "loose").write_bytes(NEW)
        (folder / "old").rename(folder / "moved")
        (folder / "inner").rmdir()

    log, _ = watched(tmp_path, act)
    states = left(log, len(log.events))
    assert {"loose" in state for state in states} == {True, False}
    assert {"inner/" in state for state in states} == {True, False}
    assert {state["loose"][0] for state in states if "loose" in state} >= {NEW, b"", bytes(len(NEW))}
    assert all(("moved" in state) != ("old" in state) for state in states), "a rename is one step"
    assert any("old" in state and "loose" in state for state in states), "in any order"
