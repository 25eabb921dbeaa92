"""Scheduled: another operator with values by layer and by name."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.breeding.operators import (
    Blend,
    CrossoverSplit,
    Dare,
    FederatedUpdate,
    Inputs,
    Passthrough,
    Prune,
    Quantise,
    Scheduled,
    SignAwareMerge,
    Slerp,
    TaskDelta,
    Ties,
    decode_operator,
    operator_types,
)
from studbook.breeding.operators.run import compute
from studbook.breeding.operators.scheduled import Rule, gradient
from studbook.errors import OutsideAllowlist, ParentsDoNotFit, RecordRefused
from studbook.records.doors import canonical
from studbook.tensors.sources import ArraySource

LAYERS = 5
SHAPES = {"tok_embeddings.weight": (6, 8)}
SHAPES |= {f"layers.{i}.{part}.weight": (8, 8) for i in range(LAYERS) for part in ("wq", "mlp")}
SHAPES["norm.weight"] = (8,)


def family(parents: int) -> Inputs:
    rng = np.random.default_rng(1)
    base = {n: rng.normal(size=d).astype(np.float32) for n, d in SHAPES.items()}
    models = [base]
    for _ in range(parents):
        models.append({n: a + np.float32(0.1) * rng.normal(size=a.shape).astype(np.float32) for n, a in base.items()})
    sources = [ArraySource(hashlib.sha256(b"%d" % i).hexdigest(), m) for i, m in enumerate(models)]
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def rule(field: str, values, pattern: str = "*", parent: int | None = None) -> Rule:
    return Rule(field=field, parent=parent, filter=pattern, values=tuple(values))


def scheduled(inner, *rules: Rule, layers: int = LAYERS) -> Scheduled:
    return Scheduled(inner=inner, layers=layers, rules=rules)


def same(child, plain, names) -> bool:
    return all(child[name].tobytes() == plain[name].tobytes() for name in names)


DELTA = TaskDelta(scales=(0.3, 0.3), skip=())


# -- what the values are ---------------------------------------------------------------------------------------------


def peer_gradient(values: list[float], t: float) -> float:
    """As the usual merge tool writes it."""
    scaled = t * (len(values) - 1)
    i0 = int(scaled)
    i1 = min(len(values) - 1, i0 + 1)
    frac = scaled - i0
    return (1 - frac) * values[i0] + frac * values[i1]


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=7), st.integers(2, 40), st.data())
def test_values_are_joined_by_straight_lines(values, layers, data):
    t = data.draw(st.integers(0, layers - 1)) / (layers - 1)
    found = gradient(tuple(values), t)
    assert found == pytest.approx(peer_gradient(values, t), rel=1e-15, abs=1e-15)
    assert min(values) <= found <= max(values)


def test_a_gradient_of_two_values_is_a_ramp_and_of_three_a_bend():
    assert [gradient((0.0, 1.0), i / 4) for i in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [gradient((0.0, 1.0, 0.5), i / 4) for i in range(5)] == [0.0, 0.5, 1.0, 0.75, 0.5]
    assert [gradient((1.0, 0.0), i / 4, steps=True) for i in range(5)] == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_a_line_between_equal_values_never_leaves_them():
    # (1 - f) * v + f * v can be a unit above v, and so out of a field's range.
    for value in (1.0, 0.1, 0.7, 1 / 3):
        assert {gradient((value, value, value), i / 97) for i in range(98)} == {value}


def test_layers_take_their_place_on_the_gradient_and_other_tensors_the_first_value():
    operator = scheduled(DELTA, rule("scales", (0.0, 1.0)))
    for layer in range(LAYERS):
        assert operator.at(f"layers.{layer}.wq.weight").scales == (layer / 4, layer / 4)
    for name in ("tok_embeddings.weight", "norm.weight", "lm_head.weight"):
        assert operator.at(name).scales == (0.0, 0.0)
    alone = scheduled(DELTA, rule("scales", (0.0, 1.0)), layers=1)
    assert alone.at("layers.0.wq.weight").scales == (1.0, 1.0)
    assert alone.at("norm.weight").scales == (0.0, 0.0)


def test_the_first_rule_that_takes_a_name_counts_entry_by_entry():
    operator = scheduled(
        DELTA,
        rule("scales", (0.5,), "mlp", parent=1),
        rule("scales", (0.9,), "layers.2.", parent=None),
        rule("scales", (0.1,), parent=0),
        rule("scales", (0.7,)),
    )
    assert operator.at("layers.0.wq.weight").scales == (0.1, 0.7)
    assert operator.at("layers.0.mlp.weight").scales == (0.1, 0.5)
    assert operator.at("layers.2.mlp.weight").scales == (0.9, 0.5)
    assert scheduled(DELTA, rule("scales", (0.5,), "nowhere")).at("norm.weight") == DELTA


def test_a_flag_is_switched_by_name_and_by_layer():
    ties = Ties(densities=(0.5, 0.5), weights=(1.0, 1.0), normalize=True, scale=1.0, skip=())
    operator = scheduled(ties, rule("normalize", (0.0,), "mlp"), rule("normalize", (1.0, 0.0)))
    flags = [operator.at(f"layers.{i}.wq.weight").normalize for i in range(LAYERS)]
    assert flags == [True, True, True, True, False]
    assert operator.at("layers.0.mlp.weight").normalize is False


# -- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "rules"),
    [
        (DELTA, [rule("scales", (0.0, 1.0), parent=0)]),
        (Dare(keep=0.5, scales=(0.5, 0.5), seed=3, skip=()), [rule("keep", (0.2, 0.9)), rule("scales", (1.0,), "mlp")]),
        (Slerp(t=0.5, skip=()), [rule("t", (0.0, 1.0, 0.5)), rule("t", (0.5,))]),
        (SignAwareMerge(density=0.5, weights=(1.0, 1.0), scale=1.0, skip=()), [rule("density", (0.1, 1.0))]),
        (Blend(weights=(0.5, 0.5)), [rule("weights", (0.0, 1.0), parent=0), rule("weights", (1.0, 0.0), parent=1)]),
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
def test_every_tensor_is_that_of_the_inner_operator_with_its_values(inner, rules):
    inputs, operator = family(2), scheduled(inner, *rules)
    child = compute(operator, inputs, chunk=13, threads=2)
    for name in inputs.names:
        assert same(child, compute(operator.at(name), inputs), [name]), name
    assert not same(child, compute(inner, inputs), inputs.names)


@pytest.mark.parametrize("kind", [k for k in operator_types() if k is not Scheduled], ids=lambda kind: kind.tag())
def test_without_rules_it_is_the_inner_operator(kind):
    parents = max(kind.parents_needed[0], min(2, kind.parents_needed[1]))
    inputs = family(parents)
    for inner in kind.examples(parents):
        operator = scheduled(inner)
        operator.validate(parents)
        child, plain = compute(operator, inputs), compute(inner, inputs)
        assert tuple(child) == tuple(plain)
        assert same(child, plain, plain)
        assert operator.delta_bound(inputs) == pytest.approx(inner.delta_bound(inputs), rel=1e-8)
        assert operator.storage == inner.storage


def test_the_whole_model_of_an_inner_operator_is_the_tensors_of_one_setting():
    inputs = family(1)
    prune = Prune(fraction=0.5, scope="global", skip=())
    child = compute(scheduled(prune, rule("fraction", (0.25,), "mlp")), inputs)
    for names, share in (
        ([n for n in inputs.names if "mlp" in n], 0.25),
        ([n for n in inputs.names if "mlp" not in n], 0.5),
    ):
        flat = np.concatenate([child[name].reshape(-1) for name in names])
        assert (flat == 0).sum() == flat.size * share


def test_the_bound_is_that_of_the_parts_together():
    inputs = family(2)
    operator = scheduled(DELTA, rule("scales", (0.0,), "layers"), rule("scales", (0.5, 1.0)))
    outside = ("tok_embeddings.weight", "norm.weight")
    plain = TaskDelta(scales=(0.5, 0.5), skip=("layers.*",)).delta_bound(inputs)
    assert operator.delta_bound(inputs) == pytest.approx(plain, rel=1e-6)
    child = compute(operator, inputs)
    moved = math.sqrt(sum(float(np.sum((child[n] - inputs.base.flat(n).reshape(SHAPES[n])) ** 2.0)) for n in outside))
    assert moved <= operator.delta_bound(inputs) <= moved * 1.001


def test_layout_changes_and_storage_are_those_of_the_inner_operator():
    inputs = family(2)
    stacked = decode_operator({"operator": "passthrough/1", "segments": [{"parent": 1, "first": 1, "last": 4}]})
    assert isinstance(stacked, Passthrough)
    operator = scheduled(stacked)
    assert operator.reference(inputs).names == stacked.reference(inputs).names
    assert scheduled(Quantise.examples(1)[0]).storage == Quantise.examples(1)[0].storage


# -- refusals and records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (rule("scales", (0.1, 5.0)), r"rules\[0\]\.values\[1\]: 5\.0 is outside -4\.\.4"),
        (rule("scales", (math.nan,)), r"values\[0\]"),
        (rule("skip", (0.1,)), r"rules\[0\]\.field: 'skip' cannot be scheduled"),
        (rule("nothing", (0.1,)), r"rules\[0\]\.field"),
        (rule("validate", (0.1,)), r"rules\[0\]\.field"),
        (rule("family", (0.1,)), r"rules\[0\]\.field"),
        (rule("scales", ()), r"rules\[0\]\.values: no values"),
    ],
)
def test_a_rule_that_does_not_fit_the_inner_operator_is_refused(wrong, where):
    with pytest.raises(OutsideAllowlist, match=where) as caught:
        scheduled(DELTA, wrong).validate(2)
    assert caught.value.reason == "operator.schedule"


def test_seeds_words_and_half_flags_cannot_be_scheduled():
    dare = Dare(keep=0.5, scales=(0.5,), seed=3, skip=())
    ties = Ties(densities=(0.5,), weights=(1.0,), normalize=True, scale=1.0, skip=())
    for inner, wrong in ((dare, rule("seed", (1.0,))), (ties, rule("normalize", (0.5,)))):
        with pytest.raises(OutsideAllowlist, match="scheduled/1: rules"):
            scheduled(inner, wrong).validate(1)


@pytest.mark.parametrize("parent", [-1, 2])
def test_an_entry_the_field_does_not_have_is_refused(parent):
    with pytest.raises(ParentsDoNotFit, match=rf"rules\[0\]\.parent: scales has no entry {parent}"):
        scheduled(DELTA, rule("scales", (0.1,), parent=parent)).validate(2)
    with pytest.raises(ParentsDoNotFit, match="t has no entry 0"):
        scheduled(Slerp(t=0.5, skip=()), rule("t", (0.1,), parent=0)).validate(2)


def test_values_that_do_not_fit_together_are_refused_before_any_work():
    operator = scheduled(Blend(weights=(0.5, 0.5)), rule("weights", (0.0, 1.0), parent=0))
    operator.validate(2)
    with pytest.raises(OutsideAllowlist, match="sum to"):
        compute(operator, family(2))


def test_a_model_with_more_layers_than_the_schedule_is_refused():
    with pytest.raises(ParentsDoNotFit, match="spread over 4 layers; the model has 5") as caught:
        scheduled(DELTA, layers=4).check(family(2))
    assert caught.value.reason == "operator.layers"


def test_a_schedule_cannot_hold_a_schedule():
    with pytest.raises(OutsideAllowlist, match="inner"):
        scheduled(scheduled(DELTA)).validate(2)
    record = {"operator": "scheduled/1", "inner": {"operator": "scheduled/1"}, "layers": 2, "rules": []}
    with pytest.raises(RecordRefused, match="inner"):
        decode_operator(record)


def test_a_record_is_read_with_the_inner_operator_inside():
    record = {
        "operator": "scheduled/1",
        "inner": {"operator": "task-delta/1", "scales": [0.5, 0.25], "skip": ["*norm*"]},
        "layers": 5,
        "rules": [{"field": "scales", "parent": 1, "filter": "mlp", "values": [0, 0.5, 1]}],
    }
    operator = decode_operator(record)
    inner = TaskDelta(scales=(0.5, 0.25), skip=("*norm*",))
    assert operator == scheduled(inner, rule("scales", (0.0, 0.5, 1.0), "mlp", parent=1))
    assert canonical(operator) == canonical(record)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"inner": {"operator": "task-delta/1", "scales": [0.5, "x"], "skip": []}}, r"inner\.scales\[1\]"),
        ({"inner": {"operator": "task-delta/1", "scales": [0.5]}}, "skip"),
        ({"inner": {"operator": "nothing/1"}}, "inner"),
        ({"inner": {}}, "operator"),
        ({"rules": [{"field": "scales", "parent": None, "filter": "", "values": [1]}]}, "filter"),
        ({"rules": [{"field": "scales", "parent": None, "filter": "*", "values": []}]}, "values"),
        ({"rules": [{"field": "scales", "parent": None, "filter": "*", "values": [1], "more": 1}]}, "more"),
        ({"rules": [{"field": "scales", "filter": "*", "values": [1]}]}, "parent"),
    ],
)
def test_a_record_with_a_fault_inside_is_refused_by_its_place(change, place):
    inner = {"operator": "task-delta/1", "scales": [0.5], "skip": []}
    with pytest.raises(RecordRefused, match=place):
        decode_operator({"operator": "scheduled/1", "inner": inner, "layers": 2, "rules": [], **change})


def test_an_inner_value_out_of_its_range_is_refused():
    inner = {"operator": "task-delta/1", "scales": [5], "skip": []}
    with pytest.raises(OutsideAllowlist, match=r"task-delta/1: scales\[0\]"):
        decode_operator({"operator": "scheduled/1", "inner": inner, "layers": 2, "rules": []})


def test_operators_of_the_whole_model_can_be_scheduled_too():
    inputs = family(2)
    for inner in (CrossoverSplit.examples(2)[0], FederatedUpdate.examples(2)[0]):
        field = "points" if isinstance(inner, CrossoverSplit) else "scale"
        operator = scheduled(inner, rule(field, (0.25,), "mlp"))
        child = compute(operator, inputs, chunk=11)
        assert all(np.isfinite(array).all() for array in child.values())
        assert operator.delta_bound(inputs) > 0
