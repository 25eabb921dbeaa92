"""Declaring a checkpoint before it is bred: what it is made of, what it may cost, and what must come out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from studbook.breeding.checkpoint_recipe import CheckpointRecipe, decode_recipe
from studbook.breeding.checkpoint_sources import Files, Opened, open_recipe
from studbook.breeding.checkpoint_worker import shards_of
from studbook.breeding.operators.bounds import norm
from studbook.errors import OverBudget
from studbook.models.checkpoint import label_of, tokenizer_sha256
from studbook.models.digests import layout_sha256
from studbook.models.safetensors_writer import INDEX, JOURNAL, Shard, index_bytes
from studbook.records import Expected, Header, JsonObject, LineageTemplate, Policy, WorkerLimits, digest
from studbook.tensors.contract import CONTRACT_SHA256

__all__ = ["child_files", "draft_checkpoint", "recipe_digest", "recipe_of"]

# Unit roundoff, and half of the smallest number, of a storage.
_UNIT = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}
_TINY = {"f32": 0.0, "f16": 2.0**-25, "bf16": 2.0**-134}


def recipe_of(template: LineageTemplate) -> CheckpointRecipe | None:
    """The checkpoint recipe a template declares; None for a template of an SLM1 child."""
    return decode_recipe(template.operator) if "recipe" in template.operator else None


def recipe_digest(recipe: CheckpointRecipe) -> str:
    """The identity of the work, 64 hex digits: equal for recipes that give equal bytes, whoever declares them."""
    return digest(_fields(recipe))


def child_files(recipe: CheckpointRecipe, stored: Mapping[str, Files]) -> frozenset[str]:
    """Every file that a worker may leave of a child, by relative path: finished, unfinished, and the journal.

    Raises:
        StudbookError: as `open_recipe`.
    """
    opened = open_recipe(recipe, stored)
    names = {*opened.files, *(s.name for s in shards_of(opened, recipe.shard_bytes)), INDEX}
    return frozenset({JOURNAL, *names, *(f"{name}.partial" for name in names)})


def draft_checkpoint(
    header: Header, policy: Policy, policy_digest: str, recipe: CheckpointRecipe, stored: Mapping[str, Files]
) -> LineageTemplate:
    """Bind models, operator, budget and expected output before anything runs.

    Raises:
        ParentsDoNotFit: if the models do not fit each other or the operator.
        OverBudget: if the declared output would break the policy's budget.
    """
    opened, fields = open_recipe(recipe, stored), _fields(recipe)
    base, *others = recipe.sources()
    return LineageTemplate(
        header=header,
        purpose="candidate",
        cluster=None,
        policy=policy_digest,
        compatibility=None,
        base=base,
        parents=tuple(others) or (base,),
        operator=fields,
        recipe_sha256=recipe_digest(recipe),
        numeric_contract=CONTRACT_SHA256,
        limits=WorkerLimits(
            seconds=policy.budget.worker_seconds,
            memory_bytes=policy.budget.worker_bytes,
            output_bytes=policy.budget.output_bytes,
        ),
        expected=_expected(opened, recipe, policy),
    )


def _expected(opened: Opened, recipe: CheckpointRecipe, policy: Policy) -> Expected:
    shards = shards_of(opened, recipe.shard_bytes)
    size = sum(s.size for s in shards) + sum(map(len, opened.files.values())) + len(_index(shards))
    if size > policy.budget.output_bytes:
        raise OverBudget(
            f"the output would have {size} bytes; the policy allows {policy.budget.output_bytes}",
            where="policy: budget.output_bytes",
        )
    bound = opened.operator.delta_bound(opened.inputs)
    reference = opened.operator.reference(opened.inputs)
    size_of_reference = norm(reference, reference.names)
    relative = bound / max(size_of_reference, 1e-30)
    if not relative <= policy.budget.relative_delta:
        raise OverBudget(
            f"{opened.operator.family} may move the weights by {relative:.3f} of the base's norm; "
            f"the policy allows {policy.budget.relative_delta:g}",
            where="policy: budget.relative_delta",
            reason="budget.relative-delta",
        )
    # Rounding to the child's storage comes on top of what the operator declares.
    rounded = bound + _rounding(opened, bound, size_of_reference)
    return Expected(
        layout_sha256=layout_sha256({s.name: s.dims for s in opened.specs}),
        tokenizer_sha256=tokenizer_sha256(opened.files),
        label=label_of(s.storage for s in opened.specs),
        size_bytes=size,
        delta_norm=rounded,
        relative_delta=rounded / max(size_of_reference, 1e-30),
    )


def _fields(recipe: CheckpointRecipe) -> JsonObject:
    """A recipe as plain JSON values."""
    fields: JsonObject = msgspec.json.decode(msgspec.json.encode(recipe))
    return fields


def _rounding(opened: Opened, bound: float, size: float) -> float:
    """What rounding to the child's storage can add: half a unit in the last place of every element.

    Args:
        opened: The work.
        bound: How far the child may be from its reference before it is rounded.
        size: L2 norm of the reference.
    """
    unit = max(_UNIT[s.storage] for s in opened.specs)
    elements = sum(math.prod(s.dims) for s in opened.specs)
    return unit * (size + bound) * (1.0 + 2.0**-20) + math.sqrt(elements) * max(_TINY[s.storage] for s in opened.specs)


def _index(shards: tuple[Shard, ...]) -> bytes:
    return index_bytes(shards) if len(shards) > 1 else b""
