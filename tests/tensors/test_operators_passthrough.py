"""Passthrough: layers of several models in a new stack."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from studbook.breeding.operators import Inputs, Passthrough, decode_operator
from studbook.breeding.operators.passthrough import LayerRange
from studbook.breeding.operators.run import compute, stream
from studbook.errors import OutsideAllowlist, ParentsDoNotFit, RecordRefused
from studbook.models.shape import SlmShape
from studbook.models.tokenizers import ByteTokenizer
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import narrow

PARTS = {"wq.weight": (4, 6), "norm.weight": (6,)}


def model(place: int, layers: int, *, width: int = 6, storage: str = "f32") -> ArraySource:
    rng = np.random.default_rng(place)
    dims = {"tok_embeddings.weight": (5, width)}
    dims |= {f"layers.{i}.{part}": (*shape[:-1], width) for i in range(layers) for part, shape in PARTS.items()}
    dims |= {"norm.weight": (width,), "output.weight": (5, width)}
    tensors = {name: narrow(rng.normal(size=shape).astype(np.float32), storage) for name, shape in dims.items()}
    return ArraySource(hashlib.sha256(b"stack %d" % place).hexdigest(), tensors)


def stack(*segments: tuple[int, int, int]) -> Passthrough:
    return Passthrough(segments=tuple(LayerRange(parent=k, first=a, last=b) for k, a, b in segments))


def inputs_of(*layers: int) -> Inputs:
    """A base and parents with so many layers each."""
    base, *parents = (model(place, count) for place, count in enumerate(layers))
    return Inputs(base=base, parents=tuple(parents))


def bred(operator: Passthrough, inputs: Inputs, storage: str = "f32", *, compiled: bool = True) -> MemorySink:
    operator.check(inputs)
    reference = operator.reference(inputs)
    sink = MemorySink({name: reference.dims(name) for name in reference.names}, storage)
    stream(operator, inputs, sink, chunk=7, threads=2, compiled=compiled)
    return sink


def test_the_child_has_the_listed_layers_and_both_ends():
    inputs = inputs_of(4, 4, 4)
    child = compute(stack((0, 0, 3), (1, 1, 4)), inputs)
    first, second = inputs.parents
    origins = [(first, 0), (first, 1), (first, 2), (second, 1), (second, 2), (second, 3)]
    for layer, (source, old) in enumerate(origins):
        for part in PARTS:
            assert child[f"layers.{layer}.{part}"].tobytes() == source.flat(f"layers.{old}.{part}").tobytes()
    assert child["tok_embeddings.weight"].tobytes() == first.flat("tok_embeddings.weight").tobytes()
    for name in ("norm.weight", "output.weight"):
        assert child[name].tobytes() == second.flat(name).tobytes()
    assert len(child) == 3 + 2 * 6


def test_the_bound_is_the_distance_to_the_base_restacked_alike():
    inputs, operator = inputs_of(4, 4, 4), stack((0, 0, 3), (1, 1, 4))
    child, reference = compute(operator, inputs), operator.reference(inputs)
    assert reference.flat("layers.3.wq.weight").tobytes() == inputs.base.flat("layers.1.wq.weight").tobytes()
    square = math.fsum(
        (float(a) - float(b)) ** 2
        for name in reference.names
        for a, b in zip(child[name].reshape(-1), reference.flat(name), strict=True)
    )
    assert math.sqrt(square) <= operator.delta_bound(inputs) <= math.sqrt(square) * (1 + 2.0**-28)


def test_layers_of_the_base_in_its_own_order_are_no_change():
    base = model(0, 4)
    inputs = Inputs(base=base, parents=(base,))
    assert stack((0, 0, 2), (0, 2, 4)).delta_bound(inputs) == 0.0
    assert {n: a.tobytes() for n, a in compute(stack((0, 0, 4)), inputs).items()} == {
        name: base.flat(name).tobytes() for name in base.names
    }
    assert stack((0, 0, 3), (0, 1, 4)).delta_bound(inputs) == 0.0


def test_parents_may_be_deeper_or_shallower_than_the_base():
    inputs, operator = inputs_of(2, 3, 5), stack((0, 0, 2), (1, 1, 5))
    sink = bred(operator, inputs)
    deep = inputs.parents[1]
    assert sink.tensors["layers.5.wq.weight"].tobytes() == deep.flat("layers.4.wq.weight").tobytes()
    reference = operator.reference(inputs)
    # The base has no layers 2 to 4: its last one stands there, so that nothing counts as unchanged.
    for layer, there in enumerate((0, 1, 1, 1, 1, 1)):
        name = f"layers.{layer}.wq.weight"
        assert reference.flat(name).tobytes() == inputs.base.flat(f"layers.{there}.wq.weight").tobytes()
    assert operator.delta_bound(inputs) > 0


@pytest.mark.parametrize("storage", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("compiled", [True, False])
def test_stored_elements_are_copied_bit_by_bit(storage, compiled):
    sources = [model(place, 3, storage=storage) for place in range(2)]
    sink = bred(stack((0, 2, 3), (0, 0, 1)), Inputs(sources[0], (sources[1],)), storage, compiled=compiled)
    expected = np.empty(24, sink.tensors["layers.0.wq.weight"].dtype)
    sources[1].fill("layers.2.wq.weight", 0, expected)
    assert sink.tensors["layers.0.wq.weight"].tobytes() == expected.tobytes()


def test_the_shape_of_the_child_has_its_number_of_layers():
    shape = SlmShape(
        vocab_size=260, hidden_size=8, layer_count=4, head_count=2, kv_head_count=1, head_dim=4, ffn_size=8, max_context=16,
        rope_theta=1e4, rms_norm_epsilon=1e-5, tied=True,
    )  # fmt: skip
    made, tokenizer = stack((0, 0, 3), (0, 1, 4)).remake(shape, ByteTokenizer())
    assert (made.layer_count, made.hidden_size, tokenizer.vocab_size) == (6, 8, 260)


@pytest.mark.parametrize(
    ("segments", "where"),
    [
        ([(0, 2, 2)], r"segments\[0\]"),
        ([(0, 0, 1), (0, 3, 1)], r"segments\[1\]"),
        ([(0, -1, 1)], r"segments\[0\]"),
        ([(0, 0, 5000)], r"segments\[0\]"),
        ([(0, 0, 4000), (0, 0, 4000)], "segments"),
        ([], "segments"),
    ],
)
def test_segments_without_layers_or_with_too_many_are_refused(segments, where):
    with pytest.raises(OutsideAllowlist, match=f"passthrough/1: {where}"):
        stack(*segments).validate(1)


@pytest.mark.parametrize("parent", [-1, 2])
def test_a_parent_there_is_not_is_refused(parent):
    with pytest.raises(ParentsDoNotFit, match=r"segments\[0\]: there is no parent"):
        stack((parent, 0, 1)).validate(2)


@pytest.mark.parametrize("fault", [{"parent": 0, "first": 0}, {"parent": 0, "first": 0, "last": 1.5}, {"x": 1}, 7])
def test_a_record_with_a_malformed_segment_is_refused(fault):
    with pytest.raises(RecordRefused, match="segments"):
        decode_operator({"operator": "passthrough/1", "segments": [fault]})
    with pytest.raises(RecordRefused, match="segments"):
        decode_operator({"operator": "passthrough/1", "segments": []})


def test_a_layer_that_is_not_there_is_refused_before_any_work():
    with pytest.raises(ParentsDoNotFit, match="layer 4 is asked for; the model has layers 0 to 3"):
        stack((0, 0, 2), (1, 3, 5)).check(inputs_of(4, 4, 4))


def test_models_of_another_architecture_are_refused():
    base = model(0, 4)
    wide = Inputs(base=base, parents=(model(1, 4), model(2, 4, width=8)))
    with pytest.raises(ParentsDoNotFit, match="parent 1"):
        stack((0, 0, 2), (1, 2, 4)).check(wide)
    extra = model(1, 2)
    tensors = {name: extra.flat(name).reshape(extra.dims(name)) for name in extra.names}
    # A layer beyond those that all have is compared with what stands for it in the base.
    tensors["layers.2.other.weight"] = np.zeros((2, 6), np.float32)
    odd = ArraySource(extra.sha256, tensors)
    with pytest.raises(ParentsDoNotFit, match=r"layers\.2"):
        stack((0, 0, 3)).check(Inputs(base=model(0, 2), parents=(odd,)))
