"""Whether a package fits a model: identity first, then every tensor, then the fused values; nothing is changed.

A package is made for one f32 model. It also fits a quantised build of that model, if a verified receipt says that the
build was made of it; who verified that is the caller's business, who passes the pairs on as ``accepted``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.changes import Change
from studbook.adapters.fusion import Wide, fused_tensor, wide_values
from studbook.adapters.layout import TIED
from studbook.adapters.reader import Adapter
from studbook.adapters.rules import AdapterRule, refusal
from studbook.models.slm import Slm

__all__ = ["NONE_ACCEPTED", "check_against", "check_identity", "finite_fused"]

NONE_ACCEPTED: Mapping[str, str] = MappingProxyType({})


def check_identity(adapter: Adapter, model: Slm, accepted: Mapping[str, str] = NONE_ACCEPTED) -> dict[str, Change]:
    """Hold a package against a model: header, base, and name, order and shape of every tensor.

    Args:
        adapter: The package.
        model: The model.
        accepted: Digest of a quantised build -> digest of the f32 model it was made of, as its verified receipt says.

    Returns:
        The changes by canonical name, in canonical order.

    Raises:
        AdapterRefused: naming the first field or tensor that differs.
    """
    _check_head(adapter, model)
    base = adapter.meta.base_sha256
    if base not in (model.sha256, accepted.get(model.sha256)):
        message = (
            f"made for {base[:12]}...; the model is {model.sha256[:12]}... and no receipt says it is a build of that"
        )
        raise refusal(AdapterRule.MODEL_BASE, message, _name(adapter), "meta base_sha256")
    places = {spec.name_hash: place for place, spec in enumerate(model.shape.tensors())}
    found: dict[str, Change] = {}
    last = -1
    for index, (name_hash, change) in enumerate(adapter.changes):
        field = f"directory entry {index}"
        if name_hash not in places:
            message = f"{name_hash:#018x} is the name of no tensor of this model"
            raise refusal(AdapterRule.TENSOR_UNKNOWN, message, _name(adapter), f"{field} name_hash")
        spec = model.shape.tensors()[places[name_hash]]
        if places[name_hash] < last:
            message = f"{spec.name} stands after a later tensor; entries follow the canonical order"
            raise refusal(AdapterRule.TENSOR_ORDER, message, _name(adapter), f"{field} name_hash")
        if change.dims != spec.dims:
            message = f"{spec.name} is {spec.dims} in the model, {change.dims} here"
            raise refusal(AdapterRule.TENSOR_SHAPE, message, _name(adapter), f"{field} dims")
        last = places[name_hash]
        found[spec.name] = change
    return found


def check_against(adapter: Adapter, model: Slm, accepted: Mapping[str, str] = NONE_ACCEPTED) -> dict[str, Change]:
    """As `check_identity`, and also that every fused value would be finite; holds one fused tensor at a time.

    Raises:
        AdapterRefused: naming the first field, tensor or element that does not fit.
    """
    changes = check_identity(adapter, model, accepted)
    for name, change in changes.items():
        finite_fused(adapter, name, change, partial(wide_values, model.tensors[name]))
    return changes


def finite_fused(adapter: Adapter, name: str, change: Change, wide: Wide) -> NDArray[np.float32]:
    """One fused tensor, f32, flat, read-only.

    Args:
        adapter: The package, for errors.
        name: The tensor.
        change: What is done to it.
        wide: Gives the elements start..stop-1 before the change, f64.

    Raises:
        AdapterRefused: if a fused value is not finite.
    """
    fused = fused_tensor(change, wide, int(np.prod(change.dims, dtype=np.int64)))
    bad = ~np.isfinite(fused)
    if bad.any():
        message = f"{int(bad.sum())} of {fused.size} fused values overflow f32, first at {int(np.argmax(bad))}"
        raise refusal(AdapterRule.FUSED_NON_FINITE, message, _name(adapter), name)
    return fused


def _check_head(adapter: Adapter, model: Slm) -> None:
    head, shape = adapter.head, model.shape
    pairs = (
        (AdapterRule.MODEL_FLAGS, "flags", head.flags, TIED if shape.tied else 0),
        (AdapterRule.MODEL_TENSORS, "tensor_count", head.tensor_count, shape.tensor_count),
        (AdapterRule.MODEL_PARAMETERS, "parameter_count", head.parameter_count, shape.parameter_count),
        (AdapterRule.MODEL_LAYOUT, "tensor_layout_sha256", head.layout_sha256, model.layout_sha256),
        (AdapterRule.MODEL_TOKENIZER, "tokenizer_sha256", head.tokenizer_sha256, model.tokenizer_sha256),
    )
    for rule, field, found, wanted in pairs:
        if found != wanted:
            raise refusal(rule, f"{found}; the model has {wanted}", _name(adapter), field)


def _name(adapter: Adapter) -> str:
    return f"adapter {adapter.sha256[:12]}"
