"""The kernels that several operators share, each None where numba is missing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from studbook.breeding.operators.base import Kernel
from studbook.tensors.kernels import COMPILED, add_scaled, convert, weighted_sum
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Raw

__all__ = ["copied", "rescaled", "summed"]


def copied(source: TensorSource) -> Kernel | None:
    """The elements of one source."""

    def run(stack: Raw, start: int, out: Raw) -> None:
        if stack.dtype == out.dtype:
            out[:] = stack[0]
        else:
            convert(stack, out)

    return Kernel((source,), run) if COMPILED else None


def summed(sources: tuple[TensorSource, ...], factors: Iterable[float | np.float32]) -> Kernel | None:
    """sum_k f_k * x_k in ascending k, factors rounded to f32."""
    numbers = np.array(tuple(factors), np.float32)

    def run(stack: Raw, start: int, out: Raw) -> None:
        weighted_sum(stack, numbers, out)

    return Kernel(sources, run) if COMPILED else None


def rescaled(
    base: TensorSource, sources: tuple[TensorSource, ...], factors: Iterable[float | np.float32]
) -> Kernel | None:
    """Base + sum_k f_k * (x_k - base), the sum added last, factors rounded to f32."""
    numbers = np.array(tuple(factors), np.float32)

    def run(stack: Raw, start: int, out: Raw) -> None:
        add_scaled(stack, numbers, out)

    return Kernel((base, *sources), run) if COMPILED else None
