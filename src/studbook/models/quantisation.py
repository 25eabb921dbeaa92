"""The container's own 8-bit and 4-bit storage; not the formats of the same names elsewhere.

``scale = f32(f64(max |x|) / top)``, ``q = round-half-even(f64(x) / f64(scale))`` clipped to -top..top, with top 127
over a row (q8_0) or 7 over a block (q4_0); ``w = q * scale`` in f32. A group of zeros, and one whose scale rounds to
0, takes scale 1; where top * scale overflows f32 the scale steps down one unit in the last place. Matrices are viewed
as (rows, columns) with columns the last dimension; a vector is one row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_BLOCK", "TOP_Q4", "TOP_Q8", "block_of", "decode_q4", "decode_q8", "encode_q4", "encode_q8", "unpack_q4"]

TOP_Q8 = 127
TOP_Q4 = 7
MAX_BLOCK = 32

F32 = NDArray[np.float32]


def block_of(columns: int) -> int:
    """The q4_0 block of a row: its largest even divisor up to 32; 0 for an odd row, which has none."""
    return next((size for size in range(MAX_BLOCK, 0, -2) if columns % size == 0), 0)


def encode_q8(rows: F32) -> tuple[NDArray[np.int8], F32]:
    """Quantise finite values row by row.

    Args:
        rows: f32 (rows, columns).

    Returns:
        Codes i8 (rows, columns), -127..127, and positive scales f32 (rows,).
    """
    codes, scales = _encode(rows, TOP_Q8)
    return codes, scales


def decode_q8(codes: NDArray[np.int8], scales: F32) -> F32:
    """Values f32 (rows, columns) of codes i8 (rows, columns) and scales f32 (rows,)."""
    return codes.astype(np.float32) * scales[:, np.newaxis]


def encode_q4(rows: F32, block: int) -> tuple[NDArray[np.uint8], F32]:
    """Quantise finite values block by block within each row.

    Args:
        rows: f32 (rows, columns).
        block: Elements that share a scale; even, divides columns.

    Returns:
        Packed codes u8 (rows, columns / 2), low nibble first, and positive scales f32 (rows, columns / block).
    """
    codes, scales = _encode(rows.reshape(-1, block), TOP_Q4)
    nibbles = codes.reshape(rows.shape).view(np.uint8) & np.uint8(15)
    packed = nibbles[:, 0::2] | (nibbles[:, 1::2] << np.uint8(4))
    return packed, scales.reshape(rows.shape[0], -1)


def unpack_q4(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Codes i8 (rows, columns), -8..7, of packed nibbles u8 (rows, columns / 2), low nibble first."""
    codes = np.empty((packed.shape[0], 2 * packed.shape[1]), dtype=np.int8)
    codes[:, 0::2] = packed & np.uint8(15)
    codes[:, 1::2] = packed >> np.uint8(4)
    codes -= (codes & np.int8(8)) << np.int8(1)
    return codes


def decode_q4(packed: NDArray[np.uint8], scales: F32) -> F32:
    """Values f32 (rows, columns) of packed nibbles u8 (rows, columns / 2) and scales f32 (rows, blocks)."""
    codes = unpack_q4(packed)
    blocks = codes.reshape(*scales.shape, -1).astype(np.float32)
    return (blocks * scales[:, :, np.newaxis]).reshape(codes.shape)


def _encode(groups: F32, top: int) -> tuple[NDArray[np.int8], F32]:
    scales = _scales(groups, top)
    # Row slices bound the f64 temporaries to about 8 MiB whatever the size of the tensor.
    codes = np.empty(groups.shape, dtype=np.int8)
    step = max(1, (1 << 20) // max(1, groups.shape[1]))
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        quotients = groups[part].astype(np.float64) / scales[part, np.newaxis].astype(np.float64)
        codes[part] = np.clip(np.rint(quotients), -top, top)
    return codes, scales


def _scales(groups: F32, top: int) -> F32:
    with np.errstate(over="ignore", under="ignore"):
        peaks = np.abs(groups).max(axis=1).astype(np.float64)
        scales: F32 = (peaks / top).astype(np.float32)
        scales[scales == 0] = 1
        too_large = ~np.isfinite(scales * np.float32(top))
    scales[too_large] = np.nextafter(scales[too_large], np.float32(0))
    return scales
