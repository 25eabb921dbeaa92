"""Rows of a model's tensors in another order: a view that gathers them from one source, or from several.

A vocabulary is the rows of a few tensors. Dropping, adding or rearranging tokens is then a plan of rows, and every
operator and writer reads the planned model like any other. Plain rows are copied as they are stored; rows that stand in
no source are computed by the numeric contract and rounded once to the storage.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from studbook.errors import ParentsDoNotFit, UsageError
from studbook.tensors.reductions import BLOCK, LANES
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import RAW, Raw, Storage, narrow, storage_of, widen

__all__ = ["NEW", "OWN", "Gathered", "RowPlan"]

NEW: Final = -1  # in an index: the row stands in no source
OWN: Final = -1  # in a mean: a row of the gathered tensor itself
_DIGEST = re.compile(r"[0-9a-f]{64}")
_Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Where every row of one gathered tensor comes from.

    A row is one index of the first dimension; its elements are all others. A row of index -1 is new: the mean of the
    rows that ``means`` names for it, else ``vector``, else the mean over the first ``average`` rows, else zeros.

    Attributes:
        index: Row of the source, or -1: i64, shape (rows,).
        origin: Which source the row stands in, 0 for the first, k for donor k - 1: i64, shape (rows,); None is all 0.
        means: New row -> its parts, each (source, row); source -1 means an earlier row of the gathered tensor itself.
            Terms are added in f32 in their order from +0.0, and divided by their number last.
        vector: One row for the other new rows: f32, shape (elements of a row,).
        average: How many leading rows are averaged for the other new rows; 0 means none. Columns are summed in f64 in
            the contract's order over the rows, divided in f64 and rounded to f32.
        storage: How the tensor is stored; None keeps what all sources share, or f32 if they differ.
    """

    index: NDArray[np.int64]
    origin: NDArray[np.int64] | None = None
    means: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    vector: _Values | None = None
    average: int = 0
    storage: Storage | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.index.size)

    def same(self, rows: int) -> bool:
        """Whether this plan leaves a tensor of so many rows as it is."""
        plain = self.storage is None and (self.origin is None or not self.origin.any())
        return plain and np.array_equal(self.index, np.arange(rows))

    def sha256(self) -> bytes:
        """32 raw bytes: SHA-256 of 'studbook/row-plan/1' NUL, then each field's length as u64 LE and its bytes.

        Fields in order: index and origin as i64 LE (origin empty where None), means as i64 LE (row, number of parts,
        parts) in ascending order of the rows, vector as f32 LE, average as i64 LE, storage as ASCII.
        """
        means = [x for row in sorted(self.means) for x in (row, len(self.means[row]), *np.ravel(self.means[row]))]
        fields = (
            self.index.astype("<i8").tobytes(),
            b"" if self.origin is None else self.origin.astype("<i8").tobytes(),
            np.array(means, "<i8").tobytes(),
            b"" if self.vector is None else self.vector.astype("<f4").tobytes(),
            struct.pack("<q", self.average),
            (self.storage or "").encode(),
        )
        hasher = hashlib.sha256(b"studbook/row-plan/1\0")
        for part in fields:
            hasher.update(struct.pack("<Q", len(part)) + part)
        return hasher.digest()


class Gathered(TensorSource):
    """A model in which the rows of some tensors are gathered; the other tensors pass through.

    Its ``sha256`` is SHA-256 of 'studbook/gathered/1' NUL, u32 LE number of sources, their raw digests, and for each
    planned tensor in the source's order u32 LE length of its name, the name in UTF-8, and the plan's digest.

    Args:
        source: The model.
        plans: Tensor name -> its rows.
        donors: Further models that rows may come from; only the planned tensors of them are read.

    Raises:
        ParentsDoNotFit: if a planned tensor is missing somewhere, its rows have other lengths, or a digest is none.
        UsageError: if a plan names a source, a row or a value that does not exist.
    """

    def __init__(self, source: TensorSource, plans: Mapping[str, RowPlan], donors: Sequence[TensorSource] = ()) -> None:
        self.names = source.names
        self._sources = (source, *donors)
        self._plans = dict(plans)
        for name, plan in self._plans.items():
            _check_sources(name, plan, self._sources)
            _check_plan(name, plan, [s.dims(name)[0] for s in self._sources], self._columns(name))
        self._storage = {name: plan.storage or self._shared_storage(name) for name, plan in self._plans.items()}
        self.sha256 = self._digest()
        self._lock = threading.Lock()
        self._averages: dict[str, _Values] = {}
        self._chains: dict[str, dict[int, _Values]] = {}

    def dims(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor: the planned number of rows, then the source's other dimensions."""
        dims = self._sources[0].dims(name)
        return (self._plans[name].rows, *dims[1:]) if name in self._plans else dims

    def storage(self, name: str) -> Storage:
        """How one tensor's elements are stored: see `RowPlan.storage`."""
        return self._storage[name] if name in self._plans else self._sources[0].storage(name)

    def fill(self, name: str, start: int, out: Raw) -> None:
        """See `TensorSource.fill`; a range may start and end inside a row."""
        if name not in self._plans:
            self._sources[0].fill(name, start, out)
            return
        if not out.size:
            return
        plan, columns = self._plans[name], self._columns(name)
        done = 0
        for first, last in _runs(plan, start // columns, -(-(start + out.size) // columns)):
            skip = max(start - first * columns, 0)
            size = min((last - first) * columns - skip, out.size - done)
            piece = out[done : done + size]
            if plan.index[first] == NEW:
                piece[:] = narrow(self._new_row(name, first)[skip : skip + size], self._storage[name])
            else:
                self._copy(name, _origin(plan, first), int(plan.index[first]) * columns + skip, piece)
            done += size

    def _columns(self, name: str) -> int:
        return math.prod(self._sources[0].dims(name)[1:])

    def _shared_storage(self, name: str) -> Storage:
        plan = self._plans[name]
        used = {0} if plan.origin is None else {int(k) for k in np.unique(plan.origin[plan.index != NEW])}
        used |= {source for parts in plan.means.values() for source, _ in parts if source != OWN}
        found = {self._sources[k].storage(name) for k in used or {0}}
        return found.pop() if len(found) == 1 else "f32"

    def _digest(self) -> str:
        hasher = hashlib.sha256(b"studbook/gathered/1\0" + struct.pack("<I", len(self._sources)))
        for source in self._sources:
            hasher.update(bytes.fromhex(source.sha256))
        for name in self.names:
            if name in self._plans:
                encoded = name.encode()
                hasher.update(struct.pack("<I", len(encoded)) + encoded + self._plans[name].sha256())
        return hasher.hexdigest()

    def _copy(self, name: str, origin: int, start: int, out: Raw) -> None:
        source = self._sources[origin]
        if RAW[source.storage(name)] == out.dtype:
            source.fill(name, start, out)
        else:
            out[:] = narrow(source.read(name, start, start + out.size), storage_of(out))

    def _new_row(self, name: str, row: int) -> _Values:
        plan = self._plans[name]
        if row in plan.means:
            return self._mean(name, plan.means[row], self._chain(name))
        if plan.vector is not None:
            return plan.vector
        return self._average(name) if plan.average else np.zeros(self._columns(name), np.float32)

    def _mean(self, name: str, parts: Sequence[tuple[int, int]], chain: Mapping[int, _Values]) -> _Values:
        with np.errstate(all="ignore"):
            total = np.zeros(self._columns(name), np.float32)
            for source, row in parts:
                total = np.add(total, self._part(name, source, row, chain))
            mean: _Values = np.divide(total, np.float32(len(parts)))
        return mean

    def _part(self, name: str, source: int, row: int, chain: Mapping[int, _Values]) -> _Values:
        plan, columns = self._plans[name], self._columns(name)
        if source == OWN:
            if plan.index[row] == NEW:
                return chain[row]
            raw = np.empty(columns, RAW[self._storage[name]])
            self._copy(name, _origin(plan, row), int(plan.index[row]) * columns, raw)
            return widen(raw)
        return self._sources[source].read(name, row * columns, (row + 1) * columns)

    def _chain(self, name: str) -> Mapping[int, _Values]:
        """The new rows that other new rows are made of, as they are stored; kept, so that a chain is walked once."""
        with self._lock:
            if name not in self._chains:
                plan, chain = self._plans[name], dict[int, _Values]()
                needed = {row for parts in plan.means.values() for source, row in parts if source == OWN}
                for row in sorted(row for row in needed if plan.index[row] == NEW):
                    chain[row] = widen(narrow(self._mean(name, plan.means[row], chain), self._storage[name]))
                self._chains[name] = chain
            return self._chains[name]

    def _average(self, name: str) -> _Values:
        with self._lock:
            known = self._averages.get(name)
        if known is None:
            known = self._averages[name] = self._column_means(name)
        return known

    def _column_means(self, name: str) -> _Values:
        count, columns = self._plans[name].average, self._columns(name)
        total = np.zeros(columns)
        with np.errstate(all="ignore"):
            for block in range(0, count, BLOCK):
                stop = min(block + BLOCK, count)
                lanes = np.zeros((LANES, columns))
                for row in range(block, stop, LANES):
                    last = min(row + LANES, stop)
                    lanes[: last - row] += self.read(name, row * columns, last * columns).reshape(-1, columns)
                width = LANES // 2
                while width:
                    lanes = lanes[:width] + lanes[width : 2 * width]
                    width //= 2
                total += lanes[0]
            return (total / count).astype(np.float32)


def _origin(plan: RowPlan, row: int) -> int:
    return 0 if plan.origin is None else int(plan.origin[row])


def _runs(plan: RowPlan, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows that lie next to each other in one source; every new row is a stretch of its own."""
    index = plan.index[first:last]
    broken = (np.diff(index) != 1) | (index[1:] == NEW) | (index[:-1] == NEW)
    if plan.origin is not None:
        broken |= np.diff(plan.origin[first:last]) != 0
    edges = [first, *(first + 1 + np.flatnonzero(broken)).tolist(), last]
    return pairwise(edges)


def _check_sources(name: str, plan: RowPlan, sources: Sequence[TensorSource]) -> None:
    for place, source in enumerate(sources):
        who = f"donor {place - 1}" if place else "source"
        if not _DIGEST.fullmatch(source.sha256):
            raise ParentsDoNotFit(f"{source.sha256!r} is not a SHA-256", where=who, reason="gather.digest")
        if name not in source.names:
            raise ParentsDoNotFit("the tensor is missing", where=f"{who}: {name}", reason="gather.tensor")
        if not source.dims(name) or source.dims(name)[1:] != sources[0].dims(name)[1:]:
            message = f"shape {source.dims(name)}, rows like those of {sources[0].dims(name)} are wanted"
            raise ParentsDoNotFit(message, where=f"{who}: {name}", reason="gather.shape")


def _check_plan(name: str, plan: RowPlan, rows: Sequence[int], columns: int) -> None:
    index = plan.index
    origin = np.zeros_like(index) if plan.origin is None else plan.origin
    if index.dtype != np.int64 or index.ndim != 1 or not index.size or origin.shape != index.shape:
        raise _wrong(name, "index and origin are i64 of one length, at least 1")
    if ((origin < 0) | (origin >= len(rows))).any():
        raise _wrong(name, f"an origin is not one of {len(rows)} sources")
    bad = (index < NEW) | (index >= np.asarray(rows, np.int64)[origin])
    if bad.any():
        raise _wrong(name, f"row {int(np.argmax(bad))} is taken from row {int(index[bad][0])}, which does not exist")
    if plan.vector is not None and (plan.vector.shape != (columns,) or plan.vector.dtype != np.float32):
        raise _wrong(name, f"the vector is f32 of {columns} elements")
    if not 0 <= plan.average <= index.size:
        raise _wrong(name, f"cannot average {plan.average} of {index.size} rows")
    if any(row not in plan.means for row in np.flatnonzero(index[: plan.average] == NEW).tolist()):
        raise _wrong(name, "a row that is averaged would be the average itself")
    for row, parts in plan.means.items():
        if not (0 <= row < index.size and index[row] == NEW and parts):
            raise _wrong(name, f"row {row} is no new row, or is a mean of nothing")
        for source, part in parts:
            own = source == OWN and 0 <= part < row and (index[part] != NEW or part in plan.means)
            if not own and not (0 <= source < len(rows) and 0 <= part < rows[source]):
                raise _wrong(name, f"row {row} is a mean of row {part} of source {source}, which does not exist yet")


def _wrong(name: str, message: str) -> UsageError:
    advice = "Make the plan from the vocabularies of these models, in this order."
    return UsageError(message, where=name, advice=advice, reason="gather.plan")
