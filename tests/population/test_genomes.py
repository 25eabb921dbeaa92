"""Genomes lie on their grid, inside the policy's bounds, and every one means exactly one operator record."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.breeding.operators import decode_operator
from studbook.errors import OutsideAllowlist, StudbookError, UsageError
from studbook.lab.search_worker import block_of
from studbook.population import Draws, make_space, recipe, soup
from studbook.population.genomes import centre, founders, random_genome, snap, unit_values

WIDE = {"scales": (-1.0, 1.0)}


def test_a_genome_of_scales_is_a_task_delta_with_one_scale_a_parent():
    space = make_space("scales", 3, WIDE)
    assert recipe(space, (250, 0, 1000)) == {"operator": "task-delta/1", "scales": [0.25, 0.0, 1.0], "skip": []}


def test_layers_and_filters_become_rules_whose_values_run_over_the_layers():
    space = make_space("scales", 2, WIDE, 3, layered=True, filters=("wo",))
    genome = tuple(range(12))
    made = recipe(space, genome)
    assert (made["operator"], made["layers"]) == ("scheduled/1", 3)
    assert made["inner"] == {"operator": "task-delta/1", "scales": [0.0, 0.0], "skip": []}
    for rule in made["rules"]:
        assert rule["field"] == "scales"
        for layer, value in enumerate(rule["values"]):
            group = 0 if rule["filter"] == "wo" else 1
            name = f"scales/filter-{group}/layer-{layer}/parent-{rule['parent']}"
            place = [gene.name for gene in space.genes].index(name)
            assert value == genome[place] / 1000
    decode_operator(made)
    assert [(r["filter"], r["parent"]) for r in made["rules"]] == [("wo", 0), ("wo", 1), ("*", 0), ("*", 1)]


def test_a_genome_of_ties_is_a_sign_aware_merge():
    space = make_space("ties", 2, {"density": (0.05, 1.0), "scale": (-1.0, 1.5)})
    expected = {"operator": "sign-aware-merge/1", "density": 0.7, "weights": [0.5, 0.5], "scale": 1.0, "skip": []}
    assert recipe(space, centre(space)) == expected
    decode_operator(expected)


def test_points_of_a_split_come_out_ascending_whatever_the_genome():
    made = recipe(make_space("split", 3, {}), (900, 100))
    assert made == {"operator": "crossover-split/1", "points": [0.1, 0.9]}
    decode_operator(made)


@given(st.integers(2, 16), st.integers(0, 2**53 - 1))
@settings(deadline=None)
def test_every_drawn_genome_is_an_operator_the_policy_bounds_allow(parents, seed):
    bounds = {"scales": (-1.0, 0.6125)}
    space = make_space("scales", parents, bounds)
    genome = random_genome(space, Draws(seed, "test"))
    operator = decode_operator(recipe(space, genome))
    assert all(0.0 <= scale <= 0.6125 for scale in operator.scales)
    assert snap(space, [n / 1000 for n in genome]) == genome


@given(st.floats(-4, 4), st.floats(-4, 4))
@settings(deadline=None)
def test_bounds_are_rounded_inwards_onto_the_grid(first, second):
    low, high = sorted((first, second))
    try:
        space = make_space("scales", 2, {"scales": (low, high)})
    except OutsideAllowlist:
        assert math.floor(1000 * min(high, 1.0)) < math.ceil(1000 * max(low, 0.0)) or high < 0 or low > 1
        return
    gene = space.genes[0]
    assert max(low, 0.0) - 1e-12 <= gene.low / 1000 <= gene.high / 1000 <= min(high, 1.0) + 1e-12


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
@settings(deadline=None)
def test_whatever_is_proposed_lands_inside_the_space(values):
    space = make_space("scales", 4, WIDE)
    genome = snap(space, values)
    assert all(gene.low <= n <= gene.high for n, gene in zip(genome, space.genes, strict=True))
    assert all(0.0 <= x <= 1.0 for x in unit_values(space, genome))


def test_the_centre_is_the_soup_and_the_founders_are_the_parents():
    space = make_space("scales", 4, WIDE, 2, layered=True)
    assert centre(space) == (250,) * 8
    assert founders(space)[1] == (0, 1000, 0, 0, 0, 1000, 0, 0)
    assert soup(4) == {"operator": "blend/1", "weights": [0.25] * 4}
    with pytest.raises(UsageError):
        founders(make_space("ties", 2, {}))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: make_space("scales", 1, WIDE),
        lambda: make_space("ties", 2, {}, layered=True),
        lambda: make_space("split", 2, {}, filters=("wo",)),
        lambda: make_space("scales", 2, {"scales": (-1.0, -0.5)}),
    ],
)
def test_a_space_that_holds_nothing_is_refused(wrong):
    with pytest.raises(StudbookError) as caught:
        wrong()
    assert isinstance(caught.value, UsageError | OutsideAllowlist)
    assert caught.value.advice


def test_draws_are_a_fixed_sequence_of_seed_and_name():
    draws = Draws(7, "m2n2")
    assert [draws.below(1000) for _ in range(4)] == [
        Draws(7, "m2n2").below(1000),
        *[draws_after(7, n) for n in (1, 2, 3)],
    ]
    assert Draws(7, "m2n2").share() != Draws(7, "random").share()
    assert Draws(7, "m2n2").share() != Draws(8, "m2n2").share()


def draws_after(seed, skipped):
    draws = Draws(seed, "m2n2")
    for _ in range(skipped):
        draws.share()
    return draws.below(1000)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.integers(0, 1000))
@settings(deadline=None)
def test_a_weighted_draw_never_takes_what_weighs_nothing(weights, seed):
    index = Draws(seed, "weights").weighted(weights)
    assert weights[index] > 0 or not sum(weights) > 0


def test_a_weighted_draw_follows_the_weights():
    draws = Draws(1, "weights")
    counts = [0, 0, 0]
    for _ in range(6000):
        counts[draws.weighted([1.0, 0.0, 3.0])] += 1
    assert counts[1] == 0
    # Four standard deviations of a share of 1/4 in 6,000 draws.
    assert abs(counts[0] / 6000 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 6000)


@pytest.mark.parametrize("layered", [True, False])
def test_every_tensor_of_a_schedule_gets_the_scales_of_its_block(layered):
    space = make_space("scales", 2, WIDE, 3, layered=layered, filters=("wo",))
    genome = tuple(100 + 7 * n for n in range(len(space.genes)))
    operator = decode_operator(recipe(space, genome))
    for name in (
        "tok_embeddings.weight",
        "layers.0.wo.weight",
        "layers.1.w1.weight",
        "layers.2.wo.weight",
        "norm.weight",
    ):
        block = block_of(name, space.layers, space.filters)
        own = [n / 1000 for n, gene in zip(genome, space.genes, strict=True) if gene.block == block]
        assert operator.at(name).scales == pytest.approx(own, abs=1e-12)
