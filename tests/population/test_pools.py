"""Drawing parents: sharing, attraction, fronts, the brake on many children, and conflicts between mates."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.population.pools import Ready, draw_parents

pools = st.integers(1, 20).flatmap(
    lambda n: st.lists(st.tuples(st.text("01", min_size=n, max_size=n), st.integers(0, 9)), min_size=1, max_size=7)
)
SEEDS = range(400)


def ready(*rows: tuple[str, int] | str) -> list[Ready]:
    pairs = [(row, 0) if isinstance(row, str) else row for row in rows]
    return [Ready(f"m{i}", bits, children) for i, (bits, children) in enumerate(pairs)]


def firsts(members: list[Ready], method: str = "niches", place: int = 0, **more) -> Counter[str]:
    return Counter(draw_parents(members, method, 2, seed, **more).chosen[place] for seed in SEEDS)


@given(pools, st.sampled_from(["niches", "front", "all"]), st.integers(2, 5), st.integers(0, 99))
@settings(deadline=None)
def test_a_draw_is_distinct_as_large_as_it_can_be_and_the_same_again(rows, method, size, seed):
    members = ready(*rows)
    first = members[-1].artifact
    draw = draw_parents(members, method, size, seed, first)
    assert draw == draw_parents(members, method, size, seed, first)
    assert len(set(draw.chosen)) == len(draw.chosen) == min(size, len(members))
    assert draw.chosen[0] == first
    assert len(draw.weights_ppm) == len(members)
    assert 0 <= sum(draw.weights_ppm) <= 1_000_000


def test_a_model_that_knows_what_nobody_else_does_is_drawn_more_often():
    members = ready("111000", "111000", "000111")
    weights = draw_parents(members, "niches", 2, 1).weights_ppm
    assert weights == (250_000, 250_000, 500_000)


def test_mates_are_drawn_by_what_the_others_do_not_know_yet():
    members = ready("1111000", "1110000", "0000111", "0000001")
    seconds = Counter(draw_parents(members, "niches", 2, seed, "m0").chosen[1] for seed in SEEDS)
    assert seconds["m1"] == 0
    assert seconds["m2"] > 2 * seconds["m3"] > 0
    thirds = {draw_parents(members, "niches", 3, seed, "m0").chosen[2] for seed in SEEDS}
    assert "m1" in thirds


def test_the_front_holds_nobody_whom_another_covers_and_one_of_equals():
    members = ready("1110", "1100", "0011", "0011")
    assert draw_parents(members, "front", 2, 1).weights_ppm == (600_000, 0, 400_000, 0)


def test_children_had_before_make_a_parent_less_likely():
    members = ready(("1100", 0), ("0011", 15), ("1001", 0))
    found = firsts(members)
    assert 0 < found["m1"] < min(found["m0"], found["m2"])


def test_a_mate_whose_signs_oppose_is_drawn_less_often_and_never_at_full_conflict():
    members = ready("1100", "0011", "0011")
    even = firsts(members, place=1, first="m0")
    assert min(even["m1"], even["m2"]) > 120
    for conflict in (0.8, 1.0):
        found = firsts(members, place=1, first="m0", conflicts={frozenset(("m0", "m1")): conflict})
        assert found["m1"] < found["m2"] / 2
        assert (found["m1"] == 0) is (conflict == 1.0)


@pytest.mark.parametrize("method", ["niches", "front"])
def test_where_nobody_knows_anything_everybody_is_as_likely(method):
    found = firsts(ready("000", "000", "000"), method)
    assert min(found.values()) > 90
