"""Perturbers: the same for the same seed, one change at a time, pairs of neighbours; and runs of shared words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.evaluation.contamination import TrainingRow, overlaps
from studbook.evaluation.items import Item
from studbook.evaluation.perturb import FAMILIES, pairs, perturb

TEXT = "Name the capital of Peru, 1998"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_perturber_changes_an_ordinary_prompt_and_repeats_itself(family: str) -> None:
    found = perturb(TEXT, family, 7, "item-1")
    assert found != TEXT
    assert found == perturb(TEXT, family, 7, "item-1")
    assert {perturb(TEXT, family, seed, "item-1") for seed in range(40)} != {found}


@given(st.text(max_size=40), st.sampled_from(sorted(FAMILIES)), st.integers(0, 2**53))
@settings(max_examples=60)
def test_no_text_breaks_a_perturber(text: str, family: str, seed: int) -> None:
    assert perturb(text, family, seed) == perturb(text, family, seed)


def test_what_was_perturbed_once_is_the_same_on_every_machine() -> None:
    assert perturb("abc def", "typo-swap", 1, "a") == "ab cdef"
    assert perturb("abc def", "digit-noise", 1, "a") == "abc4 def"


def test_clean_and_perturbed_items_stand_side_by_side() -> None:
    items = [Item(f"i{n}", "c", f"{TEXT} {n}", "Lima", "none") for n in range(4)]
    found = pairs(items, ["case", "drop"], 3)
    assert len(found) == 8
    assert list(found[::2]) == items
    assert [i.perturbation for i in found[1::2]] == ["case", "drop", "case", "drop"]
    assert all(a.expected == b.expected and a.prompt != b.prompt for a, b in zip(found[::2], found[1::2], strict=True))
    assert pairs([Item("x", "c", "1 + 1", "2", "none")], ["confusable"], 1) == ()


def test_an_unknown_perturber_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no perturber") as caught:
        perturb("a", "magic", 1)
    assert "typo-swap" in caught.value.advice


def test_a_run_of_thirteen_words_is_shared_and_one_of_twelve_is_not() -> None:
    words = [f"w{n}" for n in range(30)]
    item = Item("i", "c", " ".join(words[:20]), "end", "none")
    for shared, runs in ((13, 1), (12, 0)):
        row = TrainingRow("other words " + " ".join(words[3 : 3 + shared]).upper() + " and more", "x")
        assert overlaps([row], [item]) == (0, 0, runs)


def test_a_short_item_is_held_against_runs_of_eight_words() -> None:
    item = Item("i", "c", "one two three four five six seven", "eight", "none")
    assert not overlaps([TrainingRow("zero one two three four five six seven", "eight nine")], [item]).clean
    assert overlaps([TrainingRow("zero one two three four five six", "seven")], [item]).clean
    assert overlaps([TrainingRow("One  two", "x")], [Item("i", "c", "one two", "y", "none")]) == (1, 0, 0)
