"""Random numbers that are the same everywhere: the raw words of Philox, turned into what a study needs.

numpy promises the words of a bit generator for good, but not what its distributions make of them, so the few that are
needed are written out here. Source: Salmon et al. 2011 (SC'11, Philox4x64-10).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studbook.errors import UsageError

__all__ = ["Draws"]


class Draws:
    """A stream of random numbers behind one seed.

    Args:
        seed: 0..2^64 - 1.

    Raises:
        UsageError: if the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 1 << 64:
            raise UsageError(f"{seed} is not a seed", reason="statistics.seed", advice="Use 0..2^64 - 1.")
        self._words = np.random.Philox(key=seed)

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """``count`` floats in (0, 1): the middle of one of 2^53 equal cells, so neither end occurs; shape (count,)."""
        return ((self._words.random_raw(count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def below(self, limit: int, count: int) -> npt.NDArray[np.int64]:
        """``count`` whole numbers in 0..limit - 1, shape (count,); limit at most 2^32.

        Multiply and shift (Lemire 2019, ACM TOMACS 29) without rejection: a value is too likely by less than
        limit / 2^32, far below what any number of resamples could show.
        """
        high = self._words.random_raw(count) >> np.uint64(32)
        return ((high * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)

    def laplace(self, count: int) -> npt.NDArray[np.float64]:
        """``count`` Laplace variates of scale 1 by inversion, -sign(u) log(1 - 2 |u|) with u in (-1/2, 1/2)."""
        centred = self.uniform(count) - 0.5
        return -np.sign(centred) * np.log1p(-2.0 * np.abs(centred))
