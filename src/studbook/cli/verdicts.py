"""A decision in plain words: the table of candidates against champion and no-op, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.table import Table

from studbook.lab.rounds import Outcome
from studbook.records import Comparison, Standing, ViabilityDecision

__all__ = ["candidates_table", "explain"]

Namer = Callable[[str], str]


def candidates_table(outcome: Outcome, name: Namer) -> Iterator[Table]:
    """Every candidate on development items; finalists a skill, with intervals, on selection items."""
    record = outcome.record
    yield _screened(record)
    finalists = [s for s in record.standings if s.comparisons]
    if finalists:
        yield _by_skill(outcome, finalists)
        yield _against_parents(record, finalists, name)


def _screened(record: ViabilityDecision) -> Table:
    table = _table("Screened on development items")
    for column in ("candidate", "mean", "place", "verdict"):
        table.add_column(column, justify="right" if column in ("mean", "place") else "left", no_wrap=True)
    table.add_column("why", overflow="fold")
    for standing in record.standings:
        place = str(standing.screen_rank) if standing.screen_rank else "-"
        mean = f"{standing.screen_mean:.1%}" if standing.development else "-"
        table.add_row(standing.name, mean, place, standing.action, next(iter(standing.reasons), ""))
    verdict = "chosen" if record.no_op.chosen else "not chosen"
    table.add_row("no-op", "", "-", verdict, next(iter(record.no_op.reasons), ""))
    return table


def _by_skill(outcome: Outcome, finalists: Sequence[Standing]) -> Table:
    """Gain over the champion a skill, percentage points, with 90 % intervals (two one-sided 95 % bounds)."""
    table = _table("Finalists, selection items: points over the champion [90 % interval]; NO: gate failed")
    for column in ("skill", "champion", "no-op", *(s.name for s in finalists)):
        table.add_column(column, justify="left" if column == "skill" else "right", no_wrap=True)
    tasks = outcome.champion.tasks()
    for cluster, result in tasks.items():
        gains = [_gain(s, "non-inferiority", cluster) for s in finalists]
        table.add_row(cluster, f"{result.mean:.1%}", "0", *gains)
    for test, on in (("superiority", None), ("utility", "net-utility")):
        cells = [_gain(s, test, on) for s in finalists]
        label = "target" if test == "superiority" else "net utility"
        table.add_row(label, "", "0", *cells)
    table.add_row("verdict", "", "chosen" if outcome.record.no_op.chosen else "", *(s.action for s in finalists))
    return table


def _against_parents(record: ViabilityDecision, finalists: Sequence[Standing], name: Namer) -> Table:
    table = _table("Against every parent: joint mean (gate), worst skill (shown)")
    for column in ("parent", *(s.name for s in finalists)):
        table.add_column(column, justify="left" if column == "parent" else "right", no_wrap=True)
    for parent in record.parents:
        table.add_row(f"{name(parent)}, mean", *(_gain(s, "parent", "joint-mean", parent) for s in finalists))
        table.add_row(f"{name(parent)}, worst", *(_gain(s, "shown", "worst-skill", parent) for s in finalists))
    return table


def _gain(standing: Standing, test: str, on: str | None, against: str | None = None) -> str:
    for row in standing.comparisons:
        if row.test == test and on in (None, row.on) and against in (None, row.against):
            return _figures(row)
    return "-"


def _figures(row: Comparison) -> str:
    mark = "" if row.passed or row.test == "shown" else " NO"
    return f"{row.difference * 100:+.1f} [{row.lower * 100:+.1f}, {row.upper * 100:+.1f}]{mark}"


def explain(outcome: Outcome, name: Namer) -> Iterator[str]:
    """The decision, the numbers behind it, what was assumed, and the rows shown beside it."""
    record = outcome.record
    if record.chosen is None:
        yield "Decision: no-op; the champion stays."
        yield from (f"  - {reason}" for reason in record.no_op.reasons)
    else:
        winner = next(s for s in record.standings if s.artifact == record.chosen)
        where = "in shadow now" if outcome.released else f"held back: {outcome.held}"
        yield f"Decision: promote {winner.name} to shadow ({where})."
        yield from (f"  - {reason}" for reason in winner.reasons)
    if outcome.baselines is not None:
        yield "Beside it, joint mean on development items (shown, never promoted):"
        yield from (f"  {row.joint_mean:6.1%}  {row.label}" for row in outcome.baselines.rows)
    yield "Not offered as parents:" if record.excluded else "Every registered model was offered as a parent."
    yield from (f"  - {excluded.name} {excluded.reason}" for excluded in record.excluded)
    yield "Assumptions:"
    yield from (f"  - {assumption}" for assumption in record.assumptions)
    yield f"Decision record: {outcome.decision}"


def _table(title: str) -> Table:
    return Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold", header_style="")
