"""What this machine offers: processors, compiled kernels, isolation, the engine, disk, extras. Needs no lab."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

try:
    from llvmlite import binding as llvm
except ImportError:  # kernels are then numpy's
    llvm = None

from studbook.breeding.operators.warm import warm_kernels
from studbook.environment import environment_class
from studbook.errors import StudbookError, UsageError
from studbook.evaluation.costs import meter
from studbook.models.engine import ENGINE_SHA256
from studbook.sandbox import Limits, level_of, run_worker
from studbook.tensors import kernels
from studbook.tensors.compiling import COMPILED

__all__ = ["EXTRAS", "Check", "Examination", "engine", "examine", "isolation"]

# Extra -> the packages it consists of, by the name they are installed under.
EXTRAS = {"train": ("torch",), "hf": ("transformers", "tokenizers"), "search": ("cma",), "gguf": ("gguf",)}
_LOW_DISK = 2 << 30
# What to do on a machine that reaches no more than this level.
_LEVELS = {
    "kernel": "",
    "portable": "Linux 5.13 or newer with Landlock shuts workers in. Without it they run only under a policy whose owner "
    "made do with the portable measures; see docs/sandbox.md.",
    "none": "Studbook's workers need a POSIX system with process limits.",
}


class Check(Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether everything that Studbook does works with it.
        found: What was found.
        advice: What to do where it is not ok; empty otherwise.
    """

    name: str
    ok: bool
    found: str
    advice: str


class Examination(Struct, frozen=True):
    """What the machine offers.

    Attributes:
        checks: Every check, in a fixed order.
        environment: The environment class that receipts and scorecards of this machine cite.
        isolation: Measures that a worker reaches here.
        kernels: How many operators have a compiled kernel.
        warm_seconds: Wall seconds that compiling or loading them took now.
    """

    checks: tuple[Check, ...]
    environment: str
    isolation: tuple[str, ...]
    kernels: int
    warm_seconds: float

    @property
    def ok(self) -> bool:
        """Everything needed is there; extras are not needed."""
        return all(c.ok for c in self.checks)


def examine(folder: Path = Path(), shown: Callable[[str], None] = lambda _: None) -> Examination:
    """Warm the kernels, start a worker, run the engine in another, and look at the machine.

    Args:
        folder: Where labs are going to lie; its disk is looked at.
        shown: Called with the name of every operator whose kernel is compiled, or loaded, next.

    Raises:
        UsageError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError("is no folder", where=folder, advice="Name the folder that labs are going to lie in.")
    started = time.monotonic()
    count = warm_kernels(shown) if COMPILED else 0
    seconds = time.monotonic() - started
    reached, worker = isolation()
    checks = (
        Check(name="python", ok=True, found=f"{platform.python_version()} at {sys.executable}", advice=""),
        _processors(),
        _kernels(count, seconds),
        worker,
        engine(),
        _disk(folder),
        *(_extra(name, packages) for name, packages in EXTRAS.items()),
    )
    return Examination(checks, environment_class(), reached, count, round(seconds, 3))


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{usable} usable, {platform.machine()}, {_cpu()}"
    return Check(name="processors", ok=True, found=found, advice="")


def _cpu() -> str:
    """What the compiler calls this processor, which decides the instructions a kernel is made of."""
    return "unknown to a compiler" if llvm is None else str(llvm.get_host_cpu_name())


def _kernels(count: int, seconds: float) -> Check:
    if not count:
        advice = "Install numba; the numpy code gives the same bytes, many times slower."
        return Check(name="kernels", ok=False, found="numba is not installed", advice=advice)
    where = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(kernels.__file__).parent / "__pycache__")
    kept = os.access(where, os.W_OK)
    advice = "" if kept else "Let NUMBA_CACHE_DIR name a folder you may write to, or every process compiles again."
    return Check(name="kernels", ok=kept, found=f"{count} warm in {seconds:.1f} s, kept in {where}", advice=advice)


def isolation() -> tuple[tuple[str, ...], Check]:
    """What a worker reaches, from a worker that was really started."""
    limits = Limits(seconds=30, memory_bytes=2 << 30, file_bytes=1 << 20)
    try:
        with tempfile.TemporaryDirectory() as folder:
            answer = run_worker("studbook.lab.doctor_worker", {}, Path(folder), limits)
    except StudbookError as error:
        return (), Check(name="isolation", ok=False, found=error.message, advice=error.advice or "Run it again.")
    level = level_of(answer.isolation)
    found = f"{level} level, {len(answer.isolation)} measures: {', '.join(answer.isolation)}"
    return answer.isolation, Check(name="isolation", ok=level == "kernel", found=found, advice=_LEVELS[level])


def engine() -> Check:
    """Whether the engine runs in a worker, and how fast; nothing compiled is kept, so there is nothing to warm."""
    limits = Limits(seconds=60, memory_bytes=2 << 30, file_bytes=1 << 20)
    named = f"{ENGINE_SHA256[:12]}, {meter()}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = run_worker("studbook.lab.doctor_engine_worker", {}, Path(folder), limits).value
    except StudbookError as error:
        return Check(name="engine", ok=False, found=f"{named}: {error.message}", advice=error.advice or "Run it again.")
    speed = (
        f"{found['tokens_per_second']:,.0f} tokens/s, {found['fuel']:,} fuel a token on a model of 0.16 M parameters"
    )
    advice = "" if found["passed"] else "It does not compute the same twice here; look at the machine's memory."
    return Check(name="engine", ok=found["passed"], found=f"{named}, {speed}", advice=advice)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    advice = "" if free > _LOW_DISK else "A lab keeps every model it made; give it more room."
    return Check(
        name="disk", ok=free > _LOW_DISK, found=f"{free / 1e9:.1f} GB free at {folder.absolute()}", advice=advice
    )


def _extra(name: str, packages: tuple[str, ...]) -> Check:
    found, missing = [], []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    advice = f"If you need it: pip install 'studbook[{name}]'" if missing else ""
    told = ", ".join(found) if not missing else f"not installed ({', '.join(missing)})"
    return Check(name=f"extra {name}", ok=True, found=told, advice=advice)
