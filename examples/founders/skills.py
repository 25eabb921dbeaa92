"""Seven symbolic skills: what each one means, its seeded rows, its perturbations and its four disjoint splits.

A row is a prompt such as ``rev abc>`` and the answer ``cba``. Letters are ``a`` to ``z``, drawn uniformly; lengths are
drawn uniformly from the skill's range (in characters of the argument, the part between the space and ``>``).

===== ======= =========================================================== ====================
skill lengths meaning                                                     example
===== ======= =========================================================== ====================
rev   3-5     the letters in reverse order                                ``rev abc>cba``
srt   3-5     the letters in alphabetical order                           ``srt cab>abc``
cap   3-8     the letters as capitals                                     ``cap abc>ABC``
rot   3-7     the first letter moved to the end                           ``rot abc>bca``
dup   2-5     every letter twice                                          ``dup abc>aabbcc``
odd   4-9     the first, third, fifth, ... letter                         ``odd abcde>ace``
brk   3-7     the brackets that close what the prefix left open           ``brk ([]{>})``
===== ======= =========================================================== ====================

The split of a prompt is a function of the SHA-256 of its *clean* form, so a perturbed prompt lies in the split of the
prompt it was made from, and no seed can move a prompt from one split to another.

Only ``random.Random.random`` is used as a source of chance: it is the one method whose sequence Python promises to
keep, so the same seed gives the same bytes under every version. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LENGTHS",
    "PERTURBATIONS",
    "SKILLS",
    "SPLIT_RULE",
    "Row",
    "answer",
    "clean_prompt",
    "compact_json",
    "draw_row",
    "generator_sha256",
    "perturb",
    "rows_of_skill",
    "seeded",
    "split_of",
]

LENGTHS = {"rev": (3, 5), "srt": (3, 5), "cap": (3, 8), "rot": (3, 7), "dup": (2, 5), "odd": (4, 9), "brk": (3, 7)}
"""Shortest and longest argument of each skill, in characters."""

SKILLS = tuple(LENGTHS)
"""The seven skills in the order in which tables show them."""

PERTURBATIONS = ("case", "white-space", "distractor")
"""The families of ``perturb``; none of them changes the right answer."""

SPLIT_RULE = "int(sha256(clean_prompt)[:8],big)%100: <60 train, <70 development, <85 selection, else sealed"
"""The rule of ``split_of`` in one line, as the manifests state it."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_OPENERS = "([{"
_OPEN_PROBABILITY = 0.6


@dataclass(frozen=True)
class Row:
    """One prompt with its right answer.

    Attributes:
        skill: One of ``SKILLS``.
        prompt: What the model reads, ending in ``>``.
        expected: What it must write before the end-of-sequence token; never empty.
        perturbation: ``none`` or one of ``PERTURBATIONS``.
    """

    skill: str
    prompt: str
    expected: str
    perturbation: str = "none"


def seeded(seed: int, *path: str) -> random.Random:
    """Return the generator of one named stream; streams of different paths do not share draws."""
    digest = hashlib.sha256("/".join([str(seed), *path]).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def generator_sha256() -> str:
    """Return the SHA-256 of this file in hex: the identity of the generator in every manifest."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def answer(skill: str, argument: str) -> str:
    """Return the right answer of ``skill`` for a clean argument.

    Raises:
        ValueError: The skill is unknown, or a bracket closes what was not open.
    """
    match skill:
        case "rev":
            return argument[::-1]
        case "srt":
            return "".join(sorted(argument))
        case "cap":
            return argument.upper()
        case "rot":
            return argument[1:] + argument[:1]
        case "dup":
            return "".join(letter * 2 for letter in argument)
        case "odd":
            return argument[::2]
        case "brk":
            return _closers(argument)
    raise ValueError(f"unknown skill {skill!r}; the skills are {', '.join(SKILLS)}")


def clean_prompt(prompt: str) -> str:
    """Return the prompt without any perturbation: no distractor, lower case, one space."""
    words = prompt.rsplit(";", 1)[-1].lower().rstrip(">").split()
    return " ".join(words) + ">"


def split_of(prompt: str) -> str:
    """Return the split of a clean or perturbed prompt: ``train``, ``development``, ``selection`` or ``sealed``."""
    digest = hashlib.sha256(clean_prompt(prompt).encode()).digest()
    share = int.from_bytes(digest[:8], "big") % 100
    if share < 60:
        return "train"
    if share < 70:
        return "development"
    return "selection" if share < 85 else "sealed"


def draw_row(rng: random.Random, skill: str, split: str) -> Row:
    """Draw one clean row of ``skill`` whose prompt lies in ``split``; rows may repeat between draws."""
    low, high = LENGTHS[skill]
    while True:
        length = low + _below(rng, high - low + 1)
        argument = _brackets(rng, length) if skill == "brk" else "".join(_pick(rng, _LETTERS) for _ in range(length))
        prompt = f"{skill} {argument}>"
        if split_of(prompt) == split:
            return Row(skill, prompt, answer(skill, argument))


def rows_of_skill(rng: random.Random, skill: str, split: str, count: int) -> Iterator[Row]:
    """Yield ``count`` clean rows with distinct prompts, in the order they were drawn."""
    seen: set[str] = set()
    while len(seen) < count:
        row = draw_row(rng, skill, split)
        if row.prompt not in seen:
            seen.add(row.prompt)
            yield row


def perturb(rng: random.Random, row: Row, family: str) -> Row:
    """Return the row with a prompt that looks different and asks the same; the expected answer stays.

    ``case`` turns one letter of the prompt into a capital; ``white-space`` adds one space at one of three places (front,
    middle, before ``>``); ``distractor`` puts a random word of two to five letters and ``; `` in front.

    Raises:
        ValueError: The family is unknown.
    """
    match family:
        case "case":
            prompt = _capital(rng, row.prompt)
        case "white-space":
            prompt = _space(rng, row.prompt)
        case "distractor":
            prompt = "".join(_pick(rng, _LETTERS) for _ in range(2 + _below(rng, 4))) + "; " + row.prompt
        case _:
            raise ValueError(f"unknown perturbation {family!r}; the families are {', '.join(PERTURBATIONS)}")
    return Row(row.skill, prompt, row.expected, family)


def compact_json(value: object) -> str:
    """Return one line of JSON with sorted keys and no spaces: the form of every line this generator ships."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _below(rng: random.Random, bound: int) -> int:
    return int(rng.random() * bound)


def _pick(rng: random.Random, choices: str) -> str:
    return choices[_below(rng, len(choices))]


def _closers(opened: str) -> str:
    stack: list[str] = []
    for bracket in opened:
        if bracket in _CLOSER:
            stack.append(_CLOSER[bracket])
        elif not stack or stack.pop() != bracket:
            raise ValueError(f"{opened!r}: {bracket!r} closes nothing")
    return "".join(reversed(stack))


def _brackets(rng: random.Random, length: int) -> str:
    """Draw a bracket prefix that leaves at least one bracket open; a balanced one is drawn again."""
    while True:
        text, stack = "", ""
        for _ in range(length):
            if not stack or rng.random() < _OPEN_PROBABILITY:
                opener = _pick(rng, _OPENERS)
                text, stack = text + opener, stack + _CLOSER[opener]
            else:
                text, stack = text + stack[-1], stack[:-1]
        if stack:
            return text


def _capital(rng: random.Random, prompt: str) -> str:
    letters = [place for place, sign in enumerate(prompt) if sign.isalpha()]
    chosen = letters[_below(rng, len(letters))]
    return prompt[:chosen] + prompt[chosen].upper() + prompt[chosen + 1 :]


def _space(rng: random.Random, prompt: str) -> str:
    skill, argument = prompt.rstrip(">").split(" ")
    place = _below(rng, 3)
    front, middle, end = (" " if place == spot else "" for spot in range(3))
    return f"{front}{skill} {middle}{argument}{end}>"
