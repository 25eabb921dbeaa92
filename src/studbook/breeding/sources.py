"""A model of the store as operators see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.reader import Adapter, parse_adapter
from studbook.adapters.source import chain
from studbook.breeding.operators import Inputs
from studbook.errors import DigestDiffers, ParentsDoNotFit
from studbook.files import read_file
from studbook.models.slm import Slm, parse_slm, read_slm
from studbook.models.slm_layout import MAX_FILE_BYTES
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Raw, Storage

__all__ = ["PACKAGES", "SlmTensors", "as_inputs", "open_inputs"]

PACKAGES = (b"ADP1", b"ASP1", b"ALR1")


class SlmTensors(TensorSource):
    """The tensors of an SLM1 model, decoded to f32, with the model's digest as their identity."""

    def __init__(self, model: Slm) -> None:
        self.model = model
        self.sha256 = model.sha256
        self.names = tuple(spec.name for spec in model.shape.tensors())
        self._dims = {spec.name: spec.dims for spec in model.shape.tensors()}

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._dims[name]

    def storage(self, name: str) -> Storage:
        """Quantised tensors are decoded, so all are f32."""
        return "f32"

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`."""
        out[:] = self.read(name, start, start + out.size)

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See `TensorSource.read`; a view where the tensor is stored as f32."""
        return self.model.dense(name).reshape(-1)[start:stop]


def as_inputs(base: Slm, parents: Sequence[Slm | Adapter]) -> Inputs:
    """Base and parents as an operator's inputs, in the recipe's order; a package is seen over the parent before it.

    A first parent under packages that is not the base itself is a quantised build of it: whoever declares the work has
    a verified receipt for that.

    Raises:
        AdapterRefused: if a package does not fit the model it is put on.
    """
    packages = [p for p in parents if isinstance(p, Adapter)]
    if packages and isinstance(model := parents[0], Slm) and len(packages) == len(parents) - 1:
        return Inputs(base=SlmTensors(base), parents=chain(model, packages, {model.sha256: base.sha256}))
    models = [p for p in parents if isinstance(p, Slm)]
    if len(models) != len(parents):
        message = "adapter packages stand behind one model, and nowhere else"
        raise ParentsDoNotFit(message, where="parents", reason="parents.adapter-order")
    return Inputs(base=SlmTensors(base), parents=tuple(SlmTensors(m) for m in models))


def open_inputs(base: tuple[str, str], parents: Sequence[tuple[str, str]]) -> tuple[Slm, tuple[Slm | Adapter, ...]]:
    """Read base and parents, given as (path, digest); a parent is a model or an adapter package.

    Raises:
        DigestDiffers: if a file is not the artifact that was named.
        BytesLie: if a file breaks a rule of its format.
    """
    opened: list[Slm | Adapter] = []
    for path, digest in parents:
        data = read_file(Path(path), MAX_FILE_BYTES)
        found = parse_adapter(data, path) if data[:4] in PACKAGES else parse_slm(data, path)
        if found.sha256 != digest:
            raise DigestDiffers("is not the parent that the template names", where=path)
        opened.append(found)
    model = read_slm(Path(base[0]))
    if model.sha256 != base[1]:
        raise DigestDiffers("is not the base that the template names", where=base[0])
    return model, tuple(opened)
