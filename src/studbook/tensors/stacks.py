"""The same elements of several sources as the rows of one array, in memory that is used again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import RAW, Raw, aligned

__all__ = ["Room", "read_stack"]


class Room:
    """Scratch memory of one thread: fresh pages cost a fault every 4 KiB, so an array takes the place of the last one."""

    def __init__(self) -> None:
        self._bytes = aligned(0, np.uint8)

    def array(self, rows: int, columns: int, dtype: DTypeLike) -> Raw:
        """An array of shape (rows, columns), not initialised; it replaces the one given before."""
        kind: np.dtype[Any] = np.dtype(dtype)
        size = rows * columns * kind.itemsize
        if self._bytes.size < size:
            self._bytes = aligned(size, np.uint8)
        return self._bytes[:size].view(kind).reshape(rows, columns)


def read_stack(sources: tuple[TensorSource, ...], name: str, start: int, size: int, room: Room) -> Raw:
    """Elements start..start+size-1 of one tensor of every source: raw, shape (sources, size), until the room's next use.

    The rows are as they are stored if all are stored alike, else f32.
    """
    kinds = {source.storage(name) for source in sources}
    if len(kinds) == 1:
        stack = room.array(len(sources), size, RAW[kinds.pop()])
        for source, row in zip(sources, stack, strict=True):
            source.fill(name, start, row)
        return stack
    stack = room.array(len(sources), size, np.float32)
    for source, row in zip(sources, stack, strict=True):
        row[:] = source.read(name, start, start + size)
    return stack
