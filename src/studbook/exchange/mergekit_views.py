"""Who goes where: the inputs of a mergekit file's slices as the views of a checkpoint recipe.

Source: mergekit 0.1.5, ``plan.py`` (tensors outside the layers come from the first and the last slice) and
``merge_methods/base.py`` (which inputs a method takes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from studbook.errors import printable
from studbook.exchange.mergekit_config import Config, Model, Slice, Source
from studbook.exchange.mergekit_methods import Method

__all__ = ["Cast", "cast", "named", "segments", "view"]


class Cast(NamedTuple):
    """The inputs of every slice by what they are to the operator.

    Attributes:
        base: The base's source of every slice; those of the first parent where the method has no base.
        parents: Each parent's source of every slice.
        around_base: Whether the base is an input of its own.
    """

    base: tuple[Source, ...]
    parents: tuple[tuple[Source, ...], ...]
    around_base: bool


def cast(config: Config, method: Method) -> Cast:
    """Sort the inputs of every slice into base and parents.

    Raises:
        UsageError: if the method needs a base that is not there, or another number of inputs.
        OutsideAllowlist: if the slices have different numbers of inputs.
    """
    needs = method.role in ("parents", "arc")
    if needs and config.base is None:
        config.node.wrong(f"{config.method} needs a base_model", "base")
    takes_base = needs or (method.role == "around" and config.base is not None)
    rows = [_split(config, piece, takes_base) for piece in config.slices]
    for (_, others), piece in zip(rows, config.slices, strict=True):
        if len(others) != len(rows[0][1]):
            piece.node.outside("has another number of inputs than the first slice", "slice-inputs")
    bases = tuple(base for base, _ in rows if base is not None)
    parents = tuple(zip(*(others for _, others in rows), strict=True))
    _check_count(config, method, len(parents))
    if method.role == "arc":
        parents = (bases, *parents)
    return Cast(bases or parents[0], parents, bool(bases))


def _split(config: Config, piece: Slice, takes_base: bool) -> tuple[Source | None, tuple[Source, ...]]:
    if not takes_base:
        return None, piece.sources
    base = next((s for s in piece.sources if s.model == config.base), None)
    if base is None:
        piece.node.wrong("the base_model is no source of this slice", "base", "Add it to the sources.")
    return base, tuple(s for s in piece.sources if s is not base)


def _check_count(config: Config, method: Method, parents: int) -> None:
    fewest, most = {
        "every": (2, 16),
        "parents": (1, 16),
        "arc": (1, 1),
        "around": (2, 16),
        "stack": (1, 1),
    }[method.role]
    if config.method == "nearswap":
        most = 1
    if config.method == "model_stock":
        fewest = 2
    if not fewest <= parents <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        message = f"{config.method} takes {wanted} models besides a base it needs, not {parents}"
        config.slices[0].node.wrong(message, "inputs")


def view(sources: Sequence[Source], whole: Callable[[Source], bool]) -> dict[str, Any]:
    """One input of the operator: a whole model, or a stack of layers.

    Args:
        sources: One a slice.
        whole: Whether a source is all layers of its model.
    """
    first = sources[0].model
    if len(sources) == 1 and whole(sources[0]):
        return {**named(first), "layers": None}
    stack = [
        {**named(source.model), "first": source.layers[0], "last": source.layers[1]}
        for source in sources
        if source.layers is not None
    ]
    return {"model": first.name, "adapter": None, "layers": stack}


def segments(
    sources: Sequence[Source], layer_count: Callable[[Source], int]
) -> tuple[list[dict[str, Any]], list[dict[str, int]]]:
    """Views of the models of a stack, each once, and the stack as a passthrough's segments.

    Args:
        sources: One a slice.
        layer_count: Number of layers of a source's whole model.
    """
    models: list[Model] = list(dict.fromkeys(source.model for source in sources))
    parts = []
    for source in sources:
        first, last = source.layers or (0, layer_count(source))
        parts.append({"parent": models.index(source.model), "first": first, "last": last})
    return [{**named(model), "layers": None} for model in models], parts


def named(model: Model) -> dict[str, Any]:
    """A model and its adapter as a recipe's fields."""
    return {"model": printable(model.name), "adapter": None if model.adapter is None else printable(model.adapter)}
