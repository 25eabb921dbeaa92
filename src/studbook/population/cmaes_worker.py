"""The optimiser's worker: seed and costs in, the next generation out. The library never runs beside the lab's keys.

It draws from numpy's global generator and brings scipy along; both stay in this process.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

from studbook.errors import StudbookError, UsageError

with warnings.catch_warnings():
    # It warns of plotting libraries nobody asked for.
    warnings.simplefilter("ignore")
    try:
        import cma  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        cma = None

__all__ = ["work"]

# No screen, no log files, no file that could tell it to stop.
_QUIET = {"verbose": -10, "verb_disp": 0, "verb_log": 0, "verb_plot": 0, "signals_filename": None}


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Play the optimiser up to now and let it propose.

    Args:
        job: ``start`` (f64, one a gene, 0..1), ``sigma``, ``seed``, ``told`` (costs, one list a finished generation).

    Returns:
        ``asked``: the next generation, points of the unit cube.

    Raises:
        UsageError: if the library is not installed.
        StudbookError: if the costs are not those of the generations it proposes.
    """
    if cma is None:
        raise UsageError("the library cma is not installed", advice="Install the extra: pip install 'studbook[search]'")
    runs = 0
    strategy = _begin(job, runs, 0)
    asked = strategy.ask()
    for costs in job["told"]:
        if len(costs) != len(asked):
            raise StudbookError(f"{len(costs)} costs for a generation of {len(asked)}", where="search: told")
        strategy.tell(asked, costs)
        if strategy.stop():
            runs += 1
            strategy = _begin(job, runs, strategy.popsize)
        asked = strategy.ask()
    return {"asked": [[float(x) for x in point] for point in asked]}


def _begin(job: dict[str, Any], runs: int, population: int) -> Any:
    """A fresh run: the first from the start, each later one from chance with twice the population."""
    name = hashlib.sha256(f"cma/{job['seed']}/{runs}".encode()).digest()
    # 0 would mean the clock.
    seed = 1 + int.from_bytes(name[:4], "big") % (2**31 - 2)
    options = {**_QUIET, "seed": seed, "bounds": [0, 1]}
    if not runs:
        return cma.CMAEvolutionStrategy(job["start"], job["sigma"], options)
    start = [_share(name, place) for place in range(len(job["start"]))]
    return cma.CMAEvolutionStrategy(start, job["sigma"], {**options, "popsize": 2 * population})


def _share(name: bytes, place: int) -> float:
    return int.from_bytes(hashlib.sha256(name + place.to_bytes(8, "big")).digest()[:4], "big") / 2**32
