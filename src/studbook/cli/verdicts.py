"""A decision in plain words: the table of candidates, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.table import Table

from studbook.lab.rounds import Outcome
from studbook.records import Comparison, Standing, ViabilityDecision

__all__ = ["candidates_table", "explain"]

Namer = Callable[[str], str]
_MARKS = {"promote-to-shadow": "promote", "archive": "archive", "quarantine": "quarantine", "no-op": "no-op"}


def candidates_table(record: ViabilityDecision, name: Namer) -> Iterator[Table]:
    """Candidates against champion and no-op on development items; finalists a skill with intervals on selection items."""
    table = Table(box=None, pad_edge=False, title_justify="left", title="candidates, screened on development items")
    for column in ("candidate", "mean", "rank", "verdict", "first reason"):
        table.add_column(column, justify="right" if column in ("mean", "rank") else "left", overflow="fold")
    for standing in record.standings:
        rank = str(standing.screen_rank) if standing.screen_rank else "-"
        mean = f"{standing.screen_mean:.1%}" if standing.development else "-"
        table.add_row(
            standing.name, mean, rank, _MARKS[standing.action], standing.reasons[0] if standing.reasons else ""
        )
    no_op = "chosen" if record.no_op.chosen else "not chosen"
    table.add_row("no-op", "", "-", no_op, record.no_op.reasons[0] if record.no_op.reasons else "")
    yield table
    for standing in record.standings:
        if standing.comparisons:
            yield _finalist(standing, record, name)


def _finalist(standing: Standing, record: ViabilityDecision, name: Namer) -> Table:
    title = f"finalist {standing.name}, selection items, differences with one-sided bounds"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in ("against", "on", "items", "difference", "interval", "needs", "holds"):
        table.add_column(column, justify="left" if column in ("against", "on") else "right")
    for row in standing.comparisons:
        table.add_row(_other(row, record, name), row.on, str(row.items), *_figures(row))
    return table


def _other(row: Comparison, record: ViabilityDecision, name: Namer) -> str:
    kind = {"non-inferiority": "not worse", "superiority": "target", "parent": "parent", "utility": "utility"}
    who = "champion" if row.against == record.champion else name(row.against)
    return f"{who} ({kind.get(row.test, 'shown')})"


def _figures(row: Comparison) -> tuple[str, str, str, str]:
    scale, unit = (1.0, "") if row.on == "calibration" else (100.0, " pp")
    interval = f"{row.lower * scale:+.2f} .. {row.upper * scale:+.2f}"
    if row.test == "shown":
        needs, holds = "", ""
    elif row.test == "superiority":
        needs, holds = f"p <= {row.threshold:.3g}, is {row.p_value:.2g}", _holds(row)
    else:
        needs, holds = f"> {row.threshold * scale:+.2f}{unit}", _holds(row)
    return f"{row.difference * scale:+.2f}{unit}", interval, needs, holds


def _holds(row: Comparison) -> str:
    return "yes" if row.passed else "NO"


def explain(outcome: Outcome, name: Namer) -> Iterator[str]:
    """The decision, the numbers behind it, what was assumed, and the rows shown beside it."""
    record = outcome.record
    for excluded in record.excluded:
        yield f"not a parent: {excluded.name} {excluded.reason}"
    if outcome.baselines is not None:
        yield "beside it, development items (shown, never promoted):"
        for row in outcome.baselines.rows:
            yield f"  {row.label:<32} {row.joint_mean:.1%}"
    if record.chosen is None:
        yield "decision: no-op; the champion stays"
        for reason in record.no_op.reasons:
            yield f"  {reason}"
    else:
        winner = next(s for s in record.standings if s.artifact == record.chosen)
        yield f"decision: promote {winner.name} to shadow"
        for reason in winner.reasons:
            yield f"  {reason}"
        yield f"  in shadow: {outcome.released}" if outcome.released else f"  held back: {outcome.held}"
    if record.best_parent:
        yield f"best parent: {name(record.best_parent)}"
    for assumption in record.assumptions:
        yield f"  assumes: {assumption}"
    yield f"decision record: {outcome.decision}"
