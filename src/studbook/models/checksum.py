"""The container's 64-bit checksum and the FNV-1a hash of tensor names.

The checksum finds accidents, never intent: the identity of a file is its SHA-256. Per byte at index i, starting from
the FNV offset basis: ``h ^= byte; h ^= (i & 0xff) << 8; h = rotl64(h, 5); h = h * 0x100000001b3 mod 2^64``. FNV-1a:
Fowler, Noll, Vo, draft-eastlake-fnv.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from numba import njit
except ImportError:  # the checksum is then slow (about 3 MB/s) but the same
    njit = None

__all__ = ["CHECKSUM_BYTES", "checksum64", "fnv1a64", "mix_reference", "warm"]

CHECKSUM_BYTES = 8
_START = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = 0xFFFFFFFFFFFFFFFF


def fnv1a64(name: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes of a tensor's canonical name."""
    state = _START
    for byte in name.encode():
        state = (state ^ byte) * _PRIME & _MASK
    return state


def mix_reference(state: int, data: bytes, start: int) -> int:
    """Mix bytes into the checksum state, in plain Python: the meaning of the compiled kernel.

    Args:
        state: State so far, 0 <= state < 2^64.
        data: Bytes to mix in.
        start: Index in the file of the first of them.
    """
    for index, byte in enumerate(data, start):
        state ^= byte ^ ((index & 0xFF) << 8)
        state = (state << 5 | state >> 59) & _MASK
        state = state * _PRIME & _MASK
    return state


def _kernel(state: Any, data: Any, start: Any) -> Any:
    for i in range(data.size):
        index = start + np.uint64(i)
        state ^= np.uint64(data[i]) ^ ((index & np.uint64(255)) << np.uint64(8))
        state = (state << np.uint64(5)) | (state >> np.uint64(59))
        state *= np.uint64(0x100000001B3)
    return state


def _compiled() -> Any:
    if njit is None:
        return None
    try:
        return njit(cache=True, nogil=True)(_kernel)
    except RuntimeError:  # no folder can be written to: compile in memory
        return njit(nogil=True)(_kernel)


_fast = _compiled()


def _mix_fast(state: int, data: bytes, start: int) -> int:
    return int(_fast(np.uint64(state), np.frombuffer(data, dtype=np.uint8), np.uint64(start)))


_mix: Callable[[int, bytes, int], int] = mix_reference if _fast is None else _mix_fast


def warm() -> None:
    """Load the compiled kernel, so that processes forked from this one have it."""
    _mix(_START, b"warm", 0)


def checksum64(data: bytes, zero_at: int) -> int:
    """Checksum of a whole file whose own checksum field reads as zero.

    Args:
        data: The file.
        zero_at: Offset of the 8-byte field that holds the checksum.

    Returns:
        1 <= checksum < 2^64; a result of zero becomes 1, because zero means "none".
    """
    after = zero_at + CHECKSUM_BYTES
    state = _mix(_START, data[:zero_at], 0)
    state = _mix(state, bytes(len(data[zero_at:after])), zero_at)
    return _mix(state, data[after:], after) or 1
