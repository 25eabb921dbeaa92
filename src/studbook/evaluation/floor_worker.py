"""The floor test in a worker, for kinds whose items hold patterns: matching one may never end, a worker can be ended."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import convert, structs, to_builtins

from studbook.errors import OverBudget
from studbook.evaluation.floor import floor_rows
from studbook.evaluation.items import known_items
from studbook.files import read_file
from studbook.records import FloorRow
from studbook.sandbox import Limits, run_worker

__all__ = ["rows_apart", "work"]

_ITEMS_LIMIT = 64 << 20
_SECONDS = 60  # of processor time; a thousand items whose patterns end take one


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Run every answerer through a suite's scorer.

    Args:
        job: ``items`` (path), ``scorer``, ``pass_mark``, ``limit``.

    Returns:
        ``rows``: one floor row an answerer.
    """
    path = Path(job["items"])
    items = known_items(read_file(path, _ITEMS_LIMIT), path)
    return {"rows": to_builtins(floor_rows(items, job["scorer"], job["pass_mark"], job["limit"]))}


def rows_apart(items: Path, scorer: str, pass_mark: float, limit: int, limits: Limits) -> tuple[FloorRow, ...]:
    """What `floor_rows` gives, worked out in a worker.

    Args:
        items: The items file.
        scorer: Name of the scorer.
        pass_mark: The suite's mark.
        limit: Longest answer in tokens.
        limits: What a worker of the lab may use; this one gets no more than a minute of it.

    Raises:
        OverBudget: if it takes longer than a worker may; ``suite.pattern``.
    """
    job = {"items": str(items.absolute()), "scorer": scorer, "pass_mark": pass_mark, "limit": limit}
    short = structs.replace(limits, seconds=min(_SECONDS, limits.seconds))
    with TemporaryDirectory(prefix="studbook-floor-") as folder:
        try:
            answer = run_worker(__name__, job, Path(folder), short, [items.absolute()]).value
        except OverBudget as error:
            raise OverBudget(
                f"judging its worthless answerers took too long: {error.message}",
                where=items,
                advice="Some pattern takes exponential time, as (a+)+ does. Write it without nested repeats.",
                reason="suite.pattern",
            ) from error
    return convert(answer["rows"], tuple[FloorRow, ...])
