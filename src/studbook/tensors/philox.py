"""Keyed random words: Philox4x32-10, addressed by element, so any range can be drawn alone.

The key depends on the seed, the parent and the tensor's name and on nothing else of the recipe: changing a scale must
not change a mask, or ablations are confounded. Source of the generator: Salmon, Moraes, Dror & Shaw, "Parallel random
numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import philox_words

__all__ = ["DOMAIN", "Stream", "keep_threshold", "philox4x32", "stream_for"]

DOMAIN = b"studbook/philox/1\x00"
ROUNDS = 10
# Counters computed at a time: the working set (8 arrays of u64) then stays in a core's second-level cache.
BATCH = 1 << 13

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counters: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Ten rounds of Philox 4x32.

    Args:
        counters: u32, shape (n, 4).
        key: Two u32.

    Returns:
        u32, shape (n, 4).
    """
    x0, x1, x2, x3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = x0 * _MULTIPLIER_0
        p1 = x2 * _MULTIPLIER_1
        x0 = (p1 >> _SHIFT) ^ x1 ^ np.uint64(k0)
        x2 = (p0 >> _SHIFT) ^ x3 ^ np.uint64(k1)
        x1 = p1 & _LOW
        x3 = p0 & _LOW
        k0 = (k0 + _WEYL_0) & 0xFFFFFFFF
        k1 = (k1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=1).astype(np.uint32)


def keep_threshold(p: float) -> int:
    """round(p * 2^32), ties to even: a word below it is kept. The product is exact in f64."""
    return round(p * 4294967296.0)


@dataclass(frozen=True)
class Stream:
    """The random words of one tensor (or other unit) of one parent.

    Attributes:
        key: Two u32.
    """

    key: tuple[int, int]

    def words(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Words of the elements start..stop-1: u32, shape (stop - start,).

        Raises:
            UsageError: unless 0 <= start <= stop <= 2^64.
        """
        if not 0 <= start <= stop <= 1 << 64:
            raise UsageError(f"no elements {start}..{stop} in a random stream", reason="philox.range")
        if start == stop:
            return np.empty(0, np.uint32)
        first, last = start // 4, -(-stop // 4)
        out = np.empty(4 * (last - first), np.uint32)
        if COMPILED:
            philox_words(np.uint64(first), np.uint32(self.key[0]), np.uint32(self.key[1]), out.view(np.uint64))
        else:
            _fill(out, first, last, self.key)
        return out[start - 4 * first : stop - 4 * first]

    def keep_mask(self, start: int, stop: int, p: float) -> NDArray[np.bool_]:
        """Which of the elements start..stop-1 are kept with probability p: bool, shape (stop - start,)."""
        return self.words(start, stop).astype(np.uint64) < np.uint64(keep_threshold(p))

    def noise(self, start: int, stop: int) -> NDArray[np.float32]:
        """Uniform f32 in [-1, 1) for the elements start..stop-1, from the top 24 bits of each word, without libm."""
        centred = (self.words(start, stop) >> np.uint32(8)).astype(np.int32) - np.int32(1 << 23)
        return centred.astype(np.float32) * np.float32(2.0**-23)

    def choices(self, start: int, stop: int, options: int) -> NDArray[np.int64]:
        """One of 0..options-1 for the units start..stop-1: (word * options) >> 32; bias below options / 2^32."""
        return ((self.words(start, stop).astype(np.uint64) * np.uint64(options)) >> _SHIFT).astype(np.int64)


def stream_for(seed: int, parent_sha256: bytes, tensor_name: str) -> Stream:
    """The stream of one tensor of one parent.

    Args:
        seed: 0..2^64-1.
        parent_sha256: Raw digest of the parent, 32 bytes.
        tensor_name: Name of the tensor (or unit).

    Raises:
        UsageError: if the seed or the digest has the wrong size.
    """
    if not 0 <= seed < 1 << 64 or len(parent_sha256) != 32:
        raise UsageError("a stream needs a seed of 64 bits and a digest of 32 bytes", reason="philox.key")
    message = DOMAIN + seed.to_bytes(8, "little") + parent_sha256 + tensor_name.encode()
    key = hashlib.sha256(message).digest()
    return Stream((int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little")))


def _fill(out: NDArray[np.uint32], first: int, last: int, key: tuple[int, int]) -> None:
    """The words of the counters first..last-1, in numpy."""
    for at in range(first, last, BATCH):
        end = min(at + BATCH, last)
        out[4 * (at - first) : 4 * (end - first)] = philox4x32(_counters(at, end), key).reshape(-1)


def _counters(first: int, last: int) -> NDArray[np.uint32]:
    index = np.uint64(first) + np.arange(last - first, dtype=np.uint64)
    out = np.zeros((last - first, 4), np.uint32)
    out[:, 0] = index & _LOW
    out[:, 1] = index >> _SHIFT
    return out
