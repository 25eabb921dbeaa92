"""Prompts that must find their specialist: four skills, a clean split that names them and a hard one that hides them.

One skill of every founder is asked for: ``rev``, ``cap``, ``dup`` and ``brk``. A prompt comes from one of four families:

========== ===================================================== =============================
family     the prompt                                            example
========== ===================================================== =============================
clean      names its skill                                       ``rev abc>``
perturbed  its skill word is misspelt                            ``rve abc>``
examples   no skill word, two solved cases of the skill instead  ``de>ed;xyz>zyx;abc>``
misleading the word of another skill stands in front             ``cap; rev abc>``
========== ===================================================== =============================

The clean split holds the first family, the hard split the other three in equal parts. What is asked lies in the split of
`skills.split_of`; solved cases are always of the train split. The same seed gives the same rows. Standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import skills
from skills import Row

__all__ = ["FAMILIES", "HARD", "ROUTED", "hard_rows", "rows", "slice_rows"]

ROUTED = ("rev", "cap", "dup", "brk")
"""The skills that are routed, one of every founder."""

HARD = ("perturbed", "examples", "misleading")
"""The families of the hard split."""

FAMILIES = ("clean", *HARD)

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SHOWN = 2


def rows(seed: int, split: str, family: str, skill: str, count: int) -> list[Row]:
    """Return ``count`` rows of one family with distinct prompts, whose `Row.perturbation` is the family."""
    rng = skills.seeded(seed, "routing", split, family, skill)
    found: dict[str, Row] = {}
    while len(found) < count:
        row = _asked(rng, skills.draw_row(rng, skill, split), family)
        found.setdefault(row.prompt, row)
    return list(found.values())


def hard_rows(seed: int, split: str, skill: str, each: int) -> list[Row]:
    """Return ``each`` rows of every hard family, family after family."""
    return [row for family in HARD for row in rows(seed, split, family, skill, each)]


def slice_rows(seed: int, skill: str, count: int) -> Iterator[dict[str, str]]:
    """Yield the training slice of a specialist: rows of the train split, all four families in equal parts."""
    for family in FAMILIES:
        for row in rows(seed, "train", family, skill, count // len(FAMILIES)):
            yield {"expected": row.expected, "prompt": row.prompt}


def _asked(rng: random.Random, row: Row, family: str) -> Row:
    """The same question in the words of a family."""
    match family:
        case "clean":
            prompt = row.prompt
        case "perturbed":
            prompt = _misspelt(rng, row.skill) + row.prompt[len(row.skill) :]
        case "examples":
            shown = [skills.draw_row(rng, row.skill, "train") for _ in range(_SHOWN)]
            cases = "".join(f"{_argument(case)}>{case.expected};" for case in shown)
            prompt = f"{cases}{_argument(row)}>"
        case "misleading":
            others = [skill for skill in ROUTED if skill != row.skill]
            prompt = f"{others[_below(rng, len(others))]}; {row.prompt}"
        case _:
            raise ValueError(f"unknown family {family!r}; the families are {', '.join(FAMILIES)}")
    return Row(row.skill, prompt, row.expected, family)


def _argument(row: Row) -> str:
    return row.prompt.split(" ", 1)[1].rstrip(">")


def _misspelt(rng: random.Random, word: str) -> str:
    """One letter dropped, doubled, swapped with its neighbour or replaced; never a skill's own word."""
    while True:
        at = _below(rng, len(word))
        made = (
            word[:at] + word[at + 1 :],
            word[: at + 1] + word[at:],
            word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            word[:at] + _LETTERS[_below(rng, 26)] + word[at + 1 :],
        )[_below(rng, 4)]
        if made not in skills.SKILLS:
            return made


def _below(rng: random.Random, bound: int) -> int:
    return int(rng.random() * bound)
