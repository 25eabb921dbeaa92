"""Compiled kernels: workers run them, and no worker changes what another one will load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from studbook.errors import StudbookError
from studbook.sandbox import Answer, landlock
from studbook.sandbox.libc import MACHINE

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(
    MACHINE is None or landlock.version() < 6, reason="needs Linux with Landlock version 6 on x86-64 or 64-bit Arm"
)
Run = Callable[..., Answer]
SOURCE = """
from pathlib import Path
from numba import njit

CACHE = Path(__file__).parent / "__pycache__"

@njit(cache=True)
def twice(n):
    return 2 * n

def prepare(job):
    if job.get("before"):
        twice(1)

def work(job, folder):
    if job["act"] == "poisons":
        (CACHE / "inmate.twice.nbi").write_bytes(b"x")
    return {"twice": twice(21), "kept": sorted(p.name for p in CACHE.iterdir())}
"""


def test_a_kernel_that_is_missing_is_compiled_in_memory_and_leaves_nothing_in_the_cache(run: Run) -> None:
    assert run("asks").value == {"twice": 42, "kept": []}


def test_what_a_job_needs_is_compiled_and_kept_before_the_worker_is_locked_down(run: Run) -> None:
    answer = run("prepared", before=True).value
    assert answer["twice"] == 42
    assert [name for name in answer["kept"] if name.endswith(".nbc")]


def test_no_worker_writes_where_others_load_kernels_from(run: Run) -> None:
    with pytest.raises(StudbookError, match="Permission denied") as caught:
        run("poisons")
    assert Path(caught.value.where).parent.name == "__pycache__"
