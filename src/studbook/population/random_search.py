"""Random search: every genome drawn anew. The baseline that a cleverer method has to beat on the same budget.

Source: Bergstra and Bengio 2012, Random search for hyper-parameter optimization, JMLR 13.
"""

from __future__ import annotations

from collections.abc import Sequence

from studbook.population.genomes import Draws, random_genome
from studbook.population.loop import Proposal, Result
from studbook.records.population import GenomeSpace

__all__ = ["RandomSearch"]

# Proposed at a time, so that all cores have work; the sequence does not depend on it.
_AT_ONCE = 16


class RandomSearch:
    """Independent draws, uniform over the space.

    Args:
        space: What is searched.
        seed: Seed of the draws.
    """

    def __init__(self, space: GenomeSpace, seed: int) -> None:
        self.space = space
        self._draws = Draws(seed, "random")

    def ask(self) -> Sequence[Proposal]:
        """The next draws."""
        return [Proposal(random_genome(self.space, self._draws)) for _ in range(_AT_ONCE)]

    def tell(self, results: Sequence[Result]) -> None:
        """Nothing is learned."""
