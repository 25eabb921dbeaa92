"""CMA-ES over the genomes of a space; the library that does it lives in a worker (`cmaes_worker`).

Source: Hansen 2016, The CMA evolution strategy: a tutorial, arXiv 1604.00772; restarts with a doubled population when a
run has converged: Auger and Hansen 2005 (IPOP). The optimiser's state is never stored: it follows from the seed and the
costs it was told, and is rebuilt from them at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from studbook.errors import UsageError
from studbook.population.genomes import centre, snap, unit_values
from studbook.population.loop import Proposal, Result
from studbook.records.population import GenomeSpace

__all__ = ["SIGMA", "WORKER", "CmaSearch", "library"]

SIGMA = 0.2
"""First step size, in units of a gene's range."""
WORKER = "studbook.population.cmaes_worker"


def library() -> str:
    """Name and version of the library.

    Raises:
        UsageError: if it is not installed, with the extra that brings it.
    """
    try:
        return f"cma {version('cma')}"
    except PackageNotFoundError as error:
        raise UsageError(
            "the method cma needs the library cma, which is not installed",
            where="--method",
            advice="Install the extra: pip install 'studbook[search]'. The methods m2n2 and random need nothing more.",
            reason="search.extra",
        ) from error


class CmaSearch:
    """The search.

    Args:
        space: What is searched.
        seed: Seed of the optimiser.
        advance: Runs `cmaes_worker.work` on a job and gives its answer.
        sigma: First step size, in units of a gene's range.
    """

    def __init__(
        self,
        space: GenomeSpace,
        seed: int,
        advance: Callable[[dict[str, Any]], dict[str, Any]],
        sigma: float = SIGMA,
    ) -> None:
        self.space = space
        self._advance = advance
        self._told: list[list[float]] = []
        self._job = {"start": unit_values(space, centre(space)), "sigma": sigma, "seed": seed}

    def ask(self) -> Sequence[Proposal]:
        """The next generation."""
        asked = self._advance({**self._job, "told": self._told})["asked"]
        return [Proposal(snap(self.space, self._values(point))) for point in asked]

    def tell(self, results: Sequence[Result]) -> None:
        """The generation's costs."""
        self._told.append([result.score.cost for result in results])

    def _values(self, point: Sequence[float]) -> list[float]:
        scale = 10**self.space.decimals
        return [(g.low + x * (g.high - g.low)) / scale for x, g in zip(point, self.space.genes, strict=True)]
