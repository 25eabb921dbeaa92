"""A model of the store as operators see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators import Inputs
from studbook.errors import DigestDiffers
from studbook.models.slm import Slm, read_slm
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Raw, Storage

__all__ = ["SlmTensors", "as_inputs", "open_inputs"]


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


def as_inputs(base: Slm, parents: Sequence[Slm]) -> Inputs:
    """Base and parents as an operator's inputs, in the recipe's order."""
    return Inputs(base=SlmTensors(base), parents=tuple(SlmTensors(p) for p in parents))


def open_inputs(base: tuple[str, str], parents: Sequence[tuple[str, str]]) -> tuple[Slm, tuple[Slm, ...]]:
    """Read base and parents, given as (path, digest).

    Raises:
        DigestDiffers: if a file is not the artifact that was named.
    """
    models = []
    for path, digest in (base, *parents):
        model = read_slm(Path(path))
        if model.sha256 != digest:
            raise DigestDiffers("is not the parent that the template names", where=path)
        models.append(model)
    return models[0], tuple(models[1:])
