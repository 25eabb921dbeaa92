"""The picture of a line of generations: nothing leaves it, and no label lies on another, however many there are."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from studbook.lab.generation_plot import Point, draw_generations
from studbook.statistics import Estimate

LETTER = 0.6  # Width of a letter over its size, in most sans-serif faces.


def points(count: int) -> list[Point]:
    name = "sign-aware-merge-of-several-specialists-1a2b3c4d"
    return [
        Point(f"generation {n}", name, Estimate(0.9, 0.85, 0.95), Estimate(0.4, 0.3, 0.5), "a-long-skill-name")
        for n in range(count)
    ]


def extent(text: ElementTree.Element) -> tuple[float, float, float]:
    """Left and right end and baseline of a text."""
    x, size = float(text.get("x", 0)), float(text.get("font-size", 0))
    wide = LETTER * size * len(text.text or "")
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[text.get("text-anchor", "start")]
    return left, left + wide, float(text.get("y", 0))


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_labels_stay_inside_and_apart_however_many_generations_there_are(count: int) -> None:
    picture = ElementTree.fromstring(draw_generations("Champions", points(count)))
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    found = sorted(extent(t) for t in picture.iter() if t.tag.endswith("}text"))
    assert len(found) > 3 * count
    assert all(left >= 0 and right <= width and 0 < y <= height for left, right, y in found)
    rows: dict[float, list[tuple[float, float]]] = {}
    for left, right, y in found:
        rows.setdefault(y, []).append((left, right))
    for row in rows.values():
        assert all(before[1] <= after[0] for before, after in pairwise(row))


def test_marks_and_bars_lie_between_title_and_foot() -> None:
    picture = ElementTree.fromstring(draw_generations("Champions", points(3)))
    lines = [e for e in picture.iter() if e.tag.endswith("}line")]
    assert lines
    assert all(60 <= float(e.get(key, 0)) <= 350 for e in lines for key in ("y1", "y2"))
