"""Running an operator over whole models: checks, surveys, then pieces of tensors on any number of threads.

Chunks and threads decide when an element is computed, never what it is: the law tests compare the bytes. Where an
operator has a compiled kernel the elements go through it as they are stored; its `rows` is the same arithmetic in numpy.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from studbook.breeding.operators.base import Kernel, Operator, Survey, quiet
from studbook.breeding.operators.inputs import Inputs
from studbook.errors import ParentsDoNotFit, UsageError
from studbook.tensors.contract import check_arithmetic
from studbook.tensors.sinks import MemorySink, Sink
from studbook.tensors.stacks import Room, Stack, read_stack
from studbook.tensors.storage import RAW, Raw, Storage, aligned, narrow, non_finite

__all__ = ["CHUNK", "compute", "stream", "survey"]

# Elements computed at a time: inputs and output of a chunk stay in a core's caches.
CHUNK = 1 << 18

T = TypeVar("T")
R = TypeVar("R")


class _Piece(NamedTuple):
    name: str
    start: int
    stop: int


def compute(
    operator: Operator, inputs: Inputs, *, chunk: int = CHUNK, threads: int = 1, compiled: bool = True
) -> dict[str, NDArray[np.float32]]:
    """The child's tensors, in memory.

    Args:
        operator: What to do.
        inputs: Base and parents.
        chunk: Elements computed at a time, at least 1; the bytes do not depend on it.
        threads: Threads, at least 1; the bytes do not depend on it.
        compiled: Use kernels where there are some; the bytes do not depend on it.

    Returns:
        Name -> f32 array with the child's shape, read-only, in canonical order.

    Raises:
        UsageError: if chunk or threads is below 1.
        OutsideAllowlist: if a parameter is out of range.
        ParentsDoNotFit: if the inputs do not fit, are not finite, or the child would not be.
        StudbookError: if a thread's floating-point mode breaks the numeric contract.
    """
    operator.check(inputs)
    inputs.check_finite()
    reference = operator.reference(inputs)
    dims = {name: reference.dims(name) for name in reference.names}
    sink = MemorySink(dims)
    stream(operator, inputs, sink, chunk=chunk, threads=threads, compiled=compiled)
    return {name: _finished(flat, dims[name]) for name, flat in sink.tensors.items()}


def stream(
    operator: Operator,
    inputs: Inputs,
    sink: Sink,
    *,
    chunk: int = CHUNK,
    threads: int = 1,
    compiled: bool = True,
    surveys: Mapping[str, Survey] | None = None,
    shown: Callable[[int], None] = lambda _: None,
) -> None:
    """Compute a child piece by piece into a sink, holding no more than a few pieces in memory.

    Args:
        operator: What to do; its inputs must have been checked.
        inputs: Base and parents.
        sink: Where the pieces go, and which tensors are wanted.
        chunk: Elements computed at a time, at least 1; the bytes do not depend on it.
        threads: Threads, at least 1; the bytes do not depend on it.
        compiled: Use kernels where there are some; the bytes do not depend on it.
        surveys: From `survey`, where several sinks take one child; surveyed here otherwise.
        shown: Called with the number of elements that were finished.

    Raises:
        UsageError: if chunk or threads is below 1.
        ParentsDoNotFit: if an input is not finite, or the child would not be.
        StudbookError: if a thread's floating-point mode breaks the numeric contract, or the sink fails.
    """
    if chunk < 1 or threads < 1:
        raise UsageError(f"chunk {chunk} and threads {threads} must be at least 1", reason="operator.run")
    with ThreadPoolExecutor(max_workers=threads) as pool:
        each = _in_turn if threads == 1 else _Ordered(pool, threads + 1)
        known = operator.survey_model(inputs, _Safely(each)) if surveys is None else surveys
        run = _Run(operator, inputs, known, sink, chunk, compiled)
        for piece, room in _Safely(each)(run.work, run.pieces()):
            size = piece.stop - piece.start
            sink.passed(piece.name, piece.start, room[:size])
            run.free.append(room)
            shown(size)
        run.finish()


def survey(operator: Operator, inputs: Inputs, *, threads: int = 1) -> dict[str, Survey]:
    """The surveys of all tensors, for `stream` to compute one child into several sinks.

    Raises:
        StudbookError: as `stream`.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        each = _in_turn if threads == 1 else _Ordered(pool, threads + 1)
        return operator.survey_model(inputs, _Safely(each))


class _Run:
    """One child in the making: which pieces there are, and how one is computed."""

    def __init__(
        self, operator: Operator, inputs: Inputs, surveys: Mapping[str, Survey], sink: Sink, chunk: int, compiled: bool
    ) -> None:
        self.operator, self.inputs, self.surveys, self.sink = operator, inputs, surveys, sink
        self.chunk = chunk
        self.reference = operator.reference(inputs)
        kernels = {name: operator.kernel(name, inputs, surveys[name]) for name in sink.names} if compiled else {}
        self.kernels: dict[str, Kernel | None] = kernels
        self.free: deque[Raw] = deque()
        self.rooms: deque[Room] = deque()

    def pieces(self) -> Iterator[_Piece]:
        """Every piece, in the sink's order."""
        step = self.sink.piece or self.chunk
        for name in self.sink.names:
            size = self.reference.size(name)
            for start in range(0, size, step):
                yield _Piece(name, start, min(start + step, size))

    def work(self, piece: _Piece) -> tuple[_Piece, Raw]:
        """Compute one piece and hand it to the sink; it lies at the start of the array that is returned."""
        room = self._room(piece.stop - piece.start, self.sink.storage(piece.name))
        out = room[: piece.stop - piece.start]
        kernel = self.kernels.get(piece.name)
        for start in range(piece.start, piece.stop, self.chunk):
            stop = min(start + self.chunk, piece.stop)
            part = out[start - piece.start : stop - piece.start]
            if kernel is None:
                self._rows(piece.name, start, stop, part)
            else:
                self._kernel(kernel, piece.name, start, part)
        self.sink.put(piece.name, piece.start, out)
        return piece, room

    def finish(self) -> None:
        """Let the kernels say whether what they assumed held."""
        for kernel in self.kernels.values():
            if kernel is not None and kernel.finish is not None:
                kernel.finish()

    def _room(self, size: int, storage: Storage) -> Raw:
        """An array for a piece: one that is free, or a new one. A fresh one costs a page fault every 4 KiB."""
        while (found := _last(self.free)) is not None:
            if found.dtype == RAW[storage] and found.size >= size:
                return found
        return aligned(size, RAW[storage])

    def _rows(self, name: str, start: int, stop: int, out: Raw) -> None:
        values = self.operator.rows(name, start, stop, self.inputs, self.surveys[name])
        _require_finite(values, f"child of {self.operator.tag()}: {name} from element {start}")
        out[:] = narrow(values, self.sink.storage(name))
        _require_finite(out, f"child of {self.operator.tag()}: {name} from element {start}")

    def _kernel(self, kernel: Kernel, name: str, start: int, out: Raw) -> None:
        room = _last(self.rooms) or Room()
        stack = read_stack(kernel.reads, name, start, out.size, room)
        if not kernel.propagates:
            self._check_inputs(stack, name, start)
        kernel.run(stack, start, out)
        if non_finite(out)[0]:
            self._check_inputs(stack, name, start)
            _require_finite(out, f"child of {self.operator.tag()}: {name} from element {start}")
        self.rooms.append(room)

    def _check_inputs(self, stack: Stack, name: str, start: int) -> None:
        for place, row in enumerate(stack.rows):
            _require_finite(row, f"input {place} of {self.operator.tag()}: {name} from element {start}")


class _Ordered:
    """A pool's ``map`` that keeps the order and runs only so far ahead."""

    def __init__(self, pool: ThreadPoolExecutor, window: int) -> None:
        self.pool, self.window = pool, window

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(self.pool.submit(function, item))
                if len(waiting) > self.window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Safely:
    """A ``map`` whose function runs under the contract's floating-point mode, without numpy's warnings."""

    def __init__(self, each: Callable[..., Iterable[object]]) -> None:
        self.each = each

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
        return self.each(lambda item: _guarded(function, item), items)  # type: ignore[return-value]


def _last(items: deque[T]) -> T | None:
    """What lies on top, taken; asking first whether something does would leave a moment for another thread."""
    try:
        return items.pop()
    except IndexError:
        return None


def _in_turn(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    return map(function, items)


def _guarded(function: Callable[[T], R], item: T) -> R:
    check_arithmetic()
    with quiet():
        return function(item)


def _require_finite(raw: Raw, where: str) -> None:
    count, first = non_finite(raw)
    if count:
        raise ParentsDoNotFit(
            f"{count} of {raw.size} elements are NaN or infinite, first at {first}",
            where=where,
            advice="Use parents whose values are finite and small enough for their storage, or smaller scales.",
            reason="parents.non-finite",
        )


def _finished(flat: NDArray[np.float32], dims: tuple[int, ...]) -> NDArray[np.float32]:
    if math.prod(dims) != flat.size:
        raise UsageError(f"{flat.size} elements do not fill {dims}", reason="operator.run")
    shaped = flat.reshape(dims)
    shaped.flags.writeable = False
    return shaped
