"""What a search has run so far, kept in the lab's cache: a line a recipe, on disk before the next one counts.

Whatever lies there is only believed if its line is whole and holds its own digest; everything else is run again. A
journal saves time and decides nothing: the winner's file is scored anew once it is bred.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studbook.files import append_line, read_file, truncate
from studbook.population import Outcome
from studbook.records import canonical, digest

__all__ = ["Journal"]

_LIMIT = 1 << 30


class Journal:
    """The outcomes of one search by recipe.

    Args:
        path: The file; what of it is damaged is cut off.
        shape: Items of each suite; an outcome of another shape is not believed.

    Attributes:
        known: Recipe digest -> outcome.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self._shape = path, shape
        self.known: dict[str, Outcome] = {}
        if path.exists():
            self._load()

    def add(self, recipe: str, outcome: Outcome) -> None:
        """Keep one outcome; it is on disk before this returns.

        Raises:
            StudbookError: if the disk refuses.
        """
        append_line(self.path, _line(recipe, outcome))
        self.known[recipe] = outcome

    def discard(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self.known.clear()

    def _load(self) -> None:
        data = read_file(self.path, _LIMIT)
        whole = 0
        for line in data.splitlines(keepends=True):
            found = _read(line[:-1]) if line.endswith(b"\n") else None
            if found is None or not self._fits(found[1]):
                break
            self.known[found[0]] = found[1]
            whole += len(line)
        if whole < len(data):
            truncate(self.path, whole)

    def _fits(self, outcome: Outcome) -> bool:
        if outcome.detail:
            return not outcome.correct
        return tuple(map(len, outcome.correct)) == self._shape and len(outcome.loglik_micro) == len(self._shape)


def _line(recipe: str, outcome: Outcome) -> bytes:
    fields = {"recipe": recipe, **outcome._asdict()}
    return canonical({**fields, "sha256": digest(fields)})


def _read(line: bytes) -> tuple[str, Outcome] | None:
    try:
        fields: dict[str, Any] = json.loads(line)
        recipe = fields["recipe"]
        outcome = Outcome(tuple(fields["correct"]), tuple(fields["loglik_micro"]), fields["detail"])
        # Written again it must be the same line, digest included.
        return (recipe, outcome) if _line(recipe, outcome) == line else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
