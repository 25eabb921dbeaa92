"""Prune: zero the smallest magnitudes of one parent, exactly as many as asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey, in_turn
from studbook.breeding.operators.bounds import distance, slack
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import Pattern, Share, matches
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels import keep_above, keep_above_by_row
from studbook.tensors.reductions import block_squares, blocks
from studbook.tensors.selection import Cut, RowCuts, count_of, mask, row_cuts, row_mask, top_k

__all__ = ["Prune"]


# Elements that are ranked at a time.
_ROWS_AT_ONCE = 1 << 20


class Prune(Operator, frozen=True, tag="prune/1"):
    """Set the smallest magnitudes of one parent to zero.

    Formula:
        child = p, with exactly m = floor(fraction * n) elements of smallest |p| set to +0.0

        n counts the elements of all tensors not skipped (``global``), of each tensor (``tensor``) or of each row
        (``row``; a vector is one row). Of equal magnitudes the lowest indices are kept, so the highest go first; for
        ``global`` the index runs through the tensors in canonical order.

    Source:
        Magnitude pruning: Han et al., arXiv 1506.02626.

    Base:
        The reference of the bound; the child starts from the parent, which may be the base itself.

    Attributes:
        fraction: Share of the elements that become zero, 0..1.
        scope: ``global``, ``tensor`` or ``row``: where the smallest are looked for.
        skip: Globs over tensor names; a tensor that matches stays the parent's and is not counted. Name the embedding
            and the norms here: ``tok_embeddings*`` and ``*norm*``.

    Bound:
        ||p - base|| + ||the elements that become zero|| + rounding; the cuts follow from the parent alone.

    When to use:
        To see how much of a model is idle, or before a sparse adapter. ``global`` keeps most at a given fraction.

    Failure modes:
        20 % including a tied embedding ruins a small model. ``global`` may empty a small-valued tensor. The file does
        not get smaller: zeros are stored like any number.
    """

    family: ClassVar[str] = "prune"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    fraction: Share
    scope: Literal["global", "tensor", "row"]
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """Cuts by tensor or row, or one cut through all tensors."""
        if self.scope != "global":
            return super().survey_model(inputs, each)
        names = inputs.kept(self.skip)
        size = sum(inputs.size(name) for name in names)
        keep = size - count_of(self.fraction, size)
        whole = top_k(lambda: (part for name in names for part in _parts(inputs, name)), keep, size)
        surveys, before = {name: Survey() for name in inputs.names}, 0
        for name in names:
            surveys[name] = Survey(cuts=(Cut(whole.bits, whole.last_index - before),))
            before += inputs.size(name)
        return surveys

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The cut of one tensor, or of each of its rows."""
        if matches(name, self.skip):
            return Survey()
        size, columns = inputs.size(name), inputs.columns(name)
        if self.scope == "row":
            keep = columns - count_of(self.fraction, columns)
            return Survey(row_cuts=_cuts_of_rows(inputs, name, columns, keep))
        keep = size - count_of(self.fraction, size)
        return Survey(cuts=(top_k(lambda: _parts(inputs, name), keep, size),))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        values = inputs.parents[0].read(name, start, stop)
        if matches(name, self.skip):
            return values.copy()
        return np.where(_kept(survey, values, start), values, np.float32(0))

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`."""
        parent = inputs.parents[0]
        if matches(name, self.skip) or not COMPILED:
            return copied(parent)
        if (rows := survey.row_cuts) is not None:
            cuts = rows.bits.view(np.float32)
            return Kernel(
                (parent,), lambda stack, s, out: stack.feed(keep_above_by_row, s, rows.columns, cuts, rows.last, out)
            )
        cut, after = np.uint32(survey.cuts[0].bits).view(np.float32), survey.cuts[0].last_index + 1
        return Kernel((parent,), lambda stack, s, out: stack.feed(keep_above, 0, cut, after - s, out))

    def _bound(self, inputs: Inputs) -> float:
        surveys, zeroed = self.survey_model(inputs, in_turn), 0.0
        names = inputs.kept(self.skip)
        for name in names:
            for start, stop in blocks(inputs.size(name)):
                values = inputs.parents[0].read(name, start, stop)
                zeroed += block_squares(values * ~_kept(surveys[name], values, start))
        return distance(inputs) + math.sqrt(zeroed) + slack(inputs, names, 0.0, 0)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Every scope, nothing, and everything."""
        careful = ("tok_embeddings*", "*norm*")
        return (
            cls(fraction=0.2, scope="global", skip=careful),
            cls(fraction=0.29, scope="tensor", skip=careful),
            cls(fraction=0.5, scope="row", skip=()),
            cls(fraction=0.0, scope="global", skip=()),
            cls(fraction=1.0, scope="tensor", skip=("*norm*",)),
        )


def _cuts_of_rows(inputs: Inputs, name: str, columns: int, keep: int) -> RowCuts:
    """The cut of every row, some rows at a time."""
    size, step = inputs.size(name), max(1, _ROWS_AT_ONCE // columns) * columns
    starts = range(0, size, step)
    parts = [row_cuts(inputs.parents[0].read(name, s, min(s + step, size)), columns, keep) for s in starts]
    return RowCuts(columns, np.concatenate([p.bits for p in parts]), np.concatenate([p.last for p in parts]))


def _parts(inputs: Inputs, name: str) -> Iterator[Rows]:
    return (inputs.parents[0].read(name, s, e) for s, e in blocks(inputs.size(name)))


def _kept(survey: Survey, values: Rows, start: int) -> NDArray[np.bool_]:
    if survey.row_cuts is not None:
        return row_mask(survey.row_cuts, values, start)
    return mask(survey.cuts[0], values, start)
