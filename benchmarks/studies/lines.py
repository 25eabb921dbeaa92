"""A line chart as SVG 1.1, in as few parts as a study needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT = 760, 380, 60, 220, 50, 50
COLOURS = ("#1b5e9e", "#c04a00", "#3a7d34", "#7a3e9d")
Line = Sequence[tuple[float, float]]


def chart(title: str, across: str, lines: Mapping[str, Line], low: float, high: float) -> bytes:
    """Lines over one axis; the vertical axis goes from ``low`` to ``high``."""
    first = min(x for line in lines.values() for x, _ in line)
    last = max(x for line in lines.values() for x, _ in line)

    def place(x: float, y: float) -> tuple[float, float]:
        right, down = (x - first) / (last - first), (high - y) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * right, TOP + (HEIGHT - TOP - FOOT) * down

    body = [words(LEFT, 28, title, size=15), words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, across, anchor="middle")]
    for y in ticks(low, high):
        (left, at), (right, _) = place(first, y), place(last, y)
        body.append(f'<line x1="{left:.1f}" y1="{at:.1f}" x2="{right:.1f}" y2="{at:.1f}" stroke="#dddddd"/>')
        body.append(words(left - 8, at + 4, f"{y:.2f}", anchor="end"))
    for x in ticks(first, last):
        body.append(words(place(x, low)[0], HEIGHT - FOOT + 16, f"{x:,.0f}", anchor="middle"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join("{:.1f},{:.1f}".format(*place(x, min(max(y, low), high))) for x, y in line)
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(words(WIDTH - RIGHT + 12, TOP + 12 + 18 * number, name, colour=colour))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *body, "</svg>", ""]).encode()


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two bounds, four to nine of them: multiples of 1, 2 or 5 times a power of ten."""
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(size * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / (size * part) < 9.0)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def words(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", colour: str = "#000000") -> str:
    """One line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )
