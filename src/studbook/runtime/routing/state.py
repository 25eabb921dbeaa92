"""What a router knows, as a record and a file of centroids: learnt from labelled examples, opened against its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from studbook.errors import BytesLie, DigestDiffers, UsageError
from studbook.records import Blob, Header, RouteEncoder, RouterState, RouteRule, canonical, digest
from studbook.runtime.routing.embeddings import Embedder, learn_vectors
from studbook.runtime.routing.ngrams import I16, learn, squares
from studbook.runtime.routing.rules import check_rules

__all__ = ["ENCODER", "Known", "examples_sha256", "learn_state", "open_state"]

ENCODER = RouteEncoder(low=2, high=3, buckets=4096, reach=512)
"""The encoder unless another one is named."""
_NONE: I16 = np.zeros((0, 0), dtype=np.int16)


class Known(NamedTuple):
    """A router's state, opened.

    Attributes:
        state: The record.
        digest: Its digest.
        centroids: i16 (clusters, length of a vector); None where only rules decide.
        norms: Squared length of every centroid.
    """

    state: RouterState
    digest: str
    centroids: I16 | None
    norms: tuple[int, ...]


def examples_sha256(examples: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of labelled examples: their canonical JSON, clusters sorted, texts in their order."""
    return hashlib.sha256(canonical({cluster: list(texts) for cluster, texts in examples.items()})).hexdigest()


def learn_state(
    header: Header,
    examples: Mapping[str, Sequence[str]],
    rules: Sequence[RouteRule] = (),
    fallback: str | None = None,
    encoder: RouteEncoder | Embedder = ENCODER,
) -> tuple[RouterState, bytes]:
    """A router's state, and the bytes of its centroids.

    Args:
        header: The header of the record.
        examples: Cluster -> prompts that ask for it, of development items only; none for rules alone.
        rules: Asked before the centroids.
        fallback: Id of the package that answers when nobody else does.
        encoder: How prompts are read: n-grams, or a sentence encoder that is open.

    Raises:
        UsageError: if a cluster has no example, clusters cannot be told apart, or the rules are out of bounds.
        StudbookError: any of its kinds, if the sentence encoder cannot answer.
    """
    check_rules(rules)
    clusters = tuple(sorted(examples))
    if empty := [cluster for cluster in clusters if not examples[cluster]]:
        text = f"cluster {empty[0]} has no example"
        raise UsageError(text, reason="route.examples", advice="Give every cluster at least one prompt.")
    named, rows = _learnt([examples[c] for c in clusters], encoder)
    data = rows.astype("<i2").tobytes() if clusters else b""
    state = RouterState(
        header=header,
        rules=tuple(rules),
        encoder=named if clusters else None,
        centroids=Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) if clusters else None,
        clusters=clusters,
        fitted_on=examples_sha256(examples) if clusters else None,
        fallback=fallback,
    )
    return state, data


def open_state(state: RouterState, data: bytes = b"") -> Known:
    """A state with its centroids, held against the digest and the shape that the record names.

    Raises:
        DigestDiffers: if the bytes are others.
        BytesLie: if they are no centroids of these clusters; ``route.centroids``.
        UsageError: if its rules or its encoder are out of bounds.
    """
    check_rules(state.rules)
    if state.encoder is None or state.centroids is None:
        if data or state.clusters or state.encoder or state.centroids:
            raise _no_centroids("names clusters, an encoder or centroids, and not all of them")
        return Known(state, digest(state), None, ())
    if hashlib.sha256(data).hexdigest() != state.centroids.sha256:
        raise DigestDiffers("are not the centroids that the router's state names", where="centroids")
    count = len(state.clusters)
    # How long a sentence encoder's vectors are, its own record says: a router that opens it holds the rows against it.
    length = len(data) // (2 * max(count, 1)) if isinstance(state.encoder, str) else _checked(state.encoder).buckets
    if len(data) != 2 * count * length or not data:
        raise _no_centroids(f"{len(data)} bytes are not {count} rows of {length}")
    rows = np.frombuffer(data, dtype="<i2").reshape(count, length).astype(np.int16)
    norms = squares(rows)
    if not all(norms):
        raise _no_centroids("a row is all zero")
    return Known(state, digest(state), rows, norms)


def _learnt(examples: Sequence[Sequence[str]], encoder: RouteEncoder | Embedder) -> tuple[RouteEncoder | str, I16]:
    """What the state names as its encoder, and the centroids."""
    if isinstance(encoder, RouteEncoder):
        return _checked(encoder), learn(examples, encoder) if examples else _NONE
    vectors = [[encoder.embed(text) for text in texts] for texts in examples]
    return digest(encoder.model), learn_vectors(vectors) if vectors else _NONE


def _checked(encoder: RouteEncoder) -> RouteEncoder:
    if encoder.low > encoder.high or encoder.buckets & (encoder.buckets - 1):
        text = "the shortest n-gram is longer than the longest, or the buckets are no power of two"
        raise UsageError(text, where="encoder", reason="route.encoder", advice="Take 2 to 3 bytes and 4096 buckets.")
    return encoder


def _no_centroids(text: str) -> BytesLie:
    return BytesLie(text, where="router state", reason="route.centroids", advice="Learn the router's state again.")
