from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from studbook.breeding.heredity import VARIED, mutate
from studbook.breeding.operators import trained_types
from studbook.breeding.recipes import check_recipe
from studbook.errors import OutsideAllowlist, UsageError

BOUNDS = {"steps": (10.0, 80.0), "rate": (1e-4, 2e-3), "batch": (8.0, 128.0), "rank": (1.0, 12.0), "reach": (0.1, 0.6)}
RECIPES = [
    {**to_builtins(e), "data": "cluster", "rehearsed": "others" if e.rehearsed else []}
    for kind in trained_types()
    for e in kind.examples(2)
]


@settings(deadline=None, max_examples=40)
@given(recipe=st.sampled_from(RECIPES), seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=12))
def test_every_generation_is_a_recipe_within_the_policys_bounds(recipe, seeds):
    first = recipe
    for seed in seeds:
        child = mutate(recipe, BOUNDS, seed)
        changed = {f for f in child if child[f] != recipe[f]} - {"seed"}
        assert len(changed) <= 1
        assert changed <= set(VARIED)
        assert child == mutate(recipe, BOUNDS, seed)
        check_recipe(child)
        assert all(low <= child[f] <= high for f, (low, high) in BOUNDS.items() if f in changed)
        recipe = child
    assert (recipe["data"], recipe["rehearsed"]) == (first["data"], first["rehearsed"])


def test_many_mutations_reach_every_number():
    for recipe in RECIPES:
        reached = {f for seed in range(120) for f, v in mutate(recipe, {}, seed).items() if v != recipe[f]}
        own = {f for f in VARIED if f in recipe} - (set() if recipe["rehearsed"] else {"rehearsal"})
        assert reached == own | {"seed"}


def test_a_number_that_a_record_holds_without_its_point_stays_no_whole_number():
    """Canonical JSON writes 1.0 as 1, so that is how a parent's recipe is read back from the ledger."""
    parent = {**RECIPES[2], "reach": 1, "temperature": 2, "imitation": 1}
    for field in ("reach", "temperature", "imitation"):
        found = {v for seed in range(200) if (v := mutate(parent, {}, seed)[field]) != parent[field]}
        assert any(v != int(v) for v in found), (field, found)
    steps = {mutate(parent, {}, seed)["steps"] for seed in range(200)}
    assert all(isinstance(v, int) for v in steps)


def test_what_does_not_train_has_nothing_to_inherit():
    with pytest.raises(UsageError) as caught:
        mutate({"operator": "blend/1", "weights": "uniform"}, {}, 1)
    assert caught.value.reason == "recipe.training"
    assert "distil/1" in caught.value.advice


def test_bounds_that_leave_nothing_are_refused_with_their_field():
    empty = dict.fromkeys(VARIED, (1000000000.0, 2000000000.0))
    with pytest.raises(OutsideAllowlist) as caught:
        mutate(RECIPES[0], empty, 1)
    assert caught.value.reason == "recipe.bounds"
    assert caught.value.where.startswith("policy: operators: fine-tune/1: bounds.")
