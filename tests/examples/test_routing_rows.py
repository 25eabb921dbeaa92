from __future__ import annotations

import pytest
import routing
import skills

CASES = [(skill, family) for skill in routing.ROUTED for family in routing.FAMILIES]


@pytest.mark.parametrize(("skill", "family"), CASES)
@pytest.mark.parametrize("split", ["train", "development", "sealed"])
def test_a_row_asks_for_its_skill_in_the_words_of_its_family_and_what_is_asked_lies_in_its_split(
    skill: str, family: str, split: str
) -> None:
    rows = routing.rows(3, split, family, skill, 40)
    assert len({row.prompt for row in rows}) == 40
    for row in rows:
        assert (row.skill, row.perturbation) == (skill, family)
        asked = row.prompt.rstrip(">").replace(";", " ").split(" ")[-1]
        assert row.expected == skills.answer(skill, asked)
        assert skills.split_of(f"{skill} {asked}>") == split
        # The founders' context is 64 tokens, begin and end among them.
        assert len(row.prompt) + len(row.expected) <= 62


def test_a_misspelt_word_is_no_skill_a_misleading_one_is_another_and_solved_cases_name_none() -> None:
    for skill in routing.ROUTED:
        misspelt = [row.prompt.split(" ")[0] for row in routing.rows(3, "sealed", "perturbed", skill, 40)]
        assert not set(misspelt) & set(skills.SKILLS)
        misleading = [row.prompt.split("; ")[0] for row in routing.rows(3, "sealed", "misleading", skill, 40)]
        assert set(misleading) <= set(routing.ROUTED) - {skill}
        for row in routing.rows(3, "sealed", "examples", skill, 40):
            assert " " not in row.prompt
            *cases, _ = row.prompt.split(";")
            for case in cases:
                argument, answer = case.split(">")
                assert answer == skills.answer(skill, argument)
                assert skills.split_of(f"{skill} {argument}>") == "train"


def test_the_same_seed_gives_the_same_rows_and_another_one_gives_others() -> None:
    first, second, other = (routing.hard_rows(seed, "sealed", "rev", 10) for seed in (3, 3, 4))
    assert first == second
    assert first != other
    assert [row.perturbation for row in first] == [family for family in routing.HARD for _ in range(10)]


def test_a_slice_holds_all_families_in_equal_parts_and_only_rows_of_the_train_split() -> None:
    rows = list(routing.slice_rows(3, "dup", 40))
    assert len(rows) == 40
    assert [set(row) for row in rows] == [{"expected", "prompt"}] * 40
    for row in rows:
        asked = row["prompt"].rstrip(">").replace(";", " ").split(" ")[-1]
        assert skills.split_of(f"dup {asked}>") == "train"


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown family"):
        routing.rows(3, "sealed", "shouted", "rev", 1)
