from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import SlmRefused
from studbook.models.checksum import fnv1a64
from studbook.models.reference import Meter, forward64
from studbook.models.rules import SlmRule
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm

Make = Callable[..., SlmShape]

BROKEN = [
    ("vocab_size", 259, SlmRule.VOCAB),
    ("vocab_size", 2**32, SlmRule.VOCAB),
    ("special_token_count", 5, SlmRule.SPECIAL_TOKENS),
    ("special_token_count", 3, SlmRule.SPECIAL_TOKENS),
    ("hidden_size", 0, SlmRule.HIDDEN),
    ("hidden_size", -16, SlmRule.HIDDEN),
    ("layer_count", 0, SlmRule.LAYERS),
    ("head_count", 0, SlmRule.HEADS),
    ("kv_head_count", 0, SlmRule.KV_HEADS),
    ("kv_head_count", 5, SlmRule.KV_HEADS_MANY),
    ("kv_head_count", 3, SlmRule.KV_HEADS_DIVIDE),
    ("head_dim", 0, SlmRule.HEAD_DIM),
    ("head_dim", 5, SlmRule.HEAD_DIM_ODD),
    ("head_dim", 6, SlmRule.HEAD_PRODUCT),
    ("ffn_size", 0, SlmRule.FFN),
    ("max_context", 0, SlmRule.CONTEXT),
    ("rope_theta", 0.0, SlmRule.ROPE_THETA),
    ("rope_theta", float("nan"), SlmRule.ROPE_THETA),
    ("rope_theta", 1e300, SlmRule.ROPE_THETA),
    ("rms_norm_epsilon", -1e-5, SlmRule.EPSILON),
    ("rms_norm_epsilon", float("inf"), SlmRule.EPSILON),
    ("rms_norm_epsilon", 1e-60, SlmRule.EPSILON),
]


@pytest.mark.parametrize(("field", "value", "rule"), BROKEN)
def test_a_shape_that_breaks_a_rule_cannot_be_built(make_shape: Make, field: str, value: Any, rule: SlmRule) -> None:
    with pytest.raises(SlmRefused) as refused:
        make_shape(**{field: value}, where="model.slm")
    assert refused.value.reason == rule
    assert refused.value.where == f"model.slm: field {field}"


def test_published_shape_has_its_published_numbers() -> None:
    shape = SlmShape(260, 512, 4, 8, 8, 64, 2048, 512, 10000.0, 1e-5, False)
    assert shape.parameter_count == 17_048_064
    assert shape.tensor_count == len(shape.tensors()) == 39
    assert shape.decoded_bytes == 68_192_256
    assert shape.kv_bytes(512) == 4 * 2 * 4 * 512 * 512


@settings(deadline=None)
@given(
    layers=st.integers(1, 4), shared=st.sampled_from([1, 2, 4]), ffn=st.integers(1, 40), tied=st.booleans(),
    vocab=st.integers(260, 300),
)  # fmt: skip
def test_counts_agree_with_the_list_of_tensors(layers: int, shared: int, ffn: int, tied: bool, vocab: int) -> None:
    shape = SlmShape(vocab, 16, layers, 4, shared, 4, ffn, 8, 1e4, 1e-5, tied)
    assert shape.tensor_count == len(shape.tensors())
    assert shape.parameter_count == sum(spec.elements for spec in shape.tensors())
    assert shape.decoded_bytes == 4 * shape.parameter_count


def test_tensors_stand_in_canonical_order(make_shape: Make) -> None:
    names = [spec.name for spec in make_shape(layer_count=1, tied=False).tensors()]
    parts = ["attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w3", "w2"]
    layer = [f"layers.0.{part}.weight" for part in parts]
    assert names == ["tok_embeddings.weight", *layer, "norm.weight", "output.weight"]


def test_key_and_value_matrices_are_as_wide_as_their_heads(make_shape: Make) -> None:
    dims = {spec.name: spec.dims for spec in make_shape().tensors()}
    assert dims["layers.1.wk.weight"] == dims["layers.1.wv.weight"] == (8, 16)
    assert dims["layers.1.w2.weight"] == (16, 24)


def test_reals_are_those_of_the_file(make_shape: Make) -> None:
    assert make_shape(rms_norm_epsilon=1e-5).rms_norm_epsilon == struct.unpack("<f", struct.pack("<f", 1e-5))[0]


def test_layout_identity_is_names_and_dims_and_nothing_else(make_shape: Make) -> None:
    shape = make_shape()
    raw = b""
    for spec in shape.tensors():
        padded = [*spec.dims, 0, 0, 0][:4]
        raw += fnv1a64(spec.name).to_bytes(8, "little") + len(spec.dims).to_bytes(4, "little")
        raw += b"".join(dim.to_bytes(4, "little") for dim in padded)
    assert shape.layout_sha256() == hashlib.sha256(raw).hexdigest()
    assert replace(shape, max_context=64, rope_theta=500.0).layout_sha256() == shape.layout_sha256()
    assert replace(shape, ffn_size=25).layout_sha256() != shape.layout_sha256()
    assert replace(shape, tied=False).layout_sha256() != shape.layout_sha256()


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"kv_head_count": 4}, {"kv_head_count": 1, "layer_count": 3}])
def test_closed_form_of_the_cost_equals_a_counted_run(
    make_shape: Make, make_model: Callable[..., Slm], changes: dict[str, Any]
) -> None:
    shape = make_shape(**changes)
    for tokens in (1, 2, 7):
        meter = Meter()
        forward64(make_model(shape), list(range(tokens)), meter)
        assert meter.total == shape.multiply_adds(tokens, tokens)


def test_a_hostile_layer_count_costs_nothing_to_refuse(make_shape: Make) -> None:
    assert make_shape(layer_count=2**32 - 1).tensor_count == 9 * (2**32 - 1) + 2


@pytest.mark.parametrize("context", [1, 2, 64, 2**32 - 1])
def test_a_logit_digest_covers_the_context_or_some_seconds_of_work(make_shape: Make, context: int) -> None:
    shape = make_shape(max_context=context)
    positions = shape.smoke_positions
    if context <= 64:
        assert positions == max(1, context - 1)
    else:  # attention grows with the square of what is seen
        assert shape.multiply_adds(positions, positions) <= 4_000_000_000
        assert shape.multiply_adds(positions + 1, positions + 1) > 4_000_000_000
