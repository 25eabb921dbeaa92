"""A mergekit file's structure: which models go in, slice by slice, and what is asked of the whole.

Parameters stay unread here; what a method makes of them stands in `studbook.exchange.mergekit_settings`. Source of the
fields and their precedence: mergekit 0.1.5, ``config.py``, ``common.py`` and ``plan.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from studbook.errors import printable
from studbook.exchange.mergekit_yaml import Node

__all__ = ["Config", "Model", "Slice", "Source", "read_config"]

Parameters = Mapping[str, Node]

_TOP = (
    "base_model",
    "chat_template",
    "dtype",
    "merge_method",
    "models",
    "modules",
    "out_dtype",
    "parameters",
    "slices",
    "tokenizer",
    "tokenizer_source",
)
_FEWER_FIELDS = "Write models or slices at the top level."


class Model(NamedTuple):
    """A model as the file names it.

    Attributes:
        name: Its path or name.
        adapter: Name of the LoRA that is fused into it, or None.
    """

    name: str
    adapter: str | None


class Source(NamedTuple):
    """One input of a slice.

    Attributes:
        model: What is read.
        layers: First layer and the layer after the last one; None for all of them.
        parameters: What is set for this input alone.
        node: Where it stands.
    """

    model: Model
    layers: tuple[int, int] | None
    parameters: Parameters
    node: Node


class Slice(NamedTuple):
    """A run of layers of the child.

    Attributes:
        sources: Its inputs, in order.
        parameters: What is set for this slice.
        node: Where it stands.
    """

    sources: tuple[Source, ...]
    parameters: Parameters
    node: Node


class Config(NamedTuple):
    """A whole file.

    Attributes:
        method: Name of the merge method.
        base: The base model, or None.
        slices: The child's layers; one slice without layers where whole models are merged.
        whole: Whether whole models are merged (``models:``).
        parameters: What is set for everything.
        dtype: Type that mergekit would compute in, or None.
        out_dtype: Type that it would store, or None.
        tokenizer: ``base``, ``union``, a model, or None where the file names none.
        multiple_of: Rows of the embedding are padded to a multiple of this, or None.
        node: The file.
        method_node: Where the method stands.
        dtype_node: Where the compute type stands, or the file.
        tokenizer_node: Where the tokenizer's source stands, or the file.
    """

    method: str
    base: Model | None
    slices: tuple[Slice, ...]
    whole: bool
    parameters: Parameters
    dtype: str | None
    out_dtype: str | None
    tokenizer: Model | str | None
    multiple_of: int | None
    node: Node
    method_node: Node
    dtype_node: Node
    tokenizer_node: Node


def read_config(node: Node) -> Config:
    """The structure of a file.

    Raises:
        UsageError: if a field is unknown, missing, or of another kind.
        OutsideAllowlist: if mergekit could do it and Studbook does not.
    """
    top = node.mapping(_TOP)
    if "modules" in top:
        top["modules"].outside("models of several modules are not translated", "modules", _FEWER_FIELDS)
    if "chat_template" in top:
        advice = "Put the template into the tokenizer donor's folder before it is registered; it is carried over."
        top["chat_template"].outside("a chat template is not written by a merge", "chat-template", advice)
    if ("models" in top) == ("slices" in top):
        node.wrong("names neither models nor slices, or both", "inputs", "Write exactly one of models and slices.")
    if "merge_method" not in top:
        node.wrong("names no merge_method", "method")
    base = _model(top["base_model"]) if "base_model" in top else None
    tokenizer, multiple_of, tokenizer_node = _tokenizer(top, node)
    slices = _whole(top["models"], base) if "models" in top else _slices(top["slices"], base)
    return Config(
        method=top["merge_method"].text(),
        base=base,
        slices=slices,
        whole="models" in top,
        parameters=_parameters(top),
        dtype=_dtype(top, "dtype"),
        out_dtype=_dtype(top, "out_dtype"),
        tokenizer=tokenizer,
        multiple_of=multiple_of,
        node=node,
        method_node=top["merge_method"],
        dtype_node=top.get("dtype", node),
        tokenizer_node=tokenizer_node,
    )


def _whole(node: Node, base: Model | None) -> tuple[Slice, ...]:
    sources = []
    for entry in node.sequence():
        fields = _required(entry, ("model", "parameters"), "model")
        sources.append(Source(_model(fields["model"]), None, _parameters(fields), entry))
    if base is not None and base not in [s.model for s in sources]:
        # As mergekit does: a base that is no input becomes the last one.
        sources.append(Source(base, None, {}, node))
    return (_distinct(Slice(tuple(sources), {}, node)),)


def _slices(node: Node, base: Model | None) -> tuple[Slice, ...]:
    return tuple(_slice(entry, base) for entry in node.sequence())


def _slice(node: Node, base: Model | None) -> Slice:
    fields = _required(node, ("sources", "base_model", "residual_weight", "parameters"), "sources")
    if "base_model" in fields and _model(fields["base_model"]) != base:
        fields["base_model"].outside("a slice with a base of its own is not translated", "slice-base")
    if "residual_weight" in fields:
        fields["residual_weight"].outside("residual_weight has no effect in mergekit and none here", "residual")
    sources = []
    for entry in fields["sources"].sequence():
        parts = _required(entry, ("model", "layer_range", "parameters"), "model", "layer_range")
        layers = _range(parts["layer_range"])
        sources.append(Source(_model(parts["model"]), layers, _parameters(parts), entry))
    counts = {last - first for source in sources for first, last in [source.layers or (0, 0)]}
    if len(counts) != 1:
        node.wrong("its sources have different numbers of layers", "layers")
    return _distinct(Slice(tuple(sources), _parameters(fields), node))


def _distinct(piece: Slice) -> Slice:
    seen: set[Model] = set()
    for source in piece.sources:
        if source.model in seen:
            source.node.wrong(f"{printable(source.model.name)!r} is an input twice", "twice", "Name each model once.")
        seen.add(source.model)
    return piece


def _required(node: Node, known: tuple[str, ...], *needed: str) -> dict[str, Node]:
    fields = node.mapping(known)
    for name in needed:
        if name not in fields:
            node.wrong(f"has no {name}", "missing")
    return fields


def _range(node: Node) -> tuple[int, int]:
    ends = node.sequence()
    if len(ends) != 2:
        node.wrong("is no pair of first layer and layer after the last", "layers")
    first, last = (end.integer() for end in ends)
    if not 0 <= first < last <= 100_000:
        node.wrong(f"{first} to {last} are no layers", "layers")
    return first, last


def _parameters(fields: Mapping[str, Node]) -> Parameters:
    if "parameters" not in fields:
        return {}
    for node in (fields["parameters"].value or {}).values() if isinstance(fields["parameters"].value, dict) else ():
        if node.value is None:
            node.wrong("has no value", "missing", "Write a value, or leave the parameter out.")
    return fields["parameters"].mapping()


def _model(node: Node) -> Model:
    """``path``, ``path+adapter``, or the same as a mapping."""
    if isinstance(node.value, dict):
        fields = _required(node, ("model", "lora", "override_architecture"), "model")
        if "override_architecture" in fields:
            fields["override_architecture"].outside("an architecture is not overridden", "architecture")
        return Model(_path(fields["model"]), _path(fields["lora"]) if "lora" in fields else None)
    name, *adapters = node.text().split("+")
    if not name or len(adapters) > 1 or "" in adapters:
        node.wrong("is no model, and no model+adapter", "model")
    for part in (name, *adapters):
        _unversioned(node, part)
    return Model(name, adapters[0] if adapters else None)


def _path(node: Node) -> str:
    if not isinstance(node.value, dict):
        return _unversioned(node, node.text())
    fields = _required(node, ("path", "revision"), "path")
    if "revision" in fields:
        _unversioned(node, "@")
    return fields["path"].text()


def _unversioned(node: Node, name: str) -> str:
    if "@" in name:
        advice = "Register the files of that revision under a name of their own, and use the name."
        node.outside("nothing is fetched, so a revision cannot be chosen", "revision", advice)
    return name


def _dtype(top: Mapping[str, Node], field: str) -> str | None:
    if field not in top:
        return None
    name = top[field].text().removeprefix("torch.")
    short = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(name)
    if short is None:
        top[field].outside(f"{printable(name)!r} is not stored here; float32, float16 and bfloat16 are", "dtype")
    return short


def _tokenizer(top: Mapping[str, Node], node: Node) -> tuple[Model | str | None, int | None, Node]:
    if "tokenizer" not in top:
        if "tokenizer_source" not in top:
            return None, None, node
        return _token_source(top["tokenizer_source"]), None, top["tokenizer_source"]
    if "tokenizer_source" in top:
        top["tokenizer_source"].wrong("tokenizer names a source too", "tokenizer", "Keep one of the two.")
    fields = top["tokenizer"].mapping(("source", "pad_to_multiple_of", "tokens"))
    if "tokens" in fields and fields["tokens"].value:
        fields["tokens"].outside("rows for single tokens are not translated", "tokens")
    multiple_of = None
    if "pad_to_multiple_of" in fields:
        multiple_of = fields["pad_to_multiple_of"].integer()
        if not 1 <= multiple_of <= 65_536:
            fields["pad_to_multiple_of"].wrong(f"{multiple_of} is not between 1 and 65536", "number")
    # mergekit's own default for this form.
    source = _token_source(fields["source"]) if "source" in fields else "union"
    return source, multiple_of, fields.get("source", top["tokenizer"])


def _token_source(node: Node) -> Model | str:
    return node.value if node.value in ("base", "union") else _model(node)
