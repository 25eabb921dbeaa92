"""Weights where they lie in the page cache: the same elements as a copy, in little address space, and let go again."""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import safetensors_bytes
from studbook.errors import BytesLie, UsageError
from studbook.models import pages, windows
from studbook.models.safetensors import SafetensorsFile, open_safetensors
from studbook.models.windows import Windows
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import weighted_sum
from studbook.tensors.sources import TensorSource
from studbook.tensors.stacks import Room, Stack, read_stack
from studbook.tensors.storage import narrow, widen

STEP = 16 * mmap.ALLOCATIONGRANULARITY
ELEMENTS = 5 * STEP // 2 + 77


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 16 pages that reach 4 further; every range of 1000 bytes and more is worth one."""
    monkeypatch.setattr(windows, "STEP", STEP)
    monkeypatch.setattr(windows, "BEYOND", STEP // 4)
    monkeypatch.setattr(windows, "_LEAST", 1000)


def written(path: Path, kind: type = np.uint16, word: str = "BF16") -> np.ndarray:
    """A file of one weight; its elements."""
    values = (np.arange(ELEMENTS, dtype=np.uint64) * 40_503 % 30_000).astype(kind)
    path.write_bytes(safetensors_bytes({"w": (word, values)}))
    return values


def mapped_now(path: Path) -> int:
    return sum(line.endswith(f"{path}\n") for line in Path("/proc/self/maps").read_text().splitlines(keepends=True))


class Whole(TensorSource):
    """One file as a model."""

    names = ("w",)

    def __init__(self, file: SafetensorsFile) -> None:
        self.file, self.sha256 = file, "0" * 64

    def dims(self, name: str) -> tuple[int, ...]:
        return self.file.entries[name].shape

    def storage(self, name: str) -> str:
        return self.file.storage(name)

    def fill(self, name: str, start: int, out: np.ndarray) -> None:
        self.file.fill(name, start, out)

    def span(self, name: str, start: int, size: int) -> np.ndarray | None:
        return self.file.span(name, start, size)


@pytest.mark.parametrize(("kind", "word"), [(np.uint16, "BF16"), (np.int16, "F16"), (np.float32, "F32")])
@pytest.mark.parametrize("step", [700, 4001, 4096])
def test_what_is_shown_is_what_is_filled_wherever_the_pieces_lie(
    tmp_path: Path, kind: type, word: str, step: int
) -> None:
    values = written(tmp_path / "w", kind, word)
    with open_safetensors(tmp_path / "w", Windows()) as file:
        for start in range(0, ELEMENTS - step, step):
            found = file.span("w", start, step)
            assert found is not None
            assert found.dtype == RAW_KINDS[word]
            assert not found.flags.writeable
            assert found.tobytes() == values[start : start + step].tobytes()


RAW_KINDS = {"BF16": np.uint16, "F16": np.int16, "F32": np.float32}


def test_a_file_that_was_not_opened_for_it_shows_nothing(tmp_path: Path) -> None:
    written(tmp_path / "w")
    with open_safetensors(tmp_path / "w") as file:
        assert file.span("w", 0, 4096) is None


def test_small_ranges_and_those_beyond_a_window_are_left_to_be_copied(tmp_path: Path) -> None:
    written(tmp_path / "w")
    with open_safetensors(tmp_path / "w", Windows()) as file:
        assert file.span("w", 0, 100) is None
        assert file.span("w", 0, STEP) is None
        assert file.span("w", 0, 4096) is not None
        assert file.span("w", 0, 100) is not None, "the window is there already"


def test_elements_beside_their_boundary_are_left_to_be_copied(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint16)
    (tmp_path / "w").write_bytes(safetensors_bytes({"b": ("U8", np.zeros(1, np.uint8)), "w": ("BF16", values)}))
    with open_safetensors(tmp_path / "w", Windows()) as file:
        assert file.span("w", 0, 4096) is None
        (row,) = read_stack((Whole(file),), "w", 0, 4096, Room()).rows
        assert np.array_equal(row, values)


def test_a_range_outside_the_tensor_and_a_closed_file_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "w")
    file = open_safetensors(tmp_path / "w", Windows())
    for start, size in ((-1, 4096), (ELEMENTS - 4095, 4096), (ELEMENTS, 1)):
        with pytest.raises(UsageError):
            file.span("w", start, size)
    file.close()
    with pytest.raises(UsageError):
        file.span("w", 0, 4096)


def test_a_file_cut_between_two_windows_is_refused_by_the_copy_that_follows(tmp_path: Path) -> None:
    written(tmp_path / "w")
    with open_safetensors(tmp_path / "w", Windows()) as file:
        assert file.span("w", 0, 4096) is not None
        os.truncate(tmp_path / "w", STEP)
        with pytest.raises(BytesLie, match="became shorter"):
            read_stack((Whole(file),), "w", ELEMENTS - 5000, 5000, Room())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_one_thread_holds_one_window_and_the_last_array_keeps_its_memory(tmp_path: Path) -> None:
    values = written(tmp_path / "w")
    kept = None
    with open_safetensors(tmp_path / "w", Windows()) as file:
        for start in range(0, ELEMENTS - 4096, 4096):
            assert file.span("w", start, 4096) is not None
            assert mapped_now(tmp_path / "w") == 1
        kept = file.span("w", 0, 4096)
    del file
    assert mapped_now(tmp_path / "w") == 1
    assert np.array_equal(kept, values[:4096])
    del kept
    assert mapped_now(tmp_path / "w") == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_threads_share_a_window_and_leave_none_behind(tmp_path: Path) -> None:
    values = written(tmp_path / "w")
    with open_safetensors(tmp_path / "w", Windows()) as file:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(8):
                pool.submit(file.span, "w", 0, 4096).result()
            assert mapped_now(tmp_path / "w") == 1
            starts = list(range(0, ELEMENTS - 4096, 999))
            found = pool.map(lambda s: np.array_equal(file.span("w", s, 4096), values[s : s + 4096]), starts)
            assert all(found)
            assert mapped_now(tmp_path / "w") <= 4
        assert mapped_now(tmp_path / "w") == 0


def test_beyond_the_most_windows_of_a_process_everything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "w")
    monkeypatch.setattr(windows, "_MOST", len(windows._all) + 2)
    with ThreadPoolExecutor(1):
        files = [open_safetensors(tmp_path / "w", Windows()) for _ in range(4)]
        shown = [file.span("w", 0, 4096) for file in files]
        assert [found is None for found in shown] == [False, False, True, True]
        stack = read_stack(tuple(map(Whole, files)), "w", 0, 4096, Room())
        assert len({row.tobytes() for row in stack.rows}) == 1
        for file in files:
            file.close()


def test_what_was_mapped_and_read_leaves_the_page_cache_once_it_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[int] = []
    monkeypatch.setattr(pages, "WINDOW", 2 * STEP)
    monkeypatch.setattr(pages, "_over", [4096])
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, __, ___: advised.append(start))
    written(tmp_path / "w")
    told = []
    with open_safetensors(tmp_path / "w", Windows()) as file:
        for start in range(0, ELEMENTS - 4096, 4096):
            file.span("w", start, 4096)
            told.append(len(advised))
    assert advised == [0, 2 * STEP]
    assert told[0] == 0
    assert told == sorted(told)


@pytest.mark.skipif(not COMPILED, reason="needs numba")
@pytest.mark.parametrize("parents", [1, 2, 3, 5])
def test_a_kernel_reads_mapped_copied_and_held_rows_alike_and_is_compiled_once(tmp_path: Path, parents: int) -> None:
    values = written(tmp_path / "w")
    with open_safetensors(tmp_path / "w", Windows()) as file:
        rows = read_stack((Whole(file),) * parents, "w", 11, 4000, Room()).rows
        assert not any(row.flags.writeable for row in rows)
        factors = np.linspace(0.1, 0.7, parents).astype(np.float32)
        mapped, copied = np.empty(4000, np.uint16), np.empty(4000, np.uint16)
        Stack(rows).feed(weighted_sum, factors, mapped)
        known = len(weighted_sum.signatures)
        Stack((values[11:4011].copy(), *rows[1:])).feed(weighted_sum, factors, copied)
    total = widen(values[11:4011]) * factors[0]
    for factor in factors[1:]:
        total = total + widen(values[11:4011]) * factor
    assert mapped.tobytes() == copied.tobytes() == narrow(total, "bf16").tobytes()
    assert len(weighted_sum.signatures) == known


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (np.zeros(4, np.uint16), np.zeros(5, np.uint16)),
        (np.zeros(4, np.uint16), np.zeros(4, np.int16)),
        (np.zeros(8, np.uint16)[::2],),
        (np.zeros((2, 2), np.float32),),
        (np.zeros(4, np.float64),),
        (np.zeros(9, np.uint8)[1:].view(np.float32),),
    ],
    ids=["none", "lengths", "types", "stride", "shape", "f64", "beside"],
)
def test_rows_that_a_kernel_could_not_read_safely_are_no_stack(rows: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(UsageError):
        Stack(rows)
