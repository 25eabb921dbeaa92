"""Pictures of a review, drawn by hand as SVG 1.1: a dot, the interval around it, and the mark it had to reach.

What passed and what did not differ in shape as well as in colour. Every text is escaped; nothing is loaded from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from studbook.errors import printable
from studbook.lab.review.facts import Line, Review, Row

__all__ = ["Mark", "Panel", "draw"]

_LEFT, _RIGHT, _WIDTH = 360, 130, 960
_STEP, _HEAD, _FOOT = 22, 54, 34
_GOOD, _BAD, _PLAIN, _MARK = "#1b5e9e", "#c04a00", "#4d4d4d", "#000000"
_LABEL = 52
# Differences on another scale stand in a panel of their own.
_PANELS = (("share", "difference, share of items"), ("brier-0-2", "improvement of the Brier score"),
           ("utility", "net utility"))  # fmt: skip


class Mark(NamedTuple):
    """One row of a picture.

    Attributes:
        label: What it is.
        value: The dot.
        low: Lower end of the interval; the value itself where there is none.
        high: Upper end.
        limit: What the lower end had to reach, or None.
        good: Whether it was reached; None where nothing had to be.
    """

    label: str
    value: float
    low: float
    high: float
    limit: float | None = None
    good: bool | None = None


class Panel(NamedTuple):
    """Rows on one axis.

    Attributes:
        title: What the axis shows.
        marks: The rows.
        zero: Whether the axis has to show 0.
    """

    title: str
    marks: tuple[Mark, ...]
    zero: bool


def draw(review: Review) -> dict[str, bytes]:
    """File name -> picture: differences with margins, and scores side by side; a picture without a row is left out."""
    rows = review.verdict.rows if review.verdict else ()
    panels = [
        Panel(title, tuple(_difference(r) for r in rows if r.unit == unit and not _empty(r)), True)
        for unit, title in _PANELS
    ]
    lines = [Panel(f"{line.suite} ({line.role})", tuple(_scores(line)), False) for line in review.scores]
    legend = "line: one-sided bounds; tick: what the lower one had to reach; hollow square: not passed; grey: no gate"
    found = {
        "differences.svg": _picture(f"{review.name}: paired differences", legend, panels),
        "scores.svg": _picture(f"{review.name}: scores", "line: exact 95 % bounds where there are any", lines),
    }
    return {name: data for name, data in found.items() if data}


def _empty(row: Row) -> bool:
    return row.method.startswith("no data")


def _difference(row: Row) -> Mark:
    limit = row.threshold if row.threshold_of == "lower" else None
    label = f"{row.on}: {row.test} against {row.against} ({row.role})"
    return Mark(label, row.difference, row.lower, row.upper, limit, row.passed if row.threshold_of else None)


def _scores(line: Line) -> Iterator[Mark]:
    for score in line.scores:
        if figure := score.figure:
            low = figure.value if figure.low is None else figure.low
            yield Mark(score.who, figure.value, low, figure.value if figure.high is None else figure.high)


def _picture(title: str, legend: str, panels: Sequence[Panel]) -> bytes:
    shown = [panel for panel in panels if panel.marks]
    if not shown:
        return b""
    body, top = [_text(16, 24, title, size=16, bold=True), _text(16, 44, legend, colour=_PLAIN)], _HEAD + 10
    for panel in shown:
        body += _panel(panel, top)
        top += _HEAD + _STEP * len(panel.marks) + _FOOT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="{_WIDTH}" height="{top}" '
        f'viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif">'
    )
    parts = [head, f"<title>{_safe(title)}</title>", f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>']
    return ("\n".join([*parts, *body, "</svg>"]) + "\n").encode()


def _panel(panel: Panel, top: int) -> list[str]:
    low, high, step = _axis(panel)
    bottom = top + _HEAD + _STEP * len(panel.marks)

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)

    body = [_text(16, top + 24, panel.title, size=13, bold=True)]
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        heavy = panel.zero and abs(value) < step / 2
        body.append(_line(x(value), top + _HEAD - 14, x(value), bottom, _PLAIN if heavy else "#dddddd"))
        body.append(_text(x(value), bottom + 16, f"{value:.6g}" if not heavy else "0", anchor="middle"))
    for number, mark in enumerate(panel.marks):
        body += _mark(mark, top + _HEAD + _STEP * number, x)
    return body


def _mark(mark: Mark, y: int, x: Callable[[float], float]) -> list[str]:
    colour = _PLAIN if mark.good is None else _GOOD if mark.good else _BAD
    at = x(mark.value)
    body = [_text(_LEFT - 14, y + 4, mark.label, anchor="end")]
    body.append(_line(x(mark.low), y, x(mark.high), y, colour, 2))
    if mark.limit is not None:
        body.append(_line(x(mark.limit), y - 8, x(mark.limit), y + 8, _MARK, 2))
    if mark.good is False:
        body.append(f'<rect x="{at - 4:.2f}" y="{y - 4}" width="8" height="8" fill="#ffffff" stroke="{colour}" '
                    'stroke-width="2"/>')  # fmt: skip
    else:
        body.append(f'<circle cx="{at:.2f}" cy="{y}" r="4" fill="{colour}"/>')
    return [*body, _text(_WIDTH - _RIGHT + 14, y + 4, f"{mark.value:.4g}")]


def _axis(panel: Panel) -> tuple[float, float, float]:
    """Ends and step of an axis that shows every number of a panel at round places."""
    ends = [v for m in panel.marks for v in (m.value, m.low, m.high, m.limit) if v is not None]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if panel.zero:
        low, high = min(low, 0.0), max(high, 0.0)
    span = max(high - low, 1e-9)
    rough = span / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step, step


def _safe(text: object) -> str:
    return escape(printable(text), {'"': "&quot;"})


def _text(
    x: float, y: float, text: str, *, size: int = 11, bold: bool = False, anchor: str = "start", colour: str = _MARK
) -> str:
    cut = text if len(text) <= _LABEL or size > 11 or anchor != "end" else f"{text[: _LABEL - 1]}…"
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{_safe(cut)}</text>"
    )


def _line(x: float, y: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x:.2f}" y1="{y:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" stroke-width="{width}"/>'
