"""Whether kernels can be compiled here, and the one way in which they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    from numba import njit
except ImportError:  # operators then run their numpy, several times slower but with the same bytes
    njit = None

__all__ = ["COMPILED", "compiled"]

COMPILED = njit is not None

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function compiled by numba for the types it is called with, without the interpreter's lock, cached on disk.

    Without numba the function itself. Floating-point semantics are IEEE 754's; division by zero does not raise.
    """
    if njit is None:
        return function
    options = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        result: F = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written to: compile in memory
        result = njit(**options)(function)
    return result
