"""What is done to Hugging Face checkpoints: an operator, the views of the models it reads, and who donates the rest.

A view is a model with at most one adapter, or a stack of layer ranges of several. The donors of config and tokenizer are
always named: a checkpoint is more than its weights, and whatever is left to chance differs from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from studbook.breeding.operators import AnyOperator, decode_operator
from studbook.errors import ParentsDoNotFit, RecordRefused
from studbook.records import JsonObject, canonical
from studbook.records.base import Digest

__all__ = ["DTYPES", "CheckpointRecipe", "Segment", "View", "Vocabulary", "decode_recipe"]

DTYPES = ("keep", "f32", "f16", "bf16")
_SHARD_BYTES = (1 << 20, 1 << 40)
Layer = Annotated[int, Meta(ge=0, le=100_000)]


class Segment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of layers of one model.

    Attributes:
        model: Digest of the checkpoint.
        adapter: Digest of a LoRA folder that is fused into it while it is read, or null.
        first: First layer.
        last: The layer after the last one.
    """

    model: Digest
    adapter: Digest | None
    first: Layer
    last: Layer


class View(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of the operator.

    Attributes:
        model: Digest of the checkpoint; of a stack, one of those in its layers. What stands before the layers comes from
            the first segment's model, what stands behind them from the last one's.
        adapter: Digest of a LoRA folder that is fused into it while it is read, or null.
        layers: A stack of layer ranges, or null for the whole model as it is.
    """

    model: Digest
    adapter: Digest | None
    layers: tuple[Segment, ...] | None

    def models(self) -> tuple[str, ...]:
        """Digests of the checkpoints it reads."""
        return (self.model,) if self.layers is None else tuple(s.model for s in self.layers)

    def cited(self) -> Iterator[str]:
        """Every digest it names."""
        places = [(self.model, self.adapter), *((s.model, s.adapter) for s in self.layers or ())]
        for model, adapter in places:
            yield model
            if adapter is not None:
                yield adapter


class Vocabulary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do when tokenizers or vocabulary sizes differ.

    Attributes:
        policy: ``refuse``; ``base``: every model is arranged as the tokenizer's donor; ``union``: every token of any
            model; ``pad_to``: as ``refuse``, and rows are added up to a multiple.
        multiple_of: Rows of the child's embedding are padded to a multiple of this, or null.
        lacking: Whose row a model gets for a token it lacks and several others have: the donor's, or their mean.
    """

    policy: Literal["refuse", "base", "union", "pad_to"]
    multiple_of: Annotated[int, Meta(ge=1, le=65_536)] | None
    lacking: Literal["base", "average"]


class CheckpointRecipe(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="recipe", tag="checkpoint-recipe/1"
):
    """One piece of work on checkpoints; equal recipes give equal bytes.

    Attributes:
        operator: The operator record.
        base: The reference of the operator's bound, and of task vectors.
        parents: The operator's parents, in order.
        config_from: Digest of the checkpoint that donates config, generation config and whatever else is carried over.
        tokenizer_from: Digest of the checkpoint that donates tokenizer and chat template.
        vocabulary: What to do when vocabularies differ.
        dtype: Storage of the child's tensors; ``keep`` takes every tensor's from the config's donor.
        shard_bytes: Largest weight file, in bytes; one tensor is never split.
    """

    operator: JsonObject
    base: View
    parents: tuple[View, ...]
    config_from: Digest
    tokenizer_from: Digest
    vocabulary: Vocabulary
    dtype: Literal["keep", "f32", "f16", "bf16"]
    shard_bytes: Annotated[int, Meta(ge=_SHARD_BYTES[0], le=_SHARD_BYTES[1])]

    def sources(self) -> tuple[str, ...]:
        """Every checkpoint and adapter it reads, each once: the base's first, then in the order they are named."""
        cited = [*self.base.cited(), *(d for p in self.parents for d in p.cited())]
        return tuple(dict.fromkeys([*cited, self.config_from, self.tokenizer_from]))

    def decoded(self) -> AnyOperator:
        """The operator.

        Raises:
            StudbookError: any of its kinds, if its record is not valid.
        """
        return decode_operator(self.operator)


def decode_recipe(fields: dict[str, Any]) -> CheckpointRecipe:
    """A recipe from plain JSON values, exactly.

    Raises:
        RecordRefused: if a field is missing, unknown, of another type or out of its range.
        ParentsDoNotFit: if a range of layers is empty.
        StudbookError: any of its kinds, if the operator record is not valid.
    """
    try:
        recipe = msgspec.convert(fields, CheckpointRecipe, strict=True)
    except msgspec.ValidationError as error:
        raise RecordRefused(str(error), where="checkpoint recipe", reason="recipe.record") from error
    if canonical(recipe) != canonical(fields):
        raise RecordRefused("does not read back as what was written", where="checkpoint recipe", reason="recipe.record")
    if any(adapter is not None for adapter in (recipe.base.adapter, *(s.adapter for s in recipe.base.layers or ()))):
        raise ParentsDoNotFit(
            "the base carries an adapter, so the child's change would not be measured from the model itself",
            where="checkpoint recipe: base",
            advice="Breed the model with its adapter first, and use that child as the base.",
            reason="recipe.base",
        )
    for view in (recipe.base, *recipe.parents):
        if view.layers is not None and (view.adapter is not None or view.model not in {s.model for s in view.layers}):
            message = (
                "a stack takes models and adapters from its layers; beside them name one of its models, no adapter"
            )
            raise ParentsDoNotFit(message, where="checkpoint recipe: layers", reason="recipe.layers")
        for part in view.layers or ():
            if part.first >= part.last:
                message = f"layers {part.first}..{part.last - 1} are no layers"
                raise ParentsDoNotFit(message, where="checkpoint recipe: layers", reason="recipe.layers")
    recipe.decoded()
    return recipe
