"""Where a child's tensors go, piece by piece: memory here, files in the containers' own writers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from studbook.tensors.storage import RAW, Raw, Storage

__all__ = ["MemorySink", "Sink"]


class Sink(ABC):
    """Takes the pieces of a child.

    Attributes:
        names: Tensors in the order in which they are wanted; only these are computed.
        piece: Elements of a piece, counted from element 0 of each tensor (the last one may be shorter); None leaves it
            to whoever computes.
    """

    names: tuple[str, ...]
    piece: int | None = None

    @abstractmethod
    def storage(self, name: str) -> Storage:
        """How a tensor is to be stored."""

    @abstractmethod
    def put(self, name: str, start: int, raw: Raw) -> None:
        """Take one piece; called from any thread, in any order. The array may be used again after `passed`."""

    def passed(self, name: str, start: int, raw: Raw) -> None:
        """The same piece again, in the order of names and elements, from one thread; for digests of a whole file."""
        return


class MemorySink(Sink):
    """Holds whole tensors.

    Args:
        dims: Name -> shape.
        storage: How all of them are stored.
    """

    def __init__(self, dims: Mapping[str, tuple[int, ...]], storage: Storage = "f32") -> None:
        self.names = tuple(dims)
        self.tensors = {name: np.empty(math.prod(shape), RAW[storage]) for name, shape in dims.items()}
        self._storage = storage

    def storage(self, name: str) -> Storage:
        """How a tensor is to be stored."""
        return self._storage

    def put(self, name: str, start: int, raw: Raw) -> None:
        """Take one piece."""
        self.tensors[name][start : start + raw.size] = raw
