"""A model, and a model with packages on it, as operators read them: range by range, without a fused copy in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.fit import NONE_ACCEPTED, check_identity
from studbook.adapters.fusion import fuse, wide_values
from studbook.adapters.reader import Adapter
from studbook.models.slm import Slm
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Raw, Storage

__all__ = ["AdapterSource", "ResidentSource", "SlmSource", "chain"]


class ResidentSource(TensorSource):
    """A source over one SLM1 model that also gives elements before their rounding to f32.

    Attributes:
        model: The model at the bottom.
    """

    model: Slm

    @abstractmethod
    def wide(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """Elements start..stop-1 in f64, exact: code times scale where the tensor is still quantised."""

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self.model.tensors[name].dims

    def storage(self, name: str) -> Storage:
        """Always f32: quantised tensors are decoded."""
        return "f32"

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`."""
        out[:] = self.read(name, start, start + out.size)


class SlmSource(ResidentSource):
    """The tensors of a model, with its digest as identity.

    Args:
        model: The model.
    """

    def __init__(self, model: Slm) -> None:
        self.model = model
        self.sha256 = model.sha256
        self.names = tuple(model.tensors)

    def wide(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """See `ResidentSource.wide`."""
        return wide_values(self.model.tensors[name], start, stop)

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See `TensorSource.read`."""
        return self.wide(name, start, stop).astype(np.float32)


class AdapterSource(ResidentSource):
    """A package over what lies below it; its elements are the fused ones and its digest is the package's.

    Args:
        below: The model, or the model with the packages before this one.
        adapter: The package.
        accepted: Digest of a quantised build -> digest of the f32 model it was made of, see `fit.check_identity`.

    Raises:
        AdapterRefused: if the package does not fit the model at the bottom.
    """

    def __init__(self, below: ResidentSource, adapter: Adapter, accepted: Mapping[str, str] = NONE_ACCEPTED) -> None:
        self.below, self.adapter, self.model = below, adapter, below.model
        self.sha256 = adapter.sha256
        self.names = below.names
        self._changes = check_identity(adapter, below.model, accepted)

    def wide(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """See `ResidentSource.wide`; a fused element has been rounded to f32."""
        if name not in self._changes:
            return self.below.wide(name, start, stop)
        return self.read(name, start, stop).astype(np.float64)

    def read(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See `TensorSource.read`."""
        change = self._changes.get(name)
        if change is None:
            return self.below.read(name, start, stop)
        return fuse(change, self.below.wide(name, start, stop), start)


def chain(
    model: Slm, adapters: Sequence[Adapter], accepted: Mapping[str, str] = NONE_ACCEPTED
) -> tuple[ResidentSource, ...]:
    """A model and packages as the parents of ``adapter-fuse/1``: the model, then each package over the ones before it.

    Raises:
        AdapterRefused: if a package does not fit the model.
    """
    sources: list[ResidentSource] = [SlmSource(model)]
    for adapter in adapters:
        sources.append(AdapterSource(sources[-1], adapter, accepted))
    return tuple(sources)
