"""Views: some tensors of a model, and stacks of layers out of several."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import ParentsDoNotFit
from studbook.tensors.sources import ArraySource
from studbook.tensors.views import Place, Restacked, Subset, comes_before, layer_count, layer_of, place_of

SLM = ("tok_embeddings.weight", "layers.{}.wq.weight", "layers.{}.w1.weight", "norm.weight", "output.weight")
LLAMA = (
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.layers.{}.mlp.w",
    "model.layers.{}.q",
    "model.norm.weight",
)


def model(place: int, layers: int, names: tuple[str, ...] = SLM, dtype=np.float32) -> ArraySource:
    """Every element says its model, layer and tensor; a checkpoint's names are in byte order."""
    tensors = {}
    for at, name in enumerate(names):
        for layer in range(layers) if "{}" in name and name.format(0) not in tensors else ():
            for kind, inner in enumerate(n for n in names if "{}" in n):
                tensors[inner.format(layer)] = np.full((2, 3), 1000 * place + 10 * layer + kind, dtype)
        if "{}" not in name:
            tensors[name] = np.full(4, 1000 * place + 500 + at, dtype)
    if names is LLAMA:
        tensors = dict(sorted(tensors.items()))
    return ArraySource(hashlib.sha256(b"view %d" % place).hexdigest(), tensors)


def first_values(source) -> dict[str, float]:
    return {name: float(source.flat(name)[0]) for name in source.names}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layers.3.wq.weight", Place("layers.", 3, ".wq.weight")),
        ("model.layers.12.mlp.experts.5.w1", Place("model.layers.", 12, ".mlp.experts.5.w1")),
        ("h.0", Place("h.", 0, "")),
        ("7.weight", Place("", 7, ".weight")),
        ("norm.weight", None),
        ("layers.01.weight", None),
        ("layers.1a.weight", None),
        ("layers.\u0663.weight", None),
        ("layers." + "9" * 5000, None),
        ("", None),
    ],
)
def test_a_layer_is_the_first_plain_number_of_a_name(name, place):
    assert place_of(name) == place
    assert layer_of(name) == (place.layer if place else None)
    if place:
        assert f"{place.head}{place.layer}{place.tail}" == name


def test_layers_are_counted_by_the_highest_number():
    assert layer_count(["a", "layers.2.x", "layers.0.x"]) == 3
    assert layer_count(["a"]) == 0


@pytest.mark.parametrize(
    "name",
    [
        "tok_embeddings.weight",
        "model.embed_tokens.weight",
        "transformer.wte.weight",
        "wpe.weight",
        "gpt_neox.embed_in.weight",
    ],
)
def test_embeddings_come_before_the_layers(name):
    assert comes_before(name)


@pytest.mark.parametrize(
    "name",
    ["model.norm.weight", "lm_head.weight", "embed_out.weight", "transformer.ln_f.bias", "output.weight", "swte.x"],
)
def test_norms_and_output_projections_come_after_the_layers(name):
    assert not comes_before(name)


@pytest.mark.parametrize("names", [SLM, LLAMA])
def test_one_segment_of_all_layers_is_the_model_itself(names):
    source = model(1, 12, names)
    view = Restacked([(source, 0, 12)])
    assert view.names == source.names
    assert all(view.dims(name) == source.dims(name) for name in source.names)
    assert first_values(view) == first_values(source)
    assert view.sha256 != source.sha256


def test_layers_are_numbered_anew_and_the_rest_comes_from_both_ends():
    view = Restacked([(model(1, 4), 0, 2), (model(2, 4), 3, 4), (model(3, 2), 1, 2)])
    assert view.names == (
        "tok_embeddings.weight",
        *(f"layers.{i}.{part}.weight" for i in range(4) for part in ("wq", "w1")),
        "norm.weight",
        "output.weight",
    )
    found = first_values(view)
    assert [found[f"layers.{i}.wq.weight"] for i in range(4)] == [1000, 1010, 2030, 3010]
    assert [found[f"layers.{i}.w1.weight"] for i in range(4)] == [1001, 1011, 2031, 3011]
    assert (found["tok_embeddings.weight"], found["norm.weight"], found["output.weight"]) == (1500, 3503, 3504)


def test_names_in_byte_order_stay_in_byte_order():
    view = Restacked([(model(1, 8, LLAMA), 0, 8), (model(2, 8, LLAMA), 4, 8)])
    assert view.names == tuple(sorted(view.names))
    assert "model.layers.11.q" in view.names
    assert float(view.flat("model.layers.11.q")[0]) == 2071
    assert float(view.flat("lm_head.weight")[0]) == 2500
    assert float(view.flat("model.embed_tokens.weight")[0]) == 1501


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int16])
def test_elements_pass_as_they_are_stored(dtype):
    view = Restacked([(model(1, 2, dtype=dtype), 1, 2)])
    out = np.zeros(2, dtype)
    view.fill("layers.0.w1.weight", 3, out)
    assert view.storage("layers.0.w1.weight") == {"f": "f32", "u": "bf16", "i": "f16"}[np.dtype(dtype).kind]
    assert out.tolist() == [1011, 1011]


def test_the_digest_of_a_stack_is_that_of_its_segments():
    first, second = model(1, 4), model(2, 4)
    view = Restacked([(first, 0, 2), (second, 1, 3)])
    listed = [{"first": 0, "last": 2, "sha256": first.sha256}, {"first": 1, "last": 3, "sha256": second.sha256}]
    text = json.dumps(listed, separators=(",", ":"), sort_keys=True).encode()
    assert view.sha256 == hashlib.sha256(b"studbook/restacked/1\0" + text).hexdigest()
    assert view.sha256 != Restacked([(first, 0, 2), (second, 1, 4)]).sha256
    assert view.sha256 != Restacked([(second, 1, 3), (first, 0, 2)]).sha256


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=5))
def test_any_list_of_segments_gives_their_layers_in_order(parts):
    sources = [model(place, 6) for place in range(3)]
    view = Restacked([(sources[k], first, first + count) for k, first, count in parts])
    wanted = [1000 * k + 10 * layer for k, first, count in parts for layer in range(first, first + count)]
    assert [float(view.flat(f"layers.{i}.wq.weight")[0]) for i in range(len(wanted))] == wanted
    assert layer_count(view.names) == len(wanted)


@pytest.mark.parametrize(("first", "last"), [(0, 5), (4, 5), (2, 2), (3, 1), (-1, 2)])
def test_layers_that_are_not_there_are_refused_by_segment(first, last):
    with pytest.raises(ParentsDoNotFit, match="segment 1") as caught:
        Restacked([(model(1, 4), 0, 1), (model(2, 4), first, last)])
    assert caught.value.reason == "parents.layers"


def test_models_without_one_stack_of_layers_are_refused():
    def of(*names: str) -> ArraySource:
        return ArraySource("0" * 64, {name: np.zeros(1, np.float32) for name in names})

    for sources in (
        [of("embed", "norm")],
        [of("encoder.0.a", "decoder.0.a")],
        [of("layers.0.a"), of("blocks.0.a")],
    ):
        with pytest.raises(ParentsDoNotFit, match="one numbered list"):
            Restacked([(source, 0, 1) for source in sources])
    with pytest.raises(ParentsDoNotFit):
        Restacked([])


def test_a_subset_is_still_the_model_with_fewer_tensors():
    source = model(1, 3)
    part = Subset(source, ["norm.weight", "layers.2.wq.weight", "not there"])
    assert part.names == ("layers.2.wq.weight", "norm.weight")
    assert part.sha256 == source.sha256
    assert part.dims("norm.weight") == (4,)
    assert part.read("layers.2.wq.weight", 1, 4).tolist() == [1020.0] * 3
