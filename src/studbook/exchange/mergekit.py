"""A mergekit YAML file as a checkpoint recipe, exactly or not at all.

Whatever the file says is either carried over or refused with file, line and field; nothing in it is passed over. What
mergekit would compute otherwise than Studbook does stands in docs/mergekit.md. Source: mergekit 0.1.5, ``config.py``,
``plan.py``, ``merge.py`` and ``merge_methods/``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from studbook.errors import UsageError, printable
from studbook.exchange.mergekit_config import Config, Model, Source, read_config
from studbook.exchange.mergekit_methods import METHODS, REFUSED, Asked, Method, operator_record
from studbook.exchange.mergekit_settings import Parameter, Setting, joined, settle
from studbook.exchange.mergekit_views import Cast, cast, named, segments, view
from studbook.exchange.mergekit_yaml import read_yaml
from studbook.tensors.views import layer_count, layer_of

__all__ = ["MergekitRecipe", "TensorNames", "read_mergekit", "translate_mergekit"]

TensorNames = Callable[[str], Sequence[str]]


class MergekitRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A translated file.

    Attributes:
        recipe: A checkpoint recipe whose models are named as the file names them: ``operator``, ``base``, ``parents``,
            ``config_from``, ``tokenizer_from``, ``vocabulary`` and ``dtype``, all plain JSON values.
        notes: What a reader of the file may not expect, one line each.
    """

    recipe: dict[str, Any]
    notes: tuple[str, ...]


def read_mergekit(text: str, where: str, names: TensorNames | None = None, *, seed: int = 0) -> dict[str, Any]:
    """The checkpoint recipe that a mergekit file stands for; see `translate_mergekit`."""
    return translate_mergekit(text, where, names, seed=seed).recipe


def translate_mergekit(text: str, where: str, names: TensorNames | None = None, *, seed: int = 0) -> MergekitRecipe:
    """The checkpoint recipe that a mergekit file stands for, and notes.

    Args:
        text: The YAML file.
        where: Its name, for messages.
        names: Tensor names of a model by the name it has in the file; needed for settings that change with layers or
            tensors of whole models, and for passthrough of whole models.
        seed: Seed of random masks, which mergekit takes from its command line.

    Raises:
        UsageError: if the file is no valid mergekit file, naming file, line and field.
        OutsideAllowlist: if mergekit could do it and Studbook cannot do the same, naming file, line and field.
    """
    config = read_config(read_yaml(text, where))
    method = _method(config)
    roles = cast(config, method)
    shelf = _Shelf(config, names)
    asked = _asked(config, method, roles, seed, shelf)
    built = method.build(asked)
    base, parents = view(roles.base, shelf.whole), [view(parent, shelf.whole) for parent in roles.parents]
    if method.role == "stack":
        parents, parts = segments(roles.parents[0], shelf.layers)
        built = built._replace(plain={**built.plain, "segments": parts})
        base = parents[0] if config.base is None else {**named(config.base), "layers": None}
    if any(source.parameters for source in roles.base if roles.around_base and method.role != "every"):
        asked.notes.append("parameters of the base have no effect, as in mergekit")
    recipe = {
        "operator": operator_record(built, shelf.child_layers),
        "base": base,
        "parents": parents,
        **_donors(config, method, asked.notes),
        "dtype": _stored(config, asked.notes),
    }
    return MergekitRecipe(recipe=recipe, notes=tuple(asked.notes))


class _Shelf:
    """The models behind the names, where somebody knows them."""

    def __init__(self, config: Config, names: TensorNames | None) -> None:
        self._config, self._names = config, names

    def names(self, source: Source) -> Sequence[str]:
        """Tensor names of a source's whole model.

        Raises:
            UsageError: if nobody knows them.
        """
        if self._names is None:
            message = "settings that change with layers or tensors need the models, and they were not given"
            advice = "Breed from the file in a lab that holds the models, or give every parameter one value."
            raise UsageError(message, where=source.node.where, advice=advice, reason="mergekit.layers")
        return self._names(source.model.name)

    def layers(self, source: Source) -> int:
        """Number of layers of a source's whole model."""
        return layer_count(self.names(source))

    def whole(self, source: Source) -> bool:
        """Whether a source is known to be all layers of its model."""
        return source.layers is None or (self._names is not None and source.layers == (0, self.layers(source)))

    def child_layers(self) -> int:
        """Number of layers of the child."""
        if self._config.whole:
            return self.layers(self._config.slices[0].sources[0])
        return sum(last - first for s in self._config.slices for first, last in [s.sources[0].layers or (0, 0)])

    def outside(self) -> Sequence[str]:
        """Names of the tensors before and behind the layers."""
        return [n for n in self.names(self._config.slices[0].sources[0]) if layer_of(n) is None]


def _method(config: Config) -> Method:
    if config.method in REFUSED:
        config.method_node.outside(f"{config.method} is not translated: {REFUSED[config.method]}", "method")
    if config.method not in METHODS:
        known = ", ".join(sorted(METHODS))
        config.method_node.wrong(f"unknown method {printable(config.method)!r}; known are {known}", "method")
    return METHODS[config.method]


def _asked(config: Config, method: Method, roles: Cast, seed: int, shelf: _Shelf) -> Asked:
    """Every parameter of the method, resolved slice by slice and joined."""
    _check_names(config, method)
    shared: dict[str, Setting] = {}
    each: dict[str, tuple[Setting, ...]] = {}
    for parameter in method.parameters:
        if parameter.scope == "shared":
            shared[parameter.name] = _shared(config, parameter, shelf)
        else:
            each[parameter.name] = tuple(_own(config, parameter, parent, shelf) for parent in roles.parents)
    asked = Asked(config, shared, each, roles.around_base, seed)
    if "int8_mask" in shared and asked.fixed("int8_mask"):
        asked.notes.append("int8_mask changes nothing: no mask is held in memory")
    return asked


def _shared(config: Config, parameter: Parameter, shelf: _Shelf) -> Setting:
    settings = [settle(parameter, (piece.parameters, config.parameters), config.method_node) for piece in config.slices]
    return joined(settings, config.slices, parameter.name, shelf.outside)


def _own(config: Config, parameter: Parameter, sources: tuple[Source, ...], shelf: _Shelf) -> Setting:
    settings = []
    for source, piece in zip(sources, config.slices, strict=True):
        scopes = (source.parameters, piece.parameters, config.parameters)
        found = settle(parameter, scopes, source.node)
        if source.layers is not None and any(any(map(str.isdigit, rule.filter)) for rule in found):
            message = "a filter with a number means the input's layers, which have other numbers in the child"
            source.node.outside(message, "filter", "Name kinds of tensors, and use slices for layers.")
        settings.append(found)
    return joined(settings, config.slices, parameter.name, shelf.outside)


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


def _donors(config: Config, method: Method, notes: list[str]) -> dict[str, Any]:
    """Who donates config and tokenizer, and what happens to vocabularies that differ."""
    donor = config.base or config.slices[0].sources[0].model
    if config.base is None:
        notes.append(f"no base_model: config and tokenizer are those of {donor.name}, the first model named")
    tokenizer = config.tokenizer if isinstance(config.tokenizer, Model) else donor
    if isinstance(config.tokenizer, Model):
        _check_token_donor(config, config.tokenizer)
    policy = "refuse"
    if config.tokenizer is not None and _mixes_rows(config, method):
        policy = "union" if config.tokenizer == "union" else "base"
    elif config.tokenizer is not None:
        policy = "pad_to" if config.multiple_of else "refuse"
        notes.append("no tensor of the vocabulary is mixed from all models, so their tokenizers have to be equal")
    lacking = "average" if config.base is None else "base"
    return {
        "config_from": donor.name,
        "tokenizer_from": tokenizer.name,
        "vocabulary": {"policy": policy, "multiple_of": config.multiple_of, "lacking": lacking},
    }


def _mixes_rows(config: Config, method: Method) -> bool:
    """Whether every tensor of the vocabulary is made from the same models, the base among them.

    Elsewhere mergekit fills the rows of tokens that the models at hand lack with zeros or with other models' rows than
    here.
    """
    inputs = [{source.model for source in piece.sources} for piece in config.slices]
    alike = all(found == inputs[0] for found in inputs)
    return method.role != "stack" and alike and (config.base is None or config.base in inputs[0])


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
