"""Views of models: only some of their tensors, or layers of several models in a new stack.

A layer is what a tensor's name says: the first part that is a plain number, such as 3 in ``layers.3.wq.weight``. Nothing
is copied: a view knows for each of its tensors the source and the name there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.errors import ParentsDoNotFit
from studbook.records.doors import canonical
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Raw, Storage

__all__ = ["Place", "Restacked", "Segment", "Subset", "comes_before", "layer_count", "layer_of", "place_of"]

_DOMAIN = b"studbook/restacked/1\0"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
# Words of embeddings in the tensor names of the usual architectures, and those of output projections that look alike.
_FRONT = re.compile(r"emb|(?:^|[._])w[tp]e(?:[._]|$)")
_BACK = re.compile(r"embed_out|unembed|lm_head")

Segment = tuple[TensorSource, int, int]


class Place(NamedTuple):
    """Where a tensor of a layer stands.

    Attributes:
        head: Its name up to the layer's number, such as ``layers.``.
        layer: The number.
        tail: The rest of its name, such as ``.wq.weight``.
    """

    head: str
    layer: int
    tail: str


def place_of(name: str) -> Place | None:
    """The place of a tensor among the layers; None for a tensor outside of them."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if _NUMBER.fullmatch(part):
            head, tail = ".".join(parts[:at]), ".".join(parts[at + 1 :])
            return Place(head + "." if at else "", int(part), "." + tail if tail else "")
    return None


def layer_of(name: str) -> int | None:
    """Number of the layer a tensor belongs to; None for a tensor outside the layers."""
    place = place_of(name)
    return place.layer if place else None


def layer_count(names: Iterable[str]) -> int:
    """One more than the highest layer; 0 without layers."""
    return max((place.layer + 1 for name in names if (place := place_of(name))), default=0)


def comes_before(name: str) -> bool:
    """Whether a tensor outside the layers is used before them: an embedding, by the words of its name.

    All others, such as a final norm or an output projection, come after.
    """
    return bool(_FRONT.search(name)) and not _BACK.search(name)


class _Routed(TensorSource):
    """Tensors that are read under other names from other sources."""

    def __init__(self, sha256: str, routes: Mapping[str, tuple[TensorSource, str]]) -> None:
        self.sha256 = sha256
        self.names = tuple(routes)
        self._routes = dict(routes)

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        source, there = self._routes[name]
        return source.dims(there)

    def storage(self, name: str) -> Storage:
        """How one tensor's elements are stored."""
        source, there = self._routes[name]
        return source.storage(there)

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`."""
        source, there = self._routes[name]
        source.fill(there, start, out)

    def span(self, name: str, start: int, size: int) -> Raw | None:
        """See `TensorSource.span`."""
        source, there = self._routes[name]
        return source.span(there, start, size)

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See `TensorSource.read`."""
        source, there = self._routes[name]
        return source.read(there, start, stop)


class Subset(_Routed):
    """Some tensors of one model, in the model's order.

    It is still that model: its ``sha256`` is the source's, so random streams that it keys are the same.

    Args:
        source: The model.
        names: Which tensors; names the model does not have are left out.
    """

    def __init__(self, source: TensorSource, names: Iterable[str]) -> None:
        wanted = frozenset(names)
        super().__init__(source.sha256, {name: (source, name) for name in source.names if name in wanted})


class Restacked(_Routed):
    """A stack of layers out of several models, numbered from 0 in the order of the segments.

    Tensors outside the layers come from the first segment's model if they are used before the layers (`comes_before`),
    and from the last segment's if they are used after. Names are in byte order if every source's are, else in the first
    source's order with the layers where its layers are. Its ``sha256`` is SHA-256 of 'studbook/restacked/1' NUL and the
    canonical JSON (RFC 8785) of a list with an object of ``first``, ``last`` and ``sha256`` for every segment.

    Args:
        segments: (model, first layer, one past the last layer), at least one.

    Raises:
        ParentsDoNotFit: if there is no segment, a model lacks a layer that is asked for, or its layers are not one stack
            under the same name as the others'.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        if not segments:
            raise ParentsDoNotFit("no layers are asked for", where="segments", reason="parents.layers")
        head = _one_head([source for source, _, _ in segments])
        routes: dict[str, tuple[TensorSource, str]] = {}
        for at, (source, first, last) in enumerate(segments):
            routes |= _layers(source, first, last, head, layer_count(routes), f"segment {at}")
        outside = _outside(segments[0][0], comes=True) | _outside(segments[-1][0], comes=False)
        ordered = _ordered(segments, routes, outside)
        made = [{"first": first, "last": last, "sha256": source.sha256} for source, first, last in segments]
        super().__init__(hashlib.sha256(_DOMAIN + canonical(made)).hexdigest(), ordered)


def _one_head(sources: Sequence[TensorSource]) -> str:
    """What stands before the layers' numbers, in all sources alike."""
    heads = {place.head for source in sources for name in source.names if (place := place_of(name))}
    if len(heads) != 1:
        found = ", ".join(sorted(heads)) or "none"
        raise ParentsDoNotFit(
            f"layers can be restacked where all models hold one numbered list of them, not {found}",
            where="segments",
            advice="Use models of one architecture with a single stack of layers.",
            reason="parents.layers",
        )
    return heads.pop()


def _layers(
    source: TensorSource, first: int, last: int, head: str, offset: int, where: str
) -> dict[str, tuple[TensorSource, str]]:
    if not 0 <= first < last:
        raise ParentsDoNotFit(f"layers {first} to {last} are none", where=where, reason="parents.layers")
    by_layer: dict[int, list[str]] = {}
    for name in source.names:
        if (layer := layer_of(name)) is not None and first <= layer < last:
            by_layer.setdefault(layer, []).append(name)
    missing = next((layer for layer in range(first, last) if layer not in by_layer), None)
    if missing is not None:
        count = layer_count(source.names)
        raise ParentsDoNotFit(
            f"layer {missing} is asked for; the model has layers 0 to {count - 1}",
            where=where,
            advice="Count layers from 0; the end of a segment is one past its last layer.",
            reason="parents.layers",
        )
    routes: dict[str, tuple[TensorSource, str]] = {}
    for layer in range(first, last):
        for name in by_layer[layer]:
            tail = name[len(head) + len(str(layer)) :]
            routes[f"{head}{offset + layer - first}{tail}"] = (source, name)
    return routes


def _outside(source: TensorSource, *, comes: bool) -> dict[str, tuple[TensorSource, str]]:
    return {n: (source, n) for n in source.names if place_of(n) is None and comes_before(n) is comes}


def _ordered(
    segments: Sequence[Segment],
    layers: Mapping[str, tuple[TensorSource, str]],
    outside: Mapping[str, tuple[TensorSource, str]],
) -> dict[str, tuple[TensorSource, str]]:
    routes = {**outside, **layers}
    if all(list(source.names) == sorted(source.names) for source, _, _ in segments):
        return {name: routes[name] for name in sorted(routes)}
    order: list[str] = []
    stacked = False
    for name in segments[0][0].names:
        if name in outside:
            order.append(name)
        elif place_of(name) and not stacked:
            order += layers
            stacked = True
    order += [name for name in outside if name not in order]
    return {name: routes[name] for name in order}
