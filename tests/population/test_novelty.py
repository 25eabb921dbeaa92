"""Descriptors and the grid: distances, neighbours, classes of errors, and the best of every cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.population.novelty import cells, elites, errors_of, hamming, nearest, novelty_ppm

bits = st.integers(1, 60).flatmap(lambda n: st.tuples(*[st.text("01", min_size=n, max_size=n)] * 3))


@given(bits)
def test_the_distance_is_the_share_of_items_answered_differently_and_a_metric(three):
    a, b, c = three
    assert hamming(a, b) == round(sum(x != y for x, y in zip(a, b, strict=True)) * 1_000_000 / len(a))
    assert hamming(a, a) == 0
    assert hamming(a, b) == hamming(b, a)
    assert hamming(a, c) <= hamming(a, b) + hamming(b, c) + 1


def test_answers_to_other_items_have_no_distance():
    with pytest.raises(UsageError):
        hamming("10", "100")
    with pytest.raises(UsageError):
        hamming("", "")


def test_novelty_is_the_mean_distance_to_the_five_nearest():
    others = {name: "1" * right + "0" * (10 - right) for right, name in enumerate("abcdefgh")}
    near = nearest("0" * 10, others)
    assert [name for name, _ in near] == ["a", "b", "c", "d", "e"]
    assert novelty_ppm(near) == 200_000
    assert novelty_ppm(()) == 1_000_000


def test_equally_near_models_stand_in_order_of_their_digests():
    assert nearest("00", {"b": "01", "a": "10", "c": "01"}, 2) == (("a", 500_000), ("b", 500_000))


def test_wrong_answers_are_counted_by_how_far_off_they_were():
    assert errors_of("10000", [-1, -999_999, -1_000_000, -4_000_000, -9_000_000]) == (1, 1, 2)
    assert sum(errors_of("0101", [-5] * 4)) == 2


def test_a_cell_is_the_lead_over_the_field_and_the_worst_skill():
    shares = {"x": {"rev": 0.9, "srt": 0.5}, "y": {"rev": 0.8, "srt": 0.7}}
    assert cells(shares) == {"x": "leads in rev, worst at srt", "y": "leads in srt, worst at srt"}


def test_the_best_of_every_cell_stays_and_of_equals_the_first_digest():
    found = elites({"a": "one", "b": "one", "c": "two", "d": "two"}, {"a": 0.5, "b": 0.6, "c": 0.4, "d": 0.4})
    assert found == {"one": "b", "two": "c"}
