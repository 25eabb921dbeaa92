"""A model of the store as operators see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators import Inputs
from studbook.errors import DigestDiffers
from studbook.models.slm import Slm, read_slm

__all__ = ["SlmTensors", "as_inputs", "open_inputs"]


class SlmTensors:
    """The tensors of an SLM1 model, decoded to f32, with the model's digest as their identity."""

    def __init__(self, model: Slm) -> None:
        self.model = model
        self.sha256 = model.sha256
        self.names = tuple(spec.name for spec in model.shape.tensors())

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self.model.dense(name).shape)

    def flat(self, name: str) -> NDArray[np.float32]:
        """One tensor, row-major, as a flat read-only f32 array."""
        return self.model.dense(name).reshape(-1)


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
