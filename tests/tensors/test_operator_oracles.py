"""Every operator against its definition written again, one element at a time, with other means."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.breeding.operators import (
    Blend,
    Crossover,
    Dare,
    Inputs,
    Mutation,
    Prune,
    Quantise,
    SignAwareMerge,
    TaskDelta,
)
from studbook.breeding.operators.crossover import unit_name
from studbook.breeding.operators.quantise import block_length
from studbook.breeding.operators.run import compute
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.tensors.sources import ArraySource

F = np.float32
SHAPES = {
    "tok_embeddings.weight": (5, 6),
    "layers.0.wq.weight": (4, 9),
    "layers.0.w1.weight": (3, 33),
    "norm.weight": (7,),
}
values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1e-45, 3e-39]).map(F) | st.floats(-4.0, 4.0, width=32)


def name_of(place: int) -> str:
    return hashlib.sha256(b"oracle %d" % place).hexdigest()


@st.composite
def families(draw, parents: int) -> Inputs:
    sources = []
    for place in range(parents + 1):
        tensors = {n: draw(hnp.arrays(np.float32, d, elements=values)) for n, d in SHAPES.items()}
        sources.append(ArraySource(name_of(place), tensors))
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def scalars(source: ArraySource, name: str) -> list[np.float32]:
    return list(source.flat(name))


def add(start: np.float32, change: np.float32) -> np.float32:
    return start if change == 0 else F(start + change)


def words(seed: int, parent: str, name: str, count: int) -> list[int]:
    """The stream on Python integers: key by hash, counter by element, ten rounds."""
    text = b"studbook/philox/1\x00" + seed.to_bytes(8, "little") + bytes.fromhex(parent) + name.encode()
    digest = hashlib.sha256(text).digest()
    out: list[int] = []
    for block in range(-(-count // 4)):
        key = [int.from_bytes(digest[0:4], "little"), int.from_bytes(digest[4:8], "little")]
        c = [block & 0xFFFFFFFF, block >> 32, 0, 0]
        for _ in range(10):
            hi0, lo0 = divmod(0xD2511F53 * c[0], 2**32)
            hi1, lo1 = divmod(0xCD9E8D57 * c[2], 2**32)
            c = [hi1 ^ c[1] ^ key[0], lo1, hi0 ^ c[3] ^ key[1], lo0]
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        out += c
    return out[:count]


def largest(deltas: list[np.float32], density: float) -> set[int]:
    k = math.floor(Fraction(str(density)) * len(deltas))
    return set(sorted(range(len(deltas)), key=lambda i: (-abs(float(deltas[i])), i))[:k])


def expect(operator, inputs: Inputs, oracle) -> None:
    """Compare a whole child with an oracle (name -> list of f32), bit by bit."""
    child = compute(operator, inputs)
    for name in inputs.names:
        expected = np.array(oracle(name), np.float32)
        assert child[name].reshape(-1).view(np.uint32).tolist() == expected.view(np.uint32).tolist(), name


slow = settings(deadline=None, max_examples=25)


@slow
@given(families(3), st.permutations([0.5, 0.3, 0.2]))
def test_blend_multiplies_and_adds_in_the_order_of_the_parents(inputs, weights):
    def oracle(name):
        a, b, c = (scalars(p, name) for p in inputs.parents)
        u, v, w = (F(x) for x in weights)
        return [F(F(F(u * x) + F(v * y)) + F(w * z)) for x, y, z in zip(a, b, c, strict=True)]

    expect(Blend(weights=tuple(weights)), inputs, oracle)


def test_a_blend_of_one_weight_is_that_parent_and_equal_halves_of_equal_parents_change_nothing():
    rng = np.random.default_rng(0)
    sources = [ArraySource(name_of(i), {"a": rng.normal(size=50).astype(F)}) for i in range(3)]
    inputs = Inputs(base=sources[0], parents=tuple(sources))
    for place in range(3):
        weights = tuple(float(i == place) for i in range(3))
        assert np.array_equal(compute(Blend(weights=weights), inputs)["a"], sources[place].flat("a"))
    twins = Inputs(base=sources[0], parents=(sources[1], sources[1]))
    assert np.array_equal(compute(Blend(weights=(0.5, 0.5)), twins)["a"], sources[1].flat("a"))


@pytest.mark.parametrize("weights", [(0.5, 0.6), (0.5, 0.499998), (0.0, 0.0)])
def test_blend_weights_that_do_not_sum_to_one_are_refused(weights):
    with pytest.raises(OutsideAllowlist, match=r"weights: the weights sum to"):
        Blend(weights=weights).validate()


def test_blend_weights_may_miss_one_by_rounding():
    Blend(weights=(1 / 3, 1 / 3, 1 / 3)).validate(3)
    Blend(weights=(0.333333, 0.333333, 0.333334)).validate(3)


def test_the_bound_of_a_blend_covers_what_its_weights_miss_one_by():
    base = ArraySource(name_of(0), {"a": np.ones(1000, F)})
    inputs, blend = Inputs(base=base, parents=(base, base)), Blend(weights=(0.5, 0.5 + 9.5e-7))
    moved = compute(blend, inputs)["a"].astype(np.float64) - 1.0
    assert 9e-7 * math.sqrt(1000) < math.sqrt(float((moved * moved).sum())) <= blend.delta_bound(inputs)


@slow
@given(families(2), st.tuples(st.floats(-4, 4), st.floats(-4, 4)))
def test_task_delta_adds_scaled_differences_to_the_base_last(inputs, scales):
    def oracle(name):
        base, a, b = (scalars(s, name) for s in (inputs.base, *inputs.parents))
        if name == "norm.weight":
            return base
        s, t = (F(x) for x in scales)
        return [add(z, F(F(s * F(x - z)) + F(t * F(y - z)))) for z, x, y in zip(base, a, b, strict=True)]

    expect(TaskDelta(scales=scales, skip=("norm*",)), inputs, oracle)


@slow
@given(families(3), st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.77, 1.0]), st.sampled_from([1.0, 0.3, -2.0]))
def test_sign_aware_merge_is_ties(inputs, density, scale):
    weights = (1.0, 0.25, 1.75)

    def oracle(name):
        base = scalars(inputs.base, name)
        deltas = [[F(x - z) for x, z in zip(scalars(p, name), base, strict=True)] for p in inputs.parents]
        kept = [largest(delta, density) for delta in deltas]
        out = []
        for i, z in enumerate(base):
            votes = [(F(w), d[i] if i in keep else F(0)) for w, d, keep in zip(weights, deltas, kept, strict=True)]
            vote = F(0)
            for weight, delta in votes:
                vote = F(vote + F(weight * delta))
            winners = [(w, d) for w, d in votes if vote != 0 and d != 0 and (d > 0) == (vote > 0)]
            top = bottom = F(0)
            for weight, delta in winners:
                top, bottom = F(top + F(weight * delta)), F(bottom + weight)
            merged = F(top / bottom) if winners else F(0)
            out.append(add(z, F(merged * F(scale))))
        return out

    expect(SignAwareMerge(density=density, weights=weights, scale=scale, skip=()), inputs, oracle)


def test_sign_aware_merge_on_the_textbook_case():
    # One element a column: agreement, conflict won by size, a tied vote, a change trimmed away, a change of one parent.
    base = ArraySource(name_of(0), {"a": np.array([1, 1, 1, 1, 1], F)})
    left = ArraySource(name_of(1), {"a": np.array([3, 5, 3, 1.5, 1], F)})
    right = ArraySource(name_of(2), {"a": np.array([5, -1, -1, 1, 4], F)})
    merge = SignAwareMerge(density=0.8, weights=(1.0, 1.0), scale=1.0, skip=())
    child = compute(merge, Inputs(base=base, parents=(left, right)))["a"]
    assert child.tolist() == [1 + (2 + 4) / 2, 1 + 4, 1, 1 + 0.5, 1 + 3]
    tight = SignAwareMerge(density=0.6, weights=(1.0, 1.0), scale=1.0, skip=())
    assert compute(tight, Inputs(base=base, parents=(left, right)))["a"].tolist() == [4, 5, 3, 1, 4]


@slow
@given(families(2), st.sampled_from([0.001, 0.1, 0.5, 0.9, 1.0]), st.integers(0, 2**53 - 1))
def test_dare_masks_by_the_keyed_stream_and_rescales(inputs, keep, seed):
    scales = (0.3, -1.5)

    def oracle(name):
        base = scalars(inputs.base, name)
        change = [F(0)] * len(base)
        for scale, parent in zip(scales, inputs.parents, strict=True):
            drawn = words(seed, parent.sha256, name, len(base))
            for i, x in enumerate(scalars(parent, name)):
                if drawn[i] < round(keep * 2**32):
                    change[i] = F(change[i] + F(F(scale / keep) * F(x - base[i])))
        return [add(z, c) for z, c in zip(base, change, strict=True)]

    expect(Dare(keep=keep, scales=scales, seed=seed, skip=()), inputs, oracle)


def test_changing_a_scale_never_changes_a_mask():
    rng = np.random.default_rng(0)
    base = ArraySource(name_of(0), {"a": np.zeros(4000, F)})
    parent = ArraySource(name_of(1), {"a": rng.normal(size=4000).astype(F)})
    moved = [
        compute(Dare(keep=0.4, scales=(scale,), seed=9, skip=()), Inputs(base=base, parents=(parent,)))["a"] != 0
        for scale in (0.1, 1.0, -3.0)
    ]
    assert np.array_equal(moved[0], moved[1])
    assert np.array_equal(moved[0], moved[2])
    assert 0.3 < moved[0].mean() < 0.5


@slow
@given(families(3), st.sampled_from(["tensor", "layer", "row", "block"]), st.integers(0, 2**53 - 1))
def test_crossover_copies_each_unit_from_the_parent_its_word_names(inputs, granularity, seed):
    def oracle(name):
        size, columns = inputs.size(name), SHAPES[name][-1]
        key = "layers.0" if granularity == "layer" and name.startswith("layers.0.") else name
        drawn = words(seed, inputs.base.sha256, key, size)
        unit = {"tensor": size, "layer": size, "row": columns, "block": 32}[granularity]
        return [scalars(inputs.parents[drawn[i // unit] * 3 // 2**32], name)[i] for i in range(size)]

    expect(Crossover(granularity=granularity, seed=seed), inputs, oracle)


def test_tensors_of_a_layer_cross_over_together():
    shapes = {f"layers.{layer}.{part}.weight": (3, 4) for layer in range(20) for part in ("wq", "w1", "ffn_norm")}
    tensors = [{n: np.full(d, i, F) for n, d in shapes.items()} for i in range(3)]
    sources = [ArraySource(name_of(i), t) for i, t in enumerate(tensors)]
    child = compute(Crossover(granularity="layer", seed=4), Inputs(base=sources[0], parents=tuple(sources)))
    layers = groupby(child, key=lambda name: name.split(".")[1])
    picks = [{float(v) for name in names for v in child[name].reshape(-1)} for _, names in layers]
    assert all(len(pick) == 1 for pick in picks)
    assert {0.0, 1.0, 2.0} == set.union(*picks)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("layers.3.wq.weight", "layers.3"),
        ("model.layers.12.mlp.0.weight", "model.layers.12"),
        ("tok_embeddings.weight", "tok_embeddings.weight"),
        ("layers.x1.weight", "layers.x1.weight"),
    ],
)
def test_the_layer_of_a_tensor_is_read_from_its_name(name, unit):
    assert unit_name(name) == unit


@slow
@given(families(1), st.floats(0.0, 1.0), st.integers(0, 2**53 - 1))
def test_mutation_scales_keyed_noise_by_the_root_mean_square(inputs, strength, seed):
    def oracle(name):
        start = scalars(inputs.parents[0], name)
        if name == "norm.weight":
            return start
        lanes = [0.0] * 16
        for i, x in enumerate(start):
            lanes[i % 16] += float(x) * float(x)
        for width in (8, 4, 2, 1):
            lanes = [lanes[j] + lanes[j + width] for j in range(width)]
        amplitude = F(strength * math.sqrt(lanes[0] / len(start)))
        drawn = words(seed, inputs.parents[0].sha256, name, len(start))
        return [add(x, F(F((w // 256 - 2**23) / 2**23) * amplitude)) for x, w in zip(start, drawn, strict=True)]

    expect(Mutation(strength=strength, seed=seed, skip=("norm*",)), inputs, oracle)


@slow
@given(families(1), st.sampled_from(["global", "tensor", "row"]), st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.9, 1.0]))
def test_prune_zeroes_exactly_the_smallest(inputs, scope, fraction):
    parent, skip = inputs.parents[0], "tok_embeddings.weight"

    def unit(name: str, i: int) -> tuple[str, int]:
        return {"global": ("", 0), "tensor": (name, 0), "row": (name, i // SHAPES[name][-1])}[scope]

    places = [(n, i) for n in inputs.names if n != skip for i in range(inputs.size(n))]
    zeroed = set()
    for group in {unit(*place) for place in places}:
        members = [place for place in places if unit(*place) == group]
        gone = math.floor(Fraction(str(fraction)) * len(members))
        # Smallest first; of equal magnitudes the later one goes first.
        ranked = sorted(range(len(members)), key=lambda r: (abs(float(parent.flat(members[r][0])[members[r][1]])), -r))
        zeroed |= {members[r] for r in ranked[:gone]}

    def oracle(name):
        return [F(0) if (name, i) in zeroed else x for i, x in enumerate(scalars(parent, name))]

    expect(Prune(fraction=fraction, scope=scope, skip=(skip,)), inputs, oracle)


def stored(row: np.ndarray, top: int) -> np.ndarray:
    """One row or block as a reader of the quantised file sees it: the storage rule on Python numbers."""
    scale = F(float(np.abs(row).max()) / top)
    if scale == 0:
        scale = F(1)
    while not np.isfinite(F(float(scale) * top)):
        scale = np.nextafter(scale, F(0))
    codes = [min(max(round(Fraction(float(x)) / Fraction(float(scale))), -top), top) for x in row]
    return np.array([F(code * float(scale)) for code in codes])


wide = values | st.sampled_from([3.4e38, -3.39e38, 1e-44, -7e-45, 1.2e-38, 1e30]).map(F)
subnormal = st.integers(-40, 40).map(lambda units: F(units * 2.0**-149))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(("dtype", "top"), [("q8_0", 127), ("q4_0", 7)])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_read_back_from_a_quantised_file_stays_below_the_bound(dtype, top, data):
    shapes = {"a": (3, 12), "b": (2, 96), "c": (34,)}
    elements = data.draw(st.sampled_from([wide, subnormal]))
    tensors = {n: data.draw(hnp.arrays(np.float32, d, elements=elements)) for n, d in shapes.items()}
    source = ArraySource(name_of(0), tensors)
    operator, inputs = Quantise(dtype=dtype), Inputs(base=source, parents=(source,))
    blocks = {"a": 12, "b": 96 if dtype == "q8_0" else 32, "c": 34}
    error = 0.0
    for name, dims in shapes.items():
        length = dims[-1] if dtype == "q8_0" else block_length(dims[-1])
        assert dtype == "q8_0" or length == {"a": 12, "b": 32, "c": 2}[name]
        assert dtype == "q4_0" or length == blocks[name]
        for row in source.flat(name).reshape(-1, length):
            error += math.fsum((float(x) - float(y)) ** 2 for x, y in zip(row, stored(row, top), strict=True))
    assert math.sqrt(error) <= operator.delta_bound(inputs)
    assert operator.storage == dtype
    for name, array in compute(operator, inputs).items():
        assert array.tobytes() == tensors[name].tobytes()


@pytest.mark.parametrize(
    ("columns", "length"),
    [(64, 32), (192, 32), (96, 32), (30, 30), (34, 2), (12, 12), (62, 2), (44, 22), (7, 0), (1, 0)],
)
def test_a_block_is_the_largest_even_divisor_up_to_32(columns, length):
    assert block_length(columns) == length


def test_an_odd_row_cannot_be_q4_0_and_is_refused_before_any_work():
    source = ArraySource(name_of(0), {"a": np.ones((2, 4), F), "b": np.ones((2, 7), F)})
    inputs = Inputs(base=source, parents=(source,))
    compute(Quantise(dtype="q8_0"), inputs)
    for act in (compute, Quantise.delta_bound):
        with pytest.raises(ParentsDoNotFit, match="b: a row of 7 elements cannot be q4_0"):
            act(Quantise(dtype="q4_0"), inputs)
