"""Checkpoints in the lab: recipes as people write them, with names, become recipes with digests, and those are bred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from studbook.breeding.checkpoint_produce import bytes_of
from studbook.breeding.checkpoint_recipe import CheckpointRecipe, decode_recipe
from studbook.breeding.checkpoint_template import recipe_of
from studbook.breeding.recipes import expand, wants_one_parent
from studbook.breeding.template import operator_fields
from studbook.errors import RecordRefused, UsageError
from studbook.exchange.mergekit import translate_mergekit
from studbook.lab.checkpoint_breeding import breed_checkpoint, reproduce_checkpoint, restore
from studbook.lab.checkpoint_store import is_checkpoint, stored, tensors
from studbook.lab.desk import Desk
from studbook.records import CheckpointSource, JsonObject, LoraSource

__all__ = [
    "breed",
    "breed_checkpoint",
    "bytes_of",
    "is_checkpoint",
    "recipe_of",
    "reproduce_checkpoint",
    "resolve",
    "restore",
    "simple_recipe",
    "stored",
    "tensors",
]

_SHARD_BYTES = 5_000_000_000


def breed(desk: Desk, recipe: Mapping[str, Any], parents: Sequence[str], base: str | None, threads: int | None) -> str:
    """Breed a checkpoint from an operator record, a whole recipe with names, or the text of a mergekit file.

    Raises:
        UsageError: if parents are missing, or named twice.
        StudbookError: any of its kinds.
    """
    plain: Mapping[str, Any] = recipe
    if "mergekit" in recipe:
        if not (isinstance(recipe["mergekit"], str) and isinstance(recipe.get("where"), str)):
            raise RecordRefused("mergekit is the text of a YAML file", where="recipe", advice="Use --mergekit FILE.")
        plain = _translated(desk, recipe["mergekit"], recipe["where"], recipe.get("seed"))
    elif "parents" not in recipe:
        if not parents:
            raise UsageError("no parent is named", where="--parent", advice="Name the checkpoints: --parent NAME ...")
        plain = simple_recipe(desk, recipe, parents, base)
    elif parents or base:
        raise UsageError(
            "the recipe names its parents itself", where="--parent", advice="Leave --parent and --base out."
        )
    return breed_checkpoint(desk, resolve(desk, plain), threads)


def _draws(operator: Mapping[str, Any]) -> bool:
    """Whether an operator, or one it holds, has a seed."""
    return "seed" in operator or any(_draws(part) for part in operator.values() if isinstance(part, dict))


def _translated(desk: Desk, text: str, where: str, seed: int | None) -> Mapping[str, Any]:
    """A mergekit file as a recipe; what its reader may not expect is said."""
    found = translate_mergekit(text, where, lambda name: tensors(desk, _find(desk, name)[0]).names, seed=seed or 0)
    if seed is not None and not _draws(found.recipe["operator"]):
        raise UsageError("this merge draws nothing at random", where="--seed", advice="Leave --seed out.")
    for note in found.notes:
        desk.progress.say(f"{where}: {note}")
    return found.recipe


def _find(desk: Desk, name: str) -> tuple[str, str]:
    """A model by its name, or by the last part of a path or of a hub's ``owner/name``; and the name it was found by."""
    try:
        return desk.find_model(name), name
    except UsageError:
        last = name.rstrip("/").rpartition("/")[2]
        if not last or last == name:
            raise
        return desk.find_model(last), last


def simple_recipe(desk: Desk, recipe: Mapping[str, Any], parents: Sequence[str], base: str | None) -> JsonObject:
    """A checkpoint recipe, with names, from an operator record and the names of its parents.

    Args:
        desk: The lab.
        recipe: An operator record; one number may stand for every parent.
        parents: Names, in order.
        base: Name of the shared base; a single parent is its own, and operators that only average need none.

    Raises:
        UsageError: if the operator needs a base and none is named.
    """
    operator = operator_fields(expand(recipe, len(parents)))
    if base is None and not wants_one_parent(recipe) and "weights" not in recipe:
        raise UsageError("these parents need a base", where="--base", advice="Name the model they were tuned from.")
    donor = base or parents[0]
    return {
        "operator": operator,
        "base": {"model": donor, "adapter": None, "layers": None},
        "parents": [{"model": p, "adapter": None, "layers": None} for p in parents],
        "config_from": donor,
        "tokenizer_from": donor,
        "vocabulary": {"policy": "refuse", "multiple_of": None, "lacking": "base"},
        "dtype": "keep",
    }


def resolve(desk: Desk, plain: Mapping[str, Any]) -> CheckpointRecipe:
    """A recipe whose models are named as people name them, with digests in their place.

    Raises:
        UsageError: if a name is nobody's, or another kind of model's.
        StudbookError: any of its kinds, if the recipe is not valid.
    """
    named = _named(plain)
    told: set[str] = set()

    def found(name: str, kind: type) -> str:
        artifact, taken = _find(desk, name)
        if taken != name and name not in told:
            told.add(name)
            desk.progress.say(f"{name} is taken for {taken} of this lab, {artifact[:12]}")
        registered = desk.registered().get(artifact)
        fits = isinstance(registered[1].source, kind) if registered else kind is CheckpointSource
        if not (fits and is_checkpoint(desk, artifact)):
            what = "a checkpoint" if kind is CheckpointSource else "a LoRA folder"
            advice = (
                "Register the folder it lies in. An SLM1 model is bred for a cluster: studbook breed CLUSTER RECIPE"
            )
            raise UsageError(f"{name!r} is not {what}", where="recipe", advice=advice)
        return artifact

    def place(part: _NamedView | _NamedSegment) -> dict[str, Any]:
        adapter = None if part.adapter is None else found(part.adapter, LoraSource)
        return {"model": found(part.model, CheckpointSource), "adapter": adapter}

    def view(part: _NamedView) -> dict[str, Any]:
        layers = part.layers and [{**place(s), "first": s.first, "last": s.last} for s in part.layers]
        return {**place(part), "layers": layers}

    fields: dict[str, Any] = {"recipe": "checkpoint-recipe/1", **msgspec.to_builtins(named)}
    fields["base"] = view(named.base)
    fields["parents"] = [view(p) for p in named.parents]
    fields["config_from"] = found(named.config_from, CheckpointSource)
    fields["tokenizer_from"] = found(named.tokenizer_from, CheckpointSource)
    return decode_recipe(fields)


class _NamedSegment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    adapter: str | None
    first: int
    last: int


class _NamedView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    adapter: str | None
    layers: tuple[_NamedSegment, ...] | None


class _NamedRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operator: JsonObject
    base: _NamedView
    parents: tuple[_NamedView, ...]
    config_from: str
    tokenizer_from: str
    vocabulary: JsonObject
    dtype: str
    shard_bytes: int = _SHARD_BYTES


def _named(plain: Mapping[str, Any]) -> _NamedRecipe:
    """A recipe whose models are still named as people name them, each field of its type.

    Raises:
        RecordRefused: naming the field that is missing, unknown or of another type.
    """
    fields = {k: v for k, v in plain.items() if k != "recipe" or v != "checkpoint-recipe/1"}
    try:
        return msgspec.convert(fields, _NamedRecipe, strict=True)
    except msgspec.ValidationError as error:
        raise RecordRefused(
            str(error),
            where="checkpoint recipe",
            advice="Write every field of the recipe, each of its type: docs/checkpoints.md.",
            reason="recipe.record",
        ) from error
