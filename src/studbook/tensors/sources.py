"""How an operator sees a model: names, shapes, and flat read-only f32 tensors under a digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArraySource", "TensorSource"]


class TensorSource(Protocol):
    """A model as operators read it."""

    @property
    def sha256(self) -> str:
        """Digest of the artifact, 64 hex digits; it keys the random streams."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names in canonical order."""
        ...

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        ...

    def flat(self, name: str) -> NDArray[np.float32]:
        """One tensor, row-major, flat, read-only, f32."""
        ...


class ArraySource:
    """Tensors held in memory.

    Args:
        sha256: Digest of the artifact they stand for.
        tensors: Name -> f32 array of any shape, in canonical order; each is copied only if it is not f32 row-major.
    """

    def __init__(self, sha256: str, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        self.sha256 = sha256
        self.names = tuple(tensors)
        self._dims = {name: tuple(array.shape) for name, array in tensors.items()}
        self._flat = {name: _read_only(array) for name, array in tensors.items()}

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._dims[name]

    def flat(self, name: str) -> NDArray[np.float32]:
        """One tensor, row-major, flat, read-only, f32."""
        return self._flat[name]


def _read_only(array: NDArray[np.float32]) -> NDArray[np.float32]:
    view = np.ascontiguousarray(array, dtype=np.float32).reshape(-1).view()
    view.flags.writeable = False
    return view
