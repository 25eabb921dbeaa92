"""Views of models: layers stacked anew, or only some of the tensors. A view reads through; it holds no element itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.errors import ParentsDoNotFit
from studbook.records.doors import canonical
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Raw, Storage

__all__ = ["Layered", "Renamed", "Restacked", "Subset", "after_layers", "layer_of", "split_layer"]


class Layered(NamedTuple):
    """The parts of a tensor's name.

    Attributes:
        head: What stands before the layer's number, such as ``model.layers``; all of the name outside the layers.
        layer: The number; -1 outside the layers.
        tail: What stands behind it, such as ``mlp.up_proj.weight``.
    """

    head: str
    layer: int
    tail: str


def split_layer(name: str) -> Layered:
    """Take a name apart at its first part that is a plain number."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isascii() and part.isdigit() and place:
            return Layered(".".join(parts[:place]), int(part), ".".join(parts[place + 1 :]))
    return Layered(name, -1, "")


def layer_of(name: str) -> int:
    """Number of the layer a tensor belongs to; -1 outside the layers."""
    return split_layer(name).layer


class Renamed(TensorSource):
    """Tensors of one or several sources under other names.

    Args:
        places: New name -> (source, its name there), in canonical order.
        made_of: What the view was made of, in words that name digests; its identity.
    """

    def __init__(self, places: dict[str, tuple[TensorSource, str]], made_of: Sequence[object]) -> None:
        self.names = tuple(places)
        self._places = places
        text = b"studbook/view/1\0" + canonical({"made_of": list(made_of)})
        self.sha256 = hashlib.sha256(text).hexdigest()

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        source, inner = self._places[name]
        return source.dims(inner)

    def storage(self, name: str) -> Storage:
        """How one tensor's elements are stored."""
        source, inner = self._places[name]
        return source.storage(inner)

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`."""
        source, inner = self._places[name]
        source.fill(inner, start, out)

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See `TensorSource.read`."""
        source, inner = self._places[name]
        return source.read(inner, start, stop)


class Restacked(Renamed):
    """Ranges of layers of some models as one model, numbered from 0 in the order given.

    Tensors before the layers (the embedding) come from the first segment's model, those behind them (last norm, head)
    from the last segment's; which is which follows from their order in the model, see `after_layers`.

    Args:
        segments: (source, first layer, the layer after the last one), in output order.

    Raises:
        ParentsDoNotFit: if a source does not have the layers asked for, or numbers several lists of layers.
    """

    def __init__(self, segments: Sequence[tuple[TensorSource, int, int]]) -> None:
        heads = {_head(source) for source, _, _ in segments}
        if len(heads) != 1:
            raise ParentsDoNotFit(
                f"layers are called {', '.join(sorted(heads))}", where="layers", reason="parents.layers"
            )
        head = heads.pop()
        places: dict[str, tuple[TensorSource, str]] = {}
        number = 0
        for source, first, last in segments:
            for layer in range(first, last):
                places |= _layer(source, head, layer, number)
                number += 1
        opening, closing = segments[0][0], segments[-1][0]
        for donor, behind in ((opening, False), (closing, True)):
            places |= {n: (donor, n) for n in donor.names if layer_of(n) < 0 and after_layers(n) == behind}
        made_of = [{"source": s.sha256, "first": f, "last": e} for s, f, e in segments]
        super().__init__({n: places[n] for n in _in_order(places, opening)}, made_of)


class Subset(Renamed):
    """Some tensors of a source, in the source's order; it keeps the source's digest, and so its random streams.

    Args:
        source: The model.
        names: Which tensors.
    """

    def __init__(self, source: TensorSource, names: Iterable[str]) -> None:
        wanted = set(names)
        super().__init__({n: (source, n) for n in source.names if n in wanted}, [source.sha256])
        self.sha256 = source.sha256


def after_layers(name: str) -> bool:
    """Whether a tensor outside the layers belongs behind them: a last norm or an output projection."""
    last = name.lower()
    return any(
        word in last for word in ("norm", "ln_f", "lm_head", "output", "embed_out", "pooler", "classifier")
    ) and ("embed" not in last or "embed_out" in last)


def _head(source: TensorSource) -> str:
    """What the one numbered list of layers is called.

    Raises:
        ParentsDoNotFit: if there is none, or several.
    """
    found = list(dict.fromkeys(split_layer(n).head for n in source.names if layer_of(n) >= 0))
    if len(found) != 1:
        what = f"numbers {len(found)} lists of layers: {', '.join(found[:3])}" if found else "numbers no layers"
        raise ParentsDoNotFit(
            what, where="layers", advice="Layers of this model cannot be stacked.", reason="parents.layers"
        )
    return found[0]


def _layer(source: TensorSource, head: str, layer: int, number: int) -> dict[str, tuple[TensorSource, str]]:
    inside = f"{head}.{layer}."
    found = {f"{head}.{number}.{n[len(inside) :]}": (source, n) for n in source.names if n.startswith(inside)}
    if not found:
        raise ParentsDoNotFit(f"has no layer {layer}", where=head, reason="parents.layers")
    return found


def _in_order(places: Iterable[str], model: TensorSource) -> list[str]:
    """Names in the order of a model whose names are in order: sorted where it sorts, else by its own order of parts."""
    names = list(places)
    if list(model.names) == sorted(model.names, key=str.encode):
        return sorted(names, key=str.encode)
    before = {n: i for i, n in enumerate(model.names)}
    tails = {t: i for i, t in enumerate(dict.fromkeys(split_layer(n).tail for n in model.names if layer_of(n) >= 0))}
    first = next(i for i, n in enumerate(model.names) if layer_of(n) >= 0)

    def place(name: str) -> tuple[int, int, int]:
        parts = split_layer(name)
        if parts.layer >= 0:
            return (1, parts.layer, tails.get(parts.tail, len(tails)))
        at = before.get(name, len(before))
        return (0 if at < first else 2, at, 0)

    return sorted(names, key=place)
