"""What one entry of a package does to one tensor: a dense delta, some elements, or two low-rank factors.

Arrays are views of the file's bytes where they were read, f32 and u32 little-endian, read-only by convention.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.rules import AdapterRule, refusal

__all__ = ["KINDS", "Change", "Dense", "LowRank", "Sparse", "decode", "payload_bytes"]

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Dense:
    """A delta for every element.

    Attributes:
        values: f32 in the dimensions of the tensor.
    """

    code: ClassVar[int] = 1
    magic: ClassVar[bytes] = b"ADP1"
    values: F32

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of the tensor."""
        return tuple(self.values.shape)

    @property
    def count(self) -> int:
        """Always 0."""
        return 0

    @property
    def alpha(self) -> float:
        """Always 0."""
        return 0.0

    def payload(self) -> bytes:
        """The bytes of the entry."""
        return self.values.astype("<f4").tobytes()

    def check(self, where: object, field: str) -> None:
        """Check the values.

        Raises:
            AdapterRefused: for NaN or infinity.
        """
        _require_finite(self.values, where, field)


@dataclass(frozen=True, eq=False)
class Sparse:
    """A delta for some elements; all others are left alone.

    Attributes:
        shape: Dimensions of the tensor.
        indices: u32, flat, row-major indices, strictly increasing.
        values: f32, as many.
    """

    code: ClassVar[int] = 2
    magic: ClassVar[bytes] = b"ASP1"
    shape: tuple[int, ...]
    indices: U32
    values: F32

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of the tensor."""
        return self.shape

    @property
    def count(self) -> int:
        """Number of elements that change."""
        return int(self.indices.size)

    @property
    def alpha(self) -> float:
        """Always 0."""
        return 0.0

    def payload(self) -> bytes:
        """The bytes of the entry: all indices, then all values."""
        return self.indices.astype("<u4").tobytes() + self.values.astype("<f4").tobytes()

    def check(self, where: object, field: str) -> None:
        """Check indices and values.

        Raises:
            AdapterRefused: for indices that do not rise or lie outside the tensor, for NaN or infinity.
        """
        falls = self.indices[1:] <= self.indices[:-1]
        if falls.any():
            place = int(np.argmax(falls)) + 1
            message = f"index {place} is {self.indices[place]}, after {self.indices[place - 1]}"
            raise refusal(AdapterRule.INDEX_ORDER, message, where, field)
        if int(self.indices[-1]) >= math.prod(self.shape):
            message = f"index {self.indices[-1]}; the tensor has {math.prod(self.shape)} elements"
            raise refusal(AdapterRule.INDEX_RANGE, message, where, field)
        _require_finite(self.values, where, field)


@dataclass(frozen=True, eq=False)
class LowRank:
    """A delta of low rank: (alpha / r) * B @ A.

    Attributes:
        a: f32, shape (r, in).
        b: f32, shape (out, r).
        alpha: f32 value.
    """

    code: ClassVar[int] = 3
    magic: ClassVar[bytes] = b"ALR1"
    a: F32
    b: F32
    alpha: float

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of the tensor: (out, in)."""
        return (self.b.shape[0], self.a.shape[1])

    @property
    def count(self) -> int:
        """The rank r."""
        return int(self.a.shape[0])

    def payload(self) -> bytes:
        """The bytes of the entry: A, then B, row-major."""
        return self.a.astype("<f4").tobytes() + self.b.astype("<f4").tobytes()

    def check(self, where: object, field: str) -> None:
        """Check the factors.

        Raises:
            AdapterRefused: for NaN or infinity.
        """
        _require_finite(self.a, where, f"{field} factor A")
        _require_finite(self.b, where, f"{field} factor B")


Change = Dense | Sparse | LowRank
KINDS: tuple[type[Change], ...] = (Dense, Sparse, LowRank)


def payload_bytes(code: int, dims: Iterable[int], count: int) -> int:
    """Bytes of payload that kind, dimensions and count imply; integers of any size."""
    if code == Sparse.code:
        return 8 * count
    if code == LowRank.code:
        return 4 * count * sum(dims)
    return 4 * math.prod(dims)


def decode(code: int, dims: tuple[int, ...], count: int, alpha: float, payload: memoryview) -> Change:
    """One change from the bytes of its entry, whose length fits `payload_bytes`; nothing is copied."""
    if code == Sparse.code:
        indices, values = np.frombuffer(payload[: 4 * count], "<u4"), np.frombuffer(payload[4 * count :], "<f4")
        return Sparse(dims, indices, values)
    values = np.frombuffer(payload, "<f4")
    if code == LowRank.code:
        split = count * dims[1]
        return LowRank(values[:split].reshape(count, dims[1]), values[split:].reshape(dims[0], count), alpha)
    return Dense(values.reshape(dims))


def _require_finite(values: F32, where: object, field: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        message = f"{int(bad.sum())} of {values.size} values are NaN or infinite, first at {int(np.argmax(bad))}"
        raise refusal(AdapterRule.NON_FINITE, message, where, field)
