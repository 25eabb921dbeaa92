"""How an operator sees a model: names, shapes, and ranges of elements under a digest.

A source gives its elements as they are stored (`fill`, for compiled kernels, without widening a whole model) or as f32
(`read`). Sources stack: a view may rename tensors, gather rows or add an adapter, and is read like any other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from studbook.tensors.storage import RAW, Raw, Storage, storage_of, widen

__all__ = ["ArraySource", "TensorSource"]


class TensorSource(ABC):
    """A model as operators read it.

    Attributes:
        sha256: Digest of the artifact, 64 hex digits; it keys the random streams.
        names: Tensor names in canonical order.
    """

    sha256: str
    names: tuple[str, ...]

    @abstractmethod
    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""

    @abstractmethod
    def storage(self, name: str) -> Storage:
        """How one tensor's elements are stored: the type of array that `fill` wants."""

    @abstractmethod
    def fill(self, name: str, start: int, out: Raw) -> None:
        """Write the elements start..start+len(out)-1, row-major, as they are stored, into a flat array.

        Safe to call from several threads at once.
        """

    def span(self, name: str, start: int, size: int) -> Raw | None:
        """The elements start..start+size-1 as `fill` would write them, but where they lie already: not to be written to.

        None where they would have to be copied, and `fill` does it. Safe to call from several threads at once. Whoever
        holds the array holds its memory, of which there is little: let it go before the next range is asked for.
        """
        return None

    def size(self, name: str) -> int:
        """Number of elements of one tensor."""
        return math.prod(self.dims(name))

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Elements start..stop-1, f32; not to be written to."""
        raw = np.empty(stop - start, RAW[self.storage(name)])
        self.fill(name, start, raw)
        return widen(raw)

    def flat(self, name: str) -> NDArray[np.float32]:
        """One whole tensor, row-major, flat, f32; not to be written to."""
        return self.read(name, 0, self.size(name))


class ArraySource(TensorSource):
    """Tensors held in memory.

    Args:
        sha256: Digest of the artifact they stand for.
        tensors: Name -> array of any shape, in canonical order: f32, or the raw bits of bf16 (uint16) or f16 (int16).
            Any other type is converted to f32; each is copied only if it is not row-major.
    """

    def __init__(self, sha256: str, tensors: Mapping[str, Raw]) -> None:
        self.sha256 = sha256
        self.names = tuple(tensors)
        self._dims = {name: tuple(array.shape) for name, array in tensors.items()}
        self._flat = {name: _read_only(array) for name, array in tensors.items()}

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._dims[name]

    def storage(self, name: str) -> Storage:
        """How one tensor's elements are stored."""
        return storage_of(self._flat[name])

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`."""
        out[:] = self._flat[name][start : start + out.size]

    def span(self, name: str, start: int, size: int) -> Raw | None:
        """See `TensorSource.span`."""
        found = self._flat[name][start : start + size]
        return found if found.flags.aligned else None

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See `TensorSource.read`; a view where the tensor is f32."""
        return widen(self._flat[name][start:stop])


def _read_only(array: Raw) -> Raw:
    kept = array if array.dtype in RAW.values() else array.astype(np.float32)
    view = np.ascontiguousarray(kept).reshape(-1).view()
    view.flags.writeable = False
    return view
