"""What an operator is: a frozen record that surveys every tensor once and then computes any range of its elements.

Adding one is one file with one class and one line in the package's ``PlainOperator``; command line, schema, documentation
and law tests follow from that. Inside a class only arithmetic is written: f32, one numpy ufunc an operation, so that
nothing is fused or reordered (see `studbook.tensors.contract`).
"""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import msgspec
import numpy as np

from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import check_ranges
from studbook.errors import ParentsDoNotFit
from studbook.models.shape import SlmShape
from studbook.models.tokenizers import Tokenizer
from studbook.tensors.philox import Stream
from studbook.tensors.selection import Cut, RowCuts
from studbook.tensors.sources import TensorSource
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import Raw

__all__ = [
    "Each",
    "Kernel",
    "Operator",
    "Survey",
    "add_change",
    "coefficients",
    "in_turn",
    "quiet",
]

Each = Callable[[Callable[[str], "Survey"], Iterable[str]], Iterable["Survey"]]


@dataclass(frozen=True)
class Kernel:
    """The compiled form of `Operator.rows` for one tensor; its bytes are equal.

    Attributes:
        reads: The sources it reads; their elements are the rows of its stack, in this order.
        run: Called with the stack (len(reads) rows of n elements), the index of the first element, and the raw array of
            shape (n,) the child's elements go to, rounded to its storage. The stack's rows are stored alike; where the
            sources are not, the stack is f32. Rows are not to be written to, and may be a file's own pages.
        finish: Called once after the whole tensor was computed; raises where what was assumed about it did not hold.
        propagates: Whether a NaN or an infinity in any element it reads always makes the child's element one, as sums of
            products do; the child's elements are then all that has to be looked at.
    """

    reads: tuple[TensorSource, ...]
    run: Callable[[Stack, int, Raw], None]
    finish: Callable[[], None] | None = None
    propagates: bool = False


@dataclass(frozen=True)
class Survey:
    """Everything about one tensor that must be known before a range of it can be computed.

    Attributes:
        streams: Random streams, one a parent or one for the tensor.
        cuts: Magnitude cuts, one a parent or one for the tensor; indices count within the tensor.
        row_cuts: Cuts by row.
        amplitude: Noise amplitude, an f32 value.
        choice: The one parent the whole tensor comes from; -1 when the choice is finer.
        factors: One factor a parent, f32 values.
        row_factors: One factor a row, f32.
        splits: Indices within the tensor, ascending, at which the next parent's elements start.
        view: A view of the parents that the child's elements are read from.
    """

    streams: tuple[Stream, ...] = ()
    cuts: tuple[Cut, ...] = ()
    row_cuts: RowCuts | None = None
    amplitude: float = 0.0
    choice: int = -1
    factors: tuple[float, ...] = ()
    row_factors: Rows | None = None
    splits: tuple[int, ...] = ()
    view: TensorSource | None = None


class _RecordMeta(msgspec.StructMeta, ABCMeta):
    """An abstract msgspec struct: a class that lacks a method cannot be built."""


class Operator(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="operator",
    forbid_unknown_fields=True,
    metaclass=_RecordMeta,
):
    """One way of making a child, with all of its parameters; none has a default, so a receipt cannot leave one out.

    Attributes:
        family: Name of the one mutation family it belongs to.
        parents_needed: Fewest and most parents it takes.
        per_parent: Fields that hold one number a parent.
        needs_base: Whether its one parent has to differ from the base.
        worker: Module of the worker that runs it on SLM1 models.
        reproducibility: ``exact`` on any machine, or ``environment-bound``.
    """

    family: ClassVar[str]
    parents_needed: ClassVar[tuple[int, int]]
    per_parent: ClassVar[tuple[str, ...]] = ()
    needs_base: ClassVar[bool] = False
    worker: ClassVar[str] = "studbook.breeding.worker"
    reproducibility: ClassVar[Literal["exact", "environment-bound"]] = "exact"

    @classmethod
    def tag(cls) -> str:
        """The name and version in its ``operator`` field, such as ``blend/1``."""
        return str(cls.__struct_config__.tag)

    @property
    def storage(self) -> str | None:
        """Storage of the child's tensors when the operator changes it; None keeps f32."""
        return None

    def validate(self, parents: int | None = None) -> None:
        """Check every parameter and, when the number of parents is given, that it fits.

        Raises:
            OutsideAllowlist: if a value is not finite or out of range, naming the field.
            ParentsDoNotFit: if the operator takes another number of parents, or a list has another length.
        """
        check_ranges(self)
        counts = {field: len(getattr(self, field)) for field in self.per_parent}
        fewest, most = self.parents_needed
        given = parents if parents is not None else next(iter(counts.values()), fewest)
        if not fewest <= given <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise ParentsDoNotFit(f"takes {wanted} parents, not {given}", where=self.tag(), reason="operator.parents")
        for field, count in counts.items():
            if count != given:
                raise ParentsDoNotFit(
                    f"{count} values for {given} parents", where=f"{self.tag()}: {field}", reason="operator.parents"
                )

    def check(self, inputs: Inputs) -> None:
        """Validate for these inputs, before any work.

        Raises:
            OutsideAllowlist: as `validate`.
            ParentsDoNotFit: as `validate`, or if base and parents differ in names or shapes.
        """
        self.validate(len(inputs.parents))
        inputs.check()

    def reference(self, inputs: Inputs) -> TensorSource:
        """What the child is named, shaped and measured like: the base, unless the operator changes the layout."""
        return inputs.base

    def remake(self, shape: SlmShape, tokenizer: Tokenizer) -> tuple[SlmShape, Tokenizer]:
        """Shape and tokenizer of an SLM1 child; the base's own, unless the operator changes layers or vocabulary.

        Raises:
            ParentsDoNotFit: if the operator's record does not fit them.
        """
        return shape, tokenizer

    def slices(self) -> tuple[str, ...]:
        """Digests of the training slices it reads; none, unless it trains."""
        return ()

    def notes(self, inputs: Inputs) -> tuple[str, ...]:
        """What a reader of the child's manifest has to know of these inputs, one line each."""
        return ()

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """What `rows` needs to know about a whole tensor: reductions, cuts, streams."""
        return Survey()

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """The surveys of all tensors; overridden where one tensor's survey needs all of them.

        Args:
            inputs: Base and parents.
            each: Maps a function over names in order, such as `in_turn` or a thread pool's ``map``.
        """
        names = self.reference(inputs).names
        return dict(zip(names, each(lambda name: self.survey(name, inputs), names), strict=True))

    @abstractmethod
    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """Elements start..stop-1 of the child's tensor: f32, shape (stop - start,), the same for any split.

        This is what the operator means, one numpy operation at a time; `kernel` must give the same bytes.
        """

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """The compiled form of `rows` for one tensor; None where there is none, and `rows` is used."""
        return None

    def delta_bound(self, inputs: Inputs) -> float:
        """A number that ||child - base|| (L2 over all tensors) cannot exceed, known before the run.

        It covers the rounding of every f32 operation and is itself rounded up; see the module `bounds`.

        Raises:
            OutsideAllowlist: as `check`.
            ParentsDoNotFit: as `check`, or if a parent is not finite.
        """
        self.check(inputs)
        with quiet():
            bound = self._bound(inputs) * (1.0 + 2.0**-30)
        if not math.isfinite(bound):
            raise ParentsDoNotFit("no finite bound exists: a parent or base is not finite", where=self.tag())
        return bound

    @abstractmethod
    def _bound(self, inputs: Inputs) -> float:
        """The bound before it is rounded up."""

    @classmethod
    @abstractmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """A few valid instances for this many parents; law tests and documentation use them."""


def add_change(start: Rows, change: Rows) -> Rows:
    """Sum in f32, where a change of zero keeps the bits of ``start``, the sign of a zero included."""
    return np.where(change == 0, start, start + change)


def coefficients(values: Iterable[float]) -> tuple[np.float32, ...]:
    """Parameters as the f32 numbers that are multiplied with, rounded once."""
    return tuple(np.float32(value) for value in values)


def in_turn(function: Callable[[str], Survey], names: Iterable[str]) -> Iterable[Survey]:
    """The plain ``map``, with the type that `Operator.survey_model` wants."""
    return map(function, names)


def quiet() -> np.errstate:
    """Overflow and the like without numpy's warnings: every result is checked for finiteness instead."""
    return np.errstate(all="ignore")
