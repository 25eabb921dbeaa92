"""The same elements of several sources as rows: where they lie already, or in memory that is used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from studbook.errors import UsageError
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import RAW, Raw, aligned

__all__ = ["Room", "Stack", "read_stack"]

# What tells a compiled kernel the type of the rows.
_KINDS: Final = {kind: np.empty(0, kind) for kind in RAW.values()}


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


class Stack:
    """Rows that lie anywhere in memory, for as long as the stack lives.

    Args:
        rows: Raw, flat and contiguous, of one type and length.

    Raises:
        UsageError: if there is none, or they are not such rows: a kernel would read what is not theirs.
    """

    def __init__(self, rows: tuple[Raw, ...]) -> None:
        alike = {(row.dtype, row.size) for row in rows}
        good = all(row.ndim == 1 and row.flags.c_contiguous and row.flags.aligned for row in rows)
        if len(alike) != 1 or not good or rows[0].dtype not in _KINDS:
            raise UsageError("rows are flat, contiguous, raw, and of one type and length", reason="stack.rows")
        self.rows = rows
        self._places = np.array([row.__array_interface__["data"][0] for row in rows], np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.rows[0].dtype

    @property
    def size(self) -> int:
        """Elements of a row."""
        return self.rows[0].size

    def feed(self, kernel: Callable[..., Any], *rest: Any) -> None:
        """Call a compiled kernel with the rows before its other arguments; they outlive the call.

        Args:
            kernel: Takes the addresses of the rows, i64, and an empty array of their type, as one tuple.
            rest: Its other arguments; with them it must not ask for more elements than a row has.
        """
        kernel((self._places, _KINDS[self.dtype]), *rest)


def read_stack(sources: tuple[TensorSource, ...], name: str, start: int, size: int, room: Room) -> Stack:
    """Elements start..start+size-1 of one tensor of every source, a row each, until the room's next use.

    The rows are as they are stored if all are stored alike, else f32. Those that a source can show are not copied.
    """
    kinds = {source.storage(name) for source in sources}
    if len(kinds) > 1:
        wide = room.array(len(sources), size, np.float32)
        for source, row in zip(sources, wide, strict=True):
            row[:] = source.read(name, start, start + size)
        return Stack(tuple(wide))
    spans = [source.span(name, start, size) for source in sources]
    copies = iter(room.array(sum(span is None for span in spans), size, RAW[kinds.pop()]))
    rows = []
    for source, span in zip(sources, spans, strict=True):
        if span is None:
            span = next(copies)
            source.fill(name, start, span)
        rows.append(span)
    return Stack(tuple(rows))
