"""Operators that pool many models or stretches of them, against their definitions written again with other means."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.breeding.operators import (
    Blend,
    CrossoverSplit,
    Dequantise,
    FederatedUpdate,
    Inputs,
    Soup,
    TaskDelta,
    decode_operator,
)
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import as_inputs
from studbook.errors import OutsideAllowlist, ParentsDoNotFit, RecordRefused
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.tensors.sources import ArraySource

F = np.float32
SHAPES = {"tok_embeddings.weight": (5, 6), "layers.0.wq.weight": (3, 33), "norm.weight": (7,)}
TOTAL = 30 + 99 + 7
values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1e-45, 3e-39]).map(F) | st.floats(-4.0, 4.0, width=32)
slow = settings(deadline=None, max_examples=25)
NO_LIMIT = 1e60


def name_of(place: int) -> str:
    return hashlib.sha256(b"oracle %d" % place).hexdigest()


@st.composite
def families(draw, parents: int) -> Inputs:
    sources = []
    for place in range(parents + 1):
        tensors = {n: draw(hnp.arrays(np.float32, d, elements=values)) for n, d in SHAPES.items()}
        sources.append(ArraySource(name_of(place), tensors))
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def single(base, *parents) -> Inputs:
    """Models of one tensor, ``a``."""
    arrays = [np.array(values, np.float32) for values in (base, *parents)]
    sources = [ArraySource(name_of(place), {"a": array}) for place, array in enumerate(arrays)]
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def apart(parents: int, seed: int = 0) -> Inputs:
    """Unrelated models of several tensors."""
    rng = np.random.default_rng(seed)
    sources = [
        ArraySource(name_of(k), {n: rng.normal(size=d).astype(F) for n, d in SHAPES.items()})
        for k in range(parents + 1)
    ]
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def flat(model) -> np.ndarray:
    """All tensors of a source or a child, one after another."""
    if isinstance(model, ArraySource):
        return np.concatenate([model.flat(name) for name in model.names])
    return np.concatenate([array.reshape(-1) for array in model.values()])


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.reshape(-1).view(np.uint32).tolist() == right.reshape(-1).view(np.uint32).tolist()


# -- soup ------------------------------------------------------------------------------------------------------------


def words(seed: int, digest: bytes, name: str, count: int) -> list[int]:
    """The keyed stream on Python integers: key by hash, counter by element, ten rounds."""
    text = b"studbook/philox/1\x00" + seed.to_bytes(8, "little") + digest + name.encode()
    hashed = hashlib.sha256(text).digest()
    out: list[int] = []
    for block in range(-(-count // 4)):
        key = [int.from_bytes(hashed[0:4], "little"), int.from_bytes(hashed[4:8], "little")]
        c = [block, 0, 0, 0]
        for _ in range(10):
            hi0, lo0 = divmod(0xD2511F53 * c[0], 2**32)
            hi1, lo1 = divmod(0xCD9E8D57 * c[2], 2**32)
            c = [hi1 ^ c[1] ^ key[0], lo1, hi0 ^ c[3] ^ key[1], lo0]
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        out += c
    return out[:count]


def drawn(seed: int, concentration: int, inputs: Inputs) -> list[Fraction]:
    """Weights as sums of spacings, one spacing after another."""
    digest = hashlib.sha256(b"studbook/soup/1\x00" + b"".join(bytes.fromhex(p.sha256) for p in inputs.parents)).digest()
    count = len(inputs.parents) * concentration
    points = [0, *sorted(words(seed, digest, "weights", count - 1)), 2**32]
    spacings = [Fraction(b - a, 2**32) for a, b in pairwise(points)]
    return [sum(spacings[k : k + concentration], Fraction(0)) for k in range(0, count, concentration)]


@pytest.mark.parametrize("parents", [2, 3, 16])
@pytest.mark.parametrize("concentration", [1, 2, 7, 64])
@pytest.mark.parametrize("seed", [0, 5, 2**53 - 1])
def test_soup_weights_are_sums_of_spacings_and_sum_to_exactly_one(parents, concentration, seed):
    inputs = single(*([k] for k in range(parents + 1)))
    weights = Soup(seed=seed, concentration=concentration).weights(inputs)
    assert [Fraction(w) for w in weights] == drawn(seed, concentration, inputs)
    assert sum(map(Fraction, weights)) == 1


@slow
@given(families(3), st.integers(0, 100), st.integers(1, 9))
def test_a_soup_is_the_blend_of_its_weights(inputs, seed, concentration):
    operator = Soup(seed=seed, concentration=concentration)
    blend = Blend(weights=operator.weights(inputs))
    assert same_bits(flat(compute(operator, inputs)), flat(compute(blend, inputs)))


def test_soup_weights_follow_the_seed_and_the_parents_and_nothing_else():
    inputs = apart(3)
    operator = Soup(seed=7, concentration=2)
    weights = operator.weights(inputs)
    other_base = Inputs(base=inputs.parents[0], parents=inputs.parents)
    assert operator.weights(other_base) == weights
    assert operator.weights(Inputs(base=inputs.base, parents=inputs.parents[::-1])) not in (weights, weights[::-1])
    assert Soup(seed=8, concentration=2).weights(inputs) != weights
    assert operator.weights(Inputs(base=inputs.base, parents=(*inputs.parents[:2], inputs.base))) != weights


@pytest.mark.parametrize(("parents", "concentration"), [(2, 1), (4, 1), (3, 5), (5, 2)])
def test_soup_weights_have_the_moments_of_their_law(parents, concentration):
    inputs = single(*([k] for k in range(parents + 1)))
    draws = 1500
    weights = np.array([Soup(seed=s, concentration=concentration).weights(inputs) for s in range(draws)])
    whole = parents * concentration
    variance = (parents - 1) / (parents**2 * (whole + 1))
    covariance = -1 / (parents**2 * (whole + 1))
    found = np.cov(weights.T)
    assert np.abs(weights.mean(axis=0) - 1 / parents).max() < 5 * math.sqrt(variance / draws)
    # The error of a variance from n draws is about sqrt(2 / n) of it, more for a skewed law.
    assert np.abs(np.diag(found) / variance - 1).max() < 0.25
    assert np.abs(found[~np.eye(parents, dtype=bool)] / covariance - 1).max() < 0.4


def test_a_soup_of_two_parents_at_concentration_one_is_uniform():
    inputs = single([0], [1], [2])
    first = np.sort([Soup(seed=s, concentration=1).weights(inputs)[0] for s in range(1500)])
    steps = np.arange(1, first.size + 1) / first.size
    # Kolmogorov's distance; 1.95 / sqrt(n) is passed by chance once in a thousand.
    assert np.abs(first - steps).max() < 1.95 / math.sqrt(first.size)


@pytest.mark.parametrize(("field", "value"), [("concentration", 0), ("concentration", 65), ("seed", -1)])
def test_a_soup_out_of_range_is_refused_by_field(field, value):
    record = {"operator": "soup/1", "seed": 1, "concentration": 1, field: value}
    with pytest.raises(OutsideAllowlist, match=field):
        decode_operator(record)
    with pytest.raises(RecordRefused, match="concentration"):
        decode_operator({"operator": "soup/1", "seed": 1, "concentration": 1.5})


# -- federated update ------------------------------------------------------------------------------------------------


def exact_norm(inputs: Inputs, client: int, skip: tuple[str, ...] = ()) -> Fraction:
    """||d_k|| to 2^-80 of itself, by an integer root of the exact sum of squares."""
    total = Fraction(0)
    for name in (n for n in inputs.names if n not in skip):
        pairs = zip(inputs.parents[client].flat(name).tolist(), inputs.base.flat(name).tolist(), strict=True)
        total += sum(((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs), Fraction(0))
    return Fraction(math.isqrt(total.numerator * total.denominator << 600), total.denominator << 300)


@slow
@given(
    families(3),
    st.lists(st.floats(0.1, 1e6), min_size=3, max_size=3),
    st.floats(0.1, 50.0),
    st.sampled_from([NO_LIMIT, 30.0]),
    st.floats(-4.0, 4.0),
)
def test_a_federated_update_is_the_weighted_mean_of_clipped_changes(inputs, weights, clip, limit, scale):
    operator = FederatedUpdate(weights=tuple(weights), clip=clip, limit=limit, scale=scale, skip=())
    norms = [exact_norm(inputs, k) for k in range(3)]
    inside = [k for k in range(3) if norms[k] <= limit]
    if not inside:
        with pytest.raises(ParentsDoNotFit):
            compute(operator, inputs)
        return
    factors = operator.factors(inputs)
    whole = sum(Fraction(weights[k]) for k in inside)
    for k, (norm, weight) in enumerate(zip(norms, weights, strict=True)):
        shrink = Fraction(1) if norm <= clip else Fraction(clip) / norm
        wanted = Fraction(scale) * Fraction(weight) / whole * shrink if k in inside else Fraction(0)
        # An f32 unit and a few of f64; the smallest factors are subnormal.
        error = (Fraction(2) ** -24 + Fraction(1, 10**13)) * abs(wanted) + Fraction(2) ** -149
        assert abs(Fraction(factors[k]) - wanted) <= error
    child = compute(operator, inputs)
    for name in inputs.names:
        rows = []
        for base, *elements in zip(inputs.base.flat(name), *(p.flat(name) for p in inputs.parents), strict=True):
            change = F(0)
            for factor, element in zip(factors, elements, strict=True):
                change = F(change + F(F(element - base) * F(factor)))
            rows.append(base if change == 0 else F(base + change))
        assert same_bits(child[name], np.array(rows, F))


def test_one_round_of_plain_averaging_counts_samples():
    inputs = single([0.0, 0.0], [1.0, 0.0], [0.0, 4.0])
    operator = FederatedUpdate(weights=(300.0, 100.0), clip=NO_LIMIT, limit=NO_LIMIT, scale=1.0, skip=())
    assert compute(operator, inputs)["a"].tolist() == [0.75, 1.0]


def test_a_long_change_is_scaled_down_to_the_clip_and_a_short_one_stays():
    inputs = single([0.0, 0.0], [30.0, 40.0], [3.0, 4.0])
    operator = FederatedUpdate(weights=(1.0, 1.0), clip=10.0, limit=NO_LIMIT, scale=2.0, skip=())
    assert np.abs(compute(operator, inputs)["a"] - [9.0, 12.0]).max() < 1e-5
    assert operator.excluded(inputs) == ()
    assert operator.factors(inputs) == (float(F(0.2)), 1.0)


@pytest.mark.parametrize("clip", [0.01, 0.5, 3.0])
def test_the_change_is_never_longer_than_scale_times_clip(clip):
    inputs = apart(5)
    operator = FederatedUpdate(weights=(1.0, 2.0, 3.0, 4.0, 5.0), clip=clip, limit=NO_LIMIT, scale=1.5, skip=())
    moved = np.linalg.norm(flat(compute(operator, inputs)).astype(np.float64) - flat(inputs.base))
    assert 0 < moved <= operator.delta_bound(inputs)
    assert operator.delta_bound(inputs) <= 1.5 * clip + 1e-4


def test_clients_above_the_limit_are_left_out_and_named_and_the_others_share_their_weight():
    inputs = single([0.0, 0.0], [1.0, 0.0], [300.0, 400.0], [0.0, 3.0])
    operator = FederatedUpdate(weights=(1.0, 98.0, 3.0), clip=NO_LIMIT, limit=10.0, scale=1.0, skip=())
    ((client, reason),) = operator.excluded(inputs)
    assert client == 1
    assert "500" in reason
    assert "10" in reason
    assert operator.factors(inputs) == (0.25, 0.0, 0.75)
    without = Inputs(base=inputs.base, parents=(inputs.parents[0], inputs.parents[2]))
    fewer = FederatedUpdate(weights=(1.0, 3.0), clip=NO_LIMIT, limit=10.0, scale=1.0, skip=())
    assert same_bits(compute(operator, inputs)["a"], compute(fewer, without)["a"])


def test_a_change_exactly_at_the_limit_is_inside():
    inputs = single([0.0, 0.0], [3.0, 4.0])
    operator = FederatedUpdate(weights=(1.0,), clip=NO_LIMIT, limit=5.0, scale=1.0, skip=())
    assert compute(operator, inputs)["a"].tolist() == [3.0, 4.0]
    assert operator.excluded(inputs) == ()
    nearer = FederatedUpdate(weights=(1.0,), clip=NO_LIMIT, limit=math.nextafter(5.0, 0), scale=1.0, skip=())
    with pytest.raises(ParentsDoNotFit) as caught:
        compute(nearer, inputs)
    assert caught.value.reason == "parents.all-excluded"
    with pytest.raises(ParentsDoNotFit):
        nearer.delta_bound(inputs)
    assert [client for client, _ in nearer.excluded(inputs)] == [0]


def test_a_client_that_is_left_out_cannot_spoil_the_child_by_overflow():
    inputs = single([-3e38, 1.0], [3e38, 1.0], [-3e38, 2.0])
    operator = FederatedUpdate(weights=(1.0, 1.0), clip=NO_LIMIT, limit=10.0, scale=1.0, skip=())
    assert same_bits(compute(operator, inputs)["a"], np.array([-3e38, 2.0], F))


def test_skipped_tensors_stay_the_bases_and_do_not_count_in_the_norms():
    inputs = apart(2)
    skipped = "tok_embeddings.weight"
    limit = 1.001 * max(float(exact_norm(inputs, k, skip=(skipped,))) for k in range(2))
    fields = {"weights": (1.0, 1.0), "clip": NO_LIMIT, "limit": limit, "scale": 1.0}
    operator = FederatedUpdate(**fields, skip=("tok*",))
    assert operator.excluded(inputs) == ()
    assert same_bits(compute(operator, inputs)[skipped], inputs.base.flat(skipped))
    above = [k for k in range(2) if exact_norm(inputs, k) > limit]
    assert above
    assert [client for client, _ in FederatedUpdate(**fields, skip=()).excluded(inputs)] == above


def test_an_unclipped_update_is_a_task_delta_of_the_shares():
    inputs = apart(4, seed=2)
    update = FederatedUpdate(weights=(1.0, 1.0, 2.0, 4.0), clip=NO_LIMIT, limit=NO_LIMIT, scale=0.5, skip=())
    delta = TaskDelta(scales=(0.0625, 0.0625, 0.125, 0.25), skip=())
    assert same_bits(flat(compute(update, inputs)), flat(compute(delta, inputs)))


@pytest.mark.parametrize("field", ["weights", "clip", "limit"])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_federated_update_without_positive_numbers_is_refused_by_field(field, bad):
    fields = {"weights": (1.0, 1.0), "clip": 1.0, "limit": 1.0, "scale": 1.0, "skip": ()}
    fields[field] = (1.0, bad) if field == "weights" else bad
    with pytest.raises(OutsideAllowlist, match=field):
        FederatedUpdate(**fields).validate()


# -- crossover split -------------------------------------------------------------------------------------------------

hundredths = st.integers(0, 100).map(lambda n: n / 100)


@slow
@given(families(4), st.lists(hundredths, min_size=3, max_size=3).map(sorted))
def test_every_stretch_between_two_points_comes_from_its_parent(inputs, points):
    child = flat(compute(CrossoverSplit(points=tuple(points)), inputs))
    ends = [math.floor(Fraction(str(point)) * TOTAL) for point in points]
    wanted = [flat(inputs.parents[sum(i >= end for end in ends)])[i] for i in range(TOTAL)]
    assert same_bits(child, np.array(wanted, F))


def test_a_point_counts_as_the_decimal_that_is_written():
    # 0.29 in f64 lies below 0.29: floor(0.29 * 100) must be 29 all the same.
    inputs = single(np.zeros(100), np.zeros(100), np.ones(100))
    child = compute(CrossoverSplit(points=(0.29,)), inputs)["a"]
    assert np.flatnonzero(child)[0] == 29


def test_points_at_the_ends_and_equal_points_leave_parents_out():
    inputs = apart(3)
    for points, parent in (((0.0, 0.0), 2), ((1.0, 1.0), 0), ((0.0, 1.0), 1)):
        assert same_bits(flat(compute(CrossoverSplit(points=points), inputs)), flat(inputs.parents[parent]))
    halves = flat(compute(CrossoverSplit(points=(0.5, 0.5)), inputs))
    assert same_bits(halves[: TOTAL // 2], flat(inputs.parents[0])[: TOTAL // 2])
    assert same_bits(halves[TOTAL // 2 :], flat(inputs.parents[2])[TOTAL // 2 :])


def test_the_bound_of_a_split_is_the_distance_it_makes():
    inputs = apart(3)
    operator = CrossoverSplit(points=(0.2, 0.77))
    moved = np.linalg.norm(flat(compute(operator, inputs)).astype(np.float64) - flat(inputs.base))
    assert moved <= operator.delta_bound(inputs) <= moved * (1 + 1e-5)


@pytest.mark.parametrize("points", [(0.5, 0.4), (0.0, 1.0, 0.5)])
def test_points_that_do_not_ascend_are_refused_by_place(points):
    with pytest.raises(OutsideAllowlist, match=rf"points\[{len(points) - 1}\]"):
        CrossoverSplit(points=points).validate()


@pytest.mark.parametrize("points", [(), (0.1,), (0.1, 0.2, 0.3)])
def test_points_that_do_not_fit_the_parents_are_refused(points):
    with pytest.raises(ParentsDoNotFit, match="crossover-split/1"):
        compute(CrossoverSplit(points=points), apart(3))


# -- dequantise ------------------------------------------------------------------------------------------------------

SHAPE = SlmShape(
    vocab_size=260,
    hidden_size=16,
    layer_count=1,
    head_count=2,
    kv_head_count=2,
    head_dim=8,
    ffn_size=20,
    max_context=8,
    rope_theta=10_000.0,
    rms_norm_epsilon=1e-5,
    tied=True,
)


def model(dtype) -> bytes:
    rng = np.random.default_rng(1)
    tensors = {spec.name: rng.normal(size=spec.dims).astype(F) for spec in SHAPE.tensors()}
    return write_slm(SHAPE, ByteTokenizer(), tensors, dtype)


def mixed() -> dict[str, str]:
    names = [spec.name for spec in SHAPE.tensors()]
    return {name: ("f32", "q8_0", "q4_0")[place % 3] for place, name in enumerate(names)}


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0", mixed(), "f32"], ids=["q8_0", "q4_0", "mixed", "f32"])
def test_a_dequantised_model_reads_as_its_parent_does_and_is_stored_as_f32(dtype):
    parent = parse_slm(model(dtype))
    operator, inputs = Dequantise(), as_inputs(parent, [parent])
    assert operator.storage == "f32"
    child = parse_slm(write_slm(parent.shape, parent.tokenizer, compute(operator, inputs), operator.storage))
    assert child.label == "f32"
    for spec in SHAPE.tensors():
        assert same_bits(child.dense(spec.name), parent.dense(spec.name))
    assert (child.sha256 == parent.sha256) is (dtype == "f32")


def test_the_bound_of_dequantise_is_the_distance_of_its_parent_from_the_base():
    parent, base = parse_slm(model("q4_0")), parse_slm(model("f32"))
    operator, inputs = Dequantise(), as_inputs(base, [parent])
    square = sum(
        float(np.square(parent.dense(s.name).astype(np.float64) - base.dense(s.name)).sum()) for s in SHAPE.tensors()
    )
    assert math.sqrt(square) <= operator.delta_bound(inputs) <= math.sqrt(square) + 1e-4


def test_dequantise_has_no_parameters_and_takes_one_parent():
    assert decode_operator({"operator": "dequantise/1"}) == Dequantise()
    with pytest.raises(RecordRefused, match="dtype"):
        decode_operator({"operator": "dequantise/1", "dtype": "f32"})
    with pytest.raises(ParentsDoNotFit):
        compute(Dequantise(), apart(2))
