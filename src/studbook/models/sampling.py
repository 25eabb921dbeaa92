"""Picking the next token: greedy, or a seeded draw from the largest logits.

Order of steps: divide by the temperature, keep the top_k largest logits (ties to the lowest id), softmax over those in
f64, keep the shortest prefix whose probability reaches top_p, then take the first whose cumulative mass exceeds the
draw. A draw is the top 53 bits of the state times 2^-53. Generator: XorShift64 with shifts 13, 7, 17; Marsaglia,
Xorshift RNGs, 2003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError

__all__ = ["GREEDY", "MAX_TOP_K", "Sampler", "Sampling", "XorShift64", "greedy"]

MAX_TOP_K = 1024
_MASK = 0xFFFFFFFFFFFFFFFF


class XorShift64:
    """A 64-bit generator without a zero state: a zero seed becomes 1.

    Args:
        seed: 0 <= seed < 2^64.
    """

    def __init__(self, seed: int) -> None:
        self.state = seed or 1

    def step(self) -> int:
        """The next state, 1 <= state < 2^64."""
        state = self.state
        state ^= state << 13 & _MASK
        state ^= state >> 7
        state ^= state << 17 & _MASK
        self.state = state
        return state

    def draw(self) -> float:
        """The next number, 0 <= draw < 1, in steps of 2^-53."""
        return (self.step() >> 11) * 2.0**-53


@dataclass(frozen=True)
class Sampling:
    """How to pick a token; the defaults are greedy.

    Attributes:
        temperature: Finite, >= 0; 0 is greedy whatever the rest says.
        top_k: How many of the largest logits may be drawn, 1..1024.
        top_p: Probability the drawn prefix must reach, in (0, 1].
        seed: Seed of every sequence's own generator, 64 bits.

    Raises:
        UsageError: naming the setting that is out of range.
    """

    temperature: float = 0.0
    top_k: int = 1
    top_p: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        checks = (
            ("temperature", math.isfinite(self.temperature) and self.temperature >= 0, "finite and at least 0"),
            ("top_k", 1 <= self.top_k <= MAX_TOP_K, f"1 to {MAX_TOP_K}"),
            ("top_p", 0 < self.top_p <= 1, "more than 0, at most 1"),
            ("seed", 0 <= self.seed <= _MASK, "a 64-bit number"),
        )
        for field, fine, wanted in checks:
            if not fine:
                message = f"{getattr(self, field)!r}; must be {wanted}"
                advice = "Correct the sampling settings."
                raise UsageError(message, where=f"field {field}", reason=f"sampling.{field}", advice=advice)


GREEDY = Sampling()


def greedy(logits: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Ids of the largest logits along the last axis, ties to the lowest id; NaN counts as smallest."""
    ids: NDArray[np.int64] = np.argmax(np.where(np.isnan(logits), -np.inf, logits), axis=-1)
    return ids


class Sampler:
    """Draws the tokens of one sequence.

    Args:
        sampling: How to pick.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.generator = XorShift64(sampling.seed)

    def pick(self, logits: NDArray[np.floating[Any]]) -> int:
        """Id of the next token.

        Args:
            logits: (vocabulary,), any float dtype; a mass that is zero or not finite falls back to greedy.
        """
        if self.sampling.temperature == 0:
            return int(greedy(logits))
        with np.errstate(all="ignore"):
            scaled = logits.astype(np.float64) / self.sampling.temperature
            # A stable sort of the negated logits keeps the lowest id first among equals; NaN goes last.
            kept = np.argsort(-scaled, kind="stable")[: self.sampling.top_k]
            mass = np.exp(scaled[kept] - scaled[kept[0]])
            total = float(mass.sum())
        if not (math.isfinite(total) and total > 0):
            return int(greedy(logits))
        cumulative = np.cumsum(mass / total)
        last = min(int(np.searchsorted(cumulative, self.sampling.top_p)), len(kept) - 1)
        threshold = self.generator.draw() * cumulative[last]
        chosen = int(np.searchsorted(cumulative[: last + 1], threshold, side="right"))
        return int(kept[min(chosen, last)])
