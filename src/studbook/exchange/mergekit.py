"""A mergekit YAML file as a checkpoint recipe, exactly or not at all.

Whatever the file says is either carried over or refused with file, line and field; nothing in it is passed over. What
mergekit would compute otherwise than Studbook does stands in docs/mergekit.md. Source: mergekit 0.1.5, ``config.py``,
``plan.py``, ``merge.py`` and ``merge_methods/``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from studbook.errors import UsageError, printable
from studbook.exchange.mergekit_config import Config, Model, Source, read_config
from studbook.exchange.mergekit_methods import METHODS, REFUSED, Asked, Method, operator_record
from studbook.exchange.mergekit_settings import Parameter, Setting, joined, settle
from studbook.exchange.mergekit_views import Cast, cast, named, segments, view
from studbook.exchange.mergekit_yaml import read_yaml

__all__ = ["LayerCount", "MergekitRecipe", "read_mergekit", "translate_mergekit"]

LayerCount = Callable[[str], int]


class MergekitRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A translated file.

    Attributes:
        recipe: A checkpoint recipe whose models are named as the file names them: ``operator``, ``base``, ``parents``,
            ``config_from``, ``tokenizer_from``, ``vocabulary`` and ``dtype``, all plain JSON values.
        notes: What a reader of the file may not expect, one line each.
    """

    recipe: dict[str, Any]
    notes: tuple[str, ...]


def read_mergekit(text: str, where: str, layers: LayerCount | None = None, *, seed: int = 0) -> dict[str, Any]:
    """The checkpoint recipe that a mergekit file stands for; see `translate_mergekit`."""
    return translate_mergekit(text, where, layers, seed=seed).recipe


def translate_mergekit(text: str, where: str, layers: LayerCount | None = None, *, seed: int = 0) -> MergekitRecipe:
    """The checkpoint recipe that a mergekit file stands for, and notes.

    Args:
        text: The YAML file.
        where: Its name, for messages.
        layers: Number of layers of a model by its name; needed for gradients over whole models, and for passthrough of
            whole models.
        seed: Seed of random masks, which mergekit takes from its command line.

    Raises:
        UsageError: if the file is no valid mergekit file, naming file, line and field.
        OutsideAllowlist: if mergekit could do it and Studbook cannot do the same, naming file, line and field.
    """
    config = read_config(read_yaml(text, where))
    method = _method(config)
    roles = cast(config, method)
    asked = _asked(config, method, roles, seed)
    built = method.build(asked)
    base, parents = view(roles.base), [view(parent) for parent in roles.parents]
    if method.role == "stack":
        parents, parts = segments(roles.parents[0], lambda source: _count(config, source, layers))
        built = built._replace(plain={**built.plain, "segments": parts})
        base = parents[0] if config.base is None else {**named(config.base), "layers": None}
    if any(source.parameters for source in roles.base if roles.around_base and method.role != "every"):
        asked.notes.append("parameters of the base have no effect, as in mergekit")
    recipe = {
        "operator": operator_record(built, lambda: _child_layers(config, layers)),
        "base": base,
        "parents": parents,
        **_donors(config, roles, asked.notes),
        "dtype": _stored(config, asked.notes),
    }
    return MergekitRecipe(recipe=recipe, notes=tuple(asked.notes))


def _method(config: Config) -> Method:
    if config.method in REFUSED:
        config.method_node.outside(f"{config.method} is not translated: {REFUSED[config.method]}", "method")
    if config.method not in METHODS:
        known = ", ".join(sorted(METHODS))
        config.method_node.wrong(f"unknown method {printable(config.method)!r}; known are {known}", "method")
    return METHODS[config.method]


def _asked(config: Config, method: Method, roles: Cast, seed: int) -> Asked:
    """Every parameter of the method, resolved slice by slice and joined."""
    _check_names(config, method)
    shared: dict[str, Setting] = {}
    each: dict[str, tuple[Setting, ...]] = {}
    for parameter in method.parameters:
        if parameter.scope == "shared":
            shared[parameter.name] = _shared(config, parameter)
        else:
            each[parameter.name] = tuple(_own(config, parameter, parent) for parent in roles.parents)
    asked = Asked(config, shared, each, roles.around_base, seed)
    if "int8_mask" in shared and asked.fixed("int8_mask"):
        asked.notes.append("int8_mask changes nothing: no mask is held in memory")
    return asked


def _shared(config: Config, parameter: Parameter) -> Setting:
    settings = [settle(parameter, (piece.parameters, config.parameters), config.method_node) for piece in config.slices]
    return joined(settings, config.slices, parameter.name)


def _own(config: Config, parameter: Parameter, sources: tuple[Source, ...]) -> Setting:
    settings = []
    for source, piece in zip(sources, config.slices, strict=True):
        scopes = (source.parameters, piece.parameters, config.parameters)
        found = settle(parameter, scopes, source.node)
        if source.layers is not None and any(any(map(str.isdigit, rule.filter)) for rule in found):
            message = "a filter with a number means the input's layers, which have other numbers in the child"
            source.node.outside(message, "filter", "Name kinds of tensors, and use slices for layers.")
        settings.append(found)
    return joined(settings, config.slices, parameter.name)


def _check_names(config: Config, method: Method) -> None:
    """Every parameter that is set must be one of the method's, where the method looks for it."""
    for_inputs = {p.name for p in method.parameters if p.scope != "shared"}
    everywhere = {p.name for p in method.parameters}
    places = [(config.parameters, everywhere)]
    for piece in config.slices:
        places.append((piece.parameters, everywhere))
        places += [(source.parameters, for_inputs) for source in piece.sources]
    for parameters, known in places:
        for name, node in parameters.items():
            if name not in everywhere:
                listed = ", ".join(sorted(everywhere)) or "none"
                node.wrong(f"{config.method} has no parameter {printable(name)!r}; it has {listed}", "parameter")
            if name not in known:
                node.wrong(f"{name} is one for all inputs; mergekit does not read it here", "parameter", "Move it up.")


def _count(config: Config, source: Source, layers: LayerCount | None) -> int:
    if layers is None:
        raise UsageError(
            "this file needs the number of layers of its models",
            where=source.node.where,
            advice="Write slices with layer_range instead of models.",
            reason="mergekit.layers",
        )
    return layers(source.model.name)


def _child_layers(config: Config, layers: LayerCount | None) -> int:
    if config.whole:
        return _count(config, config.slices[0].sources[0], layers)
    return sum(last - first for piece in config.slices for first, last in [piece.sources[0].layers or (0, 0)])


def _donors(config: Config, roles: Cast, notes: list[str]) -> dict[str, Any]:
    """Who donates config and tokenizer, and what happens to vocabularies that differ."""
    donor = config.base or config.slices[0].sources[0].model
    if config.base is None:
        notes.append(f"no base_model: config and tokenizer are those of {donor.name}, the first model named")
    tokenizer, policy = donor, "refuse"
    if config.tokenizer is not None:
        policy = "union" if config.tokenizer == "union" else "base"
    if isinstance(config.tokenizer, Model):
        tokenizer = config.tokenizer
        _check_token_donor(config, tokenizer)
    lacking = "average" if config.base is None else "base"
    return {
        "config_from": donor.name,
        "tokenizer_from": tokenizer.name,
        "vocabulary": {"policy": policy, "multiple_of": config.multiple_of, "lacking": lacking},
    }


def _check_token_donor(config: Config, tokenizer: Model) -> None:
    inputs = {source.model for piece in config.slices for source in piece.sources}
    if tokenizer.name not in {model.name for model in inputs}:
        config.tokenizer_node.outside("the tokenizer's model is none of the inputs", "tokenizer")
    if config.base is not None and tokenizer.name != config.base.name and len(inputs) > 2:
        message = "rows of tokens that some models lack would come from the base, not from the tokenizer's model"
        advice = "Make the tokenizer's model the base_model, or use union."
        config.tokenizer_node.outside(message, "tokenizer", advice)


def _stored(config: Config, notes: list[str]) -> str:
    """How the child is stored; mergekit computes in ``dtype`` and stores in ``out_dtype``."""
    stored = config.out_dtype or config.dtype or "keep"
    if config.dtype in ("f16", "bf16"):
        if stored != config.dtype:
            message = f"inputs would be rounded to {config.dtype} and the result stored as {stored}"
            config.dtype_node.outside(message, "dtype", "Write dtype: float32; everything is computed in it anyway.")
        notes.append(f"everything is computed in f32 and rounded to {stored} once, at the end")
    return stored
