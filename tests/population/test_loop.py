"""Every search: the soup first, equal recipes once, exactly the budget, and the same again from the same results."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from studbook.errors import OutOfOrder
from studbook.population import (
    NaturalNiches,
    Objective,
    Outcome,
    Proposal,
    RandomSearch,
    Score,
    Search,
    make_space,
    soup,
)
from studbook.population.loop import STALL
from studbook.records import digest

ITEMS = 40
SPACE = make_space("scales", 3, {"scales": (0.0, 1.0)})


def answer(operator):
    """A made-up model: an item is right where its own mark lies below a smooth bump of the scales."""
    scales = operator.get("scales", operator.get("weights"))
    height = 1.0 - sum((s - want) ** 2 for s, want in zip(scales, (0.6, 0.2, 0.4), strict=True))
    bits = "".join("1" if (7 * i % ITEMS) / ITEMS < height else "0" for i in range(ITEMS))
    return Outcome((bits[:10], bits[10:]), (round((height - 2) * 1e7), round((height - 2) * 3e7)))


class World:
    """Runs recipes and remembers which."""

    def __init__(self, known=None):
        self.known, self.ran = known or {}, []

    def __call__(self, tasks):
        for task in tasks:
            if task.identity not in self.known:
                self.ran.append(task.identity)
                self.known[task.identity] = answer(task.operator)
            yield self.known[task.identity]


def search(method, budget, world=None, space=SPACE, kind="worst"):
    return Search(space, method, Objective(kind, ("a", "b"), ("a", "b")), budget, digest, world or World())


class Fixed:
    """Proposes the same genomes for ever."""

    def __init__(self, *genomes):
        self.genomes, self.told = genomes, []

    def ask(self):
        return [Proposal(genome) for genome in self.genomes]

    def tell(self, results):
        self.told.append(results)


METHODS = {"random": lambda seed: RandomSearch(SPACE, seed), "m2n2": lambda seed: NaturalNiches(SPACE, seed)}


@pytest.mark.parametrize("name", METHODS)
@given(budget=st.integers(1, 24), seed=st.integers(0, 2**53 - 1))
@settings(max_examples=10, deadline=None)
def test_a_search_runs_exactly_its_budget_and_no_recipe_twice(name, budget, seed):
    world = World()
    made = search(METHODS[name](seed), budget, world)
    rows = list(made.steps())
    assert len(rows) == len(world.ran) == len(set(world.ran)) == budget
    assert (made.ended, rows[0].origin, rows[0].recipe) == ("budget", "soup", digest(soup(3)))
    assert [row.recipe for row in rows] == [digest(operator) for operator in made.operators]


@pytest.mark.parametrize("name", METHODS)
@given(cut=st.integers(0, 30), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_search_cut_anywhere_and_run_again_over_what_is_known_is_the_same(name, cut, seed):
    whole = search(METHODS[name](seed), 30)
    list(whole.steps())
    known = World()
    list(itertools.islice(search(METHODS[name](seed), 30, known).steps(), cut))
    world = World(dict(known.known))
    again = search(METHODS[name](seed), 30, world)
    list(again.steps())
    assert (again.evaluated, again.repeats, again.ended) == (whole.evaluated, whole.repeats, whole.ended)
    assert len(world.ran) == 30 - len(known.known)


def test_a_recipe_proposed_again_costs_nothing_and_is_told_the_same_result():
    method = Fixed((1, 2, 3), (4, 5, 6), (1, 2, 3))
    world = World()
    made = search(method, 100, world)
    list(made.steps())
    assert len(world.ran) == 3
    assert made.ended == "exhausted"
    assert (made.repeats[0].after, made.repeats[0].of) == (3, 1)
    assert len(made.repeats) >= STALL
    first = method.told[0]
    assert first[0].score == first[2].score != first[1].score


def test_the_last_generation_is_cut_at_the_budget_and_never_told():
    method = Fixed((1, 2, 3), (4, 5, 6), (7, 8, 9))
    made = search(method, 3)
    assert [row.genome for row in made.steps()] == ["", "1 2 3", "4 5 6"]
    assert method.told == []


def test_the_best_is_the_largest_objective_then_likelihood_then_the_earlier_and_never_a_parent():
    made = search(Fixed((1, 2, 3)), 1)
    list(made.steps())
    rows = [(5, -1, "proposal"), (9, -9, "founder"), (7, -3, "proposal"), (7, -2, "proposal"), (7, -2, "soup")]
    made.evaluated = [
        replace_struct(made.evaluated[0], origin=origin, objective_ppm=ppm, tie_micro=tie) for ppm, tie, origin in rows
    ]
    assert made.best() == 3


def test_a_search_of_which_nothing_could_be_run_says_why():
    made = Search(
        SPACE, Fixed((1, 2, 3)), Objective("worst", ("a",), ("a",)), 2, digest,
        lambda tasks: iter([Outcome((), (), "is not finite") for _ in tasks]),
    )  # fmt: skip
    rows = list(made.steps())
    assert [row.objective_ppm for row in rows] == [-1, -1]
    with pytest.raises(OutOfOrder, match="is not finite"):
        made.best()


def test_the_objective_is_the_worst_or_the_mean_label_with_suites_of_a_label_pooled():
    outcome = Outcome(("1100", "10", "1111"), (-3_000_000, -1_000_000, -600_000))
    suites = ("a", "a", "b")
    assert Objective("worst", suites, ("a", "b")).score(outcome) == Score(500_000, -460_000)
    assert Objective("mean", suites, ("a", "b")).score(outcome) == Score(750_000, -460_000)
    assert Objective("worst", suites, ("b",)).score(outcome) == Score(1_000_000, -150_000)


scores = st.builds(Score, st.integers(-1, 1_000_000), st.integers(-(10**9), 0))


@given(scores, scores)
@settings(deadline=None)
def test_costs_are_ordered_as_scores_are(first, second):
    if first.objective_ppm < 0 or second.objective_ppm < 0:
        assert (first.cost > second.cost) == (first.objective_ppm < 0 <= second.objective_ppm)
    elif first.objective_ppm != second.objective_ppm:
        assert (first.cost < second.cost) == (first > second)
    else:
        # So close that f64 may not part them; never the wrong way round.
        assert (first.cost <= second.cost) or first < second
