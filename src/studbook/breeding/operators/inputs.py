"""What an operator reads: a base and its parents, checked to be of one shape."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.parameters import matches
from studbook.errors import ParentsDoNotFit
from studbook.tensors.contract import require_finite
from studbook.tensors.reductions import blocks
from studbook.tensors.sources import TensorSource
from studbook.tensors.thresholds import CutStore

__all__ = ["Inputs", "Rows"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """A base and its parents, in the order of the recipe.

    Attributes:
        base: The reference of ``delta_bound`` and of task vectors. For operators of one parent it may be that parent.
        parents: The parents.
        cuts: A cache of the magnitude cuts of their differences, if there is one; the child does not depend on it.
        learned: What a training worker made of them, for operators that train; of the base's names and shapes.
    """

    base: TensorSource
    parents: tuple[TensorSource, ...]
    cuts: CutStore | None = None
    learned: TensorSource | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names, in the base's canonical order."""
        return self.base.names

    def kept(self, skip: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the tensors that no skip pattern matches, in order."""
        return tuple(name for name in self.names if not matches(name, skip))

    def size(self, name: str) -> int:
        """Number of elements of one tensor."""
        return math.prod(self.base.dims(name))

    def columns(self, name: str) -> int:
        """Length of a row: the last dimension; a vector is one row."""
        return self.base.dims(name)[-1]

    def delta(self, parent: int, name: str, start: int, stop: int) -> Rows:
        """Difference parent - base of the elements start..stop-1, one f32 subtraction each: shape (stop - start,)."""
        difference: Rows = self.parents[parent].read(name, start, stop) - self.base.read(name, start, stop)
        return difference

    def check(self) -> None:
        """Base and parents must be named by digests and have the same tensors with the same shapes.

        Raises:
            ParentsDoNotFit: naming the first model and tensor that differ.
        """
        for place, source in enumerate((self.base, *self.parents)):
            who = f"parent {place - 1}" if place else "base"
            if not _DIGEST.fullmatch(source.sha256):
                raise ParentsDoNotFit(f"{source.sha256!r} is not a SHA-256", where=who, reason="parents.digest")
            if source.names != self.names:
                raise ParentsDoNotFit(_first_difference(source.names, self.names), where=who, reason="parents.names")
            for name in self.names:
                self._check_tensor(who, source, name)

    def check_finite(self) -> None:
        """Refuse a NaN or an infinity anywhere.

        Raises:
            ParentsDoNotFit: naming the model, the tensor and the element.
        """
        for place, source in enumerate((self.base, *self.parents)):
            who = f"parent {place - 1}" if place else "base"
            for name in source.names:
                for start, stop in blocks(source.size(name)):
                    require_finite(source.read(name, start, stop), f"{who}: {name} from element {start}")

    def _check_tensor(self, who: str, source: TensorSource, name: str) -> None:
        found, wanted = source.dims(name), self.base.dims(name)
        if found != wanted:
            fault = f"shape {found}, the base has {wanted}"
        elif not found or min(found) < 1:
            fault = f"shape {found} has no elements"
        else:
            return
        raise ParentsDoNotFit(fault, where=f"{who}: {name}", reason="parents.shape")


def _first_difference(found: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    for have, want in zip(found, wanted, strict=False):
        if have != want:
            return f"has tensor {have} where the base has {want}"
    return f"has {len(found)} tensors, the base has {len(wanted)}"
