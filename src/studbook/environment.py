"""The class of machine this process runs on, as far as results may depend on it."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

__all__ = ["environment_class"]


@cache
def environment_class() -> str:
    """Interpreter, numpy, platform and vector unit; never a host name.

    Part of every header and of the evaluator's identity: figures of two classes are never compared.
    """
    python = f"{platform.python_implementation().lower()}-{sys.version_info.major}.{sys.version_info.minor}"
    return f"{python} numpy-{version('numpy')} {sys.platform}-{platform.machine()}{_vector_unit()}"


def _vector_unit() -> str:
    """The widest vector instructions, where the system says so: matrix products may round differently with others."""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().split()
        return next((f"-{unit}" for unit in ("avx512f", "avx2", "asimd") if unit in flags), "")
    return ""
