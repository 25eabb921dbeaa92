"""The class of machine this process runs on, as far as results may depend on it."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["environment_class", "has_torch", "memory_bytes", "training_environment"]


@cache
def environment_class() -> str:
    """Interpreter, numpy, platform and vector unit; never a host name.

    Part of every header and of the evaluator's identity: figures of two classes are never compared.
    """
    python = f"{platform.python_implementation().lower()}-{sys.version_info.major}.{sys.version_info.minor}"
    return f"{python} numpy-{version('numpy')} {sys.platform}-{platform.machine()}{_vector_unit()}"


@cache
def training_environment() -> str:
    """The same with torch's version, as far as trained weights may depend on it; ``torch-none`` where it is missing."""
    return f"{environment_class()} torch-{_torch()}"


def has_torch() -> bool:
    """Whether the extra ``train`` is installed; torch itself is not imported for that."""
    return _torch() != "none"


def memory_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: the machine's, or what its control group grants where that is less.

    Args:
        groups: Where the system shows control groups.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        # No such file, or the word "max".
        with suppress(OSError, ValueError):
            most = min(most, int((groups / name).read_text()))
    return most


def _torch() -> str:
    with suppress(PackageNotFoundError):
        return version("torch")
    return "none"


def _vector_unit() -> str:
    """The widest vector instructions, where the system says so: matrix products may round differently with others."""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().split()
        return next((f"-{unit}" for unit in ("avx512f", "avx2", "asimd") if unit in flags), "")
    return ""
