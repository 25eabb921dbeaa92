"""The engine's allocator, followed on paper: which blocks there are and how much memory they need, before any is taken.

`Heap` does what ``models/engine/source/memory.c`` does, block by block: a header of 64 bytes each, sizes on a grid of 64,
first fit in order of address, free neighbours joined, the last free block lengthened before memory grows by pages of
64 KiB. WebAssembly memory never shrinks, so the most that was ever needed is what is held.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from studbook.models.engine.compiled import compiled
from studbook.models.engine.instance import Instance

__all__ = ["PAGE", "Heap", "block_bytes", "engine_bytes_before"]

PAGE: Final = 1 << 16
_LINE = 64


@cache
def engine_bytes_before() -> int:
    """Bytes of an engine before its first block: code's own data and stack. Asked of the shipped engine, once a process."""
    empty = Instance(compiled(fuel=False, checked=False).pages * PAGE, fuel=False, where="")
    try:
        return empty.take(1) - _LINE
    finally:
        empty.close()


def block_bytes(size: int) -> int:
    """Bytes that a block of ``size`` bytes takes, header and rounding included."""
    return -(-max(size, 1) // _LINE) * _LINE + _LINE


class Heap:
    """An empty heap. Blocks are named by their address, which is the engine's own."""

    def __init__(self) -> None:
        self._end = engine_bytes_before()
        self._free: list[tuple[int, int]] = []
        self._taken: dict[int, int] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory, whole pages; the most that was needed so far."""
        least = compiled(fuel=False, checked=False).pages * PAGE
        return max(least, -(-self._end // PAGE) * PAGE)

    def take(self, size: int) -> int:
        """A block of at least ``size`` bytes; returns its address."""
        size = block_bytes(size)
        for index, (at, room) in enumerate(self._free):
            if room < size:
                continue
            if room >= size + 2 * _LINE:
                self._free[index] = (at + size, room - size)
            else:
                del self._free[index]
                size = room
            break
        else:
            at = self._extended(size)
        self._taken[at] = size
        return at

    def _extended(self, size: int) -> int:
        at = self._end
        if self._free and sum(self._free[-1]) == self._end:
            at, _ = self._free.pop()
        self._end = at + size
        return at

    def give(self, at: int) -> None:
        """Give a block back."""
        merged: list[tuple[int, int]] = []
        for start, room in sorted([*self._free, (at, self._taken.pop(at))]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + room)
            else:
                merged.append((start, room))
        self._free = merged

    def pass_through(self, *sizes: int) -> None:
        """Take blocks one after the other, then give all of them back."""
        for at in [self.take(size) for size in sizes]:
            self.give(at)
