"""Random numbers that are the same everywhere: the output of SHAKE-256, cut into words.

A standard says what they are, so no library can change them, and no seed is close to another.
Source: FIPS 202, section 6.2.
"""

from __future__ import annotations

import hashlib
import math
import sys
from array import array

from studbook.errors import UsageError

__all__ = ["Draws"]

_BLOCK = 1 << 14


class Draws:
    """A stream of random numbers behind one seed: block k is SHAKE-256('studbook/draws/1' NUL | seed | k).

    Seed and k are eight little-endian bytes each; a block gives 2^14 words of 32 bits, little-endian, used in order.

    Args:
        seed: 0..2^64 - 1.

    Raises:
        UsageError: if the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 1 << 64:
            raise UsageError(f"{seed} is not a seed", reason="statistics.seed", advice="Use 0..2^64 - 1.")
        self._key = b"studbook/draws/1\0" + seed.to_bytes(8, "little")
        self._blocks, self._words, self._at = 0, array("I"), 0

    def below(self, limit: int, count: int) -> list[int]:
        """``count`` whole numbers in 0..limit - 1; limit at most 2^32.

        Multiply and shift (Lemire 2019, ACM TOMACS 29) without rejection: a value is too likely by less than
        limit / 2^32, far below what any number of resamples could show.
        """
        return [(word * limit) >> 32 for word in self._take(count)]

    def uniform(self, count: int) -> list[float]:
        """``count`` floats in (0, 1): the middle of one of 2^32 equal cells, so neither end occurs."""
        return [(word + 0.5) * 2.0**-32 for word in self._take(count)]

    def laplace(self) -> float:
        """A Laplace variate of scale 1 by inversion, -sign(u) log(1 - 2 |u|) with u in (-1/2, 1/2)."""
        centred = self.uniform(1)[0] - 0.5
        return math.copysign(-math.log1p(-2.0 * abs(centred)), centred)

    def _take(self, count: int) -> array[int]:
        taken = array("I")
        while len(taken) < count:
            if self._at == len(self._words):
                self._words, self._at = self._block(), 0
            more = self._words[self._at : self._at + count - len(taken)]
            self._at += len(more)
            taken.extend(more)
        return taken

    def _block(self) -> array[int]:
        words = array("I")
        words.frombytes(hashlib.shake_256(self._key + self._blocks.to_bytes(8, "little")).digest(4 * _BLOCK))
        if sys.byteorder == "big":
            words.byteswap()
        self._blocks += 1
        return words
