"""A line of generations for people: what every generation decided and why, how champions grew, and the picture of it."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from studbook.errors import UsageError
from studbook.files import make_folder, replace_file
from studbook.lab.desk import Desk
from studbook.lab.generation_plot import Point, draw_generations
from studbook.lab.ladder import in_words, learned
from studbook.records import GenerationRecord, ParentPool, Scorecard, ViabilityDecision, canonical
from studbook.statistics import Estimate, clopper_pearson

__all__ = ["Told", "points_of", "require_writable", "tell", "told", "write_pages"]

_ALPHA = 0.05
_MODE = 0o644


class Told(Struct, frozen=True):
    """One generation in words.

    Attributes:
        number: Its number.
        label: The failure cluster.
        champion: Name of the champion it set out from.
        parents: Names of the parents, as drawn.
        duplicates: Names of candidates that were not evaluated, each with what it repeats.
        tried: Every candidate with its joint mean on development items and what became of it.
        outcome: What was decided.
        reasons: Why, with what the Ladder lets out of the selection suites.
        decision: Digest of the decision, or empty.
    """

    number: int
    label: str
    champion: str
    parents: tuple[str, ...]
    duplicates: tuple[str, ...]
    tried: tuple[str, ...]
    outcome: str
    reasons: tuple[str, ...]
    decision: str


def told(desk: Desk, record: GenerationRecord) -> Told:
    """One generation in words."""
    pool = desk.workspace.get(record.pool, ParentPool)
    decision = desk.workspace.get(record.decision, ViabilityDecision) if record.decision else None
    name = desk.name_of
    repeated = tuple(
        f"{desk.name_of(_artifact(desk, d.manifest))} repeats {name(d.of)}, cosine {d.cosine_ppm / 1e6:.6f}"
        for d in record.duplicates
    )
    rows = decision.standings if decision else ()
    let_out = learned(desk, record.decision) if record.decision else None
    winner = next((s for s in rows if s.artifact == record.chosen), None)
    if winner is not None:
        outcome = f"{winner.name} won" + (f", and was held back: {record.held}" if record.held else "")
    else:
        outcome = f"no-op: {record.held}" if record.held else "no-op: the champion stays"
    return Told(
        record.number,
        record.label,
        name(record.champion),
        tuple(name(p) for p in pool.chosen),
        repeated,
        tuple(f"{s.name}: {s.screen_mean:.1%}, {s.action}" for s in rows),
        outcome,
        (let_out.why, *in_words(let_out)) if let_out else (),
        record.decision or "",
    )


def points_of(desk: Desk, line: Sequence[tuple[str, GenerationRecord]]) -> tuple[Point, ...]:
    """The champion before the first generation, then after every one, on development items.

    They are what searches look at, so a search may flatter its own child here; selection items answer through the Ladder.

    A winner counts from its generation on, whether a person promoted it yet or not; one that was held back does not.
    The bounds of the mean take skills as independent; those of the worst skill are exact for that skill alone.
    """
    found: list[Point] = []
    for _, record in line:
        if record.decision is None:
            found += [found[-1]._replace(title=f"generation {record.number}")] if found else []
            continue
        decision = desk.workspace.get(record.decision, ViabilityDecision)
        cards = [desk.scorecard(d) for d in decision.champion_cards]
        before = next(c for c in cards if c.role == "development")
        if not found:
            found.append(_point(desk, "before", before))
        won = next((s for s in decision.standings if s.artifact == record.chosen and not record.held), None)
        after = desk.scorecard(won.development) if won and won.development else before
        found.append(_point(desk, f"generation {record.number}", after))
    return tuple(found)


def tell(rows: Sequence[Told]) -> list[str]:
    """Generations as lines of Markdown."""
    lines: list[str] = []
    for row in rows:
        lines += [f"## Generation {row.number}: {row.label}", "", f"Champion: {row.champion}.", ""]
        lines += [f"Parents: {', '.join(row.parents)}.", "", f"**{row.outcome}.**", ""]
        lines += [*(f"- {reason}" for reason in row.reasons), ""]
        lines += ["Tried, joint mean on development items:", "", *(f"- {tried}" for tried in row.tried), ""]
        if row.duplicates:
            lines += ["Not evaluated:", "", *(f"- {text}" for text in row.duplicates), ""]
        if row.decision:
            lines += [f"Decision record: `{row.decision}`", ""]
    return lines


def write_pages(desk: Desk, line: Sequence[tuple[str, GenerationRecord]], folder: Path) -> tuple[str, ...]:
    """Write picture, page and figures of a line into a folder, over what an earlier call wrote there.

    Args:
        desk: The lab.
        line: The generations, oldest first.
        folder: Where to; made if it is not there.

    Raises:
        OSError: if it cannot be written to.
    """
    rows, points = [told(desk, record) for _, record in line], points_of(desk, line)
    figures: dict[str, Any] = {"generations": to_builtins(rows), "points": [_plain(p) for p in points]}
    table = ["| champion | joint mean | worst skill |", "| --- | ---: | ---: |"]
    table += [f"| {p.title}: {p.name} | {_words(p.mean)} | {p.skill} {_words(p.worst)} |" for p in points]
    picture = ["![mean and worst skill](generations.svg)", ""] if points else []
    page = [
        "# Generations",
        "",
        "Development items, which searches look at; one-sided 95 % bounds.",
        "",
        *picture,
        *table,
        "",
        *tell(rows),
    ]
    documents = {"README.md": "\n".join(page).encode(), "generations.json": canonical(figures)}
    if points:
        documents["generations.svg"] = draw_generations("Champions, generation by generation", points)
    make_folder(folder)
    for file, data in documents.items():
        replace_file(folder / file, data)
    return tuple(sorted(documents))


def require_writable(folder: Path, lab: Path) -> None:
    """Refuse, before any work, a folder for the pages that could not be written to at its end.

    Args:
        folder: The folder; made if it is not there.
        lab: The lab's own, which holds nothing but what the lab puts there.

    Raises:
        UsageError: saying what is in the way.
        OSError: if the disk is full.
    """
    place, advice = f"--output {folder}", "Name a folder outside the lab that can be written to."
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(lab)):
        raise UsageError("lies in the lab", where=place, advice=advice, reason="usage.folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"cannot be written to: {error.strerror}"
        raise UsageError(text, where=place, advice=advice, reason="usage.folder") from error


def _artifact(desk: Desk, manifest: str) -> str:
    return next(c.artifact.sha256 for d, c in desk.candidates() if d == manifest)


def _point(desk: Desk, title: str, card: Scorecard) -> Point:
    tasks = card.tasks()
    parts = {k: _share(r.right, len(r.correct)) for k, r in tasks.items()}
    mean = math.fsum(p.value for p in parts.values()) / len(parts)
    below = math.sqrt(math.fsum((p.value - p.lower) ** 2 for p in parts.values())) / len(parts)
    above = math.sqrt(math.fsum((p.upper - p.value) ** 2 for p in parts.values())) / len(parts)
    skill = min(parts, key=lambda k: (parts[k].value, k))
    return Point(
        title,
        desk.name_of(card.artifact),
        Estimate(mean, max(0.0, mean - below), min(1.0, mean + above)),
        parts[skill],
        skill,
    )


def _share(right: int, items: int) -> Estimate:
    bounds = clopper_pearson(right, items, _ALPHA)
    return Estimate(right / items, bounds.lower, bounds.upper)


def _plain(point: Point) -> dict[str, Any]:
    return {k: v._asdict() if isinstance(v, Estimate) else v for k, v in point._asdict().items()}


def _words(value: Estimate) -> str:
    return f"{value.value:.1%} [{value.lower:.1%}, {value.upper:.1%}]"
