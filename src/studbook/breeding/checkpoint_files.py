"""The files of a child checkpoint that are not weights: config, generation config, tokenizer, chat template.

They come byte for byte from the named donors; only what the operator changed is changed in the config, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studbook.errors import BytesLie, ParentsDoNotFit
from studbook.records import read_plain_json

__all__ = ["CONFIG", "child_config"]

CONFIG = "config.json"
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def child_config(data: bytes, where: object, *, vocab_size: int | None, layers: int | None, dtype: str | None) -> bytes:
    """A donor's config with what the child has differently; the donor's very bytes if that is nothing.

    Args:
        data: The donor's config.json.
        where: What to call it in errors.
        vocab_size: Rows of the child's embedding, or None where they are the donor's.
        layers: Number of the child's layers, or None.
        dtype: Storage of all the child's tensors, or None where it is the donor's.

    Raises:
        BytesLie: if it is not a JSON object.
        ParentsDoNotFit: if it has no field for what must be changed.
    """
    config = read_plain_json(data, where)
    if not isinstance(config, dict):
        raise BytesLie("is not a JSON object", where=where, reason="checkpoint.config")
    before = json.dumps(config)
    if vocab_size is not None:
        _set(config, ("vocab_size",), vocab_size, where)
    if layers is not None:
        _set(config, _LAYERS, layers, where)
        _cut_layer_lists(config, layers, where)
    if dtype is not None and (present := [f for f in ("dtype", "torch_dtype") if f in config]):
        _set(config, tuple(present), _DTYPES[dtype], where)
    if json.dumps(config) == before:
        return data
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _set(config: dict[str, Any], fields: tuple[str, ...], value: object, where: object) -> None:
    """Set a field where it stands: at the top, or in the part about text."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        if found := [f for f in fields if f in part]:
            for field in found:
                part[field] = value
            return
    raise ParentsDoNotFit(
        f"has no field {' or '.join(fields)} to hold {value}",
        where=where,
        advice="Name a config donor whose config states it.",
        reason="parents.config",
    )


def _cut_layer_lists(config: Mapping[str, Any], layers: int, where: object) -> None:
    """Lists with one value a layer cannot be guessed for another number of layers."""
    for field in ("layer_types", "no_rope_layers"):
        value = config.get(field)
        if isinstance(value, list) and len(value) != layers:
            raise ParentsDoNotFit(
                f"{field} has {len(value)} values, the child has {layers} layers",
                where=where,
                advice="Stack as many layers as the config's donor has, or name another donor.",
                reason="parents.config",
            )
