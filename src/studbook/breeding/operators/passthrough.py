"""Passthrough: layers of the parents, copied into a new stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Self

import msgspec
from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey
from studbook.breeding.operators.bounds import distance
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.models.shape import SlmShape
from studbook.models.tokenizers import Tokenizer
from studbook.tensors.sources import TensorSource
from studbook.tensors.views import Restacked, Subset, layer_count, layer_of

__all__ = ["MAX_LAYERS", "LayerRange", "Passthrough"]

MAX_LAYERS = 4096


class LayerRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some layers of one parent.

    Attributes:
        parent: Which parent, from 0.
        first: Its first layer that is taken, from 0.
        last: One past the last.
    """

    parent: int
    first: int
    last: int


class Passthrough(Operator, frozen=True, tag="passthrough/1"):
    """Copy ranges of the parents' layers, one after the other, into a child that may be deeper or shallower.

    Formula:
        child.layer[j] = p_k.layer[l] for the j-th pair (k, l) that the segments list

        Tensors outside the layers come from the first segment's parent if they are used before the layers (embeddings, by
        their names) and from the last segment's if they are used after (norms, output projections). Values are copied. A
        layer is the first part of a tensor's name that is a number; base and parents have one such list of layers.

    Source:
        Depth up-scaling, Kim et al., SOLAR 10.7B, arXiv 2312.15166; layer slices as merge files write them.

    Base:
        The reference of the bound; its values are not used. It is restacked like the child; where it lacks a layer its
        last one stands there.

    Attributes:
        segments: Ranges of layers in the order of the child: ``parent`` (from 0), ``first`` (from 0) and ``last`` (one
            past the end); 1 to 4096 layers in all.

    Bound:
        the distance from the child to the base with the same layers restacked, which is known before the run.

    When to use:
        To deepen a model before it is trained on, to drop layers, or to join the front of one model to the back of another.

    Failure modes:
        Without training a restacked model is usually worse than its parents: layers meet inputs they never saw. The
        distance compares layers by their old numbers and says nothing about what the new order does.
    """

    family: ClassVar[str] = "passthrough"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)

    segments: Annotated[tuple[LayerRange, ...], Meta(min_length=1, max_length=MAX_LAYERS)]

    def validate(self, parents: int | None = None) -> None:
        """See `Operator.validate`.

        Raises:
            OutsideAllowlist: also if a segment has no layers, or all have too many.
            ParentsDoNotFit: also if a segment names a parent there is not.
        """
        super().validate(parents)
        for at, part in enumerate(self.segments):
            where = f"{self.tag()}: segments[{at}]"
            if not 0 <= part.first < part.last <= MAX_LAYERS:
                raise OutsideAllowlist(
                    f"layers {part.first} to {part.last} are none; the end is one past the last, at most {MAX_LAYERS}",
                    where=where,
                    advice="Count layers from 0; first is below last.",
                    reason="operator.range",
                )
            if not 0 <= part.parent < (MAX_PARENTS if parents is None else parents):
                raise ParentsDoNotFit(f"there is no parent {part.parent}", where=where, reason="operator.parents")
        if not 1 <= self._depth() <= MAX_LAYERS:
            raise OutsideAllowlist(
                f"{self._depth()} layers are outside 1..{MAX_LAYERS}",
                where=f"{self.tag()}: segments",
                advice="List the layers the child is to have.",
                reason="operator.range",
            )

    def check(self, inputs: Inputs) -> None:
        """Validate for these inputs; parents may have other numbers of layers.

        Raises:
            OutsideAllowlist: as `validate`.
            ParentsDoNotFit: as `validate`, or if models differ in a tensor outside the layers or in one of a layer that all
                of them have, or a layer is missing.
        """
        self.validate(len(inputs.parents))
        fewest = min(layer_count(source.names) for source in (inputs.base, *inputs.parents))
        shared = [_upto(source, fewest) for source in (inputs.base, *inputs.parents)]
        Inputs(base=shared[0], parents=tuple(shared[1:])).check()
        child, reference = self._child(inputs), self.reference(inputs)
        if child.names != reference.names:
            other = sorted(set(child.names) ^ set(reference.names))
            raise self._misfit("the base has no such tensor at this place", other[0] if other else "order")
        for name in child.names:
            if child.dims(name) != reference.dims(name):
                raise self._misfit(f"shape {child.dims(name)}, the base has {reference.dims(name)}", name)

    def reference(self, inputs: Inputs) -> TensorSource:
        """The base with the same layers in the same order."""
        count = layer_count(inputs.base.names)
        segments: list[tuple[TensorSource, int, int]] = []
        for part in self.segments:
            if part.first < count:
                segments.append((inputs.base, part.first, min(part.last, count)))
            segments += [(inputs.base, count - 1, count)] * (part.last - max(part.first, count))
        return Restacked(segments)

    def remake(self, shape: SlmShape, tokenizer: Tokenizer) -> tuple[SlmShape, Tokenizer]:
        """The base's shape with the child's number of layers, and the tokenizer."""
        return replace(shape, layer_count=self._depth()), tokenizer

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """The restacked parents."""
        return Survey(view=self._child(inputs))

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """The restacked parents, once for all tensors."""
        child = self._child(inputs)
        return dict.fromkeys(child.names, Survey(view=child))

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        child = survey.view or self._child(inputs)
        return child.read(name, start, stop).copy()

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """A copy of the elements as they are stored."""
        return copied(survey.view or self._child(inputs))

    def _child(self, inputs: Inputs) -> TensorSource:
        return Restacked([(inputs.parents[part.parent], part.first, part.last) for part in self.segments])

    def _depth(self) -> int:
        return sum(part.last - part.first for part in self.segments)

    def _misfit(self, message: str, name: str) -> ParentsDoNotFit:
        advice = "Use models of one architecture, whose layers are alike."
        return ParentsDoNotFit(message, where=f"{self.tag()}: {name}", advice=advice, reason="parents.layers")

    def _bound(self, inputs: Inputs) -> float:
        return distance(Inputs(base=self.reference(inputs), parents=(self._child(inputs),)))

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """The first layer of the first parent, of every parent in turn, and of the last parent twice."""

        def firsts(places: Sequence[int]) -> tuple[LayerRange, ...]:
            return tuple(LayerRange(parent=place, first=0, last=1) for place in places)

        return (
            cls(segments=firsts((0,))),
            cls(segments=firsts(range(parents))),
            cls(segments=firsts((parents - 1, parents - 1))),
        )


def _upto(source: TensorSource, layers: int) -> Subset:
    return Subset(source, (n for n in source.names if (layer := layer_of(n)) is None or layer < layers))
