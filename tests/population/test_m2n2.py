"""M2N2 against its formulas, written once more the slow way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.population import NaturalNiches, Outcome, Result, Score, make_space
from studbook.population.m2n2 import Member, attraction, fitness, mixing

SPACE = make_space("scales", 2, {"scales": (0.0, 1.0)}, 3, layered=True)
archives = st.integers(1, 6).flatmap(
    lambda items: st.lists(st.text("01", min_size=items, max_size=items), min_size=2, max_size=5)
)


def members(bits):
    return [Member((n, 0), row) for n, row in enumerate(bits)]


@given(archives, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(deadline=None)
def test_fitness_and_attraction_are_the_formulas_of_the_paper(bits, alpha):
    s = [[int(bit) for bit in row] for row in bits]
    z = [sum(row[j] for row in s) for j in range(len(s[0]))]
    worth = [float(n) ** -alpha if n else 0.0 for n in z]
    expected = [sum(row[j] * worth[j] for j in range(len(z))) for row in s]
    pull = [sum(max(0, row[j] - s[0][j]) * worth[j] for j in range(len(z))) for row in s]
    assert fitness(members(bits), alpha) == pytest.approx(expected, rel=1e-12)
    assert attraction(members(bits), bits[0], alpha) == pytest.approx(pull, rel=1e-12)
    assert attraction(members(bits), bits[0], alpha)[0] == 0.0


def test_a_skill_that_one_model_has_alone_is_worth_more_than_one_that_all_share():
    assert fitness(members(["1100", "1110", "1101"])) == pytest.approx([2 / 3, 5 / 3, 5 / 3])
    assert fitness(members(["111000", "000111", "111000"])) == pytest.approx([1.5, 3.0, 1.5])


def test_slerp_of_orthogonal_task_vectors_keeps_their_length_and_lerp_does_not():
    table = [[4.0, 0.0], [0.0, 4.0]]
    left, right = mixing(0.5, (1.0, 0.0), (0.0, 1.0), table)
    assert (left, right) == (pytest.approx(math.sqrt(0.5)), pytest.approx(math.sqrt(0.5)))
    assert mixing(0.5, (1.0, 0.0), (0.0, 1.0), None) == (0.5, 0.5)


@given(st.floats(0, 1), st.lists(st.floats(0.1, 1), min_size=4, max_size=4), st.floats(-0.9, 0.9))
@settings(deadline=None)
def test_slerp_between_vectors_of_one_length_stays_on_their_sphere(t, scales, cosine):
    table = [[1.0, cosine], [cosine, 1.0]]

    def inner(x, y):
        return sum(x[i] * y[j] * table[i][j] for i in range(2) for j in range(2))

    first = [s / math.sqrt(inner(scales[:2], scales[:2])) for s in scales[:2]]
    second = [s / math.sqrt(inner(scales[2:], scales[2:])) for s in scales[2:]]
    left, right = mixing(t, first, second, table)
    mixed = [left * x + right * y for x, y in zip(first, second, strict=True)]
    assert math.sqrt(inner(mixed, mixed)) == pytest.approx(1.0, abs=3e-4)


@pytest.mark.parametrize("table", [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
def test_vectors_without_length_or_of_one_direction_are_mixed_straight(table):
    assert mixing(0.25, (1.0, 0.0), (0.0, 1.0), table) == (0.75, 0.25)


def results(proposals, bits, detail=""):
    return [Result(p, Outcome((b,), (0,), detail), Score(0, 0)) for p, b in zip(proposals, bits, strict=True)]


def test_it_begins_with_the_parents_and_then_proposes_one_child_at_a_time():
    method = NaturalNiches(SPACE, 1)
    first = method.ask()
    assert [p.origin for p in first] == ["founder", "founder"]
    assert first[0].genome == (1000, 0) * 3
    method.tell(results(first, ["10", "01"]))
    (child,) = method.ask()
    assert child.origin == "proposal"


def test_layers_before_the_split_take_one_share_and_the_others_its_complement():
    method = NaturalNiches(SPACE, 1)
    child = method._child((1000, 0) * 3, (0, 1000) * 3, 0.25, 1)
    assert child == (750, 250, 250, 750, 250, 750)
    assert method._child((1000, 0) * 3, (0, 1000) * 3, 0.25, 3) == (750, 250) * 3


def test_the_partner_knows_what_the_first_parent_does_not():
    """Parents with disjoint skills and a twin of the first: the twin has nothing to offer and is never the partner."""
    for seed in range(30):
        method = NaturalNiches(SPACE, seed)
        method.members = [Member((1000, 0) * 3, "1100"), Member((900, 0) * 3, "1100"), Member((0, 1000) * 3, "0011")]
        method._begun = True
        (child,) = method.ask()
        assert any(child.genome[1::2]) and any(child.genome[::2])


def test_the_least_fit_leaves_and_of_equals_the_newest():
    method = NaturalNiches(SPACE, 1, archive=2)
    method.tell(results(method.ask(), ["1000", "0110"]))
    kept = [member.correct for member in method.members]
    proposal = method.ask()
    method.tell(results(proposal, ["0000"]))
    assert [member.correct for member in method.members] == kept
    method.tell(results(method.ask(), ["0111"]))
    assert "0111" in [member.correct for member in method.members]
    assert len(method.members) == 2


def test_what_could_not_be_run_never_enters_the_archive():
    method = NaturalNiches(SPACE, 1)
    method.tell(results(method.ask(), ["", ""], "is not finite"))
    assert method.members == []
    assert len(method.ask()) == 1


def test_spherical_mixing_without_angles_and_spaces_without_parents_are_refused():
    with pytest.raises(UsageError):
        NaturalNiches(SPACE, 1, "slerp")
    with pytest.raises(UsageError):
        NaturalNiches(make_space("ties", 2, {}), 1)
