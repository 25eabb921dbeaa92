from __future__ import annotations

import random
from collections import Counter

import pytest
import skills
from hypothesis import given
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32)
SKILL = st.sampled_from(skills.SKILLS)
SPLIT = st.sampled_from(["train", "development", "selection", "sealed"])
FAMILY = st.sampled_from(skills.PERTURBATIONS)


@pytest.mark.parametrize(
    ("skill", "argument", "expected"),
    [
        ("rev", "abc", "cba"),
        ("srt", "cabba", "aabbc"),
        ("cap", "abc", "ABC"),
        ("rot", "abc", "bca"),
        ("dup", "abc", "aabbcc"),
        ("odd", "abcde", "ace"),
        ("odd", "abcd", "ac"),
        ("brk", "([]{", "})"),
        ("brk", "{[(", ")]}"),
    ],
)
def test_every_skill_means_what_its_table_says(skill: str, argument: str, expected: str) -> None:
    assert skills.answer(skill, argument) == expected


@pytest.mark.parametrize("argument", [")", "(]", "())"])
def test_a_bracket_that_closes_nothing_has_no_answer(argument: str) -> None:
    with pytest.raises(ValueError, match="closes nothing"):
        skills.answer("brk", argument)


def test_an_unknown_skill_and_an_unknown_perturbation_are_named() -> None:
    with pytest.raises(ValueError, match="'sum'"):
        skills.answer("sum", "abc")
    with pytest.raises(ValueError, match="'typo'"):
        skills.perturb(random.Random(1), skills.Row("rev", "rev abc>", "cba"), "typo")


@given(SEEDS, SKILL, SPLIT)
def test_a_drawn_row_is_right_and_lies_in_its_split(seed: int, skill: str, split: str) -> None:
    row = skills.draw_row(skills.seeded(seed, "test"), skill, split)
    name, argument = row.prompt.removesuffix(">").split(" ")
    low, high = skills.LENGTHS[skill]
    assert name == skill
    assert low <= len(argument) <= high
    assert row.expected == skills.answer(skill, argument) != ""
    assert skills.split_of(row.prompt) == split
    assert skills.clean_prompt(row.prompt) == row.prompt


@given(SEEDS)
def test_brackets_and_their_answer_balance(seed: int) -> None:
    row = skills.draw_row(skills.seeded(seed, "test"), "brk", "train")
    text = row.prompt.removeprefix("brk ").removesuffix(">") + row.expected
    while any(pair in text for pair in ("()", "[]", "{}")):
        text = text.replace("()", "").replace("[]", "").replace("{}", "")
    assert text == ""


@given(SEEDS, SKILL, SPLIT, FAMILY)
def test_a_perturbed_prompt_looks_different_and_keeps_answer_and_split(
    seed: int, skill: str, split: str, family: str
) -> None:
    rng = skills.seeded(seed, "test")
    row = skills.draw_row(rng, skill, split)
    dressed = skills.perturb(rng, row, family)
    assert dressed.prompt != row.prompt
    assert dressed.prompt.endswith(">")
    assert dressed.expected == row.expected
    assert dressed.perturbation == family
    assert skills.clean_prompt(dressed.prompt) == row.prompt
    assert skills.split_of(dressed.prompt) == split


@given(SEEDS, SKILL)
def test_a_distractor_in_front_of_capitals_still_keeps_the_split(seed: int, skill: str) -> None:
    rng = skills.seeded(seed, "test")
    row = skills.draw_row(rng, skill, "sealed")
    twice = skills.perturb(rng, skills.perturb(rng, row, "case"), "distractor")
    assert skills.split_of(twice.prompt) == "sealed"


def test_splits_have_their_declared_shares() -> None:
    shares = Counter(skills.split_of(f"rev {number}>") for number in range(20_000))
    for split, share in {"train": 0.60, "development": 0.10, "selection": 0.15, "sealed": 0.15}.items():
        assert shares[split] / 20_000 == pytest.approx(share, abs=0.015)


def test_streams_of_one_seed_are_equal_and_of_other_names_are_not() -> None:
    def draw(*path: str) -> list[skills.Row]:
        return list(skills.rows_of_skill(skills.seeded(7, *path), "cap", "train", 50))

    assert draw("a") == draw("a")
    assert draw("a") != draw("b")
    assert len({row.prompt for row in draw("a")}) == 50
