"""Operators that look at angles, against their definitions written again with other means."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.breeding.operators import Inputs, ModelStock, Multislerp, Nearswap, Slerp, TaskDelta, model_stock
from studbook.breeding.operators.base import in_turn
from studbook.breeding.operators.model_stock import row_dots, stock_ratio
from studbook.breeding.operators.multislerp import sphere_factors
from studbook.breeding.operators.run import compute
from studbook.breeding.operators.slerp import arc_factors
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.tensors.reductions import dot
from studbook.tensors.sources import ArraySource

F = np.float32
SHAPES = {"tok_embeddings.weight": (5, 6), "layers.0.wq.weight": (3, 33), "norm.weight": (7,)}
values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1e-45, 3e-39]).map(F) | st.floats(-4.0, 4.0, width=32)
slow = settings(deadline=None, max_examples=30)


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


def tuned(shape: tuple[int, ...], parents: int, seed: int = 0) -> Inputs:
    """A random base and parents at random differences of a tenth of it."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape).astype(F)
    return single(base, *(base + F(0.1) * rng.normal(size=shape).astype(F) for _ in range(parents)))


def wide(source: ArraySource, name: str = "a") -> np.ndarray:
    return source.flat(name).astype(np.float64)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.reshape(-1).view(np.uint32).tolist() == right.reshape(-1).view(np.uint32).tolist()


# -- slerp -----------------------------------------------------------------------------------------------------------


def exact_dot(left: ArraySource, right: ArraySource, name: str) -> Fraction:
    pairs = zip(left.flat(name).tolist(), right.flat(name).tolist(), strict=True)
    return sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))


def root(square: Fraction) -> Decimal:
    return (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()


def exact_sine(x: Decimal) -> Decimal:
    total = term = x
    for power in range(3, 121, 2):
        term = -term * x * x / (power * (power - 1))
        total += term
    return total


def exact_factors(t: float, inputs: Inputs, name: str) -> tuple[float, float] | None:
    """The factors in 50 digits; None where the cosine is too close to the threshold to say which side it is on."""
    first, second = inputs.parents
    with localcontext() as context:
        context.prec = 50
        size = root(exact_dot(first, first, name)) * root(exact_dot(second, second, name))
        if not size:
            return 1 - t, t
        both = exact_dot(first, second, name)
        cosine = Decimal(both.numerator) / Decimal(both.denominator) / size
        if abs(abs(cosine) - Decimal("0.9995")) < Decimal("1e-12"):
            return None
        if abs(cosine) > Decimal("0.9995"):
            return 1 - t, t
        angle = Decimal(math.acos(cosine))
        # One Newton step on the cosine, in 50 digits, squares the 1e-16 of the start.
        sine = (1 - cosine * cosine).sqrt()
        angle += (exact_cosine(angle) - cosine) / sine
        return tuple(float(exact_sine(part * angle) / exact_sine(angle)) for part in (1 - Decimal(t), Decimal(t)))


def exact_cosine(x: Decimal) -> Decimal:
    total = term = Decimal(1)
    for power in range(2, 120, 2):
        term = -term * x * x / (power * (power - 1))
        total += term
    return total


@slow
@given(families(2), st.floats(0.0, 1.0))
def test_slerp_factors_are_those_of_the_exact_angle_and_rows_are_two_products_and_a_sum(inputs, t):
    operator = Slerp(t=t, skip=())
    surveys = operator.survey_model(inputs, in_turn)
    child = compute(operator, inputs)
    for name in inputs.names:
        a, b = (F(factor) for factor in surveys[name].factors)
        wanted = exact_factors(t, inputs, name)
        if wanted is not None:
            # An f32 unit of the factor, and of the line's own 1 - t.
            assert abs(float(a) - wanted[0]) <= 2.0**-24 * abs(wanted[0]) + 1e-12
            assert abs(float(b) - wanted[1]) <= 2.0**-24 * abs(wanted[1]) + 1e-12
        first, second = (p.flat(name) for p in inputs.parents)
        assert same_bits(child[name], np.array([F(F(x * a) + F(y * b)) for x, y in zip(first, second, strict=True)]))


def test_slerp_ends_at_its_parents():
    inputs = tuned((4, 9), 2)
    rng = np.random.default_rng(3)
    apart = single(*(rng.normal(size=50) for _ in range(3)))
    for given_inputs in (inputs, apart):
        for t, parent in ((0.0, 0), (1.0, 1)):
            child = compute(Slerp(t=t, skip=()), given_inputs)
            assert np.array_equal(child["a"].reshape(-1), given_inputs.parents[parent].flat("a"))


@pytest.mark.parametrize("t", [0.1, 0.25, 0.5, 0.9])
def test_slerp_turns_at_constant_speed_and_keeps_the_length(t):
    rng = np.random.default_rng(1)
    x, y = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 400)))
    child = compute(Slerp(t=t, skip=()), single(x, x, y))["a"].astype(np.float64)
    whole = math.acos(x @ y)
    assert abs(np.linalg.norm(child) - 1.0) < 1e-6
    assert abs(math.acos(child @ x) - t * whole) < 1e-5
    assert abs(math.acos(child @ y) - (1 - t) * whole) < 1e-5


def test_slerp_half_way_between_orthogonal_tensors_is_their_sum_over_the_root_of_two():
    child = compute(Slerp(t=0.5, skip=()), single([0, 0], [2, 0], [0, 2]))["a"]
    assert np.array_equal(child, np.full(2, F(math.sqrt(2))))


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2, 3], [1, 2, 3.01]), ([1, 2, 3], [-1, -2, -3]), ([0, 0, 0], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])],
    ids=["parallel", "opposite", "nothing-first", "nothing-second"],
)
def test_slerp_is_a_line_where_there_is_no_arc(first, second):
    child = compute(Slerp(t=0.25, skip=()), single([0, 0, 0], first, second))["a"]
    line = F(0.75) * np.array(first, F) + F(0.25) * np.array(second, F)
    assert np.array_equal(child, line)


def test_slerp_changes_to_the_line_at_the_threshold_of_the_merge_tools():
    for cosine, is_line in ((0.99951, True), (0.99949, False), (-0.99951, True), (-0.99949, False)):
        assert (arc_factors(0.25, 1.0, 1.0, cosine) == (0.75, 0.25)) is is_line


def test_slerp_is_by_tensor_and_leaves_skipped_ones_to_the_base():
    rng = np.random.default_rng(5)
    sources = [ArraySource(name_of(k), {n: rng.normal(size=d) for n, d in SHAPES.items()}) for k in range(3)]
    inputs = Inputs(base=sources[0], parents=tuple(sources[1:]))
    child = compute(Slerp(t=0.3, skip=("*norm*",)), inputs)
    assert same_bits(child["norm.weight"], inputs.base.flat("norm.weight"))
    surveys = Slerp(t=0.3, skip=("*norm*",)).survey_model(inputs, in_turn)
    assert surveys["norm.weight"].factors == ()
    assert surveys["tok_embeddings.weight"].factors != surveys["layers.0.wq.weight"].factors


def test_slerp_of_the_smallest_and_of_large_numbers_still_has_an_angle():
    for scale in (1e-45, 1e-30, 1e30):
        child = compute(Slerp(t=0.5, skip=()), single([0, 0], [F(scale), 0], [0, F(scale)]))["a"]
        assert np.array_equal(child, np.full(2, F(math.sqrt(0.5)) * F(scale)))


@pytest.mark.parametrize("t", [-0.1, 1.5, math.nan])
def test_slerp_beyond_its_parents_is_refused(t):
    with pytest.raises(OutsideAllowlist, match="t"):
        Slerp(t=t, skip=()).validate()
    with pytest.raises(ParentsDoNotFit):
        compute(Slerp(t=0.5, skip=()), tuned((4,), 3))


# -- multislerp ------------------------------------------------------------------------------------------------------


def sphere(vectors: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    """The method as it is described: mean direction, tangent space there, and back onto the sphere."""
    shares = np.array(weights) / np.sum(weights)
    norms = np.array([np.linalg.norm(v) for v in vectors])
    units = np.array([v / n if n else v for v, n in zip(vectors, norms, strict=True)])
    mean = shares @ units
    mean = mean / np.linalg.norm(mean)
    tangents = units - (units @ mean)[:, None] * mean
    step = shares @ tangents
    angle = np.linalg.norm(step)
    turned = mean * np.cos(angle) + (step * (np.sin(angle) / angle) if angle else 0.0)
    return turned * (shares @ norms)


@pytest.mark.parametrize("count", [2, 3, 5, 16])
@pytest.mark.parametrize("around_base", [False, True])
def test_multislerp_is_the_method_with_its_step_in_the_tangent_space(count, around_base):
    rng = np.random.default_rng(count)
    inputs = single(*(rng.normal(size=(6, 31)) * rng.uniform(0.5, 2.0) for _ in range(count + 1)))
    weights = tuple(rng.uniform(0.5, 2.0, count).tolist())
    child = compute(Multislerp(weights=weights, around_base=around_base), inputs)["a"].reshape(-1)
    centre = wide(inputs.base) if around_base else 0.0
    wanted = centre + sphere([wide(p) - centre for p in inputs.parents], weights)
    assert np.abs(child - wanted).max() < 1e-6 * np.abs(wanted).max()


@slow
@given(families(3), st.lists(st.floats(0.01, 100.0), min_size=3, max_size=3), st.booleans())
def test_multislerp_rows_are_products_and_sums_in_the_order_of_the_parents(inputs, weights, around_base):
    operator = Multislerp(weights=tuple(weights), around_base=around_base)
    surveys = operator.survey_model(inputs, in_turn)
    child = compute(operator, inputs)
    for name in inputs.names:
        factors = [F(factor) for factor in surveys[name].factors]
        rows = []
        for base, *elements in zip(inputs.base.flat(name), *(p.flat(name) for p in inputs.parents), strict=True):
            if around_base:
                change = F(0)
                for factor, element in zip(factors, elements, strict=True):
                    change = F(change + F(F(element - base) * factor))
                rows.append(base if change == 0 else F(base + change))
            else:
                total = F(elements[0] * factors[0])
                for factor, element in zip(factors[1:], elements[1:], strict=True):
                    total = F(total + F(element * factor))
                rows.append(total)
        assert same_bits(child[name], np.array(rows, F))


def test_multislerp_of_two_equal_weights_is_slerp_half_way_for_tensors_of_one_length():
    rng = np.random.default_rng(2)
    x, y = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 300)))
    inputs = single(x, x, y)
    both = compute(Multislerp(weights=(3.0, 3.0), around_base=False), inputs)["a"]
    assert np.abs(both - compute(Slerp(t=0.5, skip=()), inputs)["a"]).max() < 2e-8


def test_multislerp_has_the_mean_length_and_does_not_notice_a_common_factor_of_the_weights():
    inputs = single([0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 2])
    child = compute(Multislerp(weights=(1.0, 2.0, 1.0), around_base=False), inputs)["a"]
    assert abs(np.linalg.norm(child.astype(np.float64)) - (3 + 2 * 1 + 2) / 4) < 1e-6
    scaled = compute(Multislerp(weights=(256.0, 512.0, 256.0), around_base=False), inputs)["a"]
    assert same_bits(child, scaled)


def test_multislerp_mixes_along_the_line_where_directions_cancel():
    inputs = single([0, 0], [1, 2], [-2, -4])
    child = compute(Multislerp(weights=(1.0, 1.0), around_base=False), inputs)["a"]
    assert np.array_equal(child, np.array([-0.5, -1.0], F))
    thirds = single([0, 0], [1, 0], [-0.5, math.sqrt(0.75)], [-0.5, -math.sqrt(0.75)])
    child = compute(Multislerp(weights=(1.0,) * 3, around_base=False), thirds)["a"]
    assert np.abs(child).max() < 1e-7


def test_multislerp_around_the_base_keeps_what_no_parent_changed_and_weighs_changed_directions():
    inputs = single([1, -0.0, 5], [1, 3, 5], [1, 0, 9])
    child = compute(Multislerp(weights=(1.0, 1.0), around_base=True), inputs)["a"]
    assert child[0] == 1.0
    assert np.abs(child[1:] - [3.5 / math.sqrt(2), 5 + 3.5 / math.sqrt(2)]).max() < 1e-6
    same = single([1, -0.0, 5], [1, -0.0, 5], [1, -0.0, 5])
    assert same_bits(compute(Multislerp(weights=(1.0, 1.0), around_base=True), same)["a"], np.array([1, -0.0, 5], F))


@pytest.mark.parametrize(("cosine", "cancels"), [(-1 + 1e-10, True), (-1 + 1e-6, False)])
def test_directions_cancel_where_f64_no_longer_says_where_their_mean_points(cosine, cancels):
    factors = sphere_factors((1.0, 1.0), ((1.0, cosine), (cosine, 1.0)))
    assert (factors == (0.5, 0.5)) is cancels


def test_a_vector_of_zeros_has_no_direction_but_shortens_the_mean():
    assert sphere_factors((1.0, 1.0), ((0.0, 0.0), (0.0, 4.0))) == (0.0, 0.5)


def test_multislerp_of_lengths_too_unlike_for_f32_is_the_mean():
    shares = sphere_factors((1.0, 3.0), ((1e-60, 0.0), (0.0, 1e60)))
    assert shares == (0.25, 0.75)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (-1.0, 1.0), (1.0, math.inf), (1.0, 1001.0)])
def test_multislerp_weights_that_are_not_positive_are_refused(weights):
    with pytest.raises(OutsideAllowlist, match="weights"):
        Multislerp(weights=weights, around_base=False).validate()


# -- nearswap --------------------------------------------------------------------------------------------------------


@slow
@given(families(1), st.sampled_from([1e-9, 1e-7, 1e-6, 1e-4, 0.1, 1.0, 4.0]) | st.floats(1e-9, 4.0))
def test_nearswap_takes_what_is_near_and_steps_towards_the_rest(inputs, t):
    child = compute(Nearswap(t=t), inputs)
    for name in inputs.names:
        rows = []
        for a, b in zip(inputs.base.flat(name), inputs.parents[0].flat(name), strict=True):
            difference = F(b - a)
            share = F(F(t) / max(abs(difference), F(1e-6)))
            step = F(min(share, F(1)) * difference)
            rows.append(a if difference == 0 else b if share >= 1 else a if step == 0 else F(a + step))
        assert same_bits(child[name], np.array(rows, F))


def test_nearswap_moves_no_element_by_more_than_t():
    inputs = single([1.0, 1.0, 1.0, 1.0], [1.05, 0.95, 3.0, -7.0])
    child = compute(Nearswap(t=0.125), inputs)["a"]
    assert np.array_equal(child, np.array([1.05, 0.95, 1.125, 0.875], F))
    assert np.array_equal(compute(Nearswap(t=4.0), inputs)["a"][:3], inputs.parents[0].flat("a")[:3])


def test_nearswap_with_a_reach_above_every_difference_gives_the_parent():
    inputs = tuned((20, 20), 1)
    reach = float(np.abs(inputs.delta(0, "a", 0, 400)).max()) * 2
    assert same_bits(compute(Nearswap(t=reach), inputs)["a"], inputs.parents[0].flat("a"))


@pytest.mark.parametrize("t", [0.0, -1.0, 5.0, math.nan])
def test_nearswap_without_a_reach_is_refused(t):
    with pytest.raises(OutsideAllowlist, match="t"):
        Nearswap(t=t).validate()


# -- model stock -----------------------------------------------------------------------------------------------------


def ratio(differences: list[np.ndarray]) -> float:
    """The paper's t for one filter, in f64."""
    cosines = []
    for x, y in combinations(differences, 2):
        size = np.linalg.norm(x) * np.linalg.norm(y)
        cosines.append(float(np.clip(x @ y / size, -1, 1)) if size else 0.0)
    cosine, count = float(np.mean(cosines)), len(differences)
    below = 1 + (count - 1) * cosine
    return count * cosine / below if abs(below) >= 1e-6 else 0.0


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_goes_as_far_as_the_paper_says(count, filter_wise):
    rng = np.random.default_rng(count)
    base = rng.normal(size=(8, 25))
    shared = rng.normal(size=(8, 25)) * rng.uniform(0.2, 2.0, (8, 1))
    inputs = single(base, *(base + 0.1 * (shared + rng.normal(size=(8, 25))) for _ in range(count)))
    child = compute(ModelStock(filter_wise=filter_wise), inputs)["a"].reshape(-1)
    start = wide(inputs.base).reshape(8, 25)
    changes = [wide(p).reshape(8, 25) - start for p in inputs.parents]
    groups = [slice(r, r + 1) for r in range(8)] if filter_wise else [slice(0, 8)]
    wanted = start.copy()
    for rows in groups:
        wanted[rows] += ratio([c[rows].reshape(-1) for c in changes]) * np.mean([c[rows] for c in changes], axis=0)
    assert np.abs(child - wanted.reshape(-1)).max() < 1e-6


@slow
@given(families(3), st.booleans())
def test_model_stock_rows_are_products_and_sums_in_the_order_of_the_parents(inputs, filter_wise):
    operator = ModelStock(filter_wise=filter_wise)
    surveys = operator.survey_model(inputs, in_turn)
    for name in inputs.names:
        size, columns, survey = inputs.size(name), inputs.columns(name), surveys[name]
        found = operator.rows(name, 0, size, inputs, survey)
        for i in range(size):
            factor = F(survey.row_factors[i // columns] if filter_wise else survey.factors[0])
            change = F(0)
            for parent in inputs.parents:
                change = F(change + F(F(parent.flat(name)[i] - inputs.base.flat(name)[i]) * factor))
            base = inputs.base.flat(name)[i]
            assert same_bits(found[i : i + 1], np.array([base if change == 0 else F(base + change)], F))


def test_model_stock_at_sixty_degrees_goes_two_thirds_of_the_way():
    table = np.array([[1.0, 0.5], [0.5, 1.0]]).reshape(2, 2, 1)
    assert abs(stock_ratio(table)[0] - 2 / 3) < 1e-15


def test_model_stock_takes_agreeing_parents_whole_and_keeps_the_base_for_unrelated_or_opposing_ones():
    agreeing = compute(ModelStock(filter_wise=False), single([1, 2], [1.5, 2], [2, 2]))["a"]
    assert np.array_equal(agreeing, np.array([1.75, 2], F))
    for second in ([1, 3], [0.5, 2], [1, 2]):
        kept = compute(ModelStock(filter_wise=False), single([1, 2], [1.5, 2], second))["a"]
        assert np.array_equal(kept, np.array([1, 2], F))


def test_model_stock_by_row_judges_every_row_alone():
    inputs = single([[0, 0], [0, 0], [0, 0]], [[1, 0], [1, 0], [0, 0]], [[3, 0], [0, 1], [0, 0]])
    child = compute(ModelStock(filter_wise=True), inputs)["a"]
    assert np.array_equal(child, np.array([[2, 0], [0, 0], [0, 0]], F))


def test_model_stock_by_tensor_is_a_task_delta_of_one_scale():
    inputs = tuned((9, 11), 3, seed=4)
    operator = ModelStock(filter_wise=False)
    (scale, *_) = operator.survey("a", inputs).factors
    same = compute(TaskDelta(scales=(scale,) * 3, skip=()), inputs)["a"]
    assert same_bits(compute(operator, inputs)["a"], same)


@pytest.mark.parametrize("columns", [1, 15, 16, 1000, 65_536, 65_537, 140_001])
def test_rows_are_reduced_as_flat_tensors_are(columns):
    rng = np.random.default_rng(columns)
    left, right = rng.normal(size=(2, 3, columns))
    assert row_dots(left, right).tolist() == [dot(a, b) for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("chunk", [1, 7, 17, 50])
def test_a_row_cut_by_a_chunk_keeps_its_ratio(chunk):
    inputs = tuned((12, 17), 3, seed=6)
    operator = ModelStock(filter_wise=True)
    assert same_bits(compute(operator, inputs, chunk=chunk)["a"], compute(operator, inputs)["a"])


def test_the_slabs_in_which_rows_are_reduced_do_not_show(monkeypatch):
    inputs = tuned((40, 17), 3, seed=8)
    operator = ModelStock(filter_wise=True)
    whole, bound = compute(operator, inputs)["a"], operator.delta_bound(inputs)
    monkeypatch.setattr(model_stock, "SLAB", 7 * 17 * 3)
    assert same_bits(compute(operator, inputs)["a"], whole)
    assert math.isclose(operator.delta_bound(inputs), bound, rel_tol=1e-12)


def test_one_parent_has_no_angle_to_another_and_is_refused():
    with pytest.raises(ParentsDoNotFit, match="model-stock/1"):
        compute(ModelStock(filter_wise=False), tuned((4,), 1))


# -- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator",
    [
        Slerp(t=0.4, skip=()),
        Multislerp(weights=(1.0, 3.0), around_base=False),
        Multislerp(weights=(1.0, 3.0), around_base=True),
        ModelStock(filter_wise=False),
        ModelStock(filter_wise=True),
    ],
    ids=lambda operator: operator.tag(),
)
def test_bounds_follow_the_change_that_is_made(operator):
    rng = np.random.default_rng(21)
    base, shared = rng.normal(size=(2, 30, 40))
    inputs = single(base, *(base + shared + rng.normal(size=(30, 40)) for _ in range(2)))
    moved = float(np.linalg.norm(compute(operator, inputs)["a"].reshape(-1).astype(np.float64) - wide(inputs.base)))
    assert moved <= operator.delta_bound(inputs)
    # Factors that do not sum to one move along the base as well, and the two parts are added as if parallel.
    drift = operator.tag() == "slerp/1" or (operator.tag() == "multislerp/1" and not operator.around_base)
    assert operator.delta_bound(inputs) <= moved * (1.5 if drift else 1.00001)


def test_the_bound_of_nearswap_is_the_change_that_is_made():
    inputs = tuned((30, 40), 1, seed=22)
    for t in (1e-4, 0.1, 1.0):
        child = compute(Nearswap(t=t), inputs)["a"].reshape(-1).astype(np.float64)
        moved = float(np.linalg.norm(child - wide(inputs.base)))
        assert moved <= Nearswap(t=t).delta_bound(inputs) <= moved + 2.0**-20 * float(np.linalg.norm(wide(inputs.base)))


def test_the_bound_of_slerp_counts_that_its_factors_sum_to_more_than_one():
    # Half of each difference cancels: all that moves the child is the length the arc keeps.
    inputs = single([0.5, 0.5], [1, 0], [0, 1])
    moved = float(np.linalg.norm(compute(Slerp(t=0.5, skip=()), inputs)["a"] - F(0.5)))
    assert 0.29 < moved <= Slerp(t=0.5, skip=()).delta_bound(inputs) <= moved + 2.0**-16


# -- the peer --------------------------------------------------------------------------------------------------------

peer = pytest.mark.train


def merged(method: str, inputs: Inputs, shape: tuple[int, ...], base: bool = True, **parameters) -> np.ndarray:
    """What the merge tool makes of the same models (base first), in f32."""
    torch = pytest.importorskip("torch")
    base_module = pytest.importorskip("mergekit.merge_methods.base")
    registry = pytest.importorskip("mergekit.merge_methods.registry")
    sources = [inputs.base, *inputs.parents] if base else list(inputs.parents)
    tensors = [torch.from_numpy(source.flat("a").copy()).reshape(shape) for source in sources]
    group = base_module.TensorGroup.from_tensors(tensors, base_index=0 if base else None)
    (result,) = registry.get(method)([group], parameters=parameters)
    return result.numpy().reshape(-1)


def close(left: np.ndarray, right: np.ndarray) -> bool:
    scale = float(np.abs(right).max())
    return float(np.abs(left.reshape(-1).astype(np.float64) - right).max()) <= 2e-6 * scale


@peer
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_agrees_with_the_peer(t):
    rng = np.random.default_rng(11)
    first, apart, nudge = rng.normal(size=(3, 7, 40))
    for second in (apart, first + 0.001 * nudge):
        inputs = single(first, first, second)
        wanted = merged("slerp", Inputs(base=inputs.base, parents=inputs.parents[1:]), (7, 40), t=t)
        assert close(compute(Slerp(t=t, skip=()), inputs)["a"], wanted)


@peer
@pytest.mark.parametrize("around_base", [False, True])
def test_multislerp_agrees_with_the_peer(around_base):
    inputs, weights = tuned((6, 30), 4, seed=12), (1.0, 2.0, 0.5, 4.0)
    child = compute(Multislerp(weights=weights, around_base=around_base), inputs)["a"]
    assert close(child, merged("multislerp", inputs, (6, 30), base=around_base, weight=list(weights)))


@peer
@pytest.mark.parametrize("t", [1e-7, 1e-4, 0.05, 1.0])
def test_nearswap_agrees_with_the_peer(t):
    inputs = tuned((20, 20), 1, seed=13)
    assert close(compute(Nearswap(t=t), inputs)["a"], merged("nearswap", inputs, (20, 20), t=t))


@peer
@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_agrees_with_the_peer(filter_wise):
    rng = np.random.default_rng(14)
    base, shared = rng.normal(size=(2, 9, 30))
    inputs = single(base, *(base + 0.1 * (shared + rng.normal(size=(9, 30))) for _ in range(3)))
    child = compute(ModelStock(filter_wise=filter_wise), inputs)["a"]
    assert close(child, merged("model_stock", inputs, (9, 30), filter_wise=filter_wise))
