"""Recipes: an operator record in which one number may stand for every parent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from studbook.breeding.operators import (
    AnyOperator,
    FederatedRound,
    Operator,
    Trained,
    decode_operator,
    every_type,
)
from studbook.errors import RecordRefused
from studbook.records import JsonObject, digest

__all__ = ["Offered", "check_recipe", "expand", "per_parent", "recipe_sha256", "wants_one_parent", "without_parent"]

# Slices of the failure cluster, and the other slices of the same data manifest.
Offered = tuple[tuple[str, ...], tuple[str, ...]]
_ANY: Offered = (("0" * 64,), ("1" * 64,))


def expand(recipe: Mapping[str, Any], parents: int, offered: Offered | None = None) -> AnyOperator:
    """The operator a recipe means for this many parents.

    Args:
        recipe: An operator record; ``scales`` and ``weights`` may be one number, or ``"uniform"`` for 1/parents each.
        parents: Number of parents.
        offered: The slices that ``data: "cluster"`` and ``rehearsed: "others"`` stand for; without them a training
            recipe is only checked, on slices that do not exist.

    Raises:
        RecordRefused: if a field is missing, unknown or of the wrong type.
        OutsideAllowlist: if a value is out of its range.
    """
    fields = dict(recipe)
    for name in per_parent(recipe):
        value = fields.get(name)
        if value == "uniform":
            fields[name] = [1.0 / parents] * parents
        elif isinstance(value, int | float) and not isinstance(value, bool):
            fields[name] = [_number(value, name)] * parents
    if (kind := _kind(recipe)) is not None and issubclass(kind, Trained):
        own, others = offered or _ANY
        fields["data"] = list(own) if fields.get("data") == "cluster" else fields.get("data")
        fields["rehearsed"] = list(others) if fields.get("rehearsed") == "others" else fields.get("rehearsed")
    if kind is FederatedRound and offered is None and isinstance(fields.get("clients"), list | tuple):
        fields["clients"] = [_nobody(client) for client in fields["clients"]]
    return decode_operator(fields)


def _number(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        advice = "Write a number that a 64-bit float holds."
        raise RecordRefused("is too large", where=f"recipe: {name}", advice=advice, reason="operator.record") from error


def wants_one_parent(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe's operator works on one model: the champion, in a round."""
    kind = _kind(recipe)
    return kind is not None and kind.parents_needed == (1, 1) and not kind.needs_base


def recipe_sha256(base: str, parents: tuple[str, ...], operator: JsonObject) -> str:
    """Identity of a piece of work: base, parents in order, operator. Equal recipes give equal bytes."""
    return digest({"base": base, "parents": list(parents), "operator": operator})


def check_recipe(recipe: Mapping[str, Any]) -> AnyOperator:
    """Refuse a recipe that could never run, whatever the number of parents.

    Returns:
        The operator for as many parents as the recipe lists, two where it lists none.

    Raises:
        StudbookError: any of its kinds, naming the field.
    """
    lists = [len(v) for name in per_parent(recipe) if isinstance(v := recipe.get(name), list | tuple)]
    return expand(recipe, lists[0] if lists else (1 if wants_one_parent(recipe) else 2))


def per_parent(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a recipe's operator that hold one number a parent."""
    kind = _kind(recipe)
    return kind.per_parent if kind else ()


def without_parent(operator: JsonObject, index: int) -> JsonObject:
    """The operator record with one parent's numbers left out; weights are brought back to a sum of one."""
    fields = dict(operator)
    for name in per_parent(operator):
        fields[name] = [v for i, v in enumerate(fields[name]) if i != index]
    if points := fields.get("points"):
        fields["points"] = [p for i, p in enumerate(points) if i != min(index, len(points) - 1)]
    if (weights := fields.get("weights")) and "normalize" not in fields and (total := math.fsum(weights)) > 0:
        fields["weights"] = [w / total for w in weights]
    return fields


def _nobody(client: Any) -> Any:
    """A client that a recipe calls by name, to be checked before its data manifest is looked up."""
    if not isinstance(client, str):
        return client
    return {"manifest": digest({"client": client}), "data": [digest({"slice": client})], "rows": 1}


def _kind(recipe: Mapping[str, Any]) -> type[Operator] | None:
    return next((kind for kind in every_type() if kind.tag() == recipe.get("operator")), None)
