"""Prompts as vectors of a sentence encoder, rounded to whole numbers before anything is computed from them.

An encoder gives a vector of length 1 in float32; its last bits depend on processor and library. Rounded to a grid of
1/256, two such vectors are nearly always the same whole numbers. From there on everything is exact: the same rounded
vectors give the same centroids and scores everywhere. What is not promised is that two machines round a prompt alike: a
value close to the middle of two steps may fall to either side. The same machine with the same libraries does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from studbook.records import SentenceModel
from studbook.runtime.routing.ngrams import I16, scaled

__all__ = ["Embedder", "cosines", "learn_vectors", "rounded"]

_STEPS = 256


class Embedder(Protocol):
    """A sentence encoder that is open."""

    @property
    def model(self) -> SentenceModel:
        """Its record."""
        ...

    def embed(self, text: str) -> I16:
        """The rounded vector of a text, i16 (dimension,).

        Raises:
            StudbookError: any of its kinds, if it cannot answer.
        """
        ...


def rounded(vector: NDArray[np.float32]) -> I16:
    """A vector of length 1 on the grid, i16 (dimension,); halves go to the even step."""
    found: I16 = np.rint(vector.astype(np.float64) * _STEPS).astype(np.int16)
    return found


def cosines(vector: I16, centroids: I16, norms: Sequence[int]) -> list[float]:
    """Cosine of a rounded vector to every centroid, -1..1.

    Args:
        vector: i16 (dimension,), not all zero.
        centroids: i16 (clusters, dimension), no row all zero.
        norms: Their squared lengths.
    """
    wide = vector.astype(np.int64)
    size = int(wide @ wide)
    products = centroids.astype(np.int64) @ wide
    return [int(p) / math.sqrt(size * n) for p, n in zip(products, norms, strict=True)]


def learn_vectors(vectors: Sequence[Sequence[I16]]) -> I16:
    """One centroid a cluster, i16 (clusters, dimension), scaled to its largest weight.

    Formula:
        m - s, m the mean of the cluster's rounded vectors, s the mean of these means over clusters.

    Args:
        vectors: The rounded vectors of every cluster's examples, at least one each.

    Raises:
        UsageError: if two clusters cannot be told apart at all; ``route.examples``.
    """
    means = np.stack([np.sum(rows, axis=0, dtype=np.int64) / len(rows) for rows in vectors])
    if len(vectors) > 1:
        # One row after the other: a sum over an axis may be taken in another order elsewhere.
        shared = np.zeros(means.shape[1])
        for row in means:
            shared += row
        means = means - shared / len(vectors)
    return scaled(means)
