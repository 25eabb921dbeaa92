"""Large files leave the page cache as they are read; no byte depends on it, and small files stay."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import safetensors_bytes
from studbook.models import pages
from studbook.models.safetensors import open_safetensors

WINDOW = 1 << 16
ELEMENTS = 100_000


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Windows of 64 KiB, dropped in files of more than 4 KiB; every call is recorded and goes through."""
    found: list[tuple[int, int]] = []
    advise = os.posix_fadvise

    def record(handle: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        found.append((start, length))
        advise(handle, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", record)
    monkeypatch.setattr(pages, "WINDOW", WINDOW)
    monkeypatch.setattr(pages, "_over", [4096])
    return found


def weights(path: Path, elements: int = ELEMENTS) -> np.ndarray:
    """A file of one f32 weight; its values."""
    values = np.arange(elements, dtype=np.float32)
    path.write_bytes(safetensors_bytes({"w": ("F32", values)}))
    return values


def windows(path: Path) -> list[tuple[int, int]]:
    return [(at, WINDOW) for at in range(0, path.stat().st_size, WINDOW)]


@pytest.mark.parametrize("step", [1000, 16_384, 33_333, ELEMENTS])
def test_every_window_that_was_read_whole_leaves_in_order(
    tmp_path: Path, advised: list[tuple[int, int]], step: int
) -> None:
    values = weights(tmp_path / "w")
    with open_safetensors(tmp_path / "w") as file:
        for start in range(0, ELEMENTS, step):
            out = np.empty(min(step, ELEMENTS - start), np.float32)
            file.fill("w", start, out)
            assert np.array_equal(out, values[start : start + out.size])
    assert advised == windows(tmp_path / "w")


def test_threads_in_any_order_drop_every_window_once(tmp_path: Path, advised: list[tuple[int, int]]) -> None:
    weights(tmp_path / "w")
    with open_safetensors(tmp_path / "w") as file, ThreadPoolExecutor(4) as pool:
        starts = list(range(0, ELEMENTS, 500))
        np.random.default_rng(0).shuffle(starts)
        list(pool.map(lambda start: file.fill("w", start, np.empty(500, np.float32)), starts))
    assert sorted(advised) == windows(tmp_path / "w")


def test_a_window_that_is_read_in_part_stays(tmp_path: Path, advised: list[tuple[int, int]]) -> None:
    weights(tmp_path / "w")
    with open_safetensors(tmp_path / "w") as file:
        file.fill("w", 0, np.empty(WINDOW // 8, np.float32))
    assert not advised


def test_a_second_pass_drops_again(tmp_path: Path, advised: list[tuple[int, int]]) -> None:
    weights(tmp_path / "w", WINDOW)
    with open_safetensors(tmp_path / "w") as file:
        for _ in range(2):
            file.fill("w", 0, np.empty(WINDOW, np.float32))
    middle = windows(tmp_path / "w")[1:-1]
    assert [advised.count(window) for window in middle] == [2] * len(middle)


def test_small_files_and_other_processes_keep_their_pages(
    tmp_path: Path, advised: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(tmp_path / "small", 100)
    weights(tmp_path / "large")
    with open_safetensors(tmp_path / "small") as file:
        file.fill("w", 0, np.empty(100, np.float32))
    monkeypatch.setattr(pages, "_over", [])
    with open_safetensors(tmp_path / "large") as file:
        file.fill("w", 0, np.empty(ELEMENTS, np.float32))
    assert not advised


def test_the_last_size_that_is_set_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pages, "_over", [])
    weights(tmp_path / "w")
    handle = os.open(tmp_path / "w", os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        assert pages.behind(handle, 0, size) is None
        for over, there in ((size - 1, True), (size, False)):
            pages.drop_pages_over(over)
            assert (pages.behind(handle, 0, size) is not None) is there
    finally:
        os.close(handle)


def test_a_whole_file_can_be_dropped_and_one_that_is_gone_is_nobodys_error(
    tmp_path: Path, advised: list[tuple[int, int]]
) -> None:
    values = weights(tmp_path / "w")
    pages.drop_pages(tmp_path / "w")
    pages.drop_pages(tmp_path / "gone")
    os.mkfifo(tmp_path / "fifo")
    pages.drop_pages(tmp_path / "fifo")
    assert advised[0] == (0, 0)
    assert (tmp_path / "w").read_bytes().endswith(values.tobytes())
