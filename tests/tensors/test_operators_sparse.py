"""Merges of sparse changes, against their definitions written again one element at a time with other means."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.breeding.operators import (
    Breadcrumbs,
    Dare,
    DareNormMatched,
    DareTies,
    Della,
    Inputs,
    SignAwareMerge,
    SparseTaskDelta,
    TaskDelta,
    Ties,
)
from studbook.breeding.operators.consensus import combined
from studbook.breeding.operators.run import compute
from studbook.errors import OutsideAllowlist
from studbook.tensors.sources import ArraySource

F = np.float32
SHAPES = {"tok_embeddings.weight": (5, 6), "layers.0.w1.weight": (3, 33), "norm.weight": (7,), "scale": (1,)}
values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1e-45, 3e-39]).map(F) | st.floats(-4.0, 4.0, width=32)
shares = st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.77, 1.0])
factors = st.sampled_from([0.0, 1.0, 0.3, 2.5, 0.001])
flags = st.booleans()
slow = settings(deadline=None, max_examples=25)


def name_of(place: int) -> str:
    return hashlib.sha256(b"sparse %d" % place).hexdigest()


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


def tuned(shape: tuple[int, ...], parents: int) -> Inputs:
    """A random base and parents at random differences of a tenth of it."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=shape).astype(F)
    return single(base, *(base + F(0.1) * rng.normal(size=shape).astype(F) for _ in range(parents)))


def add(start: np.float32, change: np.float32) -> np.float32:
    return start if change == 0 else F(start + change)


def words(seed: int, parent: str, name: str, count: int) -> list[int]:
    """The stream on Python integers."""
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


def by_size(deltas: list[np.float32]) -> list[int]:
    """Indices from the largest magnitude to the smallest, ties in ascending order."""
    return sorted(range(len(deltas)), key=lambda i: (-abs(float(deltas[i])), i))


def floor(share: float, count: int) -> int:
    return math.floor(Fraction(str(share)) * count)


def deltas_of(inputs: Inputs, name: str) -> list[list[np.float32]]:
    base = inputs.base.flat(name)
    return [[F(x - z) for x, z in zip(p.flat(name), base, strict=True)] for p in inputs.parents]


def settle(changes, weights, *, elect: bool, normalize: bool) -> np.float32:
    """What one element's changes are merged to."""
    products = [(F(w), F(F(w) * F(t))) for w, t in zip(weights, changes, strict=True)]
    vote = F(0)
    for _, product in products:
        vote = F(vote + product)
    if elect:
        products = [(w, p) for w, p in products if (p > 0 if vote >= 0 else p < 0)]
    top = bottom = F(0)
    for weight, product in products:
        top, bottom = F(top + product), F(bottom + weight)
    return F(top / bottom) if normalize and abs(float(bottom)) >= (1e-300 if elect else 1e-8) else top


def expect(
    operator, inputs: Inputs, changes, *, elect: bool, normalize: bool, scale: float = 1.0, weights=None
) -> None:
    """Compare a child, bit by bit, with the merge of what ``changes`` (name -> parents x elements) says."""
    child = compute(operator, inputs)
    for name in inputs.names:
        base, found = inputs.base.flat(name), changes(name)
        expected = []
        for i, z in enumerate(base):
            merged = settle([c[i] for c in found], weights or operator.weights, elect=elect, normalize=normalize)
            expected.append(add(z, F(merged * F(scale))))
        assert child[name].reshape(-1).view(np.uint32).tolist() == np.array(expected, F).view(np.uint32).tolist(), name


# -- sparse task delta, TIES -----------------------------------------------------------------------------------------


def trimmed(inputs: Inputs, densities):
    def changes(name):
        out = []
        for delta, density in zip(deltas_of(inputs, name), densities, strict=True):
            kept = set(by_size(delta)[: floor(density, len(delta))])
            out.append([d if i in kept else F(0) for i, d in enumerate(delta)])
        return out

    return changes


@slow
@given(families(2), st.tuples(shares, shares), st.tuples(st.floats(-4, 4), st.floats(-4, 4)))
def test_sparse_task_delta_adds_the_largest_of_every_parent(inputs, densities, scales):
    operator = SparseTaskDelta(densities=densities, scales=scales, skip=())
    expect(operator, inputs, trimmed(inputs, densities), elect=False, normalize=False, weights=scales)


def test_sparse_task_delta_that_keeps_everything_is_task_delta():
    inputs, scales = tuned((40, 30), 3), (0.3, -0.7, 1.1)
    sparse = SparseTaskDelta(densities=(1.0,) * 3, scales=scales, skip=())
    assert compute(sparse, inputs)["a"].tobytes() == compute(TaskDelta(scales=scales, skip=()), inputs)["a"].tobytes()


@slow
@given(
    families(3),
    st.tuples(shares, shares, shares),
    st.tuples(factors, factors, factors),
    flags,
    st.sampled_from([1, -2.0]),
)
def test_ties_trims_weighs_elects_and_divides(inputs, densities, weights, normalize, scale):
    operator = Ties(densities=densities, weights=weights, normalize=normalize, scale=scale, skip=())
    expect(operator, inputs, trimmed(inputs, densities), elect=True, normalize=normalize, scale=scale)


def test_ties_on_the_textbook_case():
    # A column a case: agreement, conflict won by size, a tied vote (plus wins), a small change trimmed, one parent alone.
    inputs = single([1, 1, 1, 1, 1], [3, 5, 3, 1.5, 1], [5, -1, -1, 1, 4])
    usual = Ties(densities=(0.8, 0.8), weights=(1.0, 1.0), normalize=True, scale=1.0, skip=())
    assert compute(usual, inputs)["a"].tolist() == [1 + (2 + 4) / 2, 1 + 4, 1 + 2, 1 + 0.5, 1 + 3]
    summed = msgspec.structs.replace(usual, normalize=False)
    assert compute(summed, inputs)["a"].tolist() == [1 + 2 + 4, 5, 3, 1.5, 4]
    tight = msgspec.structs.replace(usual, densities=(0.6, 0.8))
    assert compute(tight, inputs)["a"].tolist() == [4, 5, 3, 1, 4]
    heavy = msgspec.structs.replace(usual, weights=(1.0, 3.0))
    assert compute(heavy, inputs)["a"].tolist() == [1 + (2 + 3 * 4) / 4, 1 - 2, 1 - 2, 1.5, 4]


def test_ties_with_one_density_is_the_sign_aware_merge_where_no_vote_is_tied():
    inputs, weights = tuned((50, 40), 3), (1.0, 0.25, 1.75)
    ties = Ties(densities=(0.3,) * 3, weights=weights, normalize=True, scale=0.7, skip=())
    plain = SignAwareMerge(density=0.3, weights=weights, scale=0.7, skip=())
    assert compute(ties, inputs)["a"].tobytes() == compute(plain, inputs)["a"].tobytes()


def test_of_equal_changes_the_lowest_indices_are_kept_and_not_one_more():
    inputs = single(np.zeros(10), [1, -1, 1, -1, 1, -1, 1, -1, 1, -1])
    operator = Ties(densities=(0.49,), weights=(1.0,), normalize=True, scale=1.0, skip=())
    assert compute(operator, inputs)["a"].tolist() == [1, -1, 1, -1, 0, 0, 0, 0, 0, 0]


def test_a_weight_of_zero_has_no_vote_and_a_normalised_negative_one_is_refused():
    inputs = single([0.0], [-9.0], [1.0])
    operator = Ties(densities=(1.0, 1.0), weights=(0.0, 0.5), normalize=True, scale=1.0, skip=())
    assert compute(operator, inputs)["a"].tolist() == [1.0]
    for kind, fields in ((Ties, {}), (DareTies, {"rescale": True, "seed": 1})):
        negative = {"densities": (1.0, 1.0), "weights": (1.0, -0.5), "scale": 1.0, "skip": (), **fields}
        kind(**negative, normalize=False).validate(2)
        with pytest.raises(OutsideAllowlist, match=r"weights\[1\]") as caught:
            kind(**negative, normalize=True).validate(2)
        assert caught.value.reason == "operator.weights"


def test_a_sum_of_weights_that_is_zero_divides_nothing_where_no_sign_is_elected():
    terms, weights = (np.array([3.0, 1.0], F), np.array([1.0, 4.0], F)), (F(1), F(-1))
    assert combined(terms, weights, elect=False, normalize=True).tolist() == [2.0, -3.0]
    assert combined(terms, (F(1), F(3)), elect=False, normalize=True).tolist() == [1.5, 3.25]


@pytest.mark.parametrize("weight", [1e-45, 1e-40, 1e-30])
def test_the_bound_covers_weights_below_the_normal_range(weight):
    # w * t and the quotient by w round by half a unit of the smallest number: up to half of t and more.
    inputs = single(np.zeros(64), np.linspace(0.1, 1.0, 64))
    operator = Ties(densities=(1.0,), weights=(weight,), normalize=True, scale=1.0, skip=())
    moved = compute(operator, inputs)["a"].astype(np.float64)
    assert math.sqrt(float((moved * moved).sum())) <= operator.delta_bound(inputs)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_bound_of_a_vote_is_reached_where_all_agree(normalize):
    inputs = single(np.zeros(100), np.ones(100), np.ones(100))
    operator = Ties(densities=(1.0, 1.0), weights=(1.0, 1.0), normalize=normalize, scale=1.0, skip=())
    moved = 10.0 if normalize else 20.0
    assert moved <= operator.delta_bound(inputs) <= moved * 1.0001


# -- breadcrumbs -----------------------------------------------------------------------------------------------------


@slow
@given(families(2), st.tuples(shares, shares), st.tuples(shares, shares), flags, flags)
def test_breadcrumbs_keeps_the_band_between_outliers_and_small_changes(inputs, densities, gammas, elect, normalize):
    def changes(name):
        out = []
        for delta, density, gamma in zip(deltas_of(inputs, name), densities, gammas, strict=True):
            size = len(delta)
            # As merge files mean it: cut the outliers off, then the smallest until so many are left as asked for.
            smallest = max(0, size - floor(density, size) - floor(gamma, size))
            ascending = by_size(delta)[::-1]
            kept = set(ascending[smallest : smallest + floor(density, size)])
            out.append([d if i in kept else F(0) for i, d in enumerate(delta)])
        return out

    operator = Breadcrumbs(
        densities=densities, gammas=gammas, weights=(1.0, 0.3), elect=elect, normalize=normalize, scale=-0.5, skip=()
    )
    expect(operator, inputs, changes, elect=elect, normalize=normalize, scale=-0.5)


@pytest.mark.parametrize(
    ("density", "gamma", "kept"),
    [
        (0.5, 0.2, {2, 3, 4, 5, 6}),
        (0.5, 0.0, {0, 1, 2, 3, 4}),
        (0.9, 0.2, set(range(1, 10))),
        (1.0, 0.5, set(range(10))),
    ],
)
def test_breadcrumbs_counts_exactly(density, gamma, kept):
    inputs = single(np.zeros(10), -np.arange(10, 0, -1))
    fields = {"densities": (density,), "gammas": (gamma,), "weights": (1.0,)}
    operator = Breadcrumbs(**fields, elect=False, normalize=False, scale=1.0, skip=())
    assert set(np.flatnonzero(compute(operator, inputs)["a"]).tolist()) == kept


# -- DARE with a vote, DARE of one length ----------------------------------------------------------------------------


@slow
@given(families(2), st.tuples(shares, shares), st.integers(0, 2**53 - 1), flags, flags)
def test_dare_ties_masks_by_the_keyed_stream_and_elects(inputs, densities, seed, rescale, normalize):
    def changes(name):
        out = []
        for parent, delta, density in zip(inputs.parents, deltas_of(inputs, name), densities, strict=True):
            factor = F(1 / density) if rescale and density else F(1)
            drawn = words(seed, parent.sha256, name, len(delta))
            kept = [w < round(density * 2**32) for w in drawn]
            out.append([F(d * factor) if k else F(0) for d, k in zip(delta, kept, strict=True)])
        return out

    fields = {"densities": densities, "weights": (1.0, 0.3), "seed": seed, "rescale": rescale}
    operator = DareTies(**fields, normalize=normalize, scale=0.5, skip=())
    expect(operator, inputs, changes, elect=True, normalize=normalize, scale=0.5)


def test_dare_ties_draws_the_masks_of_dare():
    inputs = tuned((60, 50), 1)
    ties = DareTies(densities=(0.4,), weights=(1.0,), normalize=False, rescale=True, scale=1.0, seed=9, skip=())
    dare = Dare(keep=0.4, scales=(1.0,), seed=9, skip=())
    changed = [compute(operator, inputs)["a"] != inputs.base.flat("a").reshape(60, 50) for operator in (ties, dare)]
    assert np.array_equal(*changed)
    assert 0.35 < changed[0].mean() < 0.45


def fsum_squares(deltas) -> float:
    return math.fsum(float(d) ** 2 for d in deltas)


@pytest.mark.parametrize("keep", [0.05, 0.3, 1.0])
def test_dare_norm_matched_keeps_the_length_of_every_parents_change(keep):
    inputs = tuned((300, 250), 1)
    operator = DareNormMatched(keep=keep, scales=(1.0,), seed=3, skip=())
    child = compute(operator, inputs)["a"].astype(np.float64).reshape(-1)
    base = inputs.base.flat("a").astype(np.float64)
    wanted = math.sqrt(fsum_squares(deltas_of(inputs, "a")[0]))
    assert math.sqrt(fsum_squares(child - base)) == pytest.approx(wanted, rel=1e-5)
    assert keep - 0.01 < float((child != base).mean()) <= keep + 0.01
    assert operator.delta_bound(inputs) == pytest.approx(wanted, rel=1e-5)


@slow
@given(families(2), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 2**53 - 1))
def test_dare_norm_matched_multiplies_by_the_measured_factor(inputs, keep, seed):
    scales, made = (0.3, -1.5), {}
    for name in inputs.names:
        made[name] = []
        for parent, delta in zip(inputs.parents, deltas_of(inputs, name), strict=True):
            drawn = words(seed, parent.sha256, name, len(delta))
            kept = [d if w < round(keep * 2**32) else F(0) for d, w in zip(delta, drawn, strict=True)]
            whole, left = fsum_squares(delta), fsum_squares(kept)
            made[name].append((kept, min(math.sqrt(whole / left), 1 / keep) if left > 0 else 0.0))
    child = compute(DareNormMatched(keep=keep, scales=scales, seed=seed, skip=()), inputs)
    for name in inputs.names:
        base, flat = inputs.base.flat(name).astype(np.float64), child[name].reshape(-1)
        terms = [[s * r * float(x) for x in kept] for s, (kept, r) in zip(scales, made[name], strict=True)]
        expected = base + np.sum(terms, axis=0)
        # The order of an f64 sum shows in the last bit of a factor at most; f32 rounds five times.
        allowed = 5 * 2.0**-24 * (np.abs(base) + np.sum(np.abs(terms), axis=0)) + 2.0**-140
        assert (np.abs(flat - expected) <= allowed).all(), name


def test_dare_norm_matched_never_multiplies_by_more_than_dare_does():
    base, parent = np.zeros(8), np.full(8, 1e-30)
    drawn = words(1, name_of(1), "a", 8)
    dropped = [i for i, word in enumerate(drawn) if word >= 2**31]
    assert 0 < len(dropped) < 8
    parent[dropped[0]] = 1e6
    child = compute(DareNormMatched(keep=0.5, scales=(1.0,), seed=1, skip=()), single(base, parent))["a"]
    assert child.max() == F(2) * F(1e-30)


# -- DELLA -----------------------------------------------------------------------------------------------------------


def chances(delta, columns: int, density: float, epsilon: float) -> list[float]:
    """Probability of every element, by its rank in its row."""
    out = []
    for at in range(0, len(delta), columns):
        row = delta[at : at + columns]
        place = {index: rank for rank, index in enumerate(by_size(row))}
        for i in range(len(row)):
            if columns == 1 or density in (0, 1):
                out.append(density)
            else:
                out.append((density - epsilon) + (2 * epsilon) * ((columns - 1 - place[i]) / (columns - 1)))
    return out


@slow
@given(
    families(2), st.sampled_from([(0.5, 0.15), (0.3, 0.29), (0.9, 0.05), (0.0, 0.3), (1.0, 0.3)]), st.integers(0, 99),
    flags, flags, flags,
)  # fmt: skip
def test_della_draws_by_rank_in_the_row(inputs, density, seed, elect, rescale, normalize):
    densities, epsilons = (density[0], 0.6), (density[1], 0.2)

    def changes(name):
        out = []
        for k, (parent, delta) in enumerate(zip(inputs.parents, deltas_of(inputs, name), strict=True)):
            odds = chances(delta, SHAPES[name][-1], densities[k], epsilons[k])
            drawn = words(seed, parent.sha256, name, len(delta))
            kept = [w < round(p * 2**32) for w, p in zip(drawn, odds, strict=True)]
            values = [F(d * F(1 / p)) if rescale and p else d for d, p in zip(delta, odds, strict=True)]
            out.append([v if k else F(0) for v, k in zip(values, kept, strict=True)])
        return out

    fields = {"densities": densities, "epsilons": epsilons, "weights": (1.0, 0.3), "seed": seed, "rescale": rescale}
    operator = Della(**fields, elect=elect, normalize=normalize, scale=0.5, skip=())
    expect(operator, inputs, changes, elect=elect, normalize=normalize, scale=0.5)


def test_della_keeps_its_density_on_average_and_large_changes_more_often():
    inputs = tuned((400, 100), 1)
    fields = {"densities": (0.5,), "epsilons": (0.3,), "weights": (1.0,), "seed": 4, "rescale": False}
    child = compute(Della(**fields, elect=False, normalize=False, scale=1.0, skip=()), inputs)["a"]
    kept = child.reshape(-1) != inputs.base.flat("a")
    delta = np.array(deltas_of(inputs, "a")[0]).reshape(400, 100)
    order = np.argsort(np.abs(delta), axis=1)
    share = np.take_along_axis(kept.reshape(400, 100), order, axis=1).mean(axis=0)
    assert 0.49 < kept.mean() < 0.51
    assert 0.2 <= share[:10].mean() < 0.27 < 0.73 < share[-10:].mean() <= 0.8


def test_della_without_a_range_is_dare_ties():
    inputs = tuned((60, 50), 2)
    shared = {"densities": (0.4, 0.7), "weights": (1.0, 2.0), "normalize": True, "scale": 1.0, "seed": 9, "skip": ()}
    della = Della(**shared, epsilons=(0.0, 0.0), elect=True, rescale=True)
    assert compute(della, inputs)["a"].tobytes() == compute(DareTies(**shared, rescale=True), inputs)["a"].tobytes()


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.1), (0.1, 0.2), (0.9, 0.1), (0.95, 0.2)])
def test_della_refuses_probabilities_outside_zero_to_one(density, epsilon):
    fields = {"densities": (0.5, density), "epsilons": (0.1, epsilon), "weights": (1.0, 1.0), "seed": 1}
    operator = Della(**fields, elect=True, normalize=True, rescale=True, scale=1.0, skip=())
    with pytest.raises(OutsideAllowlist, match=r"della/1: epsilons\[1\]") as caught:
        operator.validate(2)
    assert caught.value.reason == "operator.epsilon"
