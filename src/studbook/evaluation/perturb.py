"""Seeded perturbers: small changes of a prompt that leave its right answer as it is, the same for the same seed.

Every choice is drawn from SHA-256 of seed, family, item and a counter, so no generator's state is shared and any one
item can be perturbed again by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from studbook.errors import UsageError
from studbook.evaluation.items import Item

__all__ = ["FAMILIES", "pairs", "perturb"]

_TRIES = 8
_DISTRACTORS = ("Note: the sky was grey that day. ", "(draft 2) ", "Please read carefully. ", "FYI: see below. ")
# Letters that look alike: Latin to Cyrillic and Greek.
_ALIKE = dict(zip("aceopxyABEHIKMOPTX", "асеорхуАВЕНІКМОРТХ", strict=True))


class _Draw:
    """Whole numbers from a hash in counter mode."""

    def __init__(self, *key: object) -> None:
        self._key, self._count = "\0".join(map(str, key)), 0

    def below(self, bound: int) -> int:
        """The next number, 0 <= it < bound; the bias of the remainder is below 2^-50 for any text."""
        self._count += 1
        block = hashlib.sha256(f"{self._key}\0{self._count}".encode()).digest()
        return int.from_bytes(block[:8], "big") % bound


def _case(text: str, draw: _Draw) -> str:
    return (text.upper(), text.lower(), text.swapcase(), text.title())[draw.below(4)]


def _swap(text: str, draw: _Draw) -> str:
    at = draw.below(max(1, len(text) - 1))
    return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]


def _drop(text: str, draw: _Draw) -> str:
    at = draw.below(len(text))
    return text[:at] + text[at + 1 :]


def _duplicate(text: str, draw: _Draw) -> str:
    at = draw.below(len(text))
    return text[: at + 1] + text[at:]


def _white_space(text: str, draw: _Draw) -> str:
    gaps = [i for i, c in enumerate(text) if c == " "] or [0, len(text)]
    at = gaps[draw.below(len(gaps))]
    return text[:at] + " " * (1 + draw.below(3)) + text[at:]


def _digit_noise(text: str, draw: _Draw) -> str:
    at = draw.below(len(text) + 1)
    return text[:at] + str(draw.below(10)) + text[at:]


def _distractor(text: str, draw: _Draw) -> str:
    return _DISTRACTORS[draw.below(len(_DISTRACTORS))] + text


def _confusable(text: str, draw: _Draw) -> str:
    places = [i for i, c in enumerate(text) if c in _ALIKE]
    if not places:
        return text
    at = places[draw.below(len(places))]
    return text[:at] + _ALIKE[text[at]] + text[at + 1 :]


FAMILIES: dict[str, Callable[[str, _Draw], str]] = {
    "case": _case,
    "typo-swap": _swap,
    "drop": _drop,
    "duplicate": _duplicate,
    "white-space": _white_space,
    "digit-noise": _digit_noise,
    "distractor": _distractor,
    "confusable": _confusable,
}


def perturb(text: str, family: str, seed: int, key: str = "") -> str:
    """One perturbed text; equal to ``text`` where the family finds nothing to change in a few tries.

    Args:
        text: What to change.
        family: One of `FAMILIES`.
        seed: Seed of the suite.
        key: What sets this text apart, such as the item's id.

    Raises:
        UsageError: if there is no such family.
    """
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UsageError(f"no perturber is called {family!r}", advice=f"There are: {known}.", reason="suite.perturber")
    draw = _Draw(seed, family, key)
    changed = (FAMILIES[family](text, draw) for _ in range(_TRIES if text else 0))
    return next((found for found in changed if found != text), text)


def pairs(items: Sequence[Item], families: Sequence[str], seed: int) -> tuple[Item, ...]:
    """Each clean item, and behind it the same perturbed by one family, families taken in turn.

    Items that are perturbed already, or that their family cannot change, are left out with their pair.

    Args:
        items: Clean items.
        families: Which perturbers; check that none of them changes what the right answer is.
        seed: Seed of the suite.

    Raises:
        UsageError: if a family is unknown or none is named.
    """
    if not families:
        raise UsageError("names no perturber", advice=f"There are: {', '.join(FAMILIES)}.", reason="suite.perturber")
    out: list[Item] = []
    clean = [item for item in items if item.perturbation == "none"]
    for number, item in enumerate(clean):
        family = families[number % len(families)]
        prompt = perturb(item.prompt, family, seed, item.id)
        if prompt != item.prompt:
            out += [item, replace(item, id=f"{item.id}-{family}", prompt=prompt, perturbation=family)]
    return tuple(out)
