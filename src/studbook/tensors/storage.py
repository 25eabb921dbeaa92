"""How elements lie in a file: f32, f16 or bf16 bits, widened exactly and rounded to nearest even on the way back.

A raw array is float32 for f32, uint16 for bf16 and int16 for f16: the last two hold bits, and their types differ so that
a compiled kernel knows which widening it needs. Formats: IEEE 754-2019 binary16 and binary32; bf16 is the upper half of
binary32.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from studbook.tensors.compiling import COMPILED
from studbook.tensors.contract import CANONICAL_NAN_BITS
from studbook.tensors.kernels_counting import count_equal_parts

__all__ = ["ITEM_BYTES", "RAW", "Raw", "Storage", "aligned", "narrow", "non_finite", "storage_of", "widen"]

Storage = Literal["f32", "f16", "bf16"]
Raw = NDArray[Any]
# The bits that are all set in a NaN or an infinity.
_EXPONENTS: Final = {np.dtype(np.float32): 0x7F800000, np.dtype(np.int16): 0x7C00, np.dtype(np.uint16): 0x7F80}
RAW: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {"f32": np.dtype(np.float32), "f16": np.dtype(np.int16), "bf16": np.dtype(np.uint16)}
)
ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType({"f32": 4, "f16": 2, "bf16": 2})
_PAGE = 4096


def aligned(size: int, kind: DTypeLike) -> Raw:
    """A flat array that begins at a page, not initialised.

    The system copies file contents two to six times faster to where a cache line begins than to beside it.

    Args:
        size: Number of elements.
        kind: Type of an element.
    """
    length = size * np.dtype(kind).itemsize
    room = np.empty(length + _PAGE, np.uint8)
    start = -room.ctypes.data % _PAGE
    return room[start : start + length].view(kind)


def storage_of(raw: Raw) -> Storage:
    """Which storage a raw array holds.

    Raises:
        KeyError: if its type is none of the three.
    """
    names: dict[np.dtype[Any], Storage] = {
        np.dtype(np.float32): "f32",
        np.dtype(np.int16): "f16",
        np.dtype(np.uint16): "bf16",
    }
    return names[raw.dtype]


def widen(raw: Raw) -> NDArray[np.float32]:
    """The numbers a raw array stands for, exactly, f32 of the same shape; f32 itself is not copied."""
    if raw.dtype == np.float32:
        return raw
    if raw.dtype == np.uint16:
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.view(np.float16).astype(np.float32)


def narrow(values: NDArray[np.float32], storage: Storage) -> Raw:
    """f32 values as they are stored: rounded to nearest even, overflow to infinity, every NaN the canonical one."""
    if storage == "f32":
        out = np.array(values, np.float32)
        out.view(np.uint32)[np.isnan(values)] = CANONICAL_NAN_BITS
        return out
    if storage == "f16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        half.view(np.uint16)[np.isnan(values)] = 0x7E00
        return half.view(np.int16)
    bits = values.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    out16 = rounded.astype(np.uint16)
    out16[np.isnan(values)] = CANONICAL_NAN_BITS >> 16
    return out16


def non_finite(raw: Raw) -> tuple[int, int]:
    """How many elements of a flat raw array are NaN or infinite, and the index of the first one (-1 if none)."""
    bits: NDArray[Any] = raw.view(np.uint32 if raw.itemsize == 4 else np.uint16)
    exponent = bits.dtype.type(_EXPONENTS[raw.dtype])
    if COMPILED and not count_equal_parts(bits, exponent):
        return 0, -1
    bad = (bits & exponent) == exponent
    count = int(np.count_nonzero(bad))
    return count, int(np.argmax(bad)) if count else -1
