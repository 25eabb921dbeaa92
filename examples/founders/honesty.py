"""Three tasks that no founder was taught and no merge of founders can gain: they stay in the report to keep it honest.

===== ============================================= ==================
task  meaning                                       example
===== ============================================= ==================
get   the letter at a place, counted from 1         ``get 3abcde>c``
cnt   how often the first letter stands in the rest ``cnt abanana>3``
add   the sum of two numbers of two digits          ``add 17+25>42``
===== ============================================= ==================

They lie in a file of their own: the seven skills' suites name the digest of their generator. Standard library only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import skills

__all__ = ["TASKS", "answer", "generator_sha256", "rows"]

TASKS = ("get", "cnt", "add")
"""The three tasks in the order in which tables show them."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def generator_sha256() -> str:
    """Return the SHA-256 of this file in hex."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def answer(task: str, argument: str) -> str:
    """Return the right answer of ``task`` for an argument.

    Raises:
        ValueError: The task is unknown.
    """
    match task:
        case "get":
            return argument[int(argument[0])]
        case "cnt":
            return str(argument[1:].count(argument[0]))
        case "add":
            return str(sum(map(int, argument.split("+"))))
    raise ValueError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")


def rows(rng: random.Random, task: str, count: int) -> Iterator[skills.Row]:
    """Yield ``count`` rows with distinct prompts of the development split, in the order they were drawn."""
    seen: set[str] = set()
    while len(seen) < count:
        argument = _argument(rng, task)
        prompt = f"{task} {argument}>"
        if prompt not in seen and skills.split_of(prompt) == "development":
            seen.add(prompt)
            yield skills.Row(task, prompt, answer(task, argument))


def _argument(rng: random.Random, task: str) -> str:
    if task == "add":
        return f"{10 + _below(rng, 90)}+{10 + _below(rng, 90)}"
    letters = [_LETTERS[_below(rng, 26)] for _ in range(8 if task == "cnt" else 4 + _below(rng, 5))]
    if task == "get":
        return f"{1 + _below(rng, len(letters))}{''.join(letters)}"
    # 0 to 8 of the letters become the one that is counted, so that no number is right much more often than another.
    asked = _LETTERS[_below(rng, 26)]
    for place in range(_below(rng, 9)):
        letters[place] = asked
    for last in range(len(letters) - 1, 0, -1):
        other = _below(rng, last + 1)
        letters[last], letters[other] = letters[other], letters[last]
    return asked + "".join(letters)


def _below(rng: random.Random, bound: int) -> int:
    return int(rng.random() * bound)
