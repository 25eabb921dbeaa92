"""A resident model with packages on it, in order: put on all or none, taken off without a trace.

The model's own bytes are never written to. A fused tensor is a new f32 buffer that stands before the stored one; the next
package starts from it. What is in force is named by digests: of every fused tensor, and of the whole assembly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from studbook.adapters.fit import NONE_ACCEPTED, check_identity, finite_fused
from studbook.adapters.fusion import Wide, wide_values
from studbook.adapters.reader import Adapter
from studbook.models.slm import Slm
from studbook.models.stored import Dtype, StoredTensor

__all__ = ["Diagnostics", "Stack", "state_sha256"]

F32 = NDArray[np.float32]


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force.

    Attributes:
        base_sha256: Digest of the model file below.
        applied: Digests of the packages on it, in order.
        fused: Tensor -> SHA-256 of its little-endian f32 bytes, for every tensor a package changed.
        state_sha256: Assembly-state checksum, see `state_sha256`.
        generation: Rises with every change of the weights; key-value caches of an older one are void.
    """

    base_sha256: str
    applied: tuple[str, ...]
    fused: dict[str, str]
    state_sha256: str
    generation: int


class Stack:
    """An ordered stack of packages over one model.

    Args:
        model: The model; it is only read.
        accepted: Digest of a quantised build -> digest of the f32 model it was made of, see `fit.check_identity`.
    """

    def __init__(self, model: Slm, accepted: Mapping[str, str] = NONE_ACCEPTED) -> None:
        self._base, self._accepted = model, dict(accepted)
        self._applied: tuple[str, ...] = ()
        self._fused: dict[str, F32] = {}
        self._digests: dict[str, str] = {}
        self._generation = 0

    @property
    def base(self) -> Slm:
        """The model below."""
        return self._base

    def apply(self, *adapters: Adapter) -> Diagnostics:
        """Put packages on top, in order: all of them or none.

        Raises:
            AdapterRefused: if one does not fit or a fused value would not be finite; nothing has changed then.
        """
        fused = dict(self._fused)
        touched: dict[str, None] = {}
        for adapter in adapters:
            for name, change in check_identity(adapter, self._base, self._accepted).items():
                fused[name] = finite_fused(adapter, name, change, self._wide(fused, name))
                touched[name] = None
        digests = self._digests | {name: hashlib.sha256(_bytes(fused[name])).hexdigest() for name in touched}
        return self._swap((*self._applied, *(a.sha256 for a in adapters)), fused, digests)

    def detach(self) -> Diagnostics:
        """Take all packages off: the tensors are the file's own bytes again."""
        return self._swap((), {}, {})

    def diagnostics(self) -> Diagnostics:
        """What is in force."""
        return Diagnostics(
            base_sha256=self._base.sha256,
            applied=self._applied,
            fused={
                spec.name: self._digests[spec.name] for spec in self._base.shape.tensors() if spec.name in self._digests
            },
            state_sha256=state_sha256(self._base.sha256, self._applied),
            generation=self._generation,
        )

    def model(self) -> Slm:
        """The model as it runs: fused tensors in f32, all others as they are stored; the base itself if none is on.

        Its digest is the assembly-state checksum, since no file with these weights exists.
        """
        if not self._applied:
            return self._base
        tensors = dict(self._base.tensors)
        for name, values in self._fused.items():
            tensors[name] = StoredTensor(Dtype.F32, self._base.tensors[name].dims, _bytes(values))
        state = state_sha256(self._base.sha256, self._applied)
        return replace(self._base, tensors=MappingProxyType(tensors), sha256=state)

    def _wide(self, fused: Mapping[str, F32], name: str) -> Wide:
        resident = fused.get(name)
        if resident is None:
            return partial(wide_values, self._base.tensors[name])
        return partial(_widened, resident)

    def _swap(self, applied: tuple[str, ...], fused: dict[str, F32], digests: dict[str, str]) -> Diagnostics:
        self._applied, self._fused, self._digests = applied, fused, digests
        self._generation += 1
        return self.diagnostics()


def state_sha256(base_sha256: str, applied: Iterable[str]) -> str:
    """Assembly-state checksum: SHA-256 over the raw 32-byte digests, base first, then the packages in order."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in (base_sha256, *applied))).hexdigest()


def _widened(values: F32, start: int, stop: int) -> NDArray[np.float64]:
    return values[start:stop].astype(np.float64)


def _bytes(values: F32) -> memoryview:
    return values.astype("<f4", copy=False).data.cast("B")
