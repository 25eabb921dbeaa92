"""A decision in plain words: the table of candidates against champion and no-op, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from studbook.lab.honesty import HonestyRow
from studbook.lab.ladder import Learned, in_words
from studbook.lab.rounds import Outcome

__all__ = ["candidates_table", "explain"]


def candidates_table(outcome: Outcome) -> Iterator[Table]:
    """Every candidate on development items; finalists with what the Ladder lets out of the selection items."""
    yield _screened(outcome)
    if any(found.released is not None for found in outcome.learned.candidates):
        yield _finalists(outcome.learned)
    if outcome.honesty:
        yield _honesty(outcome.honesty)


def _screened(outcome: Outcome) -> Table:
    record = outcome.record
    table = _table("Screened on development items")
    for column in ("candidate", "mean", "place", "verdict"):
        table.add_column(column, justify="right" if column in ("mean", "place") else "left", no_wrap=True)
    table.add_column("why", overflow="fold")
    for standing, found in zip(record.standings, outcome.learned.candidates, strict=True):
        place = str(standing.screen_rank) if standing.screen_rank else "-"
        mean = f"{standing.screen_mean:.1%}" if standing.development else "-"
        table.add_row(standing.name, mean, place, standing.action, next(iter(found.why), ""))
    table.add_row("no-op", "", "-", "chosen" if record.no_op.chosen else "not chosen", outcome.learned.why)
    return table


def _finalists(learned: Learned) -> Table:
    table = _table(f"Finalists on {learned.items} selection items: what the Ladder lets out")
    for column in ("model", "right", "a step up"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_row("champion", "void" if learned.champion is None else f"{learned.champion:.1%}", "", "")
    for found in learned.candidates:
        if found.released is not None:
            words = "; ".join(found.why) or "passes every test"
            table.add_row(found.name, f"{found.released:.1%}", "yes" if found.rose else "no", words)
    return table


def _honesty(rows: Sequence[HonestyRow]) -> Table:
    table = _table("Honesty rows on development items: nobody was taught these, and they decide nothing")
    names = [name for name, _ in rows[0].candidates]
    for column in ("task", "champion", *names):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=True)
    for row in rows:
        shares = dict(row.candidates)
        cells = [f"{shares[name]:.1%}" if name in shares else "-" for name in names]
        table.add_row(f"{row.cluster} ({row.items} items)", f"{row.champion:.1%}", *cells)
    return table


def explain(outcome: Outcome) -> Iterator[str]:
    """The decision, what is let out of why, what was assumed, and the rows shown beside it."""
    record, learned = outcome.record, outcome.learned
    if record.chosen is None:
        yield f"Decision: {record.action}; the champion stays."
    else:
        winner = next(s for s in record.standings if s.artifact == record.chosen)
        where = "in shadow now" if outcome.released else f"held back: {outcome.held}"
        yield f"Decision: promote {winner.name} to shadow ({where})."
    yield f"  - {learned.why}"
    yield from (f"  - {line}" for line in in_words(learned))
    for gone in record.retired:
        # Its reasons are numbers of selection items, which the Ladder keeps back.
        yield f"Stands for retirement: {gone.name}; the champion is better by more than the policy's removal threshold"
    if outcome.baselines is not None:
        yield "Beside it, joint mean on development items (shown, never promoted):"
        yield from (f"  {row.joint_mean:6.1%}  {row.label}" for row in outcome.baselines.rows)
    yield "Not offered as parents:" if record.excluded else "Every registered model was offered as a parent."
    yield from (f"  - {excluded.name} {excluded.reason}" for excluded in record.excluded)
    yield "Assumptions:"
    yield from (f"  - {assumption}" for assumption in learned.assumptions)
    yield f"Decision record, with every number: studbook show {outcome.decision}"


def _table(title: str) -> Table:
    return Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold", header_style="")
