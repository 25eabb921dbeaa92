"""One tensor as it lies in a container: its dtype, its payload and its scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from studbook.models import quantisation
from studbook.models.rules import SlmRule, refusal

__all__ = ["Dtype", "StoredTensor", "lengths", "store"]

F32 = NDArray[np.float32]
_LARGEST_CODE = {"q8_0": 128, "q4_0": 8}


class Dtype(StrEnum):
    """How a tensor is stored."""

    F32 = "f32"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"

    @property
    def code(self) -> int:
        """The number that stands for it in the directory: 1, 2 or 3."""
        return list(Dtype).index(self) + 1


def lengths(dtype: Dtype, dims: tuple[int, ...], block: int) -> tuple[int, int]:
    """Bytes of payload and of scales that a dtype, a shape and a block size imply."""
    elements = math.prod(dims)
    if dtype is Dtype.F32:
        return 4 * elements, 0
    if dtype is Dtype.Q8_0:
        return elements, 4 * (elements // dims[-1])
    return elements // 2, 4 * (elements // block)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in storage; the bytes belong to the file they were read from and are read-only.

    Attributes:
        dtype: How it is stored.
        dims: Dimensions, row-major.
        payload: Values (f32), codes (q8_0) or packed nibbles (q4_0).
        scale_bytes: Scales, f32; empty for f32.
        block: Elements that share a scale; 0 for f32.
    """

    dtype: Dtype
    dims: tuple[int, ...]
    payload: bytes | memoryview
    scale_bytes: bytes | memoryview = b""
    block: int = 0

    @property
    def columns(self) -> int:
        """Length of a row, the last dimension."""
        return self.dims[-1]

    @property
    def values(self) -> F32:
        """An f32 tensor's payload as a flat read-only array."""
        return np.frombuffer(self.payload, dtype="<f4")

    @property
    def codes(self) -> NDArray[np.int8]:
        """A quantised tensor's codes, i8 (rows, columns)."""
        if self.dtype is Dtype.Q8_0:
            return np.frombuffer(self.payload, dtype=np.int8).reshape(-1, self.columns)
        return quantisation.unpack_q4(np.frombuffer(self.payload, dtype=np.uint8).reshape(-1, self.columns // 2))

    @property
    def scales(self) -> F32:
        """Scales f32: (0,) for f32, (rows,) for q8_0, (rows, blocks) for q4_0."""
        flat = np.frombuffer(self.scale_bytes, dtype="<f4")
        return flat.reshape(-1, self.columns // self.block) if self.dtype is Dtype.Q4_0 else flat

    def dense(self) -> F32:
        """The values, f32 with the tensor's dimensions, read-only; decoded anew at each call if quantised."""
        if self.dtype is Dtype.F32:
            return self.values.reshape(self.dims)
        if self.dtype is Dtype.Q8_0:
            decoded = quantisation.decode_q8(self.codes, self.scales)
        else:
            packed = np.frombuffer(self.payload, dtype=np.uint8).reshape(-1, self.columns // 2)
            decoded = quantisation.decode_q4(packed, self.scales)
        decoded.setflags(write=False)
        return decoded.reshape(self.dims)

    def check_values(self, where: object, field: str) -> None:
        """Check that every value this tensor stands for is a finite number.

        Raises:
            SlmRefused: for NaN or infinity in an f32 payload, a scale that is not positive and finite, or a code
                times its scale that overflows.
        """
        if self.dtype is Dtype.F32:
            if not np.isfinite(self.values).all():
                raise refusal(SlmRule.PAYLOAD_NON_FINITE, "holds NaN or infinity", where, field)
            return
        scales = self.scales
        if not np.isfinite(scales).all():
            raise refusal(SlmRule.SCALE_NON_FINITE, "has a scale that is NaN or infinite", where, field)
        if not (scales > 0).all():
            raise refusal(SlmRule.SCALE_NON_POSITIVE, "has a scale that is zero or negative", where, field)
        with np.errstate(over="ignore"):
            suspicious = not np.isfinite(scales.max() * np.float32(_LARGEST_CODE[self.dtype]))
            if suspicious and not np.isfinite(self.dense()).all():
                raise refusal(SlmRule.PRODUCT_NON_FINITE, "has a code times scale that is infinite", where, field)


def store(values: F32, dtype: Dtype, *, field: str = "") -> StoredTensor:
    """Put finite f32 values of any shape into storage.

    Args:
        values: f32, any shape of at least one dimension.
        dtype: How to store them.
        field: Name of the tensor, for error messages.

    Raises:
        SlmRefused: if a value is not finite, or a row of odd length is asked for in q4_0.
    """
    if not np.isfinite(values).all():
        advice = "The model that made this tensor is broken; look at the operator or the training that wrote it."
        raise refusal(SlmRule.PAYLOAD_NON_FINITE, "holds NaN or infinity", field=field, advice=advice)
    dims = tuple(values.shape)
    rows = np.ascontiguousarray(values, dtype="<f4").reshape(-1, dims[-1])
    if dtype is Dtype.F32:
        return StoredTensor(dtype, dims, rows.tobytes())
    if dtype is Dtype.Q8_0:
        codes, scales = quantisation.encode_q8(rows)
        return StoredTensor(dtype, dims, codes.tobytes(), scales.tobytes(), dims[-1])
    block = quantisation.block_of(dims[-1])
    if block == 0:
        advice = "Store this tensor as q8_0 or f32; tensors of one file may differ."
        raise refusal(SlmRule.ODD_ROW, f"rows of {dims[-1]} have no even block", field=field, advice=advice)
    packed, block_scales = quantisation.encode_q4(rows, block)
    return StoredTensor(dtype, dims, packed.tobytes(), block_scales.tobytes(), block)
