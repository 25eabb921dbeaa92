"""A line of generations as a picture: mean and worst skill of every champion with their intervals, SVG 1.1 by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from studbook.errors import printable
from studbook.statistics import Estimate

__all__ = ["Point", "draw_generations"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _FOOT = 760, 420, 60, 30, 70, 70
# Room for one champion with its name, and letters of 11 pixels that fit there and beside a square.
_COLUMN, _NAME, _SKILL = 140, 20, 7
_MEAN, _WORST, _GRID, _TEXT = "#1b5e9e", "#c04a00", "#dddddd", "#000000"


class Point(NamedTuple):
    """One champion on one role's items.

    Attributes:
        title: What stands below it, such as ``0`` for the champion a line set out from.
        name: What the champion is called.
        mean: Joint mean with both one-sided 95 % bounds, 0..1.
        worst: Its worst skill, likewise.
        skill: Which skill that is.
    """

    title: str
    name: str
    mean: Estimate
    worst: Estimate
    skill: str


def draw_generations(title: str, points: Sequence[Point]) -> bytes:
    """The picture; circles are means, squares worst skills, bars one-sided 95 % bounds.

    Args:
        title: Its heading.
        points: One a champion, oldest first; at least one.
    """
    low = min(min(p.worst.lower, p.mean.lower) for p in points)
    floor = max(0.0, int(low * 20) / 20)
    width = max(_WIDTH, _LEFT + _RIGHT + _COLUMN * len(points))

    def x(place: int) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * (place + 0.5) / len(points)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _FOOT) * (1.0 - (value - floor) / (1.0 - floor))

    body = [_text(16, 26, title, 16), _text(16, 46, "share of right answers; bars: one-sided 95 % bounds", 11)]
    for step in range(round((1.0 - floor) * 20) + 1):
        value = floor + step / 20
        body.append(_line(_LEFT, y(value), width - _RIGHT, y(value), _GRID))
        body.append(_text(_LEFT - 8, y(value) + 4, f"{value:.0%}", 11, "end"))
    for place, point in enumerate(points):
        at = x(place)
        body += _mark(at - 8, y, point.mean, _MEAN, round_=True)
        body += _mark(at + 8, y, point.worst, _WORST, round_=False)
        # Beside the upper end of the bar, where no line is drawn through it.
        body.append(_text(at + 14, y(point.worst.upper) + 4, _short(point.skill, _SKILL), 11))
        body.append(_text(at, _HEIGHT - _FOOT + 20, point.title, 11, "middle"))
        body.append(_text(at, _HEIGHT - _FOOT + 36, _short(point.name, _NAME), 11, "middle"))
    for before, after, place in zip(points, points[1:], range(len(points)), strict=False):
        body.append(_line(x(place) - 8, y(before.mean.value), x(place + 1) - 8, y(after.mean.value), _MEAN))
        body.append(_line(x(place) + 8, y(before.worst.value), x(place + 1) + 8, y(after.worst.value), _WORST))
    body.append(_text(_LEFT, _HEIGHT - 12, "circle: joint mean; square: worst skill, named beside it", 11))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="{width}" height="{_HEIGHT}" '
        f'viewBox="0 0 {width} {_HEIGHT}" font-family="sans-serif">'
    )
    rect = f'<rect width="{width}" height="{_HEIGHT}" fill="#ffffff"/>'
    return ("\n".join([head, f"<title>{_safe(title)}</title>", rect, *body, "</svg>"]) + "\n").encode()


def _mark(at: float, y: Callable[[float], float], value: Estimate, colour: str, *, round_: bool) -> list[str]:
    bar = _line(at, y(value.lower), at, y(value.upper), colour, 2)
    top = y(value.value)
    if round_:
        return [bar, f'<circle cx="{at:.2f}" cy="{top:.2f}" r="4" fill="{colour}"/>']
    return [bar, f'<rect x="{at - 4:.2f}" y="{top - 4:.2f}" width="8" height="8" fill="{colour}"/>']


def _line(x: float, y: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x:.2f}" y1="{y:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" font-size="{size}" text-anchor="{anchor}" fill="{_TEXT}"'
    return f"<text {place}>{_safe(text)}</text>"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _safe(text: object) -> str:
    return escape(printable(text), {'"': "&quot;"})
