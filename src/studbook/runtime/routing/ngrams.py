"""Prompts as counts of hashed n-grams, in whole numbers: the same scores on every machine.

The bytes of a prompt, a mark before and behind, are read in windows of every length the encoder names. A window's hash is
FNV-1a (Fowler, Noll and Vo) over its bytes, mixed by the finaliser of MurmurHash3; its low bits are a bucket. Counts and
centroids are integers, so their product has no order to depend on; a score is the cosine of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError
from studbook.records import RouteEncoder

__all__ = ["counts", "learn", "scaled", "scores", "squares"]

I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
U64 = NDArray[np.uint64]

_START, _GAP, _END = b"\x02", b"\x00", b"\x03"
_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX, _SHIFT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(33)
_TOP = 32767
_SMOOTH = 1.0 / 1024.0


def counts(prompt: str, encoder: RouteEncoder) -> I64:
    """How often each bucket is hit, i64 (buckets,).

    Args:
        prompt: Any text; of a long one the beginning and the end are read.
        encoder: Lengths, buckets and reach.
    """
    return np.bincount(_buckets(prompt, encoder), minlength=encoder.buckets)


def squares(centroids: I16) -> tuple[int, ...]:
    """Squared length of every centroid."""
    return tuple(int(n) for n in np.square(centroids, dtype=np.int64).sum(axis=1))


def scores(prompt: str, encoder: RouteEncoder, centroids: I16, norms: Sequence[int]) -> list[float]:
    """Cosine of a prompt to every centroid, -1..1.

    Args:
        prompt: Any text.
        encoder: As the centroids were learnt with.
        centroids: i16 (clusters, buckets), no row all zero.
        norms: Their `squares`.
    """
    hit = _buckets(prompt, encoder)
    found = np.bincount(hit)
    size = int(found @ found)
    products = centroids[:, hit].sum(axis=1, dtype=np.int64)
    return [int(p) / math.sqrt(size * n) for p, n in zip(products, norms, strict=True)]


def learn(texts: Sequence[Sequence[str]], encoder: RouteEncoder) -> I16:
    """One centroid a cluster, i16 (clusters, buckets), scaled to its largest weight.

    Formula:
        (m - s) / (s + 1/1024), m the mean of the cluster's L2-normalised counts, s the mean of these means over clusters.

    What all clusters share says nothing about any of them, and what is rare says more than what is common: without the
    division, long runs of ordinary letters outweigh the few signs that tell clusters apart.

    Args:
        texts: The examples of every cluster, at least one each.
        encoder: Lengths, buckets and reach.

    Raises:
        UsageError: if two clusters cannot be told apart at all; ``route.examples``.
    """
    means = np.zeros((len(texts), encoder.buckets))
    for row, examples in zip(means, texts, strict=True):
        for text in examples:
            found = counts(text, encoder)
            row += found / math.sqrt(int(found @ found))
        row /= len(examples)
    if len(texts) > 1:
        shared = np.zeros(encoder.buckets)
        for row in means:
            shared += row
        shared /= len(texts)
        means = (means - shared) / (shared + _SMOOTH)
    return scaled(means)


def scaled(weights: NDArray[np.float64]) -> I16:
    """Rows in whole numbers, the largest weight of each 32767.

    Args:
        weights: float64 (clusters, n).

    Raises:
        UsageError: if a row is all zero; ``route.examples``.
    """
    tops = np.abs(weights).max(axis=1, keepdims=True)
    if not tops.all():
        text, advice = (
            "a cluster's examples say nothing that the others' do not",
            "Give examples that tell clusters apart.",
        )
        raise UsageError(text, reason="route.examples", advice=advice)
    rows: I16 = np.rint(weights * (_TOP / tops)).astype(np.int16)
    return rows


def _buckets(prompt: str, encoder: RouteEncoder) -> NDArray[np.intp]:
    data = prompt.encode("utf-8", "replace")
    if len(data) > encoder.reach:
        half = encoder.reach // 2
        data = data[:half] + _GAP + data[-half:]
    read = np.frombuffer(_START + data + _END, dtype=np.uint8).astype(np.uint64)
    hashed = np.full(len(read), _OFFSET)
    parts: list[U64] = []
    for length in range(1, min(encoder.high, len(read)) + 1):
        end = len(read) - length + 1
        hashed = (hashed[:end] ^ read[length - 1 :]) * _PRIME
        if length >= encoder.low:
            parts.append(hashed)
    found = np.concatenate(parts) if parts else hashed[:1]
    found = (found ^ (found >> _SHIFT)) * _MIX
    return ((found ^ (found >> _SHIFT)) & np.uint64(encoder.buckets - 1)).astype(np.intp)
