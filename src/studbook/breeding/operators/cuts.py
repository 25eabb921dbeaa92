"""Magnitude cuts of the parents' changes: found or taken from a cache, applied by compiled passes, and counted.

Sets that a cut keeps lie in one another, so how many elements a cut kept proves which ones: whatever came from a cache is
counted while the child is computed, and a wrong count stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.errors import BytesLie
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels_cuts import delta_cuts
from studbook.tensors.selection import Cut, count_of, mask
from studbook.tensors.sources import TensorSource

__all__ = ["CountedCuts", "known_cuts", "largest_changes", "share_counts"]

# rows, cuts (f32), ties (i64), kept (i64): see `studbook.tensors.kernels_consensus.keep_largest`.
CutPass = Callable[[Rows, NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], None]


def share_counts(densities: Sequence[float], size: int) -> list[int]:
    """floor(density * size) for each density, see `studbook.tensors.selection.count_of`."""
    return [count_of(density, size) for density in densities]


def known_cuts(inputs: Inputs, name: str, counts: Sequence[int]) -> tuple[Cut, ...]:
    """The cuts that keep the largest |parent - base| of one tensor, from the cache where it has them.

    Args:
        inputs: Base, parents, and perhaps a cache; what is found is left there.
        name: The tensor.
        counts: How many elements to keep, one a parent.
    """
    # Only a compiled run counts what a cut keeps, and only a counted one may come from a cache.
    store, base = inputs.cuts if COMPILED else None, inputs.base.sha256
    found: dict[tuple[str, int], Cut] = {}
    missing: dict[int, dict[str, TensorSource]] = {}
    for parent, count in zip(inputs.parents, counts, strict=True):
        cut = store.find(parent.sha256, base, name, count) if store else None
        if cut is None:
            missing.setdefault(count, {})[parent.sha256] = parent
        else:
            found[parent.sha256, count] = cut
    for count, parents in missing.items():
        # Equal counts are found together, in about one reading of all parents.
        cuts = delta_cuts(inputs.base, tuple(parents.values()), name, count)
        for digest, new in zip(parents, cuts, strict=True):
            found[digest, count] = new
            if store:
                store.keep(digest, base, name, count, new)
    return tuple(found[parent.sha256, count] for parent, count in zip(inputs.parents, counts, strict=True))


def largest_changes(inputs: Inputs, name: str, start: int, stop: int, cuts: Sequence[Cut]) -> tuple[Rows, ...]:
    """Every parent's differences from the base with +0.0 where its cut does not keep them: f32, (stop - start,) each."""
    deltas = [inputs.delta(k, name, start, stop) for k in range(len(cuts))]
    return tuple(np.where(mask(c, delta, start), delta, np.float32(0)) for c, delta in zip(cuts, deltas, strict=True))


class CountedCuts:
    """Cuts in the form that compiled passes take, and how many elements they have kept so far.

    Args:
        cuts: As many a parent as ``counts`` has.
        counts: How many elements each has to keep.
        inputs: Base and parents.
        where: Operator and tensor, for the error.
    """

    def __init__(self, cuts: Sequence[Cut], counts: Sequence[int], inputs: Inputs, where: str) -> None:
        self.counts, self.inputs, self.where = list(counts), inputs, where
        self._cuts = np.array([cut.bits for cut in cuts], np.uint32).view(np.float32)
        self._after = np.array([cut.last_index + 1 for cut in cuts], np.int64)
        self._total, self._lock = np.zeros(len(cuts), np.int64), Lock()

    def apply(self, function: CutPass, rows: Rows, start: int) -> None:
        """Call a pass for rows whose first element has the index ``start``, and add up what it kept."""
        kept = np.zeros_like(self._total)
        function(rows, self._cuts, self._after - start, kept)
        with self._lock:
            np.add(self._total, kept, out=self._total)

    def check(self) -> None:
        """Compare what was kept with what had to be, once the whole tensor was computed.

        Raises:
            BytesLie: if a count is wrong; the cache then forgets the parent's cuts.
        """
        a_parent = len(self.counts) // len(self.inputs.parents)
        for place, (count, wanted) in enumerate(zip(self._total.tolist(), self.counts, strict=True)):
            if count != wanted:
                parent = place // a_parent
                if self.inputs.cuts:
                    self.inputs.cuts.forget(self.inputs.parents[parent].sha256, self.inputs.base.sha256)
                raise BytesLie(
                    f"{count} changes of parent {parent} lie above a cut that is for {wanted}",
                    where=self.where,
                    advice="A model changed while it was read, or a cached cut was wrong and is now removed: run it again.",
                    reason="cuts.count",
                )
